"""Holds, fees, settlement, deposits and withdrawals."""

import pytest

from engine import commands as make
from engine.types import INT64_MAX, CommandType, EventType, OrderType, Reason, TimeInForce, VenueState
from tests.unit.engine.venue import BUY, FUNDS, SELL, Maker, Venue, fills, reason_of, types_of

MARKET = OrderType.MARKET


def fees(events: list[dict[str, int]]) -> list[int]:
    return [event["amount"] for event in events if event["type"] == EventType.FILL]


def test_the_worked_example_of_the_readme(open_venue: Maker) -> None:
    venue = open_venue(taker=1_500).fund()
    venue.rest(1, SELL, 100, 4)
    events = venue.new(2, BUY, 101, 10)
    assert fees(events) == [0, 1]
    assert venue.balance(2, 2) == (FUNDS - 401 - 607, 607)
    record = venue.engine.dump()["orders"][0]
    assert (record["fee_residue"], record["hold"]) == (400_000, 607)


def test_a_buy_holds_its_notional_and_the_higher_fee(open_venue: Maker) -> None:
    venue = open_venue(maker=2_000, taker=1_000, tick=3).fund()
    venue.rest(1, BUY, 100, 7)
    assert venue.balance(1, 2) == (FUNDS - 2_100 - 5, 2_105)


def test_a_sell_holds_base(open_venue: Maker) -> None:
    venue = open_venue(lot=50).fund()
    venue.rest(1, SELL, 100, 7)
    assert venue.balance(1, 1) == (FUNDS - 350, 350)


def test_what_is_held_cannot_be_held_twice(venue: Venue) -> None:
    venue.rest(1, BUY, 1, FUNDS)
    assert reason_of(venue.new(1, BUY, 1, 1)) == Reason.INSUFFICIENT_FUNDS
    venue.rest(1, SELL, 2, FUNDS)
    assert reason_of(venue.new(1, SELL, 2, 1)) == Reason.INSUFFICIENT_FUNDS


def test_the_fees_of_an_order_are_the_ceiling_of_their_sum(open_venue: Maker) -> None:
    """Ten fills of 10 at 1,500 ppm: 0.015 each, 0.15 together, charged as one atom once."""
    venue = open_venue(maker=1_500, taker=1_500).fund()
    venue.rest(1, SELL, 10, 10)
    charged = [fees(venue.new(2, BUY, 10, 1))[0] for _ in range(10)]
    assert charged == [1] + [0] * 9


def test_a_rebate_is_paid_from_the_takers_fee(open_venue: Maker) -> None:
    venue = open_venue(maker=-500, taker=1_000).fund()
    venue.rest(1, SELL, 1_000, 10)
    assert fees(venue.new(2, BUY, 1_000, 10)) == [-5, 10]
    assert venue.balance(1, 2) == (FUNDS + 10_000 + 5, 0)
    assert venue.balance(0, 2) == (5, 0)


def test_a_rebate_rounds_towards_the_venue(open_venue: Maker) -> None:
    venue = open_venue(maker=-500, taker=1_000).fund()
    venue.rest(1, SELL, 1, 10)
    assert fees(venue.new(2, BUY, 1, 10)) == [0, 1]


def test_settlement_moves_both_assets_and_the_fees(open_venue: Maker) -> None:
    venue = open_venue(maker=1_000, taker=2_000, lot=5).fund()
    venue.rest(1, BUY, 1_000, 10)
    venue.new(2, SELL, 900, 10)
    assert venue.balance(1, 1) == (FUNDS + 50, 0)
    assert venue.balance(1, 2) == (FUNDS - 10_000 - 10, 0)
    assert venue.balance(2, 1) == (FUNDS - 50, 0)
    assert venue.balance(2, 2) == (FUNDS + 10_000 - 20, 0)
    assert venue.balance(0, 2) == (30, 0)


