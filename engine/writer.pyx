"""What `Engine` and `Book` have in common: the venue, the buffer of events, the single writer.

A batch runs without the GIL.  Its events go into one buffer that is used again
by the next batch; a larger one replaces it when it is full, and never a smaller.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

cimport numpy as cnp

import numpy as np

from engine import types
from engine.errors import InvariantViolation, Tainted

from engine.books cimport Ladder, Level
from engine.types cimport Command, Event, LevelRecord
from engine.venue cimport Venue, venue_free, venue_init

cnp.import_array()

cdef object COMMAND_DTYPE = types.COMMAND
cdef enum:
    EVENTS_MINIMUM = 1024


cdef int grow_events(void* owner) noexcept with gil:
    """Called by `emit` when the buffer is full."""
    try:
        (<Writer>owner)._grow_events()
    except MemoryError:
        return -1
    return 0


cdef class Writer:
    """Holds a venue; not for two threads at a time."""

    def __cinit__(self):
        memset(&self.venue, 0, sizeof(Venue))
        if venue_init(&self.venue) < 0:
            raise MemoryError()
        self.venue.owner = <void*>self
        self.venue.grow_events = grow_events
        self._grow_events()

    def __dealloc__(self):
        venue_free(&self.venue)

    cdef int _grow_events(self) except -1:
        """Double the buffer; what was written moves along."""
        cdef uint64_t capacity = max(2 * self.venue.events_capacity, <uint64_t>EVENTS_MINIMUM)
        cdef cnp.ndarray grown = np.empty(capacity, dtype=types.EVENT)
        if self.venue.events_count:
            memcpy(cnp.PyArray_DATA(grown), self.venue.events, self.venue.events_count * sizeof(Event))
        self.venue.events = <Event*>cnp.PyArray_DATA(grown)
        self.venue.events_capacity = capacity
        grown.setflags(write=False)
        self.events = grown
        return 0

    cdef const Command* _begin(self, object commands, uint64_t* count) except NULL:
        """Look at the batch before anything is touched; its first command."""
        cdef cnp.ndarray batch
        if not isinstance(commands, np.ndarray):
            raise TypeError(f"COMMAND[n] expected, got {type(commands).__name__}")
        batch = commands
        if batch.dtype is not COMMAND_DTYPE and batch.dtype != COMMAND_DTYPE:
            raise TypeError(f"COMMAND[n] expected, got dtype {batch.dtype}")
        if cnp.PyArray_NDIM(batch) != 1 or not cnp.PyArray_IS_C_CONTIGUOUS(batch):
            raise ValueError("COMMAND[n] in one contiguous dimension expected; use numpy.ascontiguousarray")
        if <size_t>cnp.PyArray_DATA(batch) & 7:
            raise ValueError("COMMAND[n] aligned to 8 bytes expected; copy the array")
        self._enter()
        self.is_busy = True
        self.venue.events_count = 0
        count[0] = cnp.PyArray_DIM(batch, 0)
        return <const Command*>cnp.PyArray_DATA(batch)

    cdef object _end(self, bint goes_on):
        """The batch's events, or what stopped it."""
        self.is_busy = False
        if not goes_on:
            self._fail()
        return self.events[:self.venue.events_count]

    cdef int _enter(self) except -1:
        """Refuse what a tainted or busy engine must not do."""
        if self.is_busy:
            raise RuntimeError("another thread is in this engine; it has a single writer")
        if self.cause is not None:
            raise Tainted(self.cause)
        return 0

    cdef int _fail(self) except -1:
        """Taint the engine and raise what was found."""
        if self.venue.is_out_of_memory:
            self.cause = f"out of memory at sequence {self.venue.sequence}"
            raise MemoryError(self.cause)
        violation = InvariantViolation(
            f"I{self.venue.violation.invariant}",
            self.venue.violation.sequence,
            self.venue.violation.account,
            self.venue.violation.asset,
            self.venue.violation.delta,
        )
        self.cause = str(violation)
        raise violation

    @property
    def sequence(self):
        """Sequence of the last command applied, 0 at first."""
        return self.venue.sequence

    def depth(self, uint32_t market, uint32_t levels=0):
        """Best levels of a market, the best first; O(levels).

        Parameters
        ----------
        market : int
        levels : int
            How many at most on each side; 0 for all.

        Returns
        -------
        (bids, asks) : LEVEL[n] each

        Raises
        ------
        KeyError
            No such market.
        """
        self._enter()
        if market == 0 or market > self.venue.markets_count:
            raise KeyError(market)
        return (
            side_depth(&self.venue, market * 2, levels),
            side_depth(&self.venue, market * 2 + 1, levels),
        )


cdef object side_depth(const Venue* venue, uint32_t ladder, uint32_t levels):
    """One side of `depth`."""
    cdef const Ladder* side = &venue.book.ladders[ladder]
    cdef uint32_t count = side.count if levels == 0 or side.count < levels else levels
    cdef cnp.ndarray records = np.empty(count, dtype=types.LEVEL)
    cdef LevelRecord* out = <LevelRecord*>cnp.PyArray_DATA(records)
    cdef const Level* level
    cdef uint32_t at
    for at in range(count):
        level = &venue.book.levels[side.rungs[side.count - 1 - at].level]
        out[at].price = level.price
        out[at].quantity = level.total
        out[at].orders = level.count
    return records
