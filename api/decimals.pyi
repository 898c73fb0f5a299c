MALFORMED: str
NEGATIVE: str
ZERO: str
TOO_PRECISE: str
NOT_A_MULTIPLE: str
OVERFLOW: str

class DecimalError(ValueError):
    kind: str
    def __init__(self, kind: str) -> None: ...

def to_units(text: str, unit: int, scale: int) -> int: ...
def from_units(value: int, unit: int, scale: int, decimals_min: int = 0) -> str: ...
def scale_of(text: str) -> int: ...
