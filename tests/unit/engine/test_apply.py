"""apply and the questions of the core: what goes in, what comes out, what taints."""

import pickle

import numpy as np
import pytest

from engine import Engine, InvariantViolation, StateError, Tainted
from engine import commands as make
from engine.types import EVENT, IDEMPOTENCY_WINDOW_NS, NO_SLOT, QUEUED, EventType, VenueState
from tests.unit.engine.venue import BUY, SELL, Venue


@pytest.fixture
def venue() -> Venue:
    return Venue(Engine).fund()


@pytest.mark.parametrize(
    "commands,error",
    [
        (None, TypeError),
        ([make.drained()], TypeError),
        (np.zeros(3), TypeError),
        (np.zeros(1, EVENT), TypeError),
        (make.drained().reshape(1, 1), ValueError),
        (np.repeat(make.drained(), 4)[::2], ValueError),
        (np.zeros(128 + 1, np.uint8)[1:].view(make.drained().dtype), ValueError),
    ],
)
def test_what_is_not_a_batch_is_refused_before_anything_is_touched(
    venue: Venue, commands: object, error: type[Exception]
) -> None:
    before = venue.engine.state_hash()
    with pytest.raises(error, match="COMMAND"):
        venue.engine.apply(commands)
    assert venue.engine.state_hash() == before


def test_an_empty_batch_is_nothing(venue: Venue) -> None:
    events = venue.engine.apply(make.drained()[:0])
    assert events.dtype == EVENT and len(events) == 0


def test_how_a_stream_is_cut_into_batches_does_not_matter() -> None:
    stream = np.concatenate(
        [make.open_asset(), make.open_asset()]
        + [make.open_market(base_asset=1, quote_asset=2, tick_atoms=1, lot_atoms=1), make.open_account()]
        + [make.deposit(account=1, asset=at, quantity=1000, transaction_id=at) for at in (1, 2)]
        + [make.new(account=1, market=1, side=at % 2, price=100, quantity=at) for at in range(1, 40)]
    )
    whole, cut = Engine(), Engine()
    at_once = whole.apply(stream).copy()
    one_by_one = np.concatenate([cut.apply(stream[at : at + 1]).copy() for at in range(len(stream))])
    assert one_by_one.tobytes() == at_once.tobytes()
    assert cut.state_hash() == whole.state_hash()


def test_the_buffer_of_events_grows_within_a_batch_and_old_views_stay_safe(venue: Venue) -> None:
    first = venue.engine.apply(make.new(account=1, market=1, side=SELL, price=100, quantity=1))
    kept = first.copy()
    count = 5_000
    batch = make.new(account=1, market=1, side=SELL, price=100, quantity=np.ones(count, int))
    events = venue.engine.apply(batch)
    assert len(events) == 2 * count
    sweep = venue.engine.apply(make.new(account=2, market=1, side=BUY, price=100, quantity=count + 1))
    assert np.count_nonzero(sweep["type"] == EventType.FILL) == 2 * (count + 1)
    assert first.shape == kept.shape and not first.flags.writeable
    assert venue.engine.depth(1)[SELL].size == 0


def test_a_gap_in_the_sequence_taints(venue: Venue) -> None:
    at = venue.engine.sequence
    batch = np.concatenate([make.open_account(sequence=at + 1), make.open_account(sequence=at + 3)])
    with pytest.raises(InvariantViolation) as caught:
        venue.engine.apply(batch)
    violation = caught.value
    assert (violation.invariant, violation.sequence, violation.delta) == ("I9", at + 2, 1)
    assert len(venue.engine.dump()["accounts"]) == 5, "the command before the gap was applied"
    calls = [
        lambda: venue.engine.apply(make.drained()),
        venue.engine.audit,
        venue.engine.state_hash,
        lambda: venue.engine.depth(1),
        lambda: venue.engine.balances(1),
        lambda: venue.engine.orders(1),
        lambda: venue.engine.order(1, 0),
        lambda: venue.engine.find_key(1, 1),
        lambda: venue.engine.find_seen(1, 1),
        venue.engine.assets,
        venue.engine.markets,
        venue.engine.accounts,
        venue.engine.keys,
    ]
    for call in calls:
        with pytest.raises(Tainted, match="I9"):
            call()


