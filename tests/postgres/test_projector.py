"""The projector writes what each event means, once, or nothing."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from engine import commands as make
from engine.types import (
    NO_SLOT,
    QUEUED,
    AccountState,
    CommandFlag,
    CommandType,
    MarketState,
    OrderType,
    Reason,
    TimeInForce,
    VenueState,
)
from persistence.postgres.errors import CursorMoved, DatabaseUnavailable, EventGap, StaleEpoch
from persistence.postgres.pool import Pool
from persistence.postgres.projector import Projector
from persistence.postgres.queries import OrderStatus, Queries
from persistence.postgres.reconcile import NotAtSequence, reconcile
from persistence.text import TextTag
from tests.postgres.venue import Venue

BUY, SELL = 0, 1


def order(account: int, side: int, price: int, quantity: int, **more: Any) -> Any:
    return make.new(account=account, market=1, side=side, price=price, quantity=quantity, **more)


class Case:
    """A venue, its projector, and one frame at a time through both."""

    def __init__(self, pool: Pool, **terms: int) -> None:
        self.pool = pool
        self.venue = Venue()
        self.projector = Projector(pool)
        self.queries = Queries(pool)
        self.terms = terms

    async def open(self) -> "Case":
        await self.projector.apply([self.venue.open(**self.terms)])
        return self

    async def do(self, *parts: Any, text: Any = None) -> int:
        """Apply, project; the first sequence of the frame."""
        frame = self.venue.apply(*parts, text=text)
        await self.projector.apply([frame])
        return frame.first_sequence

    async def fetch(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        async with self.pool.acquire() as connection:
            return [dict(row) for row in await connection.fetch(query, *arguments)]

    async def check(self) -> None:
        assert await reconcile(self.pool, self.venue.engine.dump()) == []


@pytest.fixture
async def case(pool: Pool) -> Case:
    return await Case(pool).open()


async def test_a_resting_order_is_new_with_its_terms_and_text(case: Case) -> None:
    text = [(0, TextTag.CLIENT_ORDER_ID, b"mine"), (0, TextTag.IDEMPOTENCY_KEY, "schlüssel".encode())]
    number = await case.do(order(1, BUY, 100, 7, flags=CommandFlag.POST_ONLY), text=text)
    row = await case.queries.order(number)
    assert row is not None
    assert (row.status, row.price, row.quantity, row.leaves, row.filled) == (OrderStatus.NEW, 100, 7, 7, 0)
    assert (row.side, row.order_type, row.time_in_force, row.post_only) == (BUY, 0, 0, True)
    assert (row.client_order_id, row.idempotency_key, row.public_id) == ("mine", "schlüssel", f"{number}-0")
    assert (row.created_sequence, row.updated_sequence, row.priority) == (number, number, number)
    assert row.created_at.timestamp() == pytest.approx(case.venue.frames[-1].time_ns / 1e9, abs=1e-5)
    assert await case.queries.order_by_client_id(1, "mine") == row
    assert await case.queries.order_by_key(1, "schlüssel") == row
    assert await case.queries.order_by_key(2, "schlüssel") is None
    assert await case.queries.open_orders(1) == [row]
    await case.check()


async def test_fills_over_several_batches_add_up_in_the_order_and_its_trades(pool: Pool) -> None:
    case = await Case(pool, maker_ppm=100_000, taker_ppm=300_000).open()
    maker = await case.do(order(1, SELL, 50, 10))
    first = await case.do(order(2, BUY, 60, 4))
    second = await case.do(order(3, BUY, 50, 6))
    row = await case.queries.order(maker)
    assert row is not None
    assert (row.status, row.filled, row.leaves, row.notional, row.fee) == (OrderStatus.FILLED, 10, 0, 500, 50)
    taker = await case.queries.order(first)
    assert taker is not None and (taker.status, taker.fee) == (OrderStatus.FILLED, 60)
    assert [(f.trade_id, f.price, f.quantity, f.fee, f.taker) for f in row.fills] == [
        (f"{first}-1", 50, 4, 20, False),
        (f"{second}-1", 50, 6, 30, False),
    ]
    assert [f.order_id for f in await case.queries.fills(1)] == [maker, maker]
    assert [t.trade_id for t in await case.queries.trades(1)] == [f"{second}-1", f"{first}-1"]
    assert await case.queries.open_orders(1) == []
    await case.check()


async def test_one_command_with_several_trades_numbers_them_from_one(case: Case) -> None:
    await case.do(order(1, SELL, 50, 2), order(2, SELL, 51, 2), order(1, SELL, 52, 2))
    number = await case.do(order(3, BUY, 52, 5))
    trades = await case.queries.trades(1)
    assert [(t.trade_id, t.price, t.quantity, t.taker_side) for t in trades] == [
        (f"{number}-3", 52, 1, BUY),
        (f"{number}-2", 51, 2, BUY),
        (f"{number}-1", 50, 2, BUY),
    ]
    page = await case.queries.fills(3, limit=2)
    rest = await case.queries.fills(3, before=(page[-1].sequence, page[-1].number, page[-1].side))
    assert [f.number for f in page + rest] == [3, 2, 1]
    await case.check()


async def test_a_trade_with_oneself_is_two_fills(case: Case) -> None:
    await case.do(order(1, SELL, 50, 2))
    await case.do(order(1, BUY, 50, 2))
    assert [(f.side, f.taker) for f in await case.queries.fills(1)] == [(SELL, False), (BUY, True)]
    await case.check()


async def test_a_partial_fill_then_rest_then_cancel_keeps_each_quantity(case: Case) -> None:
    await case.do(order(1, SELL, 50, 3))
    number = await case.do(order(2, BUY, 50, 10))
    row = await case.queries.order(number)
    assert row is not None and (row.status, row.filled, row.leaves) == (OrderStatus.PARTIALLY_FILLED, 3, 7)
    await case.do(make.cancel(account=2, order_id=number, slot=row.slot))
    row = await case.queries.order(number)
    assert row is not None
    assert (row.status, row.reason) == (OrderStatus.CANCELED, Reason.USER_REQUESTED)
    assert (row.quantity, row.filled, row.leaves, row.cancelled) == (10, 3, 0, 7)
    await case.check()


async def test_immediate_orders_say_why_they_ended(case: Case) -> None:
    await case.do(order(1, SELL, 50, 3))
    killed = await case.do(order(2, BUY, 50, 5, time_in_force=TimeInForce.FOK))
    ioc = await case.do(order(2, BUY, 50, 5, time_in_force=TimeInForce.IOC))
    market = await case.do(order(2, BUY, 0, 5, order_type=OrderType.MARKET))
    rows = [await case.queries.order(number) for number in (killed, ioc, market)]
    assert [(r.status, r.reason, r.filled, r.cancelled, r.slot) for r in rows if r] == [
        (OrderStatus.CANCELED, Reason.FOK_NOT_FILLABLE, 0, 5, NO_SLOT),
        (OrderStatus.CANCELED, Reason.IOC_REMAINDER, 3, 2, NO_SLOT),
        (OrderStatus.CANCELED, Reason.MARKET_REMAINDER, 0, 5, NO_SLOT),
    ]
    await case.check()


async def test_amends_change_terms_and_priority_as_the_engine_does(case: Case) -> None:
    number = await case.do(order(1, BUY, 50, 10))
    in_place = await case.do(make.amend(account=1, order_id=number, slot=0, quantity=6))
    row = await case.queries.order(number)
    assert row is not None
    assert (row.quantity, row.leaves, row.priority, row.updated_sequence) == (6, 6, number, in_place)
    moved = await case.do(make.amend(account=1, order_id=number, slot=0, price=55, quantity=8))
    row = await case.queries.order(number)
    assert row is not None
    assert (row.price, row.quantity, row.leaves, row.priority) == (55, 8, 8, moved)
    await case.do(order(2, SELL, 60, 3))
    crossed = await case.do(make.amend(account=1, order_id=number, slot=0, price=60))
    row = await case.queries.order(number)
    assert row is not None
    assert (row.status, row.filled, row.leaves, row.priority) == (OrderStatus.PARTIALLY_FILLED, 3, 5, crossed)
    await case.do(make.amend(account=1, order_id=number, slot=0, quantity=2))
    row = await case.queries.order(number)
    assert row is not None and (row.reason, row.cancelled) == (Reason.AMENDED_AWAY, 5)
    await case.check()


async def test_a_rejected_order_can_be_read_by_id_client_id_and_key(case: Case) -> None:
    text = [(0, TextTag.CLIENT_ORDER_ID, b"rich"), (0, TextTag.IDEMPOTENCY_KEY, b"k")]
    number = await case.do(order(1, BUY, 1_000_000, 5), text=text)
    row = await case.queries.order(number)
    assert row is not None and row.order_type is None
    assert (row.status, row.reason) == (OrderStatus.REJECTED, Reason.INSUFFICIENT_FUNDS)
    assert (row.quantity, row.price) == (5, 1_000_000)
    assert await case.queries.order_by_client_id(1, "rich") == row
    assert await case.queries.order_by_key(1, "k") == row
    later = await case.do(order(1, BUY, 10, 5), text=[(0, TextTag.CLIENT_ORDER_ID, b"rich")])
    newest = await case.queries.order_by_client_id(1, "rich")
    assert newest is not None and newest.order_id == later
    await case.check()


async def test_a_rejection_of_what_does_not_exist_is_stored(case: Case) -> None:
    huge = (1 << 64) - 1
    first = await case.do(
        make.new(account=4_000_000_000, market=9, side=0, price=1, quantity=-5),
        make.cancel(account=1, order_id=huge, slot=3),
        text=[(1, TextTag.IDEMPOTENCY_KEY, b"\xff\x00bad")],
    )
    refused, cancel = await case.queries.rejection(first), await case.queries.rejection(first + 1)
    assert refused is not None and cancel is not None
    assert (refused.account, refused.market, refused.quantity) == (4_000_000_000, 9, -5)
    assert (cancel.order_id, cancel.command, cancel.reason) == (None, CommandType.CANCEL, Reason.NOT_LIVE)
    assert cancel.idempotency_key == "\ufffd\ufffdbad"
    assert await case.queries.rejection_by_key(1, "\ufffd\ufffdbad") == cancel


async def test_definitions_name_what_was_opened(pool: Pool) -> None:
    case = Case(pool)
    first = await case.do(
        make.open_asset(asset=np.array([1, 2, 3])),
        make.open_market(base_asset=1, quote_asset=2, tick_atoms=5, lot_atoms=7, taker_fee_ppm=30),
        make.open_account(),
        make.add_key(key_hash=bytes(range(32)), scopes=3, account=1, expire_time_ns=77),
        text=[
            (0, TextTag.DEFINITION, b'{"symbol": "BTC", "decimals": 8}'),
            (1, TextTag.DEFINITION, b"not json"),
            (2, TextTag.DEFINITION, b'{"symbol": "nul\\u0000", "decimals": 8000}'),
            (3, TextTag.DEFINITION, b'{"symbol": "BTC/USDT", "tick_size": "0.01", "lot_size": "0.00001"}'),
            (4, TextTag.DEFINITION, b'{"name": "alice"}'),
            (5, TextTag.DEFINITION, b'{"name": "laptop", "prefix": "hf_ab"}'),
        ],
    )
    assets = await case.fetch("SELECT asset, symbol, decimals FROM assets ORDER BY asset")
    assert [tuple(row.values()) for row in assets] == [(1, "BTC", 8), (2, "ASSET2", 0), (3, "nul\ufffd", 0)]
    [market] = await case.fetch("SELECT * FROM markets")
    assert (market["symbol"], str(market["tick_size"]), str(market["lot_size"])) == (
        "BTC/USDT",
        "0.01",
        "0.00001",
    )
    assert (market["tick_atoms"], market["lot_atoms"], market["taker_fee_ppm"]) == (5, 7, 30)
    assert market["opened_sequence"] == first + 3
    [alice] = await case.fetch("SELECT name FROM accounts WHERE account = 1")
    [key] = await case.fetch("SELECT * FROM api_keys")
    assert (alice["name"], key["name"], key["hash"]) == ("alice", "laptop", bytes(range(32)))
    assert (key["account"], key["scopes"], key["expire_time_ns"], key["revoked_sequence"]) == (1, 3, 77, 0)
    revoked = await case.do(make.revoke_key(key_hash=bytes(range(32))))
    [key] = await case.fetch("SELECT * FROM api_keys")
    assert key["revoked_sequence"] == revoked
    await case.check()


async def test_states_and_transactions_are_rows(case: Case) -> None:
    first = await case.do(
        make.set_market_state(market=1, state=MarketState.POST_ONLY),
        make.set_account_state(account=2, state=AccountState.SUSPENDED),
        make.deposit(account=1, asset=2, quantity=11, transaction_id=5),
        make.withdraw(account=1, asset=2, quantity=4, transaction_id=6),
        make.set_venue_state(state=VenueState.CANCEL_ONLY),
        text=[(2, TextTag.TRANSACTION_ID, b"tx-5")],
    )
    rows = await case.fetch(
        "SELECT sequence, kind, quantity, transaction_id FROM transactions WHERE sequence >= $1 ORDER BY 1",
        first,
    )
    assert [tuple(row.values()) for row in rows] == [
        (first + 2, "DEPOSIT", 11, "tx-5"),
        (first + 3, "WITHDRAWAL", 4, None),
    ]
    assert (await case.queries.as_of()).venue_state == VenueState.CANCEL_ONLY
    await case.check()


async def test_one_large_batch_comes_to_the_same_rows_as_many_small_ones(case: Case) -> None:
    """All of an order's life in one batch is one insert; here it meets the same checks."""
    venue = Venue()
    venue.open()
    for step in range(60):
        venue.apply(order(1 + step % 3, step % 2, 50 + step % 5, 1 + step % 7))
        if step % 4 == 3:
            live = venue.engine.dump()["orders"][0]
            venue.apply(
                make.cancel(
                    account=int(live["account"]), order_id=int(live["order_id"]), slot=int(live["slot"])
                )
            )
    venue.frames = venue.frames[1:]
    await case.projector.apply(venue.frames)
    assert await reconcile(case.pool, venue.engine.dump()) == []
    [sums] = await case.fetch(
        """SELECT count(*) FROM orders o
             LEFT JOIN (SELECT order_id, sum(quantity) AS filled, sum(price::numeric * quantity) AS notional,
                               sum(fee) AS fee FROM fills GROUP BY order_id) f USING (order_id)
            WHERE (o.filled, o.notional, o.fee)
                  IS DISTINCT FROM (COALESCE(f.filled, 0), COALESCE(f.notional, 0), COALESCE(f.fee, 0))"""
    )
    assert sums["count"] == 0


