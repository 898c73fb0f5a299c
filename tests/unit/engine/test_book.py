"""`Book`: the engine's events without accounts and money."""

import numpy as np
import pytest

from engine import Engine
from engine import commands as make
from engine.book import Book
from engine.types import INT64_MAX, ORDERS_MAX, EventType, Reason
from tests.unit.engine.test_state import trouble
from tests.unit.engine.venue import BUY, Venue, as_dicts, fills, reason_of


def test_it_gives_the_events_of_an_engine_with_boundless_funds() -> None:
    venue = Venue(Engine).fund(1 << 50)
    book = Book()
    offset = venue.engine.sequence
    batch = trouble(seed=1, count=2_000)
    in_engine = venue.engine.apply(batch)
    in_engine = in_engine[in_engine["type"] != EventType.BALANCE]
    in_book = book.apply(batch).copy()
    by_sequence = in_book["order_id"] != 0
    in_book["sequence"] += offset
    in_book["order_id"][by_sequence] += offset
    assert in_book.tobytes() == in_engine.tobytes()
    for ours, theirs in zip(book.depth(1), venue.engine.depth(1), strict=True):
        assert ours.tobytes() == theirs.tobytes()


def test_markets_are_apart() -> None:
    book = Book(markets=3)
    sells = make.new(account=1, market=[1, 2, 3], side=1, price=[10, 11, 12], quantity=5)
    book.apply(sells)
    events = as_dicts(book.apply(make.new(account=2, market=2, side=BUY, price=50, quantity=9)))
    assert fills(events) == [(1, 11, 5)]
    assert [len(book.depth(market)[1]) for market in (1, 2, 3)] == [1, 0, 1]
    assert reason_of(as_dicts(book.apply(make.new(account=1, market=4, side=0, price=1, quantity=1)))) == (
        Reason.UNKNOWN_MARKET
    )


def test_no_levels_total_can_overflow() -> None:
    book = Book()
    most = INT64_MAX // ORDERS_MAX
    events = book.apply(make.new(account=1, market=1, side=0, price=1, quantity=[most, most + 1]))
    assert events["reason"].tolist() == [Reason.NONE, Reason.OVERFLOW]


def test_it_knows_orders_only() -> None:
    events = as_dicts(Book().apply(make.open_account()))
    assert reason_of(events) == Reason.UNKNOWN_COMMAND


@pytest.mark.parametrize("markets", [0, -1, 100_001])
def test_a_number_of_markets_that_makes_no_sense(markets: int) -> None:
    with pytest.raises(ValueError, match="markets"):
        Book(markets)


def test_a_deep_book_is_searched_from_both_ends() -> None:
    """Every other price, then the ones between, then cancels at random: depth stays sorted."""
    book = Book()
    prices = np.concatenate([np.arange(1, 2_000, 2), np.arange(2_000, 0, -2)])
    events = book.apply(make.new(account=1, market=1, side=0, price=prices, quantity=1))
    assert book.depth(1)[0]["price"].tolist() == list(range(2_000, 0, -1))
    gone = np.random.default_rng(5).permutation(len(events))[:1_500]
    book.apply(make.cancel(account=1, order_id=events["order_id"][gone], slot=events["slot"][gone]))
    left = np.delete(prices, gone)
    assert book.depth(1)[0]["price"].tolist() == sorted(left.tolist(), reverse=True)
