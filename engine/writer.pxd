from libc.stdint cimport uint64_t

from engine.types cimport Command
from engine.venue cimport Venue


cdef class Writer:
    cdef Venue venue
    cdef object events          # the buffer of EVENT; views of older, smaller ones stay good
    cdef str cause
    cdef bint is_busy

    cdef int _grow_events(self) except -1
    cdef const Command* _begin(self, object commands, uint64_t* count) except NULL
    cdef object _end(self, bint goes_on)
    cdef int _enter(self) except -1
    cdef int _fail(self) except -1
