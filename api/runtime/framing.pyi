from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from api.runtime.kinds import Buffer

class Frame:
    kind: int
    correlation: int
    epoch: int
    first_sequence: int
    last_sequence: int
    count: int
    text_bytes: int
    time_ns: int
    payload: memoryview
    @property
    def body(self) -> memoryview: ...
    def records(self) -> npt.NDArray[np.void]: ...
    def text(self) -> memoryview: ...
    def json(self) -> dict[str, Any]: ...

class Decoder:
    def __init__(self, payload_max: int) -> None: ...
    @property
    def buffered(self) -> int: ...
    def get_buffer(self) -> memoryview: ...
    def received(self, count: int) -> None: ...
    def frames(self) -> Iterator[Frame]: ...

def encode(
    kind: int,
    body: Buffer = b"",
    text: Buffer = b"",
    *,
    correlation: int = 0,
    epoch: int = 0,
    first_sequence: int = 0,
    last_sequence: int = 0,
    count: int = 0,
    time_ns: int = 0,
) -> list[Buffer]: ...
def encode_answer(
    body: Buffer,
    body_crc: int,
    *,
    assigned: bool,
    correlation: int,
    epoch: int,
    first_sequence: int,
    last_sequence: int,
    events: int,
    text_bytes: int,
    time_ns: int,
) -> list[Buffer]: ...
