"""What runs the venue: ids, fees, keys, states."""

import pytest

from engine import commands as make
from engine.types import EVENT, INT64_MAX, EventType, MarketState, Reason, VenueState
from tests.unit.engine.venue import Venue, reason_of, types_of

HASH = bytes(range(1, 33))
DRAINING, OPEN, CANCEL_ONLY, HALTED = list(VenueState)[1:]


def state_of(venue: Venue) -> VenueState:
    return VenueState(venue.engine.dump()["venue"]["state"][0])


def test_an_empty_venue_is_open_with_the_fee_account_only(kind: type) -> None:
    arrays = kind().dump()
    venue = arrays.pop("venue")[0]
    assert (venue["state"], venue["epoch"], venue["sequence"], venue["rules_version"]) == (OPEN, 0, 0, 1)
    assert arrays.pop("accounts")["account"].tolist() == [0]
    assert all(len(section) == 0 for section in arrays.values())


def test_ids_are_dense(venue: Venue) -> None:
    for build, last in ((make.open_asset, 2), (make.open_account, 3)):
        name = build.__name__.removeprefix("open_")
        assert reason_of(venue.run(build(**{name: last}))) == Reason.ALREADY_EXISTS
        assert reason_of(venue.run(build(**{name: last + 2}))) == Reason.INVALID_IDENTIFIER
        assert types_of(venue.run(build(**{name: last + 1}))) != [EventType.REJECTED]
        assert types_of(venue.run(build())) != [EventType.REJECTED]
    arrays = venue.engine.dump()
    assert (len(arrays["assets"]), len(arrays["accounts"])) == (4, 6)


def test_what_was_opened_is_told(venue: Venue) -> None:
    asset = venue.run(make.open_asset())[0]
    assert (asset["type"], asset["market"]) == (EventType.ASSET_OPENED, 3)
    account = venue.run(make.open_account())[0]
    assert (account["type"], account["account"]) == (EventType.ACCOUNT_OPENED, 4)
    market = venue.run(
        make.open_market(
            base_asset=3, quote_asset=1, tick_atoms=5, lot_atoms=7, maker_fee_ppm=-3, taker_fee_ppm=4
        )
    )[0]
    assert market["type"] == EventType.MARKET_OPENED
    fields = ("market", "account", "slot", "price", "quantity", "leaves", "amount")
    assert tuple(market[field] for field in fields) == (2, 3, 1, 5, 7, -3, 4)


def test_the_checks_of_a_market_come_in_order(venue: Venue) -> None:
    fields = {
        "market": 1,
        "base_asset": 3,
        "quote_asset": 0,
        "tick_atoms": 0,
        "lot_atoms": 0,
        "maker_fee_ppm": -2,
        "taker_fee_ppm": 1,
    }
    causes = [
        (Reason.ALREADY_EXISTS, {}),
        (Reason.INVALID_IDENTIFIER, {"market": 3}),
        (Reason.UNKNOWN_ASSET, {"market": 2}),
        (Reason.UNKNOWN_ASSET, {"base_asset": 1}),
        (Reason.INVALID_IDENTIFIER, {"quote_asset": 1}),
        (Reason.INVALID_AMOUNT, {"quote_asset": 2}),
        (Reason.INVALID_AMOUNT, {"tick_atoms": 1}),
        (Reason.INVALID_FEE, {"lot_atoms": 1}),
        (Reason.INVALID_FEE, {"maker_fee_ppm": 1_000_001}),
        (Reason.INVALID_FEE, {"maker_fee_ppm": 0, "taker_fee_ppm": 1_000_001}),
        (Reason.INVALID_FEE, {"taker_fee_ppm": -1}),
        (Reason.INVALID_FEE, {"maker_fee_ppm": INT64_MAX, "taker_fee_ppm": 0}),
    ]
    for reason, correction in causes:
        fields |= correction
        assert reason_of(venue.run(make.open_market(**fields))) == reason
    fields |= {"maker_fee_ppm": -1_000_000, "taker_fee_ppm": 1_000_000}
    assert types_of(venue.run(make.open_market(**fields))) == [EventType.MARKET_OPENED]


def test_a_key_is_added_once_and_revoked_once(venue: Venue) -> None:
    add = make.add_key(key_hash=HASH, account=2, scopes=3, expire_time_ns=9)
    event = venue.run(add)[0]
    added = venue.engine.sequence
    assert (event["type"], event["account"], event["market"], event["amount"]) == (
        EventType.KEY_ADDED,
        2,
        3,
        9,
    )
    words = [int.from_bytes(HASH[at : at + 8], "little") for at in (0, 8, 16, 24)]
    assert [event["order_id"], event["price"], event["quantity"], event["leaves"]] == words
    assert reason_of(venue.run(add)) == Reason.ALREADY_EXISTS

    revoke = make.revoke_key(key_hash=HASH)
    assert types_of(venue.run(revoke)) == [EventType.KEY_REVOKED]
    revoked = venue.engine.sequence
    assert types_of(venue.run(revoke)) == [EventType.KEY_REVOKED]
    key = venue.engine.dump()["keys"][0]
    assert (key["sequence"], key["revoked"]) == (added, revoked)
    assert reason_of(venue.run(make.revoke_key(key_hash=bytes(32)))) == Reason.UNKNOWN_KEY


