from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


# The frame header, byte for byte (see frame.pyx).
cdef packed struct Header:
    uint32_t magic
    uint16_t version
    uint16_t kind
    uint32_t length
    uint32_t crc
    uint64_t epoch
    uint64_t first_sequence
    uint32_t count
    uint32_t text_bytes
    int64_t time_ns
    uint64_t segment
    uint64_t previous_crc
    uint8_t chain[32]
    uint8_t events_digest[32]


cdef class FrameBuffer:
    cdef uint8_t* data
    cdef readonly Py_ssize_t capacity
    cdef readonly Py_ssize_t size
    cdef readonly uint32_t last_crc

    cdef Py_ssize_t put(
        self, Header* header, const uint8_t* commands, const uint8_t* text
    ) noexcept nogil
