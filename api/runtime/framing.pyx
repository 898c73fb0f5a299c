"""Frames of the wire in C: received bytes to frames, fields to bytes (layout in `wire`).

A frame costs one Python object when it comes and one or two buffers when it
goes.  Small frames are joined into one buffer; large bodies are passed on as
they are, and never copied.
"""

import numpy as np
import orjson

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset

from persistence.crc32c cimport crc32c_extend, crc32c_join

from api.runtime.errors import WireError
from api.runtime.kinds import BUFFER_BYTES, COMMANDS_MAX, TEXT_BYTES_MAX, Kind
from engine.types import COMMAND, EVENT

cdef enum:
    FRAME_MAGIC = 0x31574648          # "HFW1"
    FRAME_VERSION = 1
    HEADER_SIZE = 64
    ALIGNMENT = 8
    COMMAND_SIZE = 128
    EVENT_SIZE = 64
    KIND_SUBMIT = 3
    KIND_ASSIGNED = 4
    KIND_EVENTS = 5
    KIND_LAST = 9
    JOIN_BYTES = 8192                 # up to here a copy is cheaper than another buffer

cdef packed struct Header:
    uint32_t magic
    uint8_t kind
    uint8_t version
    uint16_t flags
    uint32_t length
    uint32_t crc
    uint64_t correlation
    uint64_t epoch
    uint64_t first_sequence
    uint32_t count
    uint32_t text_bytes
    int64_t time_ns
    uint64_t last_sequence

if (
    sizeof(Header) != HEADER_SIZE
    or COMMAND.itemsize != COMMAND_SIZE
    or EVENT.itemsize != EVENT_SIZE
    or (Kind.SUBMIT, Kind.ASSIGNED, Kind.EVENTS) != (KIND_SUBMIT, KIND_ASSIGNED, KIND_EVENTS)
    or max(Kind) != KIND_LAST
):
    raise ImportError("frames of the wire are not laid out as documented")

cdef uint8_t[8] ZEROS
memset(ZEROS, 0, 8)
cdef Py_ssize_t BUFFER_SIZE = BUFFER_BYTES
cdef uint32_t COMMANDS_BOUND = COMMANDS_MAX
cdef uint32_t TEXT_BOUND = TEXT_BYTES_MAX


cdef inline uint32_t header_crc(const Header* header) noexcept nogil:
    """Checksum of a header with its checksum field taken as zero."""
    cdef uint32_t crc = crc32c_extend(0, <const uint8_t*>header, 12)
    crc = crc32c_extend(crc, ZEROS, 4)
    return crc32c_extend(crc, <const uint8_t*>header + 16, HEADER_SIZE - 16)


cdef inline void finish(Header* header, int kind, uint64_t length) noexcept nogil:
    header.magic = FRAME_MAGIC
    header.version = FRAME_VERSION
    header.kind = <uint8_t>kind
    header.length = <uint32_t>length


@cython.final
cdef class Frame:
    """One frame as received; `payload` is a view, valid until the decoder receives again."""

    cdef readonly int kind
    cdef readonly uint64_t correlation
    cdef readonly uint64_t epoch
    cdef readonly uint64_t first_sequence
    cdef readonly uint64_t last_sequence
    cdef readonly uint32_t count
    cdef readonly uint32_t text_bytes
    cdef readonly int64_t time_ns
    cdef readonly object payload

    cdef Py_ssize_t records_size(self):
        return <Py_ssize_t>self.count * (COMMAND_SIZE if self.kind == KIND_SUBMIT else EVENT_SIZE)

    @property
    def body(self):
        """The bytes of the records; a writable view."""
        return self.payload[:self.records_size()]

    def records(self):
        """COMMAND[count] of a SUBMIT or EVENT[count] of an EVENTS frame; a writable view."""
        return np.frombuffer(self.payload, COMMAND if self.kind == KIND_SUBMIT else EVENT, self.count)

    def text(self):
        """The text area behind the records; a view."""
        cdef Py_ssize_t start = self.records_size()
        return self.payload[start:start + self.text_bytes]

    def json(self):
        """The JSON object of the payload.

        Raises
        ------
        WireError
            The payload is not one JSON object.
        """
        try:
            value = orjson.loads(self.payload)
        except orjson.JSONDecodeError as error:
            raise WireError(f"{Kind(self.kind).name} frame: payload is not JSON ({error})") from error
        if not isinstance(value, dict):
            raise WireError(f"{Kind(self.kind).name} frame: payload is not a JSON object")
        return value