def test_balances_are_reported_in_order_of_first_touch(open_venue: Maker) -> None:
    venue = open_venue(taker=1_000).fund()
    venue.rest(1, SELL, 100, 10)
    events = venue.new(2, BUY, 100, 10)
    touched = [(e["account"], e["market"]) for e in events if e["type"] == EventType.BALANCE]
    assert touched == [(2, 2), (2, 1), (1, 1), (1, 2), (0, 2)]
    assert [e["type"] for e in events[-5:]] == [EventType.BALANCE] * 5


def test_an_account_may_trade_with_itself(open_venue: Maker) -> None:
    venue = open_venue(maker=1_000, taker=2_000).fund()
    venue.rest(1, SELL, 1_000, 10)
    venue.new(1, BUY, 1_000, 10)
    assert venue.balance(1, 1) == (FUNDS, 0)
    assert venue.balance(1, 2) == (FUNDS - 30, 0)


def test_a_market_buy_without_a_price_spends_what_is_available(open_venue: Maker) -> None:
    venue = open_venue(taker=100_000)
    venue.deposit(1, 1, 100)
    venue.deposit(2, 2, 1_000)
    venue.rest(1, SELL, 100, 5)
    venue.rest(1, SELL, 150, 5)
    events = venue.new(2, BUY, 0, 10, order_type=MARKET)
    assert fills(events) == [(1, 100, 5), (1, 150, 2)], "550 and 330 are within 1,000, 165 more are not"
    last = next(event for event in events if event["type"] == EventType.CANCELED)
    assert (last["reason"], last["quantity"], last["amount"]) == (Reason.INSUFFICIENT_FUNDS, 3, 7)
    assert venue.balance(2, 2) == (120, 0)


def test_a_market_buy_without_money_trades_nothing(venue: Venue) -> None:
    venue.run(make.open_account())
    venue.rest(1, SELL, 100, 5)
    events = venue.new(4, BUY, 0, 1, order_type=MARKET)
    assert types_of(events) == [EventType.ACCEPTED, EventType.CANCELED]
    assert events[1]["reason"] == Reason.INSUFFICIENT_FUNDS


def test_a_market_buy_from_oneself_does_not_go_on_a_lot_at_a_time(open_venue: Maker) -> None:
    venue = open_venue()
    venue.deposit(1, 1, 1 << 50)
    venue.deposit(1, 2, 3)
    venue.rest(1, SELL, 1, 1 << 50)
    events = venue.new(1, BUY, 0, 1 << 50, order_type=MARKET)
    assert fills(events) == [(1, 1, 3)]
    assert events[3]["reason"] == Reason.INSUFFICIENT_FUNDS


@pytest.mark.parametrize("funds,filled", [(880, True), (879, False)])
def test_fill_or_kill_counts_the_money_of_a_market_buy(open_venue: Maker, funds: int, filled: bool) -> None:
    venue = open_venue(taker=100_000)
    venue.deposit(1, 1, 100)
    venue.deposit(2, 2, funds)
    venue.rest(1, SELL, 100, 5)
    venue.rest(1, SELL, 150, 5)
    events = venue.new(2, BUY, 0, 7, order_type=MARKET, time_in_force=TimeInForce.FOK)
    assert bool(fills(events)) == filled


def test_amounts_near_the_end_of_int64_are_exact(open_venue: Maker) -> None:
    venue = open_venue(maker=1_000_000, taker=1_000_000)
    price = (1 << 61) - 1
    venue.deposit(1, 1, 1)
    venue.deposit(2, 2, 2 * price)
    venue.rest(1, SELL, price, 1)
    events = venue.new(2, BUY, price, 1)
    assert fees(events) == [price, price]
    assert (venue.balance(2, 2), venue.balance(1, 2), venue.balance(0, 2)) == ((0, 0), (0, 0), (2 * price, 0))


def test_a_hold_beyond_int64_is_insufficient_funds(open_venue: Maker) -> None:
    venue = open_venue(taker=1_000_000)
    venue.deposit(1, 2, INT64_MAX)
    assert reason_of(venue.new(1, BUY, INT64_MAX, 1)) == Reason.INSUFFICIENT_FUNDS


