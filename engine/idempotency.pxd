# Keys already seen, for 24 h of logged time: (account, key) -> body, sequence.
#
# A ring in order of sequence, hence of time: what is due leaves at the head.
# The index holds places in the ring; growing doubles the ring and enters all
# places anew.  Keys an account holds are counted in its account record.
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free

from engine.index cimport (
    ABSENT, Index, hash_words, index_add, index_next, index_remove, index_resize, index_start,
)
from engine.int128 cimport likely
from engine.memory cimport memory_take

cdef enum:
    RING_MINIMUM = 64

cdef extern from *:
    """
    #define HOLDFAST_IDEMPOTENCY_WINDOW ((int64_t)24 * 3600 * 1000000000)
    """
    int64_t IDEMPOTENCY_WINDOW_NS "HOLDFAST_IDEMPOTENCY_WINDOW"

cdef struct SeenKey:
    uint64_t key_lo
    uint64_t key_hi
    uint64_t body
    uint64_t sequence
    int64_t time_ns
    uint32_t account
    uint32_t spare

cdef struct Idempotency:
    SeenKey* ring
    uint64_t capacity       # a power of two
    uint64_t first          # number of the oldest; its place is first & (capacity − 1)
    uint64_t count
    Index by_key


cdef inline uint32_t seen_hash(const SeenKey* seen) noexcept nogil:
    return hash_words(seen.key_lo, seen.key_hi, seen.account)


cdef inline SeenKey* seen_at(const Idempotency* keys, uint64_t number) noexcept nogil:
    """The entry `number` places after the oldest."""
    return &keys.ring[(keys.first + number) & (keys.capacity - 1)]


cdef inline int idempotency_reserve(Idempotency* keys) noexcept nogil:
    """Make room for one more key; 0, or -1 when there is no memory."""
    cdef uint64_t capacity = keys.capacity * 2 if keys.capacity else RING_MINIMUM
    cdef SeenKey* ring
    cdef uint64_t at
    if likely(keys.count < keys.capacity):
        return 0
    ring = <SeenKey*>memory_take(capacity * sizeof(SeenKey))
    if ring == NULL:
        return -1
    for at in range(keys.count):
        ring[at] = seen_at(keys, at)[0]
    free(keys.by_key.entries)
    keys.by_key.entries = NULL
    keys.by_key.count = 0
    free(keys.ring)
    keys.ring = ring
    keys.capacity = capacity
    keys.first = 0
    if index_resize(&keys.by_key, capacity * 2) < 0:
        return -1
    for at in range(keys.count):
        index_add(&keys.by_key, seen_hash(&ring[at]), <uint32_t>at)
    return 0


cdef inline const SeenKey* idempotency_find(
    const Idempotency* keys, uint32_t account, uint64_t key_lo, uint64_t key_hi
) noexcept nogil:
    """The entry of an account's key, or NULL."""
    cdef uint32_t hash = hash_words(key_lo, key_hi, account)
    cdef uint64_t position = index_start(&keys.by_key, hash)
    cdef uint32_t place
    cdef const SeenKey* seen
    while True:
        place = index_next(&keys.by_key, hash, &position)
        if place == ABSENT:
            return NULL
        seen = &keys.ring[place]
        if likely(seen.key_lo == key_lo and seen.key_hi == key_hi and seen.account == account):
            return seen


cdef inline SeenKey* idempotency_push(Idempotency* keys, SeenKey seen) noexcept nogil:
    """Keep a key that is new; room was reserved."""
    cdef uint64_t place = (keys.first + keys.count) & (keys.capacity - 1)
    keys.ring[place] = seen
    keys.count += 1
    index_add(&keys.by_key, seen_hash(&seen), <uint32_t>place)
    return &keys.ring[place]


cdef inline uint32_t idempotency_pop(Idempotency* keys) noexcept nogil:
    """Forget the oldest key; returns whose it was."""
    cdef uint64_t place = keys.first & (keys.capacity - 1)
    index_remove(&keys.by_key, seen_hash(&keys.ring[place]), <uint32_t>place)
    keys.first += 1
    keys.count -= 1
    return keys.ring[place].account


cdef inline void idempotency_free(Idempotency* keys) noexcept nogil:
    free(keys.ring)
    free(keys.by_key.entries)
