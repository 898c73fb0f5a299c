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

This is the protocol alone: bytes in, frames out.  It owns no socket.  What is done
to every frame is in `framing` (Cython), the numbers are in `kinds`.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from api.runtime.framing import Decoder, Frame, encode, encode_answer
from api.runtime.kinds import (
    BUFFER_BYTES,
    COMMANDS_MAX,
    HEADER_BYTES,
    PAYLOAD_IN_MAX,
    PAYLOAD_OUT_MAX,
    SOCKET_BUFFER_BYTES,
    TEXT_BYTES_MAX,
    Buffer,
    Kind,
)

__all__ = [
    "BUFFER_BYTES",
    "COMMANDS_MAX",
    "HEADER_BYTES",
    "PAYLOAD_IN_MAX",
    "PAYLOAD_OUT_MAX",
    "SOCKET_BUFFER_BYTES",
    "TEXT_BYTES_MAX",
    "Buffer",
    "Decoder",
    "Frame",
    "Kind",
    "encode",
    "encode_answer",
    "encode_json",
    "records_buffer",
]

ALIGNMENT = 8


def encode_json(kind: Kind, value: dict[str, Any], *, correlation: int = 0, epoch: int = 0) -> list[Buffer]:
    """The buffers of a frame that carries one JSON object."""
    body = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)
    return encode(kind, body + b" " * (-len(body) % ALIGNMENT), correlation=correlation, epoch=epoch)


def records_buffer(records: npt.NDArray[np.void]) -> memoryview:
    """The bytes of a contiguous record array, without a copy."""
    return records.view(np.uint8).reshape(-1).data