@pytest.mark.parametrize("in_one_batch", [False, True])
async def test_a_notional_beyond_64_bits_is_kept_exactly(pool: Pool, in_one_batch: bool) -> None:
    """One lot sold far above the limit, then seven at the limit, paid with the same money again."""
    unit = 1 << 60
    venue = Venue()
    venue.open(accounts=2, funds=3 * unit)

    def hand_over(amount: int, giver: int, taker: int) -> None:
        name = int(venue.engine.sequence) + 1_000_000
        venue.apply(
            make.withdraw(account=giver, asset=2, quantity=amount, transaction_id=name),
            make.deposit(account=taker, asset=2, quantity=amount, transaction_id=name + 1),
        )

    hand_over(3 * unit, 1, 2)
    venue.apply(order(2, BUY, 6 * unit, 1))
    sold = venue.apply(order(1, SELL, unit - 1, 8)).first_sequence
    for lots in (3, 4):
        hand_over(lots * unit, 1, 2)
        venue.apply(order(2, BUY, unit - 1, lots))
    projector = Projector(pool)
    for frames in [venue.frames] if in_one_batch else [[frame] for frame in venue.frames]:
        await projector.apply(frames)
    row = await Queries(pool).order(sold)
    assert row is not None and (row.status, row.filled) == (OrderStatus.FILLED, 8)
    assert row.notional == 6 * unit + 7 * (unit - 1) > 1 << 63
    assert await reconcile(pool, venue.engine.dump()) == []


