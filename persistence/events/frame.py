"""An event frame: what one log frame gave.

`events/00000000000000000001.events` is named by the first sequence in it and
is nothing but frames back to back, little endian::

     0  u32  magic "HFE1"     16  u64  epoch             40  u32  count (events)
     4  u16  version (1)      24  u64  first_sequence    44  u32  text_bytes
     6  u16  kind (1)         32  u64  last_sequence     48  i64  time_ns
     8  u32  length                                      56  u64  event_number
    12  u32  crc32c
    64  EVENT[count], text[text_bytes], zeros to a multiple of 32

`length` counts the whole frame; the checksum covers it with its own field zero.
`event_number` is the number of its first event (of the next one, if the frame
has none): dense from 1. Sequences are dense too: a frame begins where the one
before ended. In the text, the index counts commands from `first_sequence`.

Events are derived: replay writes the same again. So they are written, but not
synced, while the venue runs.
"""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.types import EVENT
from persistence.events.arena import FRAME_BYTES_MAX

HEADER_BYTES = 64
SUFFIX = ".events"

_MAGIC = 0x31454648
_HEADER = struct.Struct("<IHHIIQQQIIqQ")


@dataclass(frozen=True, slots=True)
class EventFrame:
    """The events of one log frame.

    Parameters
    ----------
    epoch, first_sequence, last_sequence, time_ns
        Of the log frame.
    event_number : int
        Of the first event.
    events : EVENT[n]
    text : bytes
    """

    epoch: int
    first_sequence: int
    last_sequence: int
    time_ns: int
    event_number: int
    events: NDArray[np.void]
    text: bytes

    @property
    def count(self) -> int:
        """Number of events."""
        return len(self.events)


def read_frame(data: bytes, offset: int) -> EventFrame:
    """The frame at `offset`, which `scan_frames` found whole; its events are a view of `data`."""
    _, _, _, _, _, epoch, first, last, count, text_bytes, time_ns, number = _HEADER.unpack_from(data, offset)
    begin = offset + HEADER_BYTES
    events = np.frombuffer(data, EVENT, count, begin) if count else np.empty(0, EVENT)
    text_begin = begin + events.nbytes
    return EventFrame(epoch, first, last, time_ns, number, events, data[text_begin : text_begin + text_bytes])


def frame_length(header: bytes) -> int:
    """Length that a frame's first bytes claim; 0 if they cannot be a frame's."""
    if len(header) < HEADER_BYTES:
        return 0
    magic, _, _, length = struct.unpack_from("<IHHI", header)
    return int(length) if magic == _MAGIC and HEADER_BYTES <= length <= FRAME_BYTES_MAX else 0


def segment_name(first_sequence: int) -> str:
    """File name of the event segment that begins with this sequence."""
    return f"{first_sequence:020d}{SUFFIX}"


def first_of(name: str) -> int:
    """First sequence of the segment with this file name."""
    return int(name.removesuffix(SUFFIX))
