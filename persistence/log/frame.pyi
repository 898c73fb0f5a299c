from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

HEADER_BYTES: int
COMMAND_BYTES: int
COMMANDS_MAX: int
FRAME_BYTES_MAX: int
COMMANDS: int
HALT: int
SEAL: int
ROWS: int
ZERO: int
BROKEN: int
UNLINKED: int
END: int
HALTED: int
SEALED: int
ROW: np.dtype[np.void]

def frame_bytes(count: int, text_bytes: int) -> int: ...

class FrameBuffer:
    capacity: int
    size: int
    last_crc: int
    def __init__(self, capacity: int) -> None: ...
    def view(self) -> memoryview: ...
    def clear(self) -> None: ...
    def follow(self, crc: int) -> None: ...
    def add(
        self,
        kind: int,
        epoch: int,
        first_sequence: int,
        commands: NDArray[Any] | Buffer | None,
        text: Buffer,
        time_ns: int,
        segment: int,
    ) -> int: ...

class Walk:
    segment: int
    offset: int
    next_sequence: int
    previous_crc: int
    epoch: int
    time_ns: int
    def __init__(
        self,
        segment: int,
        offset: int,
        next_sequence: int,
        previous_crc: int,
        epoch: int,
        time_ns: int = 0,
    ) -> None: ...
    def run(self, data: Buffer, rows_max: int = 4096) -> tuple[NDArray[np.void], int]: ...

def find_later(data: Buffer, offset: int, segment: int, sequence: int, epoch: int) -> int: ...
def last_nonzero(data: Buffer, offset: int) -> int: ...
