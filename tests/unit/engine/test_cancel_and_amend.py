"""CANCEL and AMEND: how an order is named, what keeps priority, what may trade."""

import pytest

from engine import commands as make
from engine.types import (
    INT64_MAX,
    NO_SLOT,
    QUEUED,
    CommandFlag,
    CommandType,
    EventFlag,
    EventType,
    MarketState,
    Reason,
)
from tests.unit.engine.venue import (
    BUY,
    FUNDS,
    SELL,
    Maker,
    Venue,
    fills,
    reason_of,
    types_of,
    without_balances,
)

LEAVES, REDUCE, REQUEUE = CommandFlag.LEAVES, CommandFlag.REDUCE, CommandFlag.REQUEUE


def test_a_cancel_releases_the_hold(venue: Venue) -> None:
    order = venue.rest(1, SELL, 100, 5)
    venue.new(2, BUY, 100, 2)
    event = without_balances(venue.cancel(order))[0]
    assert (event["type"], event["reason"]) == (EventType.CANCELED, Reason.USER_REQUESTED)
    assert (event["quantity"], event["leaves"], event["amount"]) == (3, 0, 2)
    assert event["flags"] == EventFlag.SELL | EventFlag.BOOKED
    assert venue.asks() == [] and venue.balance(1, 1) == (FUNDS - 2, 0)


def test_an_order_has_several_names(venue: Venue) -> None:
    for fields in ({}, {"client_id": 1 << 80}, {"accepted_no": 3}):
        order = venue.rest(1, BUY, 100, 1, **fields)
        name = {"account": 1, "order_id": order["order_id"], "slot": order["slot"]}
        if "client_id" in fields:
            name = {"account": 1, "client_id": 1 << 80}
        if "accepted_no" in fields:
            name = {"account": 1, "order_id": QUEUED | 3, "slot": NO_SLOT}
        assert types_of(venue.run(make.cancel(**name))) == [EventType.CANCELED]
        assert reason_of(venue.run(make.cancel(**name))) == Reason.NOT_LIVE


@pytest.mark.parametrize("command", [make.cancel, make.amend])
def test_names_that_find_nothing(venue: Venue, command: object) -> None:
    order = venue.rest(1, BUY, 100, 1, accepted_no=4)
    plain = venue.rest(1, BUY, 100, 1)
    more = {"price": 50} if command is make.amend else {}
    cases = [
        ({"account": 1}, Reason.INVALID_IDENTIFIER),
        ({"account": 1, "client_id": 5}, Reason.NOT_LIVE),
        ({"account": 1, "order_id": plain["order_id"]}, Reason.NOT_LIVE),
        ({"account": 1, "order_id": plain["order_id"], "slot": 0}, Reason.NOT_LIVE),
        ({"account": 1, "order_id": order["order_id"], "slot": 1}, Reason.NOT_LIVE),
        ({"account": 1, "order_id": 5, "slot": 1_000_000}, Reason.NOT_LIVE),
        ({"account": 2, "order_id": plain["order_id"], "slot": 1}, Reason.NOT_OWNER),
    ]
    for name, reason in cases:
        events = venue.run(command(**name, **more))
        assert reason_of(events) == reason
        assert events[0]["order_id"] == name.get("order_id", 0)
        assert events[0]["slot"] == name.get("slot", NO_SLOT)
    assert venue.bids() == [(100, 2, 2)]


def test_a_finished_orders_slot_does_not_answer_for_its_successor(venue: Venue) -> None:
    old = venue.rest(1, BUY, 100, 1)
    venue.cancel(old)
    new = venue.rest(1, BUY, 100, 1)
    assert new["slot"] == old["slot"]
    assert reason_of(venue.cancel(old)) == Reason.NOT_LIVE


