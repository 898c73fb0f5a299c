import numpy as np
from numpy.typing import NDArray

from engine.writer import Writer

class Book(Writer):
    def __init__(self, markets: int = 1) -> None: ...
    def apply(self, commands: NDArray[np.void]) -> NDArray[np.void]: ...
