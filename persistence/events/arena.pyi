import numpy as np
from numpy.typing import NDArray

from persistence.storage import Buffer

FRAME_BYTES_MAX: int

class PackedFrame:
    chunk: bytearray
    begin: int
    end: int
    epoch: int
    first_sequence: int
    last_sequence: int
    time_ns: int
    event_number: int
    count: int
    text_bytes: int
    body_crc: int
    @property
    def body(self) -> memoryview: ...
    @property
    def events(self) -> NDArray[np.void]: ...
    @property
    def text(self) -> bytes: ...
    def __len__(self) -> int: ...

class Arena:
    def pack(
        self,
        epoch: int,
        first_sequence: int,
        last_sequence: int,
        time_ns: int,
        event_number: int,
        events: NDArray[np.void],
        text: Buffer = b"",
    ) -> PackedFrame: ...
