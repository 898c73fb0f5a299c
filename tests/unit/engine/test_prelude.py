"""What may end a customer's command before it runs: queue number, account, idempotency key."""

import pytest

from engine import commands as make
from engine.types import (
    IDEMPOTENCY_WINDOW_NS,
    NO_SLOT,
    QUEUED,
    CommandType,
    EventType,
    MarketState,
    Reason,
    VenueState,
)
from tests.unit.engine.venue import BUY, Venue, reason_of, types_of


def test_a_queue_number_names_the_order_and_is_used_once(venue: Venue) -> None:
    accepted = venue.rest(1, BUY, 100, 1, accepted_no=5)
    assert accepted["order_id"] == QUEUED | 5
    for number in (5, 4):
        events = venue.new(1, BUY, 100, 1, accepted_no=number)
        assert types_of(events) == [EventType.DUPLICATE]
        assert (events[0]["order_id"], events[0]["quantity"]) == (QUEUED | number, 0)
    assert venue.engine.dump()["venue"]["accepted_no"][0] == 5


def test_a_cancel_can_come_from_the_queue_too(venue: Venue) -> None:
    order = venue.rest(1, BUY, 100, 1)
    assert types_of(venue.cancel(order, accepted_no=1)) == [EventType.CANCELED]
    assert types_of(venue.cancel(order, accepted_no=1)) == [EventType.DUPLICATE]


def test_a_queue_number_beyond_its_bits_is_refused(venue: Venue) -> None:
    assert reason_of(venue.new(1, BUY, 100, 1, accepted_no=1 << 62)) == Reason.INVALID_IDENTIFIER
    assert venue.engine.dump()["venue"]["accepted_no"][0] == 0


def test_the_queue_number_counts_even_if_the_account_is_unknown(venue: Venue) -> None:
    assert reason_of(venue.new(9, BUY, 100, 1, accepted_no=7)) == Reason.UNKNOWN_ACCOUNT
    assert venue.engine.dump()["venue"]["accepted_no"][0] == 7


@pytest.mark.parametrize("account", [0, 4])
def test_neither_an_unknown_account_nor_the_fee_account_may_ask(venue: Venue, account: int) -> None:
    requests = [
        make.new(account=account, market=1, side=BUY, price=1, quantity=1),
        make.cancel(account=account, client_id=1),
        make.amend(account=account, client_id=1, price=1),
        make.deposit(account=account, asset=1, quantity=1, transaction_id=1),
        make.withdraw(account=account, asset=1, quantity=1, transaction_id=1),
    ]
    assert [reason_of(venue.run(request)) for request in requests] == [Reason.UNKNOWN_ACCOUNT] * 5


def test_the_same_key_with_the_same_body_answers_with_the_first_sequence(venue: Venue) -> None:
    venue.new(1, BUY, 100, 1, key=1 << 100, body=7)
    first = venue.engine.sequence
    events = venue.new(1, BUY, 100, 1, key=1 << 100, body=7)
    assert types_of(events) == [EventType.DUPLICATE]
    assert events[0]["quantity"] == first
    assert (events[0]["amount"], events[0]["slot"]) == (CommandType.NEW, NO_SLOT)
    assert venue.bids() == [(100, 1, 1)]


def test_the_same_key_with_another_body_conflicts(venue: Venue) -> None:
    venue.new(1, BUY, 100, 1, key=5, body=7)
    assert reason_of(venue.new(1, BUY, 100, 1, key=5, body=8)) == Reason.IDEMPOTENCY_CONFLICT


def test_keys_belong_to_an_account(venue: Venue) -> None:
    venue.new(1, BUY, 100, 1, key=5, body=7)
    assert types_of(venue.new(2, BUY, 100, 1, key=5, body=7)) == [EventType.ACCEPTED]


def test_the_key_of_a_rejected_command_is_kept(venue: Venue) -> None:
    assert reason_of(venue.new(1, BUY, 0, 1, key=5)) == Reason.INVALID_PRICE
    assert types_of(venue.new(1, BUY, 0, 1, key=5)) == [EventType.DUPLICATE]