def test_the_bits_of_a_hash_survive_signed_fields(venue: Venue) -> None:
    events = venue.engine.apply(make.add_key(key_hash=b"\xff" * 32, scopes=1))
    assert events.dtype == EVENT
    assert [events[0][field] for field in ("order_id", "price", "quantity", "leaves")] == [
        2**64 - 1,
        -1,
        -1,
        -1,
    ]


@pytest.mark.parametrize(
    "change,reason",
    [
        ({"key_hash": bytes(32)}, Reason.INVALID_IDENTIFIER),
        ({"account": 4}, Reason.UNKNOWN_ACCOUNT),
        ({"scopes": 0}, Reason.INVALID_AMOUNT),
        ({"expire_time_ns": -1}, Reason.INVALID_AMOUNT),
    ],
)
def test_a_key_that_makes_no_sense(venue: Venue, change: dict[str, object], reason: Reason) -> None:
    fields = {"key_hash": HASH, "scopes": 1} | change
    assert reason_of(venue.run(make.add_key(**fields))) == reason


def test_keys_that_differ_in_one_word_are_different(venue: Venue) -> None:
    for at in (0, 8, 16, 24):
        other = HASH[:at] + b"\x77" + HASH[at + 1 :]
        assert types_of(venue.run(make.add_key(key_hash=other, scopes=1))) == [EventType.KEY_ADDED]
    assert len(venue.engine.dump()["keys"]) == 4


@pytest.mark.parametrize(
    "state,allowed", [(0, False), (1, False), (2, True), (3, True), (4, True), (5, False)]
)
def test_an_operator_sets_open_cancel_only_or_halted(venue: Venue, state: int, allowed: bool) -> None:
    events = venue.run(make.set_venue_state(state=state))
    if allowed:
        assert (events[0]["type"], events[0]["amount"]) == (EventType.VENUE_STATE, state)
    else:
        assert reason_of(events) == Reason.INVALID_STATE


def test_states_of_things_that_are_not_there(venue: Venue) -> None:
    assert reason_of(venue.run(make.set_market_state(market=2, state=9))) == Reason.UNKNOWN_MARKET
    assert reason_of(venue.run(make.set_market_state(market=0, state=0))) == Reason.UNKNOWN_MARKET
    assert reason_of(venue.run(make.set_market_state(market=1, state=4))) == Reason.INVALID_STATE
    assert reason_of(venue.run(make.set_market_state(market=1, state=-1))) == Reason.INVALID_STATE
    for account in (0, 4):
        assert (
            reason_of(venue.run(make.set_account_state(account=account, state=9))) == Reason.UNKNOWN_ACCOUNT
        )
    assert reason_of(venue.run(make.set_account_state(account=1, state=2))) == Reason.INVALID_STATE


def test_a_state_that_is_set_is_told(venue: Venue) -> None:
    event = venue.run(make.set_market_state(market=1, state=MarketState.HALTED))[0]
    assert (event["type"], event["market"], event["amount"]) == (
        EventType.MARKET_STATE,
        1,
        MarketState.HALTED,
    )
    event = venue.run(make.set_account_state(account=3, state=1))[0]
    assert (event["type"], event["account"], event["amount"]) == (EventType.ACCOUNT_STATE, 3, 1)


@pytest.mark.parametrize("before,after", [(OPEN, DRAINING), (CANCEL_ONLY, CANCEL_ONLY), (HALTED, HALTED)])
def test_a_process_that_takes_over_drains_unless_the_venue_was_stopped(
    venue: Venue, before: VenueState, after: VenueState
) -> None:
    venue.run(make.set_venue_state(state=before))
    event = venue.run(make.start(epoch=5))[0]
    assert (event["type"], event["amount"], event["quantity"]) == (EventType.VENUE_STATE, after, 5)
    assert state_of(venue) == after
    for epoch in (5, 4, -1):
        assert reason_of(venue.run(make.start(epoch=epoch))) == Reason.INVALID_STATE


def test_drained_ends_draining_and_nothing_else(venue: Venue) -> None:
    assert reason_of(venue.run(make.drained())) == Reason.INVALID_STATE
    venue.run(make.start(epoch=1))
    assert types_of(venue.run(make.drained())) == [EventType.VENUE_STATE]
    assert state_of(venue) == OPEN


def test_a_tick_says_nothing(venue: Venue) -> None:
    assert venue.run(make.tick(time_ns=5)) == []
