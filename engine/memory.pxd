# Growable blocks of plain records: cache-line aligned, zeroed, doubled when full.
#
# Nothing here shrinks or moves while a command runs: room is made before the
# command changes anything, so that pointers into a block stay good throughout.
from libc.stdint cimport uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

cdef extern from "<stdlib.h>":
    void* aligned_alloc(size_t alignment, size_t size) noexcept nogil

cdef enum:
    ALIGNMENT = 128
    MINIMUM = 64


cdef inline int memory_grow(void** block, uint64_t* capacity, uint64_t needed, size_t size) noexcept nogil:
    """Make room for `needed` records of `size` bytes; 0, or -1 when there is no memory."""
    cdef uint64_t wanted = capacity[0] if capacity[0] else MINIMUM
    cdef size_t used = capacity[0] * size
    cdef size_t length
    cdef void* grown
    if needed <= capacity[0]:
        return 0
    while wanted < needed:
        wanted *= 2
    length = (wanted * size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    grown = aligned_alloc(ALIGNMENT, length)
    if grown == NULL:
        return -1
    if used:
        memcpy(grown, block[0], used)
    memset(<char*>grown + used, 0, length - used)
    free(block[0])
    block[0] = grown
    capacity[0] = wanted
    return 0
