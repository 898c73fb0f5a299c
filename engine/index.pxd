# A hash index: (hash of a name) -> number of a record that is kept elsewhere.
#
# Open addressing, linear probing, at most half full.  An entry is 8 bytes: 32
# bits of hash, and the record's number plus one (0: empty), so that a probe
# stays within a cache line and reads a record only when all 32 bits agree.
# Removal shifts the rest of the cluster back; there are no tombstones, and a
# table that saw a million removals is as fast as a new one.
#
# The hash has no seed: equal streams give equal memory.  Its order is never
# seen outside: no loop over a table reaches an event or a dump.
#
# A lookup walks the candidates and compares the records itself:
#
#     position = index_start(index, hash)
#     while True:
#         number = index_next(index, hash, &position)
#         if number == ABSENT or records[number] is the one: break
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free

from engine.memory cimport memory_take

cdef enum:
    ABSENT = 0xFFFFFFFF
    INDEX_MINIMUM = 64

cdef struct IndexEntry:
    uint32_t hash
    uint32_t number

cdef struct Index:
    IndexEntry* entries
    uint64_t mask
    uint64_t count


cdef inline uint32_t hash_words(uint64_t first, uint64_t second, uint64_t third) noexcept nogil:
    """Mix three words into 32 bits (multiply and fold, constants of splitmix64)."""
    cdef uint64_t mixed = first * <uint64_t>0x9E3779B97F4A7C15
    mixed = (mixed ^ (mixed >> 32) ^ second) * <uint64_t>0xBF58476D1CE4E5B9
    mixed = (mixed ^ (mixed >> 29) ^ third) * <uint64_t>0x94D049BB133111EB
    return <uint32_t>(mixed >> 32)


cdef inline void index_place(IndexEntry* entries, uint64_t mask, IndexEntry entry) noexcept nogil:
    cdef uint64_t position = entry.hash & mask
    while entries[position].number:
        position = (position + 1) & mask
    entries[position] = entry


cdef inline int index_resize(Index* index, uint64_t capacity) noexcept nogil:
    """Spread the entries over `capacity` places, a power of two."""
    cdef IndexEntry* grown = <IndexEntry*>memory_take(capacity * sizeof(IndexEntry))
    cdef uint64_t position
    if grown == NULL:
        return -1
    if index.entries != NULL:
        for position in range(index.mask + 1):
            if index.entries[position].number:
                index_place(grown, capacity - 1, index.entries[position])
        free(index.entries)
    index.entries = grown
    index.mask = capacity - 1
    return 0


cdef inline int index_reserve(Index* index, uint64_t more) noexcept nogil:
    """Make room for `more` entries; 0, or -1 when there is no memory."""
    cdef uint64_t capacity = index.mask + 1 if index.entries != NULL else INDEX_MINIMUM
    if index.entries != NULL and 2 * (index.count + more) <= capacity:
        return 0
    while capacity < 2 * (index.count + more):
        capacity *= 2
    return index_resize(index, capacity)


cdef inline void index_add(Index* index, uint32_t hash, uint32_t number) noexcept nogil:
    """Enter a record that is not there yet; room was reserved."""
    cdef IndexEntry entry
    entry.hash = hash
    entry.number = number + 1
    index_place(index.entries, index.mask, entry)
    index.count += 1


cdef inline uint64_t index_start(const Index* index, uint32_t hash) noexcept nogil:
    return hash & index.mask


cdef inline uint32_t index_next(const Index* index, uint32_t hash, uint64_t* position) noexcept nogil:
    """Next record whose hash agrees, or ABSENT."""
    cdef IndexEntry entry
    if index.entries == NULL:
        return ABSENT
    while True:
        entry = index.entries[position[0]]
        if entry.number == 0:
            return ABSENT
        position[0] = (position[0] + 1) & index.mask
        if entry.hash == hash:
            return entry.number - 1


cdef inline void index_remove(Index* index, uint32_t hash, uint32_t number) noexcept nogil:
    """Take a record out that is there, and close the gap behind it."""
    cdef uint64_t mask = index.mask
    cdef uint64_t hole = hash & mask
    cdef uint64_t position
    cdef IndexEntry* entries = index.entries
    while entries[hole].number != number + 1:
        hole = (hole + 1) & mask
    position = hole
    while True:
        position = (position + 1) & mask
        if entries[position].number == 0:
            break
        # An entry may move into the hole unless its home lies between the two.
        if ((position - entries[position].hash) & mask) >= ((position - hole) & mask):
            entries[hole] = entries[position]
            hole = position
    entries[hole].number = 0
    index.count -= 1