@pytest.mark.parametrize(
    "fields", [{"quantity": 3}, {"quantity": 3, "flags": LEAVES}, {"quantity": 2, "flags": REDUCE}]
)
def test_less_at_the_same_price_keeps_priority(venue: Venue, fields: dict[str, int]) -> None:
    order = venue.rest(1, BUY, 100, 5)
    venue.rest(2, BUY, 100, 5)
    event = without_balances(venue.amend(order, **fields))[0]
    assert (event["type"], event["flags"]) == (EventType.AMENDED, EventFlag.BOOKED)
    assert (event["quantity"], event["leaves"], event["amount"]) == (3, 3, 2)
    assert venue.balance(1, 2) == (FUNDS - 300, 300)
    assert fills(venue.new(3, SELL, 100, 4)) == [(1, 100, 3), (2, 100, 1)]


def test_quantity_counts_what_is_filled_unless_it_names_leaves(venue: Venue) -> None:
    for fields, leaves in (
        ({"quantity": 4}, 2),
        ({"quantity": 2, "flags": LEAVES}, 2),
        ({"quantity": 1, "flags": REDUCE}, 2),
    ):
        order = venue.rest(1, BUY, 100, 5)
        venue.new(2, SELL, 100, 2)
        event = venue.amend(order, **fields)[0]
        assert (event["quantity"], event["leaves"]) == (leaves + 2, leaves)
        venue.cancel(order)


@pytest.mark.parametrize("fields", [{"quantity": 6}, {"price": 99}, {"flags": REQUEUE}])
def test_more_or_another_price_or_the_wish_loses_priority(venue: Venue, fields: dict[str, int]) -> None:
    order = venue.rest(1, BUY, 100, 5)
    venue.rest(2, BUY, 100, 5)
    venue.rest(2, BUY, 99, 5)
    events = without_balances(venue.amend(order, **fields))
    assert types_of(events) == [EventType.UNBOOKED, EventType.AMENDED, EventType.RESTED]
    assert (events[0]["price"], events[0]["quantity"], events[0]["leaves"]) == (100, 5, 0)
    assert (events[0]["flags"], events[1]["flags"]) == (EventFlag.BOOKED, 0)
    assert {event["slot"] for event in events} == {order["slot"]}
    records = venue.engine.dump()["orders"]
    assert records[records["account"] == 1]["priority"][0] == venue.engine.sequence
    hit = [account for account, _, _ in fills(venue.new(3, SELL, 99, 15))]
    assert hit in ([2, 1, 2], [2, 2, 1])


def test_an_amend_may_trade_as_a_taker(open_venue: Maker) -> None:
    venue = open_venue(maker=0, taker=1_000).fund()
    venue.rest(2, SELL, 110, 3)
    order = venue.rest(1, BUY, 100, 5)
    events = without_balances(venue.amend(order, price=110))
    assert types_of(events)[2:] == [EventType.FILL, EventType.FILL, EventType.RESTED]
    assert [event["amount"] for event in events[2:4]] == [0, 1]
    assert venue.bids() == [(110, 2, 1)]
    last = venue.amend(order, quantity=4, flags=REQUEUE)
    assert last[-2]["leaves"] == 1


def test_an_amend_that_fills_whole_frees_the_slot(venue: Venue) -> None:
    order = venue.rest(1, BUY, 100, 5, client_id=7)
    venue.rest(2, SELL, 110, 5)
    assert types_of(venue.amend(order, price=110))[-1] == EventType.FILL
    assert venue.rest(1, BUY, 100, 5, client_id=7)["slot"] == order["slot"]


@pytest.mark.parametrize(
    "fields",
    [{"quantity": 2}, {"quantity": 1}, {"quantity": 3, "flags": REDUCE}, {"quantity": 9, "flags": REDUCE}],
)
def test_at_or_below_what_is_filled_the_rest_is_cancelled(venue: Venue, fields: dict[str, int]) -> None:
    order = venue.rest(1, BUY, 100, 5)
    venue.new(2, SELL, 100, 2)
    event = venue.amend(order, **fields)[0]
    assert (event["type"], event["reason"], event["quantity"]) == (EventType.CANCELED, Reason.AMENDED_AWAY, 3)


