from libc.stdint cimport uint8_t, uint32_t

# Extends `value` (a finished CRC32C, 0 to begin) by `size` bytes.
cdef uint32_t crc32c_extend(uint32_t value, const uint8_t* data, size_t size) noexcept nogil
