import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

def scan_frames(
    data: Buffer, offset: int, after_sequence: int, rows_max: int
) -> tuple[NDArray[np.int64], int]: ...
