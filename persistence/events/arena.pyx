"""Event frames built in memory that is used again (layout in `frame`).

The core's events live until its next call, so they are copied once, into a
chunk, where header and text complete them to the frame that goes to disk. What
is sent to clients are views of the same bytes, and the checksum of these is
computed once for both. Frames lie back to back: many are one write.

    chunk  │ header events text zeros │ header events text zeros │ …
           │        └──── body ─────┘ │
"""

import numpy as np

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from persistence.crc32c cimport crc32c_extend, crc32c_join

from engine.types import EVENT
from persistence.errors import FormatError
from persistence.text import TEXT_BYTES_MAX

cdef enum:
    FRAME_MAGIC = 0x31454648          # "HFE1"
    FRAME_VERSION = 1
    KIND_EVENTS = 1
    HEADER_SIZE = 64
    EVENT_SIZE = 64
    FRAME_ALIGN = 32
    BODY_ALIGN = 8
    CHUNK_BYTES = 1 << 20             # a few of them stay in the cache

FRAME_BYTES_MAX = 1 << 30

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

if sizeof(Header) != HEADER_SIZE or EVENT.itemsize != EVENT_SIZE:
    raise ImportError("the header of event frames is not laid out as documented")

cdef uint64_t FRAME_BOUND = FRAME_BYTES_MAX
cdef Py_ssize_t TEXT_BOUND = TEXT_BYTES_MAX
cdef object EVENT_DTYPE = EVENT
cdef uint8_t[32] ZEROS
memset(ZEROS, 0, 32)


@cython.final
cdef class PackedFrame:
    """A whole frame in a chunk, which it keeps alive; nothing in it changes any more.

    Attributes
    ----------
    chunk : bytearray
        Holds the frame from `begin` to `end`.
    body_crc : int
        CRC32C of `body`.
    """

    cdef readonly object chunk
    cdef readonly Py_ssize_t begin
    cdef readonly Py_ssize_t end
    cdef readonly uint64_t epoch
    cdef readonly uint64_t first_sequence
    cdef readonly uint64_t last_sequence
    cdef readonly int64_t time_ns
    cdef readonly uint64_t event_number
    cdef readonly uint32_t count
    cdef readonly uint32_t text_bytes
    cdef readonly uint32_t body_crc
    cdef Py_ssize_t body_end

    @property
    def body(self):
        """Events, text and zeros to a multiple of 8: a read-only view."""
        return memoryview(self.chunk)[self.begin + HEADER_SIZE:self.body_end].toreadonly()

    @property
    def events(self):
        """EVENT[count]: a view."""
        if self.count == 0:
            return np.empty(0, EVENT_DTYPE)
        return np.frombuffer(self.chunk, EVENT_DTYPE, self.count, self.begin + HEADER_SIZE)

    @property
    def text(self):
        """The text area, copied."""
        cdef Py_ssize_t begin = self.begin + HEADER_SIZE + <Py_ssize_t>self.count * EVENT_SIZE
        return bytes(memoryview(self.chunk)[begin:begin + self.text_bytes])

    def __len__(self):
        return self.end - self.begin


@cython.final
cdef class Arena:
    """Packs frames, one behind the other, chunk after chunk.

    A chunk lives as long as a frame or a view of it does.
    """

    cdef object chunk
    cdef uint8_t* data
    cdef Py_ssize_t used
    cdef Py_ssize_t capacity

    def pack(
        self,
        uint64_t epoch,
        uint64_t first_sequence,
        uint64_t last_sequence,
        int64_t time_ns,
        uint64_t event_number,
        object events,
        object text=b"",
    ):
        """Copy events and text into a frame.

        Raises
        ------
        FormatError
            A frame cannot hold them.
        """
        cdef Py_buffer records
        cdef Py_buffer area
        if events.dtype is not EVENT_DTYPE and events.dtype != EVENT_DTYPE or not events.flags.c_contiguous:
            raise FormatError(f"contiguous EVENT records expected, not {events.dtype}")
        if last_sequence < first_sequence or len(text) > TEXT_BOUND:
            raise FormatError(f"event frame {first_sequence}..{last_sequence} with {len(text)} bytes of text")
        if HEADER_SIZE + <uint64_t>events.nbytes + <uint64_t>len(text) > FRAME_BOUND:
            raise FormatError(f"event frame of {events.nbytes} bytes of events; at most {FRAME_BYTES_MAX}")
        cdef PackedFrame frame = PackedFrame.__new__(PackedFrame)
        frame.epoch = epoch
        frame.first_sequence = first_sequence
        frame.last_sequence = last_sequence
        frame.time_ns = time_ns
        frame.event_number = event_number
        PyObject_GetBuffer(events, &records, PyBUF_SIMPLE)
        try:
            PyObject_GetBuffer(text, &area, PyBUF_SIMPLE)
            try:
                self._place(frame, HEADER_SIZE + records.len + area.len)
                frame.count = <uint32_t>(records.len // EVENT_SIZE)
                frame.text_bytes = <uint32_t>area.len
                with nogil:
                    self._fill(frame, <const uint8_t*>records.buf, <const uint8_t*>area.buf)
            finally:
                PyBuffer_Release(&area)
        finally:
            PyBuffer_Release(&records)
        return frame

    cdef int _place(self, PackedFrame frame, Py_ssize_t used) except -1:
        """Find room for so many bytes and their padding."""
        cdef Py_ssize_t length = (used + FRAME_ALIGN - 1) & ~<Py_ssize_t>(FRAME_ALIGN - 1)
        if length > self.capacity - self.used:
            self.capacity = max(length, <Py_ssize_t>CHUNK_BYTES)
            self.chunk = PyByteArray_FromStringAndSize(NULL, self.capacity)
            self.data = <uint8_t*>PyByteArray_AS_STRING(self.chunk)
            self.used = 0
        frame.chunk = self.chunk
        frame.begin = self.used
        frame.body_end = self.used + ((used + BODY_ALIGN - 1) & ~<Py_ssize_t>(BODY_ALIGN - 1))
        frame.end = self.used = self.used + length
        return 0

    cdef void _fill(self, PackedFrame frame, const uint8_t* events, const uint8_t* text) noexcept nogil:
        cdef Header* header = <Header*>(self.data + frame.begin)
        cdef uint8_t* body = self.data + frame.begin + HEADER_SIZE
        cdef Py_ssize_t size = <Py_ssize_t>frame.count * EVENT_SIZE
        cdef Py_ssize_t whole = frame.body_end - frame.begin - HEADER_SIZE
        cdef uint32_t crc
        if size:
            memcpy(body, events, size)
        if frame.text_bytes:
            memcpy(body + size, text, frame.text_bytes)
        size += frame.text_bytes
        memset(body + size, 0, frame.end - frame.begin - HEADER_SIZE - size)
        frame.body_crc = crc32c_extend(0, body, whole)
        header.magic = FRAME_MAGIC
        header.version = FRAME_VERSION
        header.kind = KIND_EVENTS
        header.length = <uint32_t>(frame.end - frame.begin)
        header.crc = 0
        header.epoch = frame.epoch
        header.first_sequence = frame.first_sequence
        header.last_sequence = frame.last_sequence
        header.count = frame.count
        header.text_bytes = frame.text_bytes
        header.time_ns = frame.time_ns
        header.event_number = frame.event_number
        crc = crc32c_extend(0, <const uint8_t*>header, HEADER_SIZE)
        crc = crc32c_join(crc, frame.body_crc, whole)
        header.crc = crc32c_extend(crc, ZEROS, frame.end - frame.body_end)
