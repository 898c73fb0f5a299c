"""Decimal strings to integers and back, exactly.

The API speaks decimal strings ("100.25"), the core whole ticks, lots and
atoms.  Between the two stands this file, and no float.  A *unit* is what one
step is worth: a tick of 0.05 at 8 decimals is ``unit = 5_000_000, scale = 8``.

The grammar is ``-?digits(.digits)?`` in ASCII: no exponent, no sign but a
minus (which is then refused with a reason of its own), no spaces.
"""

from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint64_t

cdef extern from *:
    """
    typedef unsigned __int128 holdfast_u128;
    """
    ctypedef unsigned long long holdfast_u128


cdef uint64_t INT64_LIMIT = 0x7FFFFFFFFFFFFFFF

MALFORMED = "malformed"
NEGATIVE = "negative"
ZERO = "zero"
TOO_PRECISE = "too_precise"
NOT_A_MULTIPLE = "not_a_multiple"
OVERFLOW = "overflow"


class DecimalError(ValueError):
    """A text that is no amount in this unit.

    Attributes
    ----------
    kind : str
        One of MALFORMED, NEGATIVE, ZERO, TOO_PRECISE, NOT_A_MULTIPLE, OVERFLOW.
    """

    def __init__(self, kind):
        super().__init__(kind)
        self.kind = kind


cdef int _parse(const char* text, Py_ssize_t length, int scale, holdfast_u128* result) noexcept nogil:
    """0, or which rule was broken: 1 malformed, 2 negative, 4 too precise, 6 overflow."""
    cdef holdfast_u128 value = 0
    cdef holdfast_u128 limit = (<holdfast_u128> 1) << 120
    cdef Py_ssize_t i = 0
    cdef int digit
    cdef int decimals = 0
    cdef int whole_digits = 0
    cdef int fraction_digits = 0
    cdef bint negative = False
    cdef bint point = False
    cdef bint precise = False
    cdef bint over = False
    if length > 0 and text[0] == b"-":
        negative = True
        i = 1
    while i < length:
        if text[i] == b".":
            if point:
                return 1
            point = True
            i += 1
            continue
        digit = text[i] - 48
        if digit < 0 or digit > 9:
            return 1
        if point:
            fraction_digits += 1
            if decimals == scale:
                if digit != 0:
                    precise = True
                i += 1
                continue
            decimals += 1
        else:
            whole_digits += 1
        if not over:
            value = value * 10 + <holdfast_u128> digit
            if value >= limit:
                over = True
        i += 1
    if whole_digits == 0 or (point and fraction_digits == 0):
        return 1
    if negative:
        return 2
    if precise:
        return 4
    while decimals < scale and not over:
        value = value * 10
        decimals += 1
        if value >= limit:
            over = True
    if over:
        return 6
    result[0] = value
    return 0


def to_units(str text not None, int64_t unit, int scale):
    """The text as a whole positive number of units.

    Parameters
    ----------
    text : str
        At most 64 characters.
    unit : int
        What one unit is worth, in 10**-scale; at least 1.
    scale : int
        Decimals allowed, 0 to 30.

    Returns
    -------
    int
        1 to 2**63 - 1.

    Raises
    ------
    DecimalError
        With the kind of the first rule broken.

    Examples
    --------
    >>> to_units("100.25", 1_000_000, 8)
    10025
    """
    cdef Py_ssize_t length
    cdef const char* bytes_ = PyUnicode_AsUTF8AndSize(text, &length)
    cdef holdfast_u128 value = 0
    cdef holdfast_u128 count
    cdef int code
    if unit < 1 or scale < 0 or scale > 30:
        raise ValueError(f"no such unit: {unit} at {scale} decimals")
    if length > 64:
        raise DecimalError(MALFORMED)
    code = _parse(bytes_, length, scale, &value)
    if code == 1:
        raise DecimalError(MALFORMED)
    if code == 2:
        raise DecimalError(NEGATIVE)
    if code == 4:
        raise DecimalError(TOO_PRECISE)
    if code == 6:
        raise DecimalError(OVERFLOW)
    if value == 0:
        raise DecimalError(ZERO)
    if value % <holdfast_u128> unit != 0:
        raise DecimalError(NOT_A_MULTIPLE)
    count = value / <holdfast_u128> unit
    if count > <holdfast_u128> INT64_LIMIT:
        raise DecimalError(OVERFLOW)
    return <int64_t> count


def from_units(value, int64_t unit, int scale, int decimals_min=0):
    """The decimal text of that many units.

    Parameters
    ----------
    value : int
        Units; any size and sign.
    unit, scale : int
        As for `to_units`.
    decimals_min : int
        Trailing zeros are cut down to this many decimals.

    Returns
    -------
    str

    Examples
    --------
    >>> from_units(10025, 1_000_000, 8, 2)
    '100.25'
    """
    cdef str digits
    cdef str sign = ""
    cdef Py_ssize_t keep
    product = value * unit
    if product < 0:
        sign = "-"
        product = -product
    if scale == 0:
        return f"{sign}{product}"
    digits = str(product)
    if len(digits) <= scale:
        digits = "0" * (scale + 1 - len(digits)) + digits
    keep = len(digits)
    while keep > len(digits) - scale + decimals_min and digits[keep - 1] == "0":
        keep -= 1
    if keep == len(digits) - scale:
        return sign + digits[:keep]
    return f"{sign}{digits[:len(digits) - scale]}.{digits[len(digits) - scale:keep]}"


def scale_of(str text not None):
    """How many decimals the text has when its trailing zeros are cut.

    >>> scale_of("0.0100")
    2
    """
    if "." not in text:
        return 0
    return len(text.split(".", 1)[1].rstrip("0"))
