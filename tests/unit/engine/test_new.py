"""NEW: the order of its checks, price-time priority, and each time in force."""

import pytest

from engine import commands as make
from engine.types import (
    INT64_MAX,
    NO_SLOT,
    QUEUED,
    AccountState,
    CommandFlag,
    CommandType,
    EventFlag,
    EventType,
    MarketState,
    OrderType,
    Reason,
    TimeInForce,
    VenueState,
)
from tests.unit.engine.venue import BUY, SELL, Maker, Venue, fills, reason_of, types_of, without_balances

POST_ONLY = CommandFlag.POST_ONLY
MARKET = OrderType.MARKET
GTC, IOC, FOK = TimeInForce


def test_the_checks_come_in_the_order_of_the_readme(venue: Venue) -> None:
    """All that can be wrong at once; each reason goes away when its cause does."""
    taken = venue.rest(3, SELL, 100, 1, client_id=77)
    venue.rest(1, BUY, 10, 1, client_id=77)
    fields = {
        "account": 1,
        "market": 9,
        "side": 2,
        "order_type": 2,
        "time_in_force": 3,
        "flags": POST_ONLY | 16,
        "quantity": 0,
        "price": -1,
        "client_id": 77,
    }
    state = make.set_market_state
    causes = [
        (Reason.VENUE_HALTED, VenueState.HALTED, {}),
        (Reason.VENUE_CANCEL_ONLY, VenueState.CANCEL_ONLY, {}),
        (Reason.ACCOUNT_SUSPENDED, make.set_account_state(account=1, state=AccountState.SUSPENDED), {}),
        (Reason.UNKNOWN_MARKET, make.set_account_state(account=1, state=AccountState.ACTIVE), {}),
        (Reason.MARKET_HALTED, state(market=1, state=MarketState.HALTED), {"market": 1}),
        (Reason.MARKET_CANCEL_ONLY, state(market=1, state=MarketState.CANCEL_ONLY), {}),
        (Reason.MARKET_POST_ONLY, state(market=1, state=MarketState.POST_ONLY), {"flags": 16}),
        (Reason.INVALID_SIDE, state(market=1, state=MarketState.OPEN), {}),
        (Reason.INVALID_ORDER_TYPE, None, {"side": BUY}),
        (Reason.INVALID_TIME_IN_FORCE, None, {"order_type": OrderType.LIMIT}),
        (Reason.INVALID_FLAGS, None, {"time_in_force": GTC}),
        (Reason.INVALID_QUANTITY, None, {"flags": POST_ONLY}),
        (Reason.INVALID_PRICE, None, {"quantity": INT64_MAX}),
        (Reason.OVERFLOW, None, {"price": 100}),
        (Reason.DUPLICATE_CLIENT_ORDER_ID, None, {"quantity": 1_000_000}),
        (Reason.POST_ONLY_WOULD_CROSS, None, {"client_id": 78}),
        (Reason.INSUFFICIENT_FUNDS, None, {"price": 99}),
    ]
    for reason, change, correction in causes:
        if isinstance(change, VenueState):
            change = make.set_venue_state(state=change)
        if change is not None:
            venue.run(change)
        if reason == Reason.ACCOUNT_SUSPENDED:
            venue.run(make.set_venue_state(state=VenueState.OPEN))
        fields |= correction
        assert reason_of(venue.run(make.new(**fields))) == reason
    assert types_of(venue.run(make.new(**fields | {"quantity": 10}))) == [EventType.ACCEPTED]
    assert venue.asks() == [(100, 1, 1)] and taken["slot"] == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"flags": POST_ONLY, "time_in_force": IOC},
        {"flags": POST_ONLY, "time_in_force": FOK},
        {"flags": POST_ONLY, "order_type": MARKET},
        {"flags": CommandFlag.LEAVES},
        {"flags": 16},
        {"flags": 1 << 15},
    ],
)
def test_flags_that_make_no_sense_are_refused(venue: Venue, fields: dict[str, int]) -> None:
    assert reason_of(venue.new(1, BUY, 100, 1, **fields)) == Reason.INVALID_FLAGS


