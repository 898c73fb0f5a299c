"""Frames of the log: built into the group buffer, and walked in a segment.

A frame, little endian, one for a batch of commands::

      0  u32  magic "HFL1"      16  u64  epoch             48  u64  segment_first_sequence
      4  u16  version (1)       24  u64  first_sequence    56  u64  previous_crc
      6  u16  kind              32  u32  count             64  u8[32]  chain (zero in version 1)
      8  u32  length            36  u32  text_bytes        96  u8[32]  events digest (zero in version 1)
     12  u32  crc32c            40  i64  time_ns
    128  COMMAND[count], text[text_bytes], zeros to a multiple of 32

`length` counts the whole frame, header and zeros included; the checksum covers
the whole frame with its own field zero. `previous_crc` is the checksum of the
frame before, or of the segment's header for the first: a removed or swapped
frame shows. `segment_first_sequence` makes a frame of a recycled block foreign.

    kind 1 COMMANDS   first_sequence .. first_sequence + count − 1
    kind 2 HALT       voids first_sequence and every later command before it; the text is the reason
    kind 3 SEAL       the last frame of a full segment; first_sequence is the next one's

Both loops run without the GIL and make no Python object for a frame.
"""

import numpy as np

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from persistence.crc32c cimport crc32c_extend

from persistence.errors import FormatError
from persistence.text import TEXT_BYTES_MAX

cdef enum:
    FRAME_MAGIC = 0x314C4648          # "HFL1"
    FRAME_VERSION = 1
    FRAME_ALIGN = 32
    FRAME_HEADER = 128
    COMMAND_SIZE = 128
    COUNT_MAX = 65536
    KIND_COMMANDS = 1
    KIND_HALT = 2
    KIND_SEAL = 3

HEADER_BYTES = FRAME_HEADER
COMMAND_BYTES = COMMAND_SIZE
COMMANDS_MAX = COUNT_MAX
FRAME_BYTES_MAX = FRAME_HEADER + COUNT_MAX * COMMAND_SIZE + TEXT_BYTES_MAX
COMMANDS = KIND_COMMANDS
HALT = KIND_HALT
SEAL = KIND_SEAL

cdef enum:
    STOP_ROWS = 0
    STOP_ZERO = 1
    STOP_BROKEN = 2
    STOP_UNLINKED = 3
    STOP_END = 4
    STOP_HALT = 5
    STOP_SEAL = 6

# Why a walk ended.
ROWS = STOP_ROWS            # the table of rows is full; go on from `offset`
ZERO = STOP_ZERO            # a header of zeros: nothing was written here
BROKEN = STOP_BROKEN        # not a whole frame of this segment: torn, corrupted, or foreign
UNLINKED = STOP_UNLINKED    # a whole frame of this segment that does not follow the one before
END = STOP_END              # no room for a header
HALTED = STOP_HALT          # after a HALT frame, which is the last row
SEALED = STOP_SEAL          # after a SEAL frame, which is the last row

ROW = np.dtype([
    ("offset", "<i8"), ("length", "<u4"), ("kind", "<u4"), ("epoch", "<u8"), ("first_sequence", "<u8"),
    ("count", "<u4"), ("text_bytes", "<u4"), ("time_ns", "<i8"), ("crc", "<u8"),
])
"""What a walk says of a frame."""

cdef packed struct Row:
    int64_t offset
    uint32_t length
    uint32_t kind
    uint64_t epoch
    uint64_t first_sequence
    uint32_t count
    uint32_t text_bytes
    int64_t time_ns
    uint64_t crc

if sizeof(Header) != FRAME_HEADER or sizeof(Row) != ROW.itemsize:
    raise ImportError("the frame header is not laid out as documented")

cdef uint8_t[4] NOTHING
memset(NOTHING, 0, 4)


cdef inline uint32_t frame_crc(const uint8_t* frame, size_t length) noexcept nogil:
    """Checksum of a frame with its checksum field taken as zero."""
    cdef uint32_t crc = crc32c_extend(0, frame, 12)
    crc = crc32c_extend(crc, NOTHING, 4)
    return crc32c_extend(crc, frame + 16, length - 16)


cdef inline uint64_t padded(uint64_t length) noexcept nogil:
    return (length + FRAME_ALIGN - 1) & ~<uint64_t>(FRAME_ALIGN - 1)


def frame_bytes(Py_ssize_t count, Py_ssize_t text_bytes):
    """Length of a frame of so many commands and so much text."""
    return <Py_ssize_t>padded(FRAME_HEADER + count * COMMAND_SIZE + text_bytes)


