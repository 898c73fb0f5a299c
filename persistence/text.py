"""The text beside the records of a frame: what the core never sees.

The text area of a log frame, an event frame, and a SUBMIT or EVENTS message is
the same: entries back to back, in any order of commands, little endian.

    0  u32  index     command in the frame, from 0
    4  u16  tag       TextTag
    6  u16  length    bytes that follow
    8  u8[length]

Unknown tags are kept and passed on: an older reader must not drop what a newer
writer said. Bounds: 1 MiB an area; 4 KiB an entry, a definition 64 KiB − 1.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum

from persistence.errors import FormatError

TEXT_BYTES_MAX = 1 << 20
ENTRY_BYTES_MAX = 4096
DEFINITION_BYTES_MAX = 65_535

_ENTRY = struct.Struct("<IHH")


class TextTag(IntEnum):
    CLIENT_ORDER_ID = 1
    IDEMPOTENCY_KEY = 2
    REASON = 3
    """Why an admin did it, in words."""
    DEFINITION = 4
    """JSON: the names of an asset, market, account or key."""
    SUBMISSION = 5
    """Decimal accepted_no of the submission that the command came from."""
    TRANSACTION_ID = 6


class TextBuilder:
    """Builds a text area; `add` entries, then `bytes(builder)`.

    >>> builder = TextBuilder()
    >>> builder.add(0, TextTag.CLIENT_ORDER_ID, b"mine-1")
    >>> list(read_text(bytes(builder)))
    [(0, 1, b'mine-1')]
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def __len__(self) -> int:
        return len(self._buffer)

    def __bytes__(self) -> bytes:
        return bytes(self._buffer)

    def add(self, index: int, tag: int, value: bytes) -> None:
        """Append one entry.

        Raises
        ------
        FormatError
            The entry or the area would exceed its bound; nothing was added.
        """
        limit = DEFINITION_BYTES_MAX if tag == TextTag.DEFINITION else ENTRY_BYTES_MAX
        if len(value) > limit:
            raise FormatError(f"text entry of {len(value)} bytes (tag {tag}); at most {limit}")
        if len(self._buffer) + _ENTRY.size + len(value) > TEXT_BYTES_MAX:
            raise FormatError(f"text area would exceed {TEXT_BYTES_MAX} bytes")
        if not (0 <= index < 1 << 32 and 0 <= tag < 1 << 16):
            raise FormatError(f"text entry with index {index} and tag {tag}")
        self._buffer += _ENTRY.pack(index, tag, len(value))
        self._buffer += value

    def clear(self) -> None:
        """Start the next frame's area."""
        self._buffer.clear()


def read_text(area: bytes | bytearray | memoryview) -> Iterator[tuple[int, int, bytes]]:
    """Entries of a text area: (index, tag, bytes).

    Raises
    ------
    FormatError
        The area ends inside an entry, or is longer than the bound.
    """
    size = len(area)
    if size > TEXT_BYTES_MAX:
        raise FormatError(f"text area of {size} bytes; at most {TEXT_BYTES_MAX}")
    position = 0
    while position < size:
        if size - position < _ENTRY.size:
            raise FormatError(f"text area ends inside an entry's header at byte {position}")
        index, tag, length = _ENTRY.unpack_from(area, position)
        position += _ENTRY.size
        if size - position < length:
            raise FormatError(f"text area ends inside an entry of {length} bytes at byte {position}")
        yield index, tag, bytes(area[position : position + length])
        position += length
