"""Keys that the engine does not have at hand: ended in the queue, or used before it went away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.gateway import ended as module
from api.gateway.ended import EndedKeys
from api.gateway.errors import Problem
from api.gateway.models import NewOrder
from api.gateway.used import same_as_events, same_as_row
from api.gateway.validation import Command, new_command
from engine import Engine
from engine import commands as make
from engine.types import Reason
from persistence.postgres.errors import DatabaseUnavailable
from persistence.postgres.queries import OrderRow, OrderStatus
from persistence.postgres.submissions import Ended, Mode
from tests.unit.api.test_gateway_parts import registry

NOW = datetime.now(UTC)


class Rows:
    """A queue of which only what ended matters."""

    def __init__(self) -> None:
        self.ended_rows: list[Ended] = []
        self.now = Mode("LIVE", 0, 1)
        self.away = False
        self.reads = 0
        self.open = asyncio.Event()
        self.open.set()

    def end(self, key: str, *, body: int = 7, resolved: datetime = NOW, accepted: datetime = NOW) -> None:
        number = len(self.ended_rows) + 1
        self.ended_rows.append(Ended(1, key, body, number, accepted, resolved))
        self.now = Mode(self.now.mode, number, 1)

    async def mode(self) -> Mode:
        await self.open.wait()
        if self.away:
            raise DatabaseUnavailable("gone")
        return self.now

    async def ended(self, *, after: datetime | None, after_no: int, limit: int) -> list[Ended]:
        self.reads += 1
        first = (after or NOW - timedelta(days=1), after_no)
        rows = [row for row in self.ended_rows if (row.resolved_at, row.accepted_no) > first]
        return sorted(rows, key=lambda row: (row.resolved_at, row.accepted_no))[:limit]


@asynccontextmanager
async def following(rows: Rows, **options: Any) -> AsyncIterator[EndedKeys]:
    """A set that follows `rows`."""
    keys = EndedKeys(rows, **options)  # type: ignore[arg-type]
    task = asyncio.create_task(keys.run())
    yield keys
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    keys.release()


async def test_when_the_venue_opens_orders_wait_for_the_rows_and_go_on_in_order() -> None:
    rows = Rows()
    rows.open.clear()
    async with following(rows) as keys:
        keys.venue_opened()
        rows.end("k")
        seen: list[Any] = []
        for number in range(3):
            keys.hold(lambda number=number: seen.append((number, keys.find(1, "k") is not None)))  # type: ignore[misc]
        await asyncio.sleep(0.02)
        assert not seen and not keys.current
        rows.open.set()
        while not keys.current:
            await asyncio.sleep(0.01)
        assert seen == [(0, True), (1, True), (2, True)]


async def test_an_opening_while_the_rows_are_read_has_them_read_again() -> None:
    rows = Rows()
    async with following(rows) as keys:
        await asyncio.sleep(0.02)
        rows.open.clear()
        keys.venue_opened()
        await asyncio.sleep(0.02)
        keys.venue_opened()
        reads = rows.reads
        rows.open.set()
        while not keys.current:
            await asyncio.sleep(0.01)
        assert rows.reads == reads + 2


async def test_without_the_database_orders_wait_only_so_long() -> None:
    rows = Rows()
    rows.away = True
    async with following(rows, hold_s=0.05) as keys:
        keys.venue_opened()
        seen: list[int] = []
        keys.hold(lambda: seen.append(1))
        keys.hold(lambda: [][0])  # A work that fails costs the others nothing.
        keys.hold(lambda: seen.append(2))
        await asyncio.sleep(0.2)
        assert keys.current and seen == [1, 2]


async def test_what_may_be_held_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_MAX", 1)
    keys = EndedKeys(Rows())  # type: ignore[arg-type]
    keys.hold(lambda: None)
    with pytest.raises(Problem) as caught:
        keys.hold(lambda: None)
    assert caught.value.code == "overloaded"


async def test_the_rows_are_read_only_while_something_may_end_in_the_queue() -> None:
    rows = Rows()
    keys = EndedKeys(rows)  # type: ignore[arg-type]
    for _ in range(3):
        await keys._look()
    assert rows.reads == 1
    rows.end("k")
    await keys._look()
    assert rows.reads == 2 and keys.find(1, "k") is not None
    rows.now = Mode("QUEUE", 1, 1)
    for _ in range(2):
        await keys._look()
    assert rows.reads == 4
    rows.now = Mode("LIVE", 1, 1)
    for _ in range(3):
        await keys._look()
    assert rows.reads == 5


async def test_all_pages_are_read_and_what_shows_late_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 3)
    rows = Rows()
    for number in range(10):
        rows.end(f"k{number}")
    keys = EndedKeys(rows)  # type: ignore[arg-type]
    await keys.refresh()
    assert len(keys) == 10
    # Its transaction began before those that were seen, and ended after.
    rows.end("late", resolved=NOW - timedelta(seconds=5))
    await keys.refresh()
    assert keys.find(1, "late") is not None


async def test_a_key_is_kept_a_day_and_the_set_is_bounded() -> None:
    rows = Rows()
    rows.end("yesterday", accepted=NOW - timedelta(hours=24, seconds=1))
    for key in ("a", "b", "c"):
        rows.end(key)
    keys = EndedKeys(rows, kept_max=3)  # type: ignore[arg-type]
    await keys.refresh()
    assert keys.find(1, "yesterday") is None
    found = keys.find(1, "c")
    assert found is not None and (found.body, found.accepted_no) == (7, 4)
    assert keys.find(2, "c") is None
    rows.end("d")
    rows.end("e")
    await keys.refresh()
    assert len(keys) == 3 and keys.find(1, "a") is None and keys.find(1, "b") is None


# What the rows know of a key.


def command(**fields: Any) -> Command:
    order = {"symbol": "BTC/USDT", "side": "buy", "quantity": "1", "price": "10", **fields}
    return new_command(registry(), 1, NewOrder(idempotency_key="k", **order), "k")


OTHERS: list[dict[str, Any]] = [
    {"quantity": "2"},
    {"price": "11"},
    {"side": "sell"},
    {"client_order_id": "c"},
    {"time_in_force": "ioc"},
    {"post_only": True},
    {"type": "market"},
]


@pytest.mark.parametrize("change", [{}, *OTHERS])
def test_an_accepted_order_is_told_from_any_other_by_its_event(change: dict[str, Any]) -> None:
    first = accepted_event(post_only=False)
    assert same_as_events(command(**change), first, None) is (change == {})
    assert not same_as_events(command(**change), first, "another")


def accepted_event(*, post_only: bool) -> Any:
    """What the engine says to `command()`."""
    engine = Engine()
    opening = [make.open_asset(), make.open_asset(), make.open_account()]
    market = make.open_market(base_asset=1, quote_asset=2, tick_atoms=50, lot_atoms=100_000)
    money = make.deposit(account=1, asset=2, quantity=10**12, transaction_id=1)
    for each in (*opening, market, money):
        engine.apply(each)
    order = make.new(account=1, market=1, side=0, price=200, quantity=1000, flags=int(post_only))
    return engine.apply(order).tolist()[0]


def test_post_only_is_told_by_the_event_too() -> None:
    assert same_as_events(command(post_only=True), accepted_event(post_only=True), None)
    assert not same_as_events(command(), accepted_event(post_only=True), None)


def row(**fields: Any) -> OrderRow:
    values: dict[str, Any] = {
        "order_id": 9, "slot": 0, "account": 1, "market": 1, "side": 0, "order_type": 0, "time_in_force": 0,
        "post_only": False, "status": OrderStatus.NEW, "reason": 0, "price": 200, "quantity": 1000,
        "filled": 0, "leaves": 1000, "cancelled": 0, "notional": 0, "fee": 0, "client_order_id": None,
        "idempotency_key": "k", "created_sequence": 9, "updated_sequence": 9, "created_at": NOW,
        "updated_at": NOW, "priority": 9,
    }  # fmt: skip
    return OrderRow(**{**values, **fields})


@pytest.mark.parametrize("change", [{}, *OTHERS])
def test_an_order_that_did_not_change_is_told_from_any_other_by_its_row(change: dict[str, Any]) -> None:
    assert same_as_row(command(**change), row()) is (change == {})


def test_of_an_order_that_changed_the_row_does_not_tell_price_and_quantity() -> None:
    changed = row(quantity=900, leaves=900, updated_sequence=12)
    with pytest.raises(Problem) as caught:
        same_as_row(command(), changed)
    assert caught.value.code == "unknown_outcome"
    assert not same_as_row(command(side="sell"), changed)
    assert same_as_row(command(), row(updated_sequence=12))


def test_of_a_refused_order_type_and_time_in_force_are_not_told() -> None:
    kind = {"order_type": None, "time_in_force": None, "post_only": None}
    refused = row(status=OrderStatus.REJECTED, reason=int(Reason.INSUFFICIENT_FUNDS), **kind)
    assert same_as_row(command(), refused) and same_as_row(command(time_in_force="ioc"), refused)
    assert not same_as_row(command(quantity="2"), refused)