def test_a_draining_venue_wants_the_command_again(venue: Venue) -> None:
    venue.run(make.start(epoch=1))
    assert reason_of(venue.new(1, BUY, 100, 1, key=5)) == Reason.VENUE_DRAINING
    assert types_of(venue.new(1, BUY, 100, 1, key=6, accepted_no=1)) == [EventType.ACCEPTED]
    venue.run(make.drained())
    assert types_of(venue.new(1, BUY, 100, 1, key=5)) == [EventType.ACCEPTED]


def test_a_key_is_dropped_after_a_day_of_logged_time(venue: Venue) -> None:
    venue.new(1, BUY, 100, 1, key=5, time_ns=1_000)
    last = 1_000 + IDEMPOTENCY_WINDOW_NS - 1
    assert types_of(venue.new(1, BUY, 100, 1, key=5, time_ns=last)) == [EventType.DUPLICATE]
    assert types_of(venue.new(1, BUY, 100, 1, key=5, time_ns=last + 1)) == [EventType.ACCEPTED]


def test_time_that_passes_with_any_command_drops_keys(venue: Venue) -> None:
    venue.new(1, BUY, 100, 1, key=5, time_ns=1)
    venue.run(make.tick(time_ns=1 + IDEMPOTENCY_WINDOW_NS))
    assert len(venue.engine.dump()["idempotency"]) == 0


def test_logged_time_never_falls(venue: Venue) -> None:
    venue.run(make.tick(time_ns=50), make.tick(time_ns=20))
    assert venue.engine.dump()["venue"]["time_ns"][0] == 50


@pytest.mark.parametrize("field,value", [("version", 2), ("type", 0), ("type", 99)])
def test_an_unknown_command_is_answered_before_the_prelude(venue: Venue, field: str, value: int) -> None:
    command = make.new(account=1, market=1, side=BUY, price=1, quantity=1, key=5, accepted_no=3)
    command[field] = value
    assert reason_of(venue.run(command)) == Reason.UNKNOWN_COMMAND
    arrays = venue.engine.dump()
    assert (len(arrays["idempotency"]), arrays["venue"]["accepted_no"][0]) == (0, 0)


def test_what_the_venue_and_the_market_allow(venue: Venue) -> None:
    """command × state: which reason, None for carried out."""
    states = {
        VenueState.OPEN: (None, None, None),
        VenueState.CANCEL_ONLY: (Reason.VENUE_CANCEL_ONLY, Reason.VENUE_CANCEL_ONLY, None),
        VenueState.HALTED: (Reason.VENUE_HALTED,) * 3,
    }
    for state, expected in states.items():
        check_what_is_allowed(venue, make.set_venue_state(state=state), expected)
    markets = {
        MarketState.OPEN: (None, None, None),
        MarketState.POST_ONLY: (Reason.MARKET_POST_ONLY, None, None),
        MarketState.CANCEL_ONLY: (Reason.MARKET_CANCEL_ONLY, Reason.MARKET_CANCEL_ONLY, None),
        MarketState.HALTED: (Reason.MARKET_HALTED,) * 3,
    }
    for market_state, expected in markets.items():
        check_what_is_allowed(venue, make.set_market_state(market=1, state=market_state), expected)


def check_what_is_allowed(venue: Venue, command: object, expected: tuple[Reason | None, ...]) -> None:
    venue.run(make.set_venue_state(state=VenueState.OPEN), make.set_market_state(market=1, state=0))
    order = venue.rest(1, BUY, 50, 5)
    venue.run(command)
    seen = [venue.new(1, BUY, 40, 1), venue.amend(order, quantity=3), venue.cancel(order)]
    reasons = [Reason(e[0]["reason"]) if e[0]["type"] == EventType.REJECTED else None for e in seen]
    assert tuple(reasons) == expected