@pytest.mark.parametrize("field", ["self_trade", "trigger_price", "expire_time_ns"])
def test_fields_of_later_order_types_are_refused(venue: Venue, field: str) -> None:
    command = make.new(account=1, market=1, side=BUY, price=1, quantity=1)
    command[field] = 1
    assert reason_of(venue.run(command)) == Reason.INVALID_FLAGS


def test_overflow_is_a_rejection_of_base_and_of_notional(open_venue: Maker) -> None:
    venue = open_venue(tick=1 << 20, lot=1 << 20).fund()
    assert reason_of(venue.new(1, SELL, 1, 1 << 43)) == Reason.OVERFLOW
    assert reason_of(venue.new(1, BUY, 1 << 40, 1 << 3)) == Reason.OVERFLOW
    assert reason_of(venue.new(1, BUY, INT64_MAX, INT64_MAX)) == Reason.OVERFLOW
    assert reason_of(venue.new(1, BUY, 1 << 39, 1 << 3)) == Reason.INSUFFICIENT_FUNDS


def test_a_rejection_repeats_what_was_asked(venue: Venue) -> None:
    event = venue.new(1, SELL, 0, 5, accepted_no=9)[0]
    assert (event["order_id"], event["slot"], event["flags"]) == (QUEUED | 9, NO_SLOT, EventFlag.SELL)
    assert (event["price"], event["quantity"], event["leaves"]) == (0, 5, 0)
    assert event["amount"] == CommandType.NEW


def test_an_order_that_meets_nothing_is_accepted_and_booked(venue: Venue) -> None:
    events = without_balances(venue.new(1, BUY, 100, 5, flags=POST_ONLY))
    assert types_of(events) == [EventType.ACCEPTED]
    event = events[0]
    assert (event["flags"], event["slot"]) == (EventFlag.BOOKED, 0)
    assert (event["order_id"], event["quantity"], event["leaves"]) == (venue.engine.sequence, 5, 5)
    assert event["amount"] == POST_ONLY << 32
    assert venue.bids() == [(100, 5, 1)]


def test_best_price_first_then_first_come(venue: Venue) -> None:
    venue.rest(1, SELL, 102, 5)
    venue.rest(1, SELL, 101, 5)
    venue.rest(2, SELL, 101, 5)
    venue.rest(3, SELL, 100, 5)
    events = venue.new(3, BUY, 101, 12)
    assert fills(events) == [(3, 100, 5), (1, 101, 5), (2, 101, 2)]
    assert venue.asks() == [(101, 3, 1), (102, 5, 1)]