def test_a_transaction_happens_once(venue: Venue) -> None:
    request = make.deposit(account=1, asset=1, quantity=5, transaction_id=1 << 90)
    events = venue.run(request)
    first = venue.engine.sequence
    assert types_of(events) == [EventType.DEPOSITED]
    assert (events[0]["account"], events[0]["market"], events[0]["quantity"]) == (1, 1, 5)
    again = venue.run(make.withdraw(account=2, asset=2, quantity=9, transaction_id=1 << 90))
    assert types_of(again) == [EventType.DUPLICATE]
    assert (again[0]["quantity"], again[0]["amount"]) == (first, CommandType.WITHDRAW)
    assert venue.balance(1, 1) == (FUNDS + 5, 0)


def test_a_rejected_transaction_does_not_use_up_its_id(venue: Venue) -> None:
    fields = {"account": 1, "asset": 1, "transaction_id": 5}
    assert reason_of(venue.run(make.withdraw(quantity=FUNDS + 1, **fields))) == Reason.INSUFFICIENT_FUNDS
    assert types_of(venue.run(make.withdraw(quantity=FUNDS, **fields))) == [EventType.WITHDRAWN]
    assert venue.balance(1, 1) == (0, 0)


@pytest.mark.parametrize(
    "change,reason",
    [
        ({"asset": 3}, Reason.UNKNOWN_ASSET),
        ({"asset": 0}, Reason.UNKNOWN_ASSET),
        ({"transaction_id": 0, "quantity": 0}, Reason.INVALID_IDENTIFIER),
        ({"quantity": 0}, Reason.INVALID_QUANTITY),
        ({"quantity": -5}, Reason.INVALID_QUANTITY),
    ],
)
@pytest.mark.parametrize("build", [make.deposit, make.withdraw])
def test_a_transfer_that_makes_no_sense(
    venue: Venue, build: object, change: dict[str, int], reason: Reason
) -> None:
    fields = {"account": 1, "asset": 1, "quantity": 1, "transaction_id": 5} | change
    assert reason_of(venue.run(build(**fields))) == reason


def test_deposits_of_an_asset_fit_int64(venue: Venue) -> None:
    room = INT64_MAX - 3 * FUNDS
    assert reason_of(venue.deposit(1, 1, room + 1)) == Reason.BALANCE_OVERFLOW
    assert types_of(venue.deposit(1, 1, room)) == [EventType.DEPOSITED]


def test_what_is_held_cannot_be_withdrawn(venue: Venue) -> None:
    venue.rest(1, BUY, 100, 10)
    request = make.withdraw(account=1, asset=2, quantity=FUNDS - 999, transaction_id=1)
    assert reason_of(venue.run(request)) == Reason.INSUFFICIENT_FUNDS


def test_a_halted_venue_takes_money_but_gives_none(venue: Venue) -> None:
    venue.run(make.set_venue_state(state=VenueState.HALTED))
    request = make.withdraw(account=1, asset=1, quantity=1, transaction_id=1)
    assert reason_of(venue.run(request)) == Reason.VENUE_HALTED
    assert types_of(venue.deposit(1, 1, 1)) == [EventType.DEPOSITED]


def test_a_suspended_account_may_cancel_and_withdraw_but_not_trade(venue: Venue) -> None:
    order = venue.rest(1, BUY, 100, 1)
    venue.run(make.set_account_state(account=1, state=1))
    assert reason_of(venue.new(1, BUY, 100, 1)) == Reason.ACCOUNT_SUSPENDED
    assert reason_of(venue.amend(order, quantity=5)) == Reason.ACCOUNT_SUSPENDED
    assert types_of(venue.cancel(order)) == [EventType.CANCELED]
    request = make.withdraw(account=1, asset=1, quantity=1, transaction_id=1)
    assert types_of(venue.run(request)) == [EventType.WITHDRAWN]
