"""What memory adds to the rows, and what the channel of a book shows."""

import random

import pytest

from api.gateway.books import BOOKED, WINDOW_LEVELS, BookMirror
from api.gateway.orders import ACCEPTED, CANCELED, FILL, SELL, OrderView
from api.gateway.recent import RecentOrders
from tests.unit.api.test_gateway_parts import event, registry


def view(number: int, account: int = 1) -> OrderView:
    return OrderView(event(ACCEPTED, order_id=number, sequence=number, account=account, leaves=5), 0, None)


def fill(order_id: int, sequence: int) -> tuple[int, ...]:
    return event(FILL, order_id=order_id, sequence=sequence, quantity=1, leaves=1)


def test_what_was_made_after_the_rows_is_listed_newest_first_and_by_account() -> None:
    recent = RecentOrders()
    for number in range(1, 7):
        recent.add(view(number, account=number % 2))
    assert [each.order_id for each in recent.created_after(1, 2)] == [5, 3]
    assert [each.order_id for each in recent.created_after(0, 0)] == [6, 4, 2]


def test_an_order_that_is_dropped_asks_for_rows_as_new_as_its_last_event() -> None:
    recent = RecentOrders(orders_max=2)
    first = view(1)
    recent.add(first)
    first.fold(event(FILL, order_id=1, sequence=9, quantity=1, leaves=4), 0, "9-1")
    recent.add(view(10))
    assert recent.complete_from == 0
    recent.add(view(11))
    assert recent.complete_from == 9
    assert recent.get(1) is None
    assert [each.order_id for each in recent.created_after(1, 0)] == [11, 10]


def test_an_event_that_is_dropped_asks_for_rows_that_have_it() -> None:
    recent = RecentOrders(events_max=2)
    for order_id, sequence in ((1, 5), (2, 6), (1, 7)):
        recent.unseen(fill(order_id, sequence), 0)  # type: ignore[arg-type]
    # The order that was quiet longest goes.
    assert recent.complete_from == 6
    assert [each.row[5] for each in recent.after(1, 0)] == [5, 7]
    assert recent.after(2, 0) == []


def test_events_that_the_rows_have_are_forgotten_and_only_those() -> None:
    recent = RecentOrders()
    for order_id, sequence in ((1, 5), (2, 6), (1, 7)):
        recent.unseen(fill(order_id, sequence), 0)  # type: ignore[arg-type]
    recent.forget(6)
    assert recent.after(2, 0) == []
    assert [each.row[5] for each in recent.after(1, 5)] == [7]
    recent.forget(7)
    assert recent.after(1, 0) == []
    assert recent.complete_from == 0


def test_after_missed_events_nothing_from_before_is_left() -> None:
    recent = RecentOrders()
    recent.add(view(1))
    recent.unseen(fill(2, 3), 0)  # type: ignore[arg-type]
    recent.restart(8)
    assert (len(recent), recent.created_after(1, 0), recent.after(2, 0)) == (0, [], [])
    assert recent.complete_from == 8


def test_an_order_that_is_adopted_has_no_events_of_its_own_left() -> None:
    recent = RecentOrders(events_max=1)
    recent.unseen(fill(1, 3), 0)  # type: ignore[arg-type]
    recent.adopt(view(1))
    assert recent.after(1, 0) == []
    recent.unseen(fill(2, 4), 0)  # type: ignore[arg-type]
    assert recent.complete_from == 0


@pytest.mark.parametrize("seed", range(4))
def test_deltas_keep_exactly_the_best_levels_however_deep_the_book_is(seed: int) -> None:
    """Rerun one: pytest tests/unit/api/test_recent.py -k "however_deep and <seed>"."""
    chance = random.Random(seed)
    book = BookMirror(registry().markets[1])
    resting: list[tuple[int, int]] = []
    shown: list[dict[str, tuple[str, int]]] = [{}, {}]
    book.show()
    deepest = 0
    for step in range(4_000):
        growing = step < 1_200 or 2_000 < step < 2_600
        if growing or not resting or chance.random() < 0.4:
            side = chance.randrange(2)
            price = 1_000 + (1 + chance.randrange(180)) * (1 if side else -1)
            resting.append((side, price))
            kind = ACCEPTED
        else:
            # The best go first, mostly: what lies behind them has to come into view.
            resting.sort(key=lambda each: abs(each[1] - 1_000))
            side, price = resting.pop(min(int(chance.expovariate(0.2)), len(resting) - 1))
            kind = CANCELED
        flags = BOOKED | (SELL if side else 0)
        book.fold(event(kind, flags=flags, price=price, quantity=3, leaves=3))
        if chance.random() < 0.7:
            for levels, rows in zip(shown, book.delta(), strict=True):
                for text, quantity, orders in rows:
                    levels[text] = (quantity, orders)
                    if orders == 0:
                        del levels[text]
            for each, levels in enumerate(shown):
                best = {row[0]: row[1:] for row in book.levels(each, WINDOW_LEVELS)}
                assert levels == best, f"seed {seed}, step {step}"
            deepest = max(deepest, len(book.levels(0, 1_000)))
    assert deepest > WINDOW_LEVELS
