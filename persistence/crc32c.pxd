from libc.stdint cimport uint8_t, uint32_t, uint64_t

# Extends `value` (a finished CRC32C, 0 to begin) by `size` bytes.
cdef uint32_t crc32c_extend(uint32_t value, const uint8_t* data, size_t size) noexcept nogil

# Checksum of A followed by B from those of A and B; `size` is that of B.
cdef uint32_t crc32c_join(uint32_t first, uint32_t second, uint64_t size) noexcept nogil
