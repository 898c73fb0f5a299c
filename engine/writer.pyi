import numpy as np
from numpy.typing import NDArray

class Writer:
    @property
    def sequence(self) -> int: ...
    def depth(self, market: int, levels: int = 0) -> tuple[NDArray[np.void], NDArray[np.void]]: ...
