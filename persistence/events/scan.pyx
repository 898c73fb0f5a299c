"""Walks the frames of an event segment without the GIL; the layout is in `frame.py`."""

import numpy as np

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from persistence.crc32c cimport crc32c_extend

cdef packed struct Header:
    uint32_t magic
    uint16_t version
    uint16_t kind
    uint32_t length
    uint32_t crc
    uint64_t epoch
    uint64_t first_sequence
    uint64_t last_sequence
    uint32_t count
    uint32_t text_bytes
    int64_t time_ns
    uint64_t event_number

cdef enum:
    EVENTS_MAGIC = 0x31454648         # "HFE1"
    EVENTS_VERSION = 1
    HEADER_SIZE = 64
    EVENT_SIZE = 64
    ALIGN = 32

if sizeof(Header) != HEADER_SIZE:
    raise ImportError("the event frame header is not laid out as documented")

OFFSET = np.dtype("<i8")


cdef bint whole(const uint8_t* data, int64_t left) noexcept nogil:
    """Whether a whole event frame begins here."""
    cdef const Header* header = <const Header*>data
    cdef uint8_t zeros[4]
    cdef uint32_t crc
    cdef uint64_t used
    if left < HEADER_SIZE or header.magic != EVENTS_MAGIC or header.version != EVENTS_VERSION:
        return False
    used = HEADER_SIZE + <uint64_t>header.count * EVENT_SIZE + header.text_bytes
    if header.length != ((used + ALIGN - 1) & ~<uint64_t>(ALIGN - 1)) or header.length > <uint64_t>left:
        return False
    zeros[0] = zeros[1] = zeros[2] = zeros[3] = 0
    crc = crc32c_extend(0, data, 12)
    crc = crc32c_extend(crc, zeros, 4)
    return crc32c_extend(crc, data + 16, header.length - 16) == header.crc


def scan_frames(
    const uint8_t[::1] data not None, int64_t offset, uint64_t after_sequence, Py_ssize_t rows_max
):
    """Whole frames from `offset` on.

    Returns
    -------
    offsets : int64[n]
        Of those whose last sequence is above `after_sequence`, at most `rows_max`.
    end : int
        Offset behind the last whole frame looked at.
    """
    offsets = np.empty(rows_max, OFFSET)
    cdef int64_t[::1] table = offsets
    cdef int64_t size = data.shape[0]
    cdef Py_ssize_t count = 0
    if size == 0:
        return offsets[:0], offset
    with nogil:
        while count < rows_max and size - offset >= HEADER_SIZE and whole(&data[offset], size - offset):
            if (<const Header*>&data[offset]).last_sequence > after_sequence:
                table[count] = offset
                count += 1
            offset += (<const Header*>&data[offset]).length
    return offsets[:count], offset
