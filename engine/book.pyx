"""`Book`: the same book and matcher without ledger, to be compared with other books.

Same records, same events but for BALANCE, and the book's own checks (I3, I5, I6)
after every command.  No accounts, funds, states or idempotency: any account may
send NEW, CANCEL and AMEND; everything else is answered UNKNOWN_COMMAND.
"""

from libc.stdint cimport uint64_t

from engine.admin cimport market_open
from engine.dispatch cimport execute_bare
from engine.lookahead cimport FAR, NEAR, fetch_far, fetch_near
from engine.types cimport MARKETS_MAX, ORDERS_MAX, Command
from engine.writer cimport Writer


cdef class Book(Writer):
    """Markets 1 to `markets`, all empty.

    An order's quantity is at most INT64_MAX // ORDERS_MAX, so that no level's
    total can overflow (in `Engine` the deposits bound it).
    """

    def __init__(self, markets=1):
        if not 1 <= markets <= MARKETS_MAX:
            raise ValueError(f"1 to {MARKETS_MAX} markets, got {markets}")
        for number in range(1, markets + 1):
            if market_open(&self.venue) < 0:
                raise MemoryError()
            self.venue.markets[number].tick_atoms = 1
            self.venue.markets[number].lot_atoms = ORDERS_MAX

    def apply(self, commands):
        """Apply commands in order; see `Engine.apply`."""
        cdef uint64_t count, at
        cdef const Command* command = self._begin(commands, &count)
        cdef bint goes_on = True
        with nogil:
            for at in range(count):
                if at + FAR < count:
                    fetch_far(&self.venue, &command[at + FAR], False)
                    fetch_near(&self.venue, &command[at + NEAR], False)
                if not execute_bare(&self.venue, &command[at]):
                    goes_on = False
                    break
        return self._end(goes_on)
