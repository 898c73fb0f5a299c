"""Decimal strings to integers and back, against `decimal.Decimal`."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api import decimals
from api.decimals import DecimalError, from_units, scale_of, to_units

TEXT = st.one_of(
    st.from_regex(r"-?[0-9]{1,25}(\.[0-9]{1,25})?", fullmatch=True),
    st.text("0123456789.-+eE ", max_size=12),
)


def expected(text: str, unit: int, scale: int) -> int | str:
    """What `to_units` should say, in exact rational arithmetic."""
    digits = text[1:] if text.startswith("-") else text
    whole, point, fraction = digits.partition(".")
    plain = whole.isascii() and whole.isdigit() and (not point or (fraction.isascii() and fraction.isdigit()))
    if not plain or len(text) > 64:
        return decimals.MALFORMED
    if text.startswith("-"):
        return decimals.NEGATIVE
    if len(fraction.rstrip("0")) > scale:
        return decimals.TOO_PRECISE
    value = int(whole + fraction[:scale].ljust(scale, "0"))
    if value >= 1 << 120:
        return decimals.OVERFLOW
    if value == 0:
        return decimals.ZERO
    if value % unit:
        return decimals.NOT_A_MULTIPLE
    return value // unit if value // unit < 1 << 63 else decimals.OVERFLOW


@settings(print_blob=True, max_examples=500)
@given(text=TEXT, unit=st.integers(1, 10**9), scale=st.integers(0, 18))
def test_a_text_is_the_units_that_exact_arithmetic_says(text: str, unit: int, scale: int) -> None:
    try:
        result: int | str = to_units(text, unit, scale)
    except DecimalError as error:
        result = error.kind
    assert result == expected(text, unit, scale)


@settings(print_blob=True)
@given(
    units=st.integers(-(1 << 80), 1 << 80),
    unit=st.integers(1, 10**9),
    scale=st.integers(0, 18),
    kept=st.integers(0, 18),
)
def test_a_printed_number_has_the_value_of_its_units(units: int, unit: int, scale: int, kept: int) -> None:
    kept = min(kept, scale)
    text = from_units(units, unit, scale, kept)
    sign, digits, exponent = Decimal(text).as_tuple()
    assert isinstance(exponent, int)
    value = int("".join(map(str, digits))) * (-1 if sign else 1)
    assert value * 10 ** (scale + exponent) == units * unit
    assert kept <= -exponent <= scale or (kept == exponent == 0)


@settings(print_blob=True)
@given(units=st.integers(1, (1 << 63) - 1), unit=st.integers(1, 10**6), scale=st.integers(0, 12))
def test_what_is_printed_reads_back_as_the_same_units(units: int, unit: int, scale: int) -> None:
    assert to_units(from_units(units, unit, scale), unit, scale) == units


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", decimals.MALFORMED),
        (".5", decimals.MALFORMED),
        ("1.", decimals.MALFORMED),
        ("1e3", decimals.MALFORMED),
        ("+1", decimals.MALFORMED),
        (" 1", decimals.MALFORMED),
        ("1\x00", decimals.MALFORMED),
        ("٣", decimals.MALFORMED),
        ("1" * 65, decimals.MALFORMED),
        ("-1", decimals.NEGATIVE),
        ("0.00", decimals.ZERO),
        ("0.001", decimals.TOO_PRECISE),
        ("0.03", decimals.NOT_A_MULTIPLE),
        ("461168601842738790.40", decimals.OVERFLOW),
        ("9" * 64, decimals.OVERFLOW),
    ],
)
def test_each_kind_of_bad_number_has_its_name(text: str, kind: str) -> None:
    with pytest.raises(DecimalError) as caught:
        to_units(text, 5, 2)
    assert caught.value.kind == kind


def test_the_largest_number_of_units_is_int64s() -> None:
    assert to_units(str((1 << 63) - 1), 1, 0) == (1 << 63) - 1
    with pytest.raises(DecimalError):
        to_units(str(1 << 63), 1, 0)


def test_the_scale_of_a_text_does_not_count_trailing_zeros() -> None:
    assert [scale_of(text) for text in ("1", "1.0", "0.0100", "12.345")] == [0, 0, 2, 3]
