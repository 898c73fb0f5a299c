"""Frames between the engine and its clients over a Unix stream socket.

Every frame is a header of 64 bytes, little endian, and a payload whose length
is a multiple of 8, so that records stay aligned in the receive buffer::

     0 u32 magic "HFW1"      4 u8 kind      5 u8 version     6 u16 flags (0)
     8 u32 length (payload, padding included)
    12 u32 crc32c (header with this field 0, then payload)
    16 u64 correlation      24 u64 epoch   32 u64 first_sequence
    40 u32 count            44 u32 text_bytes
    48 i64 time_ns          56 u64 last_sequence

    payload of SUBMIT:  COMMAND[count]  text[text_bytes]  zeros
    payload of EVENTS:  EVENT[count]    text[text_bytes]  zeros
    payload of JSON kinds:  one JSON object, padded with spaces

`text` is the text area of a log frame (`persistence.text`); its index counts
the commands of the frame from 0.  One SUBMIT is one log frame is one EVENTS.

This module is the protocol alone: bytes in, frames out.  It owns no socket.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from api.runtime.errors import WireError
from engine.types import COMMAND, EVENT
from persistence.crc32c import crc32c

Buffer: TypeAlias = bytes | bytearray | memoryview

MAGIC = 0x31574648  # "HFW1"
VERSION = 1
HEADER = struct.Struct("<IBBHIIQQQIIqQ")
HEADER_BYTES = 64
CRC_OFFSET = 12
ALIGNMENT = 8

COMMANDS_MAX = 4096
"""Commands in one SUBMIT."""
TEXT_BYTES_MAX = 1 << 20
"""Text in one SUBMIT or EVENTS."""
PAYLOAD_IN_MAX = 16 << 20
"""Bytes of a payload that the engine accepts."""
PAYLOAD_OUT_MAX = 64 << 20
"""Bytes of a payload that a client accepts (a WELCOME carries whole books)."""
BUFFER_BYTES = 256 << 10
"""Receive buffer of a connection; it grows for one large frame and shrinks again."""


class Kind(IntEnum):
    HELLO = 1
    WELCOME = 2
    SUBMIT = 3
    ASSIGNED = 4
    EVENTS = 5
    QUERY = 6
    RESULT = 7
    REFUSED = 8
    HEARTBEAT = 9


_KINDS = frozenset(int(kind) for kind in Kind)
_RECORD_BYTES = {int(Kind.SUBMIT): COMMAND.itemsize, int(Kind.EVENTS): EVENT.itemsize}


@dataclass(slots=True)
class Frame:
    """One frame as received; `payload` is a view, valid until the decoder receives again."""

    kind: int
    correlation: int
    epoch: int
    first_sequence: int
    last_sequence: int
    count: int
    text_bytes: int
    time_ns: int
    payload: memoryview

    def records(self) -> npt.NDArray[np.void]:
        """COMMAND[count] of a SUBMIT or EVENT[count] of an EVENTS frame; a writable view."""
        return np.frombuffer(self.payload, COMMAND if self.kind == Kind.SUBMIT else EVENT, self.count)

    def text(self) -> memoryview:
        """The text area behind the records; a view."""
        start = self.count * _RECORD_BYTES[self.kind]
        return self.payload[start : start + self.text_bytes]

    def json(self) -> dict[str, Any]:
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


def encode(
    kind: Kind,
    body: Buffer = b"",
    text: Buffer = b"",
    *,
    correlation: int = 0,
    epoch: int = 0,
    first_sequence: int = 0,
    last_sequence: int = 0,
    count: int = 0,
    time_ns: int = 0,
) -> list[Buffer]:
    """The buffers of one frame, to be written one behind the other.

    `body` and `text` are not copied: they must not change before they are sent.
    """
    length = len(body) + len(text)
    padding = -length % ALIGNMENT
    fields = (correlation, epoch, first_sequence, count, len(text), time_ns, last_sequence)
    checksum = crc32c(HEADER.pack(MAGIC, kind, VERSION, 0, length + padding, 0, *fields))
    buffers: list[Buffer] = []
    for part in (body, text, bytes(padding)):
        if len(part):
            checksum = crc32c(part, checksum)
            buffers.append(part)
    buffers.insert(0, HEADER.pack(MAGIC, kind, VERSION, 0, length + padding, checksum, *fields))
    return buffers


def encode_json(kind: Kind, value: dict[str, Any], *, correlation: int = 0, epoch: int = 0) -> list[Buffer]:
    """The buffers of a frame that carries one JSON object."""
    body = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)
    return encode(kind, body + b" " * (-len(body) % ALIGNMENT), correlation=correlation, epoch=epoch)


def records_buffer(records: npt.NDArray[np.void]) -> memoryview:
    """The bytes of a contiguous record array, without a copy."""
    return records.view(np.uint8).reshape(-1).data


class Decoder:
    """Received bytes to frames.

    Receive into `get_buffer()`, say how many bytes came with `received(n)`, then
    take `frames()`.  Frames are views of the buffer: use or copy them before the
    next `get_buffer()`.

    Parameters
    ----------
    payload_max : int, bytes
        A header that announces more is a WireError before anything is kept for it.
    """

    def __init__(self, payload_max: int) -> None:
        self._payload_max = payload_max
        self._storage = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._storage)
        self._start = 0
        self._end = 0
        self._wanted = HEADER_BYTES

    @property
    def buffered(self) -> int:
        """Bytes received that are not yet part of a frame handed out."""
        return self._end - self._start

    def get_buffer(self) -> memoryview:
        """Room to receive into, at least one byte; earlier frames become invalid."""
        held = self._end - self._start
        capacity = max(self._wanted, BUFFER_BYTES)
        if capacity != len(self._storage) and held <= capacity:
            # A frame larger than the buffer, or one that has been dealt with.
            storage = bytearray(capacity)
            storage[:held] = self._view[self._start : self._end]
            self._storage, self._view = storage, memoryview(storage)
            self._start, self._end = 0, held
        elif held == 0:
            self._start = self._end = 0
        elif len(self._storage) - self._start < max(self._wanted, BUFFER_BYTES // 2):
            self._view[:held] = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, held
        return self._view[self._end :]

    def received(self, count: int) -> None:
        """`count` bytes were written to the start of the last `get_buffer()`."""
        self._end += count

    def frames(self) -> Iterator[Frame]:
        """The whole frames that are there.

        Raises
        ------
        WireError
            The stream is not ours or is damaged; nothing after it can be trusted.
        """
        while self._end - self._start >= HEADER_BYTES:
            start = self._start
            (
                magic,
                kind,
                version,
                flags,
                length,
                checksum,
                correlation,
                epoch,
                first_sequence,
                count,
                text_bytes,
                time_ns,
                last_sequence,
            ) = HEADER.unpack_from(self._storage, start)
            self._check_header(magic, kind, version, flags, length, count, text_bytes)
            size = HEADER_BYTES + length
            self._wanted = size
            if self._end - start < size:
                return
            self._storage[start + CRC_OFFSET : start + CRC_OFFSET + 4] = b"\0\0\0\0"
            if crc32c(self._view[start : start + size]) != checksum:
                raise WireError(f"checksum of a {Kind(kind).name} frame of {size} bytes does not match")
            self._start = start + size
            self._wanted = HEADER_BYTES
            yield Frame(
                kind,
                correlation,
                epoch,
                first_sequence,
                last_sequence,
                count,
                text_bytes,
                time_ns,
                self._view[start + HEADER_BYTES : start + size],
            )

    def _check_header(
        self, magic: int, kind: int, version: int, flags: int, length: int, count: int, text_bytes: int
    ) -> None:
        if magic != MAGIC:
            raise WireError(f"magic {magic:#010x}, {MAGIC:#010x} expected: not a frame")
        if version != VERSION or flags != 0:
            raise WireError(f"version {version}, flags {flags:#x}: this side speaks version {VERSION}")
        if kind not in _KINDS:
            raise WireError(f"kind {kind} is unknown")
        if length > self._payload_max or length % ALIGNMENT:
            raise WireError(f"payload of {length} bytes: a multiple of 8 up to {self._payload_max} expected")
        record = _RECORD_BYTES.get(kind)
        if record is None:
            if count and kind != Kind.ASSIGNED:
                raise WireError(f"{Kind(kind).name} frame carries {count} records, it can carry none")
            return
        if text_bytes > TEXT_BYTES_MAX or not 0 <= length - count * record - text_bytes < ALIGNMENT:
            raise WireError(
                f"{Kind(kind).name} frame: {count} records and {text_bytes} bytes of text "
                f"do not make a payload of {length} bytes"
            )
        if kind == Kind.SUBMIT and not 1 <= count <= COMMANDS_MAX:
            raise WireError(f"SUBMIT of {count} commands: 1 to {COMMANDS_MAX} expected")
