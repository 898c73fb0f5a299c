# Which slots of the order pool are free: the lowest one in a few steps.
#
# A tree of 64-bit words: a set bit in the lowest rank is a free slot, a set bit
# above says that the word below has one.  Five ranks cover 2^30 slots.
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free

from engine.int128 cimport first_set
from engine.memory cimport memory_grow

cdef enum:
    RANKS = 5

cdef struct Slots:
    uint64_t* words[RANKS]
    uint64_t sizes[RANKS]
    uint32_t capacity
    uint32_t ranks


cdef inline void slots_release(Slots* slots, uint32_t slot) noexcept nogil:
    """Mark a slot as free."""
    cdef uint32_t rank
    cdef uint64_t word
    for rank in range(slots.ranks):
        word = slots.words[rank][slot >> 6]
        slots.words[rank][slot >> 6] = word | (<uint64_t>1 << (slot & 63))
        if word:
            return
        slot >>= 6


cdef inline void slots_claim(Slots* slots, uint32_t slot) noexcept nogil:
    """Mark a free slot as taken."""
    cdef uint32_t rank
    for rank in range(slots.ranks):
        slots.words[rank][slot >> 6] &= ~(<uint64_t>1 << (slot & 63))
        if slots.words[rank][slot >> 6]:
            return
        slot >>= 6


cdef inline bint slots_any(const Slots* slots) noexcept nogil:
    return slots.ranks and slots.words[slots.ranks - 1][0] != 0


cdef inline uint32_t slots_take(Slots* slots) noexcept nogil:
    """Claim the lowest free slot; there is one."""
    cdef uint32_t rank = slots.ranks
    cdef uint32_t slot = 0
    while rank:
        rank -= 1
        slot = slot << 6 | first_set(slots.words[rank][slot])
    slots_claim(slots, slot)
    return slot


cdef inline int slots_grow(Slots* slots, uint32_t capacity) noexcept nogil:
    """Add free slots up to `capacity`; 0, or -1 when there is no memory."""
    cdef uint32_t rank = 0
    cdef uint64_t words = capacity
    cdef uint32_t slot
    cdef uint32_t old = slots.ranks
    while True:
        words = (words + 63) >> 6
        if memory_grow(<void**>&slots.words[rank], &slots.sizes[rank], words, sizeof(uint64_t)) < 0:
            return -1
        rank += 1
        if words == 1:
            break
    slots.ranks = rank
    # A rank that is new has to say what the ranks below it know.
    for rank in range(old if old else 1, slots.ranks):
        if slots.words[rank - 1][0]:
            slots.words[rank][0] |= 1
    for slot in range(slots.capacity, capacity):
        slots_release(slots, slot)
    slots.capacity = capacity
    return 0


cdef inline void slots_free(Slots* slots) noexcept nogil:
    cdef uint32_t rank
    for rank in range(RANKS):
        free(slots.words[rank])