@cython.final
cdef class FrameBuffer:
    """Frames back to back, to be written at once; never grows.

    Parameters
    ----------
    capacity : int
        Bytes; a frame that does not fit is refused.
    """

    def __cinit__(self, Py_ssize_t capacity):
        self.data = <uint8_t*>malloc(capacity)
        if self.data == NULL:
            raise MemoryError(f"log group buffer of {capacity} bytes")
        self.capacity = capacity

    def __dealloc__(self):
        free(self.data)

    def view(self):
        """What was built, as a read-only memoryview; valid until `clear` and the next `add`."""
        if self.size == 0:
            return memoryview(b"")
        return memoryview(<const uint8_t[:self.size]>self.data)

    def clear(self):
        """Forget what was built; the last checksum stays."""
        self.size = 0

    def follow(self, uint32_t crc):
        """The next frame's `previous_crc` is this: a segment begins, or goes on after a restart."""
        self.last_crc = crc

    cdef Py_ssize_t put(
        self, Header* header, const uint8_t* commands, const uint8_t* text
    ) noexcept nogil:
        cdef uint64_t body = <uint64_t>header.count * COMMAND_SIZE
        cdef uint64_t used = FRAME_HEADER + body + header.text_bytes
        cdef uint64_t length = padded(used)
        cdef uint8_t* frame = self.data + self.size
        if length > <uint64_t>(self.capacity - self.size):
            return -1
        header.magic = FRAME_MAGIC
        header.version = FRAME_VERSION
        header.length = <uint32_t>length
        header.crc = 0
        header.previous_crc = self.last_crc
        memset(header.chain, 0, 32)
        memset(header.events_digest, 0, 32)
        memcpy(frame, header, FRAME_HEADER)
        if body:
            memcpy(frame + FRAME_HEADER, commands, body)
        if header.text_bytes:
            memcpy(frame + FRAME_HEADER + body, text, header.text_bytes)
        memset(frame + used, 0, length - used)
        header.crc = crc32c_extend(0, frame, length)
        (<Header*>frame).crc = header.crc
        self.last_crc = header.crc
        self.size += length
        return length

    def add(
        self,
        int kind,
        uint64_t epoch,
        uint64_t first_sequence,
        object commands,
        object text,
        int64_t time_ns,
        uint64_t segment,
    ):
        """Build one frame after the others.

        Parameters
        ----------
        commands : COMMAND[n], contiguous
            Stamped with `first_sequence` and on; None for HALT and SEAL.

        Returns
        -------
        int
            Its length.

        Raises
        ------
        FormatError
            Nothing was added: too many commands, a stamp that does not match, no room.
        """
        cdef Header header
        cdef Py_buffer records
        cdef Py_buffer area
        cdef Py_ssize_t length
        cdef uint64_t count
        cdef const uint8_t* data
        memset(&header, 0, sizeof(Header))
        header.kind = kind
        header.epoch = epoch
        header.first_sequence = first_sequence
        header.time_ns = time_ns
        header.segment = segment
        PyObject_GetBuffer(b"" if commands is None else commands, &records, PyBUF_SIMPLE)
        try:
            count = records.len // COMMAND_SIZE
            data = <const uint8_t*>records.buf
            if records.len % COMMAND_SIZE or count > COUNT_MAX or (kind == KIND_COMMANDS and count == 0):
                raise FormatError(f"{records.len} bytes of commands; 1 to {COUNT_MAX} records expected")
            if count and (
                (<const uint64_t*>(data + 8))[0] != first_sequence
                or (<const uint64_t*>(data + (count - 1) * COMMAND_SIZE + 8))[0] != first_sequence + count - 1
            ):
                last = first_sequence + count - 1
                raise FormatError(f"commands are not stamped {first_sequence} to {last}")
            PyObject_GetBuffer(text, &area, PyBUF_SIMPLE)
            try:
                if area.len > TEXT_BYTES_MAX:
                    raise FormatError(f"text area of {area.len} bytes; at most {TEXT_BYTES_MAX}")
                header.count = <uint32_t>count
                header.text_bytes = <uint32_t>area.len
                with nogil:
                    length = self.put(&header, data, <const uint8_t*>area.buf)
            finally:
                PyBuffer_Release(&area)
        finally:
            PyBuffer_Release(&records)
        if length < 0:
            room = self.capacity - self.size
            raise FormatError(f"a frame of {count} commands does not fit into {room} bytes")
        return length