@cython.final
cdef class Decoder:
    """Received bytes to frames.

    Receive into `get_buffer()`, say how many bytes came with `received(n)`, then
    take `frames()`.  Frames are views of the buffer: use or copy them before the
    next `get_buffer()`.

    Parameters
    ----------
    payload_max : int, bytes
        A header that announces more is a WireError before anything is kept for it.
    """

    cdef object view
    cdef uint8_t* data
    cdef Py_ssize_t capacity
    cdef Py_ssize_t payload_max
    cdef Py_ssize_t start
    cdef Py_ssize_t end
    cdef Py_ssize_t wanted

    def __init__(self, Py_ssize_t payload_max):
        self.payload_max = payload_max
        self.wanted = HEADER_SIZE
        self._take(BUFFER_SIZE)

    cdef int _take(self, Py_ssize_t capacity) except -1:
        """A buffer of that size, what is held in front; earlier views keep the old one alive."""
        storage = PyByteArray_FromStringAndSize(NULL, capacity)
        cdef uint8_t* data = <uint8_t*>PyByteArray_AS_STRING(storage)
        if self.end > self.start:
            memcpy(data, self.data + self.start, self.end - self.start)
        self.end -= self.start
        self.start = 0
        self.view = memoryview(storage)
        self.data = data
        self.capacity = capacity
        return 0

    @property
    def buffered(self):
        """Bytes received that are not yet part of a frame handed out."""
        return self.end - self.start

    def get_buffer(self):
        """Room to receive into, at least one byte; earlier frames become invalid."""
        cdef Py_ssize_t held = self.end - self.start
        cdef Py_ssize_t capacity = max(self.wanted, BUFFER_SIZE)
        if capacity != self.capacity and held <= capacity:
            # A frame larger than the buffer, or one that has been dealt with.
            self._take(capacity)
        elif held == 0:
            self.start = self.end = 0
        elif self.capacity - self.start < max(self.wanted, BUFFER_SIZE // 2):
            memmove(self.data, self.data + self.start, held)
            self.start = 0
            self.end = held
        return self.view[self.end:]

    def received(self, Py_ssize_t count):
        """`count` bytes were written to the start of the last `get_buffer()`."""
        self.end += count

    def frames(self):
        """The whole frames that are there, one by one.

        Raises
        ------
        WireError
            The stream is not ours or is damaged; nothing after it can be trusted.
        """
        return self

    def __iter__(self):
        return self

    def __next__(self):
        cdef const Header* header = <const Header*>(self.data + self.start)
        cdef Py_ssize_t size
        cdef uint32_t crc
        cdef Frame frame
        if self.end - self.start < HEADER_SIZE:
            raise StopIteration
        self._check(header)
        size = HEADER_SIZE + <Py_ssize_t>header.length
        self.wanted = size
        if self.end - self.start < size:
            raise StopIteration
        with nogil:
            crc = crc32c_extend(header_crc(header), <const uint8_t*>header + HEADER_SIZE, size - HEADER_SIZE)
        if crc != header.crc:
            raise WireError(f"checksum of a {Kind(header.kind).name} frame of {size} bytes does not match")
        frame = Frame.__new__(Frame)
        frame.kind = header.kind
        frame.correlation = header.correlation
        frame.epoch = header.epoch
        frame.first_sequence = header.first_sequence
        frame.last_sequence = header.last_sequence
        frame.count = header.count
        frame.text_bytes = header.text_bytes
        frame.time_ns = header.time_ns
        frame.payload = self.view[self.start + HEADER_SIZE:self.start + size]
        self.start += size
        self.wanted = HEADER_SIZE
        return frame

    cdef int _check(self, const Header* header) except -1:
        cdef int64_t rest
        if header.magic != FRAME_MAGIC:
            raise WireError(f"magic {header.magic:#010x}, {FRAME_MAGIC:#010x} expected: not a frame")
        if header.version != FRAME_VERSION or header.flags != 0:
            raise WireError(
                f"version {header.version}, flags {header.flags:#x}: this side speaks version {FRAME_VERSION}"
            )
        if header.kind < 1 or header.kind > KIND_LAST:
            raise WireError(f"kind {header.kind} is unknown")
        if header.length > self.payload_max or header.length % ALIGNMENT:
            raise WireError(
                f"payload of {header.length} bytes: a multiple of 8 up to {self.payload_max} expected"
            )
        if header.kind != KIND_SUBMIT and header.kind != KIND_EVENTS:
            if header.count and header.kind != KIND_ASSIGNED:
                name = Kind(header.kind).name
                raise WireError(f"{name} frame carries {header.count} records, it can carry none")
            return 0
        rest = <int64_t>header.length - header.text_bytes
        rest -= <int64_t>header.count * (COMMAND_SIZE if header.kind == KIND_SUBMIT else EVENT_SIZE)
        if header.text_bytes > TEXT_BOUND or not 0 <= rest < ALIGNMENT:
            raise WireError(
                f"{Kind(header.kind).name} frame: {header.count} records and {header.text_bytes} bytes "
                f"of text do not make a payload of {header.length} bytes"
            )
        if header.kind == KIND_SUBMIT and not 1 <= header.count <= COMMANDS_BOUND:
            raise WireError(f"SUBMIT of {header.count} commands: 1 to {COMMANDS_MAX} expected")
        return 0


def encode(
    int kind,
    const uint8_t[::1] body not None=b"",
    const uint8_t[::1] text not None=b"",
    *,
    uint64_t correlation=0,
    uint64_t epoch=0,
    uint64_t first_sequence=0,
    uint64_t last_sequence=0,
    uint32_t count=0,
    int64_t time_ns=0,
):
    """The buffers of one frame, to be written one behind the other.

    A large `body` or `text` is not copied: it must not change before it is sent.
    """
    cdef Py_ssize_t body_size = body.shape[0]
    cdef Py_ssize_t text_size = text.shape[0]
    cdef Py_ssize_t padding = -(body_size + text_size) % ALIGNMENT
    cdef Header header
    cdef uint8_t* out
    if padding < 0:
        padding += ALIGNMENT
    memset(&header, 0, sizeof(Header))
    finish(&header, kind, body_size + text_size + padding)
    header.correlation = correlation
    header.epoch = epoch
    header.first_sequence = first_sequence
    header.last_sequence = last_sequence
    header.count = count
    header.text_bytes = <uint32_t>text_size
    header.time_ns = time_ns
    cdef uint32_t crc = header_crc(&header)
    if body_size:
        crc = crc32c_extend(crc, &body[0], body_size)
    if text_size:
        crc = crc32c_extend(crc, &text[0], text_size)
    header.crc = crc32c_extend(crc, ZEROS, padding)
    if body_size + text_size > JOIN_BYTES:
        buffers = [PyBytes_FromStringAndSize(<char*>&header, HEADER_SIZE)]
        buffers += [part for part in (body.base, text.base, bytes(padding)) if len(part)]
        return buffers
    whole = PyBytes_FromStringAndSize(NULL, HEADER_SIZE + header.length)
    out = <uint8_t*>PyBytes_AS_STRING(whole)
    memcpy(out, &header, HEADER_SIZE)
    out += HEADER_SIZE
    if body_size:
        memcpy(out, &body[0], body_size)
    if text_size:
        memcpy(out + body_size, &text[0], text_size)
    memset(out + body_size + text_size, 0, padding)
    return [whole]


def encode_answer(
    const uint8_t[::1] body not None,
    uint32_t body_crc,
    *,
    bint assigned,
    uint64_t correlation,
    uint64_t epoch,
    uint64_t first_sequence,
    uint64_t last_sequence,
    uint32_t events,
    uint32_t text_bytes,
    int64_t time_ns,
):
    """The buffers of EVENTS, and of ASSIGNED before it if that is wanted.

    Parameters
    ----------
    body : bytes
        Events, text and padding, whose checksum is `body_crc`; not looked at, and if large not copied.
    assigned : bool
        Whether ASSIGNED for `correlation` goes before it.
    """
    cdef Header[2] headers
    cdef Header* header = &headers[1]
    cdef Py_ssize_t size = body.shape[0]
    cdef Py_ssize_t begin = 0 if assigned else HEADER_SIZE
    memset(headers, 0, sizeof(headers))
    finish(header, KIND_EVENTS, size)
    header.epoch = epoch
    header.first_sequence = first_sequence
    header.last_sequence = last_sequence
    header.count = events
    header.text_bytes = text_bytes
    header.time_ns = time_ns
    header.crc = crc32c_join(header_crc(header), body_crc, size)
    if assigned:
        header = &headers[0]
        finish(header, KIND_ASSIGNED, 0)
        header.correlation = correlation
        header.epoch = epoch
        header.first_sequence = first_sequence
        header.last_sequence = last_sequence
        header.count = <uint32_t>(last_sequence - first_sequence + 1)
        header.crc = header_crc(header)
    cdef Py_ssize_t head = 2 * HEADER_SIZE - begin
    if size > JOIN_BYTES:
        return [PyBytes_FromStringAndSize(<char*>headers + begin, head), body.base]
    whole = PyBytes_FromStringAndSize(NULL, head + size)
    memcpy(PyBytes_AS_STRING(whole), <char*>headers + begin, head)
    if size:
        memcpy(PyBytes_AS_STRING(whole) + head, &body[0], size)
    return [whole]