def test_prices_may_be_any_distance_apart(kind: type) -> None:
    venue = Venue(kind).fund(INT64_MAX // 4)
    far = 1 << 60
    for price in (1, far, 7, far - 1):
        venue.rest(1, SELL, price, 1)
    assert [level[0] for level in venue.asks()] == [1, 7, far - 1, far]
    assert fills(venue.new(2, BUY, 0, 3, order_type=MARKET)) == [(1, 1, 1), (1, 7, 1), (1, far - 1, 1)]


def test_the_makers_fill_comes_before_the_takers(venue: Venue) -> None:
    maker = venue.rest(1, SELL, 100, 5)
    _, first, second = without_balances(venue.new(2, BUY, 105, 3))
    assert (first["account"], first["flags"]) == (1, EventFlag.SELL | EventFlag.BOOKED)
    assert (first["price"], first["quantity"], first["leaves"]) == (100, 3, 2)
    assert first["order_id"] == maker["order_id"]
    assert (second["account"], second["flags"]) == (2, EventFlag.TAKER)
    assert (second["price"], second["quantity"], second["leaves"]) == (100, 3, 0)


def test_the_rest_of_a_limit_order_rests(venue: Venue) -> None:
    venue.rest(1, SELL, 100, 5)
    events = without_balances(venue.new(2, BUY, 101, 8))
    assert types_of(events) == [EventType.ACCEPTED, EventType.FILL, EventType.FILL, EventType.RESTED]
    assert events[0]["flags"] == 0
    assert (events[-1]["flags"], events[-1]["quantity"], events[-1]["leaves"]) == (EventFlag.BOOKED, 3, 3)
    assert venue.bids() == [(101, 3, 1)] and venue.asks() == []


def test_a_partial_fill_keeps_its_place(venue: Venue) -> None:
    venue.rest(1, SELL, 100, 5)
    venue.rest(2, SELL, 100, 5)
    venue.new(3, BUY, 100, 2)
    assert fills(venue.new(3, BUY, 100, 5)) == [(1, 100, 3), (2, 100, 2)]


@pytest.mark.parametrize(
    "order_type,time_in_force,price,reason",
    [
        (OrderType.LIMIT, IOC, 100, Reason.IOC_REMAINDER),
        (MARKET, GTC, 0, Reason.MARKET_REMAINDER),
        (MARKET, GTC, 100, Reason.MARKET_REMAINDER),
        (MARKET, IOC, 0, Reason.MARKET_REMAINDER),
    ],
)
def test_what_may_not_rest_is_cancelled(
    venue: Venue, order_type: int, time_in_force: int, price: int, reason: Reason
) -> None:
    venue.rest(1, SELL, 100, 5)
    events = without_balances(venue.new(2, BUY, price, 8, order_type=order_type, time_in_force=time_in_force))
    assert types_of(events) == [EventType.ACCEPTED, EventType.FILL, EventType.FILL, EventType.CANCELED]
    last = events[-1]
    assert (last["reason"], last["quantity"], last["leaves"], last["amount"]) == (reason, 3, 0, 5)
    assert (last["slot"], last["flags"]) == (NO_SLOT, 0)
    assert venue.balance(2, 2)[1] == 0


@pytest.mark.parametrize("order_type,price", [(OrderType.LIMIT, 101), (MARKET, 101), (MARKET, 0)])
def test_fill_or_kill_fills_whole(venue: Venue, order_type: int, price: int) -> None:
    venue.rest(1, SELL, 100, 5)
    venue.rest(1, SELL, 101, 5)
    events = venue.new(2, BUY, price, 10, order_type=order_type, time_in_force=FOK)
    assert fills(events) == [(1, 100, 5), (1, 101, 5)]


@pytest.mark.parametrize("order_type,price", [(OrderType.LIMIT, 100), (MARKET, 100), (MARKET, 0)])
def test_fill_or_kill_or_nothing(venue: Venue, order_type: int, price: int) -> None:
    venue.rest(1, SELL, 100, 5)
    if price:
        venue.rest(1, SELL, 101, 5)
    events = venue.new(2, BUY, price, 6, order_type=order_type, time_in_force=FOK)
    assert types_of(events) == [EventType.ACCEPTED, EventType.CANCELED]
    assert events[1]["reason"] == Reason.FOK_NOT_FILLABLE
    assert len(events) == 2, "no balance differs from before"


def test_post_only_may_join_but_not_take(venue: Venue) -> None:
    venue.rest(1, SELL, 100, 5)
    assert reason_of(venue.new(2, BUY, 100, 1, flags=POST_ONLY)) == Reason.POST_ONLY_WOULD_CROSS
    venue.rest(2, BUY, 99, 1, flags=POST_ONLY)


def test_a_client_id_is_unique_while_live_and_per_account(venue: Venue) -> None:
    order = venue.rest(1, BUY, 100, 1, client_id=5)
    assert reason_of(venue.new(1, BUY, 99, 1, client_id=5)) == Reason.DUPLICATE_CLIENT_ORDER_ID
    venue.rest(2, BUY, 99, 1, client_id=5)
    venue.cancel(order)
    venue.rest(1, BUY, 100, 1, client_id=5)
    venue.new(3, SELL, 100, 1)
    venue.rest(1, BUY, 100, 1, client_id=5)


def test_an_order_takes_the_lowest_free_slot_even_if_it_fills(venue: Venue) -> None:
    orders = [venue.rest(1, SELL, 100 + at, 1) for at in range(70)]
    assert [order["slot"] for order in orders] == list(range(70))
    venue.cancel(orders[3])
    venue.cancel(orders[65])
    taker = venue.new(2, BUY, 100, 1)[0]
    assert taker["slot"] == 3
    assert [venue.rest(2, BUY, 1, 1)["slot"] for _ in range(4)] == [0, 3, 65, 70]
    assert venue.new(2, BUY, 1, 1, time_in_force=IOC)[0]["slot"] == NO_SLOT