@cython.final
cdef class Walk:
    """Where a walk through a segment stands: what the next frame has to follow.

    Parameters
    ----------
    segment : int
        First sequence in the segment's header.
    offset : int
        Where the next frame begins.
    next_sequence, previous_crc, epoch : int
        What that frame must continue.
    """

    cdef public uint64_t segment
    cdef public int64_t offset
    cdef public uint64_t next_sequence
    cdef public uint64_t previous_crc
    cdef public uint64_t epoch
    cdef public int64_t time_ns

    def __init__(
        self,
        uint64_t segment,
        int64_t offset,
        uint64_t next_sequence,
        uint64_t previous_crc,
        uint64_t epoch,
        int64_t time_ns=0,
    ):
        self.segment = segment
        self.offset = offset
        self.next_sequence = next_sequence
        self.previous_crc = previous_crc
        self.epoch = epoch
        self.time_ns = time_ns

    cdef int step(self, const uint8_t* data, int64_t size, Row* row) noexcept nogil:
        """Check the frame at `offset`; go past it, or say why not."""
        cdef const Header* header = <const Header*>(data + self.offset)
        cdef int64_t left = size - self.offset
        if left < FRAME_HEADER:
            return STOP_END
        if not whole(data + self.offset, left, self.segment):
            return STOP_ZERO if is_zero(data + self.offset, FRAME_HEADER) else STOP_BROKEN
        if (
            header.previous_crc != self.previous_crc
            or header.epoch < self.epoch
            or (header.kind != KIND_HALT and header.first_sequence != self.next_sequence)
            or (header.kind == KIND_HALT and header.first_sequence > self.next_sequence)
        ):
            return STOP_UNLINKED
        row.offset = self.offset
        row.length = header.length
        row.kind = header.kind
        row.epoch = header.epoch
        row.first_sequence = header.first_sequence
        row.count = header.count
        row.text_bytes = header.text_bytes
        row.time_ns = header.time_ns
        row.crc = header.crc
        self.offset += header.length
        self.previous_crc = header.crc
        self.epoch = header.epoch
        if header.kind == KIND_COMMANDS:
            self.time_ns = header.time_ns
        # After a HALT this is the voided sequence, which the next epoch uses again.
        self.next_sequence = header.first_sequence + header.count
        if header.kind == KIND_HALT:
            return STOP_HALT
        if header.kind == KIND_SEAL:
            return STOP_SEAL
        return STOP_ROWS

    def run(self, const uint8_t[::1] data not None, Py_ssize_t rows_max=4096):
        """Check frames from `offset` on.

        Returns
        -------
        rows : ROW[n]
            The frames that are whole and follow each other, at most `rows_max`.
        stop : int
            Why it ended there.
        """
        rows = np.empty(rows_max, ROW)
        cdef uint8_t[::1] table = rows.view(np.uint8)
        cdef int64_t size = data.shape[0]
        cdef Py_ssize_t count = 0
        cdef int stop = STOP_ROWS
        if size == 0 or rows_max <= 0:
            return rows[:0], STOP_END
        with nogil:
            while count < rows_max and stop == STOP_ROWS:
                stop = self.step(&data[0], size, <Row*>&table[count * sizeof(Row)])
                if stop == STOP_ROWS or stop == STOP_HALT or stop == STOP_SEAL:
                    count += 1
        return rows[:count], stop


cdef inline bint is_zero(const uint8_t* data, int64_t size) noexcept nogil:
    cdef int64_t i
    for i in range(size):
        if data[i]:
            return False
    return True


cdef bint whole(const uint8_t* data, int64_t left, uint64_t segment) noexcept nogil:
    """Whether a whole frame of this segment begins here: shape and checksum."""
    cdef const Header* header = <const Header*>data
    if left < FRAME_HEADER or header.magic != FRAME_MAGIC or header.version != FRAME_VERSION:
        return False
    if header.kind < KIND_COMMANDS or header.kind > KIND_SEAL or header.segment != segment:
        return False
    if header.length > <uint64_t>left or header.count > COUNT_MAX:
        return False
    if header.length != padded(FRAME_HEADER + <uint64_t>header.count * COMMAND_SIZE + header.text_bytes):
        return False
    if (header.kind == KIND_COMMANDS) != (header.count > 0):
        return False
    return frame_crc(data, header.length) == header.crc


def find_later(
    const uint8_t[::1] data not None, int64_t offset, uint64_t segment, uint64_t sequence, uint64_t epoch
):
    """Offset of a whole frame of this segment behind `offset`, at `sequence` or later; −1 if none.

    What follows a bad frame tells a torn tail from corruption. The length in a
    bad frame means nothing, so every aligned place is tried.
    """
    cdef int64_t size = data.shape[0]
    cdef int64_t place = offset + FRAME_ALIGN
    cdef int64_t found = -1
    cdef const Header* header
    with nogil:
        while place + FRAME_HEADER <= size:
            header = <const Header*>&data[place]
            if (
                header.magic == FRAME_MAGIC
                and header.first_sequence >= sequence
                and header.epoch >= epoch
                and whole(&data[place], size - place, segment)
            ):
                found = place
                break
            place += FRAME_ALIGN
    return found


def last_nonzero(const uint8_t[::1] data not None, int64_t offset):
    """End of what is not zero behind `offset`; `offset` itself if all is zero."""
    cdef int64_t end = data.shape[0]
    cdef uint64_t word
    with nogil:
        while end - offset >= 8:
            memcpy(&word, &data[end - 8], 8)
            if word:
                break
            end -= 8
        while end > offset and data[end - 1] == 0:
            end -= 1
    return end