async def test_frames_given_again_are_skipped(case: Case) -> None:
    await case.do(order(1, BUY, 50, 10))
    again = Projector(case.pool)
    cursor = await again.apply(case.venue.frames)
    assert cursor.sequence == case.venue.engine.sequence
    await case.check()


async def test_a_gap_is_refused_and_nothing_is_written(case: Case) -> None:
    before = await case.projector.cursor()
    case.venue.apply(order(1, BUY, 50, 10))
    missed = case.venue.apply(order(1, BUY, 50, 10))
    with pytest.raises(EventGap):
        await case.projector.apply([missed])
    miscounted = dataclasses.replace(case.venue.frames[-2], event_number=before.event_number + 2)
    with pytest.raises(EventGap):
        await case.projector.apply([miscounted])
    assert await case.projector.cursor() == before


async def test_a_lower_epoch_is_refused(case: Case) -> None:
    await case.do(make.start(epoch=5), make.set_venue_state(state=VenueState.OPEN))
    frame = case.venue.apply(order(1, BUY, 50, 10))
    with pytest.raises(StaleEpoch):
        await case.projector.apply([dataclasses.replace(frame, epoch=4)])
    assert await case.queries.open_orders(1) == []
    await case.projector.apply([frame])
    await case.check()


async def test_of_two_projectors_at_once_one_writes_and_the_other_is_told(case: Case) -> None:
    other = Projector(case.pool)
    await other.cursor()
    frame = case.venue.apply(order(1, BUY, 50, 10))
    results = await asyncio.gather(
        case.projector.apply([frame]), other.apply([frame]), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["CursorMoved", "Cursor"][::-1]
    assert any(isinstance(result, CursorMoved) for result in results)
    await case.check()


async def test_a_failure_late_in_the_batch_leaves_no_row_and_no_cursor(case: Case) -> None:
    before = await case.projector.cursor()
    frame = case.venue.apply(order(1, BUY, 50, 10))
    async with case.pool.acquire() as connection:
        await connection.execute("ALTER TABLE outbox ADD CONSTRAINT broken CHECK (epoch < 0) NOT VALID")
    with pytest.raises(Exception, match="broken"):
        await case.projector.apply([frame])
    assert await case.projector.cursor() == before
    assert await case.queries.open_orders(1) == []


async def test_a_lost_answer_to_a_commit_is_found_out_by_the_cursor(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is committed, the connection breaks, nobody says so: neither written twice nor given up."""
    honest = case.pool.transaction
    losses = 0

    @asynccontextmanager
    async def loses_the_answer() -> AsyncIterator[Any]:
        nonlocal losses
        async with honest() as connection:
            yield connection
        losses += 1
        if losses == 1:
            raise DatabaseUnavailable("the connection was lost during COMMIT")

    monkeypatch.setattr(case.pool, "transaction", loses_the_answer)
    first = await case.do(order(1, BUY, 50, 10))
    await case.do(make.cancel(account=1, order_id=first, slot=0))
    assert losses == 2, "a batch that was committed must not be written again"
    monkeypatch.undo()
    await case.check()


async def test_rows_of_another_history_are_noticed(case: Case) -> None:
    number = await case.do(order(1, BUY, 50, 10))
    async with case.pool.acquire() as connection:
        await connection.execute("DELETE FROM orders")
    frame = case.venue.apply(make.cancel(account=1, order_id=number, slot=0))
    with pytest.raises(EventGap, match="not of this event log"):
        await case.projector.apply([frame])


async def test_reconciliation_finds_each_kind_of_difference(case: Case) -> None:
    first = await case.do(order(1, BUY, 50, 10), order(2, SELL, 60, 5), order(1, BUY, 40, 1))
    await case.check()
    async with case.pool.acquire() as connection:
        await connection.execute("DELETE FROM orders WHERE order_id = $1", first)
        await connection.execute("UPDATE orders SET price = 61 WHERE order_id = $1", first + 1)
        await connection.execute("UPDATE balances SET held = held + 1 WHERE account = 2 AND asset = 1")
        await connection.execute("INSERT INTO accounts VALUES (9, 'x', 0, '{}', 1, now())")
    found = await reconcile(case.pool, case.venue.engine.dump())
    assert {(m.section, m.key, m.field) for m in found} == {
        ("orders", (first,), "missing row"),
        ("orders", (first + 1,), "price"),
        ("balances", (2, 1), "held"),
        ("accounts", (9,), "row too many"),
    }
    case.venue.apply(order(1, BUY, 50, 10))
    with pytest.raises(NotAtSequence):
        await reconcile(case.pool, case.venue.engine.dump())


async def test_the_outbox_holds_each_event_once_under_a_stable_number(case: Case) -> None:
    await case.do(make._build(CommandType.TICK))
    await case.do(order(1, BUY, 50, 10))
    rows = await case.fetch("SELECT * FROM outbox ORDER BY event_number")
    assert b"".join(row["events"] for row in rows) == b"".join(f.events.tobytes() for f in case.venue.frames)
    number = 1
    for row in rows:
        assert row["event_number"] == number
        number += row["event_count"]
    assert await case.projector.prune_outbox() == 0
    async with case.pool.acquire() as connection:
        await connection.execute("UPDATE outbox SET written_at = now() - interval '1 hour'")
        await connection.execute("INSERT INTO outbox_consumers VALUES ('feed', $1)", rows[0]["event_count"])
    assert await case.projector.prune_outbox() == 1
    assert await case.projector.prune_outbox(keep_s_max=1) == len(rows) - 1


async def test_queued_orders_keep_their_own_name(case: Case) -> None:
    await case.do(make.new(account=1, market=1, side=BUY, price=5, quantity=1, accepted_no=7))
    row = await case.queries.order(QUEUED | 7)
    assert row is not None and row.public_id == "q7"
    await case.check()


# Reads beside a projector.


class Interrupted:
    """A pool whose connections let something happen after their first statement."""

    def __init__(self, pool: Pool, between: Callable[[], Awaitable[object]]) -> None:
        self._pool = pool
        self._between: Callable[[], Awaitable[object]] | None = between

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        async with self._pool.acquire() as connection:
            yield InterruptedConnection(connection, self)

    async def after_statement(self) -> None:
        between, self._between = self._between, None
        if between is not None:
            await between()


class InterruptedConnection:
    """Its `fetch` is followed by what the pool wants done."""

    def __init__(self, connection: Any, pool: Interrupted) -> None:
        self._connection = connection
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def fetch(self, *arguments: Any) -> list[Any]:
        rows = await self._connection.fetch(*arguments)
        await self._pool.after_statement()
        return list(rows)


async def test_an_order_and_its_fills_are_of_one_moment_though_a_trade_is_written_between(
    case: Case, pool: Pool
) -> None:
    maker = await case.do(order(1, SELL, 50, 10))
    await case.do(order(2, BUY, 50, 4))

    async def trade() -> None:
        await case.do(order(3, BUY, 50, 3))

    row = await Queries(Interrupted(pool, trade)).order(maker)  # type: ignore[arg-type]
    assert row is not None
    assert (row.filled, [fill.quantity for fill in row.fills]) == (4, [4])
    page = await Queries(Interrupted(pool, trade)).open_orders(1)  # type: ignore[arg-type]
    assert [(each.filled, sum(fill.quantity for fill in each.fills)) for each in page] == [(7, 7)]
    row = await case.queries.order(maker)
    assert row is not None
    assert (row.filled, [fill.quantity for fill in row.fills]) == (10, [4, 3, 3])


async def test_balances_are_of_the_sequence_that_is_named_with_them(case: Case, pool: Pool) -> None:
    await case.do(order(1, SELL, 50, 2))
    before = await case.queries.as_of()

    async def trade() -> None:
        await case.do(order(2, BUY, 50, 2))

    balances, as_of = await Queries(Interrupted(pool, trade)).balances(1)  # type: ignore[arg-type]
    assert as_of.sequence == before.sequence
    assert max(row.sequence for row in balances) <= as_of.sequence
    after, later = await case.queries.balances(1)
    assert later.sequence > before.sequence
    assert after != balances


async def test_orders_of_the_queue_are_listed_by_their_number_and_apart_from_the_others(case: Case) -> None:
    direct = await case.do(order(1, SELL, 60, 1))
    for number in (3, 7, 9):
        await case.do(order(1, SELL, 50 + number, 1, accepted_no=number))
    rows = await case.queries.open_queued_orders(1, limit=2)
    assert [row.order_id for row in rows] == [QUEUED | 3, QUEUED | 7]
    rows = await case.queries.open_queued_orders(1, after=7)
    assert [row.order_id for row in rows] == [QUEUED | 9]
    assert [row.order_id for row in await case.queries.open_orders(1)] == [direct]
