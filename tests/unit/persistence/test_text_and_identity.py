"""The text area and the public names of orders say back what was put in, and nothing else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.types import NO_SLOT, QUEUED
from persistence.errors import FormatError
from persistence.identity import parse_order_id, public_order_id
from persistence.text import (
    DEFINITION_BYTES_MAX,
    ENTRY_BYTES_MAX,
    TEXT_BYTES_MAX,
    TextBuilder,
    TextTag,
    read_text,
)
from tests.unit.persistence.support import text_of

ENTRIES = st.lists(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1), st.binary(max_size=64)), max_size=20
)


@settings(print_blob=True, deadline=None)
@given(ENTRIES)
def test_text_round_trip(entries):
    assert list(read_text(text_of(*entries))) == entries


@settings(print_blob=True, deadline=None)
@given(ENTRIES.filter(bool), st.data())
def test_a_cut_text_area_is_refused_or_ends_between_entries(entries, data):
    area = text_of(*entries)
    cut = data.draw(st.integers(0, len(area) - 1))
    try:
        found = list(read_text(area[:cut]))
    except FormatError:
        return
    assert len(text_of(*found)) == cut
    assert found == entries[: len(found)]


def test_text_bounds_hold_and_a_refused_entry_leaves_no_trace():
    builder = TextBuilder()
    builder.add(0, TextTag.REASON, bytes(ENTRY_BYTES_MAX))
    builder.add(0, TextTag.DEFINITION, bytes(DEFINITION_BYTES_MAX))
    size = len(builder)
    for tag, length in (
        (TextTag.REASON, ENTRY_BYTES_MAX + 1),
        (TextTag.DEFINITION, DEFINITION_BYTES_MAX + 1),
    ):
        with pytest.raises(FormatError, match="at most"):
            builder.add(0, tag, bytes(length))
    assert len(builder) == size
    with pytest.raises(FormatError, match=str(TEXT_BYTES_MAX)):
        for _ in range(TEXT_BYTES_MAX // ENTRY_BYTES_MAX + 1):
            builder.add(0, TextTag.REASON, bytes(ENTRY_BYTES_MAX))
    assert len(builder) <= TEXT_BYTES_MAX
    assert all(len(value) >= ENTRY_BYTES_MAX for _, _, value in read_text(bytes(builder)))
    with pytest.raises(FormatError):
        list(read_text(bytes(TEXT_BYTES_MAX + 1)))


@settings(print_blob=True, deadline=None)
@given(st.integers(1, QUEUED - 1), st.one_of(st.just(NO_SLOT), st.integers(0, NO_SLOT - 1)))
def test_order_ids_round_trip(number, slot):
    assert parse_order_id(public_order_id(number, slot)) == (number, slot)
    assert parse_order_id(public_order_id(QUEUED | number, slot)) == (QUEUED | number, NO_SLOT)


@settings(print_blob=True, deadline=None)
@given(st.text(max_size=24))
def test_a_text_that_parses_is_the_only_text_of_that_order(text):
    try:
        order_id, slot = parse_order_id(text)
    except FormatError:
        return
    assert public_order_id(order_id, slot) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "01", "q", "q0", "Q1", "-1", "+1", "1-", "1-01", "1 ", "1\n", "٣", "q1-2"),
        *(f"1-{NO_SLOT}", str(QUEUED), f"q{QUEUED}", "9" * 30),
    ],
)
def test_what_is_no_order_id_is_refused(text):
    with pytest.raises(FormatError, match="not an order id"):
        parse_order_id(text)