def test_the_sequence_may_be_left_to_the_engine(venue: Venue) -> None:
    at = venue.engine.sequence
    venue.run(make.drained(), make.drained(sequence=at + 2), make.drained())
    assert venue.engine.sequence == at + 3


def test_errors_survive_pickling() -> None:
    for error in (InvariantViolation("I2", 5, 1, 2, -3), StateError("orders", "torn"), Tainted("I1")):
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), vars(again)) == (str(error), vars(error))


def test_what_the_venue_is_at(venue: Venue) -> None:
    venue.run(make.start(epoch=7, time_ns=50))
    venue.rest(1, BUY, 10, 1, accepted_no=3)
    engine = venue.engine
    assert (engine.epoch, engine.time_ns, engine.accepted_no) == (7, 50, 3)
    assert engine.venue_state is VenueState.DRAINING


def test_depth_lists_the_best_levels_first(venue: Venue) -> None:
    for price, quantity in ((10, 1), (12, 2), (12, 3), (11, 4)):
        venue.rest(1, BUY, price, quantity)
    venue.rest(2, SELL, 20, 1)
    bids, asks = venue.engine.depth(1, 2)
    assert bids.tolist() == [(12, 5, 2), (11, 4, 1)]
    assert asks[["price", "orders"]].tolist() == [(20, 1)]
    assert len(venue.engine.depth(1)[BUY]) == 3
    for unknown in (0, 2):
        with pytest.raises(KeyError):
            venue.engine.depth(unknown)


def test_balances_of_an_account(venue: Venue) -> None:
    venue.rest(1, BUY, 10, 1)
    rows = venue.engine.balances(1)[["account", "asset", "available", "held"]].tolist()
    assert rows == [(1, 1, 1_000_000, 0), (1, 2, 999_990, 10)]
    assert len(venue.engine.balances(9)) == 0


def test_orders_of_an_account_come_in_canonical_order(venue: Venue) -> None:
    venue.rest(1, SELL, 20, 1)
    for price in (10, 12, 11):
        venue.rest(1, BUY, price, 1)
        venue.rest(2, BUY, price, 1)
    rows = venue.engine.orders(1)
    assert rows[["side", "price"]].tolist() == [(0, 12), (0, 11), (0, 10), (1, 20)]


def test_an_order_by_its_name(venue: Venue) -> None:
    plain = venue.rest(1, BUY, 10, 2)
    venue.rest(1, BUY, 10, 3, accepted_no=4)
    assert venue.engine.order(plain["order_id"], plain["slot"])["leaves"] == 2
    assert venue.engine.order(QUEUED | 4)["leaves"] == 3
    for order_id, slot in ((plain["order_id"], NO_SLOT), (plain["order_id"], 1), (0, 5), (5, 10**6)):
        assert venue.engine.order(order_id, slot) is None


def test_the_command_behind_an_idempotency_key(venue: Venue) -> None:
    venue.new(1, BUY, 10, 1, key=(1 << 100) + 7, time_ns=1)
    assert venue.engine.find_key(1, (1 << 100) + 7) == venue.engine.sequence
    assert venue.engine.find_key(2, (1 << 100) + 7) == 0
    assert venue.engine.find_key(1, 7) == 0
    venue.run(make.tick(time_ns=1 + IDEMPOTENCY_WINDOW_NS))
    assert venue.engine.find_key(1, (1 << 100) + 7) == 0


def test_many_idempotency_keys_come_and_go_in_order(venue: Venue) -> None:
    count, hour = 1_000, 3_600 * 10**9
    keys = np.arange(1, count + 1)
    venue.engine.apply(make.cancel(account=1, client_id=1, key=keys, time_ns=keys * hour))
    kept = venue.engine.dump()["idempotency"]
    assert kept["key_lo"].tolist() == list(range(count - 23, count + 1))
    assert venue.engine.find_key(1, count - 23) and not venue.engine.find_key(1, count - 24)