def test_an_amend_that_is_refused_changes_nothing(venue: Venue) -> None:
    order = venue.rest(1, BUY, 100, 5, flags=CommandFlag.POST_ONLY)
    plain = venue.rest(1, BUY, 90, 5)
    venue.rest(2, SELL, 110, 5)
    cases = [
        ({"flags": 1, "quantity": 1}, Reason.INVALID_FLAGS),
        ({"flags": 16, "quantity": 1}, Reason.INVALID_FLAGS),
        ({"flags": LEAVES | REDUCE, "quantity": 1}, Reason.INVALID_FLAGS),
        ({"price": -1}, Reason.INVALID_PRICE),
        ({"quantity": -1}, Reason.INVALID_QUANTITY),
        ({"price": 5, "flags": REDUCE}, Reason.INVALID_QUANTITY),
        ({}, Reason.INVALID_QUANTITY),
        ({"quantity": INT64_MAX}, Reason.OVERFLOW),
        ({"price": INT64_MAX}, Reason.OVERFLOW),
        ({"price": 110}, Reason.POST_ONLY_WOULD_CROSS),
        ({"quantity": FUNDS // 100}, Reason.INSUFFICIENT_FUNDS),
    ]
    before = venue.engine.dump()
    for fields, reason in cases:
        events = venue.amend(order, **fields)
        assert reason_of(events) == reason
        assert events[0]["amount"] == CommandType.AMEND
    venue.run(make.set_market_state(market=1, state=MarketState.POST_ONLY))
    assert reason_of(venue.amend(plain, price=110)) == Reason.MARKET_POST_ONLY
    after = venue.engine.dump()
    for section in ("orders", "balances"):
        assert after[section].tobytes() == before[section].tobytes()


def test_filled_and_leaves_together_fit_int64(open_venue: Maker) -> None:
    venue = open_venue().fund(1 << 60)
    order = venue.rest(1, BUY, 1, 5)
    venue.new(2, SELL, 1, 2)
    assert reason_of(venue.amend(order, quantity=INT64_MAX, flags=LEAVES)) == Reason.OVERFLOW


def test_an_amend_may_use_what_the_order_holds(venue: Venue) -> None:
    order = venue.rest(1, BUY, 100, FUNDS // 100)
    assert reason_of(venue.amend(order, price=101)) == Reason.INSUFFICIENT_FUNDS
    assert types_of(venue.amend(order, price=200, quantity=FUNDS // 200))[-1] == EventType.RESTED
    assert venue.balance(1, 2) == (0, FUNDS)


def test_the_fee_rates_are_those_of_the_entry_and_the_residue_goes_on(open_venue: Maker) -> None:
    venue = open_venue(maker=1_500, taker=1_500).fund()
    order = venue.rest(1, BUY, 100, 10)
    venue.new(2, SELL, 100, 4)
    event = venue.amend(order, price=101)[-1]
    assert venue.balance(1, 2)[1] == 607
    assert event["quantity"] == 607


@pytest.mark.parametrize("state,allowed", [(MarketState.CANCEL_ONLY, True), (MarketState.HALTED, False)])
def test_a_halted_market_keeps_its_orders(venue: Venue, state: MarketState, allowed: bool) -> None:
    order = venue.rest(1, BUY, 100, 5)
    venue.run(make.set_market_state(market=1, state=state))
    assert (types_of(venue.cancel(order)) == [EventType.CANCELED]) == allowed


def test_a_draining_venue_cancels_but_does_not_amend(venue: Venue) -> None:
    order = venue.rest(1, BUY, 100, 5)
    venue.run(make.start(epoch=1))
    command = make.amend(**{key: order[key] for key in ("account", "order_id", "slot")}, quantity=1)
    command["accepted_no"] = 1
    assert reason_of(venue.run(command)) == Reason.VENUE_DRAINING
    assert types_of(venue.cancel(order)) == [EventType.CANCELED]
