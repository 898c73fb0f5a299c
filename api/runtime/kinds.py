"""Numbers of the wire that both its halves need: kinds of frames, and bounds (see `wire`)."""

from enum import IntEnum
from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

VERSION = 1
HEADER_BYTES = 64
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

SOCKET_BUFFER_BYTES = 1 << 20
"""What each side lets the kernel keep of what it sends."""


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
