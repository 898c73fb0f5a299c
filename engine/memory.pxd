# Growable blocks of plain records: cache-line aligned, zeroed, doubled when full.
# Large ones ask for huge pages: with a million orders the misses of the page
# tables cost more than those of the caches.  It is a hint, and may be ignored.
#
# Nothing here shrinks or moves while a command runs: room is made before the
# command changes anything, so that pointers into a block stay good throughout.
from libc.stdint cimport uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

cdef extern from "<stdlib.h>":
    void* aligned_alloc(size_t alignment, size_t size) noexcept nogil

cdef extern from "<sys/mman.h>":
    int madvise(void* address, size_t length, int advice) noexcept nogil
    int MADV_HUGEPAGE

cdef enum:
    ALIGNMENT = 128
    HUGE_PAGE = 1 << 21
    MINIMUM = 64


cdef inline void* memory_take(size_t size) noexcept nogil:
    """A zeroed block, rounded up to whole lines or huge pages; NULL when there is no memory."""
    cdef size_t alignment = HUGE_PAGE if size >= 2 * HUGE_PAGE else ALIGNMENT
    cdef size_t length = (size + alignment - 1) // alignment * alignment
    cdef void* block = aligned_alloc(alignment, length)
    if block != NULL:
        if alignment == HUGE_PAGE:
            madvise(block, length, MADV_HUGEPAGE)
        memset(block, 0, length)
    return block


cdef inline int memory_grow(void** block, uint64_t* capacity, uint64_t needed, size_t size) noexcept nogil:
    """Make room for `needed` records of `size` bytes; 0, or -1 when there is no memory."""
    cdef uint64_t wanted = capacity[0] if capacity[0] else MINIMUM
    cdef void* grown
    if needed <= capacity[0]:
        return 0
    while wanted < needed:
        wanted *= 2
    grown = memory_take(wanted * size)
    if grown == NULL:
        return -1
    if capacity[0]:
        memcpy(grown, block[0], capacity[0] * size)
    free(block[0])
    block[0] = grown
    capacity[0] = wanted
    return 0
