"""dump, load and the hash: equal states are equal bytes, and nothing else is loaded."""

import copy
import itertools
import random
from typing import Any

import numpy as np
import pytest

from engine import InvariantViolation, StateError
from engine import commands as make
from engine.core import Engine
from engine.reference import Engine as Twin
from engine.types import IDEMPOTENCY_WINDOW_NS, SECTIONS, CommandFlag, OrderType, TimeInForce
from tests.unit.engine.venue import BUY, SELL, Maker, Venue


def lively(open_venue: Maker) -> Venue:
    """A venue with something in every section, gaps among its slots, and partly filled orders."""
    venue = open_venue(maker=-250, taker=1_500, tick=3, lot=2).fund()
    venue.run(make.open_asset(), make.start(epoch=3), make.drained())
    venue.run(make.open_market(base_asset=3, quote_asset=2, tick_atoms=1, lot_atoms=1))
    venue.run(
        make.add_key(key_hash=b"b" * 32, scopes=1), make.add_key(key_hash=b"a" * 32, scopes=2, account=1)
    )
    venue.run(make.revoke_key(key_hash=b"b" * 32))
    orders = [venue.rest(1 + at % 2, BUY, 90 + at % 5, 10, client_id=at, time_ns=at) for at in range(12)]
    for at in (2, 7):
        venue.cancel(orders[at], key=at + 1, body=at)
    venue.rest(3, SELL, 95, 4, flags=CommandFlag.POST_ONLY, accepted_no=8, key=1, body=2)
    venue.new(3, SELL, 93, 33, key=1 << 70)
    venue.new(1, BUY, 99, 1)
    venue.deposit(2, 3, 77)
    return venue


def trouble(seed: int, count: int = 300) -> np.ndarray[Any, Any]:
    """Commands of all kinds for the venue above."""
    rng = random.Random(seed)
    commands = []
    for _ in range(count):
        account, price = rng.randint(1, 3), rng.randint(88, 98)
        kind = rng.random()
        if kind < 0.6:
            fields = {
                "order_type": rng.choice(list(OrderType)),
                "time_in_force": rng.choice(list(TimeInForce)),
            }
            if kind < 0.4:
                fields = {}
            side = rng.choice((BUY, SELL))
            quantity, client_id = rng.randint(1, 12), rng.choice((0, rng.randint(1, 20)))
            command = make.new(
                account=account,
                market=1,
                side=side,
                price=price,
                quantity=quantity,
                client_id=client_id,
                **fields,
            )
        elif kind < 0.8:
            command = make.cancel(account=account, client_id=rng.randint(1, 20))
        else:
            command = make.amend(
                account=account, client_id=rng.randint(1, 20), price=price, quantity=rng.randint(0, 12)
            )
        commands.append(command)
    return np.concatenate(commands)


def test_a_loaded_engine_is_the_same_engine(open_venue: Maker) -> None:
    venue = lively(open_venue)
    first, arrays = venue.engine, venue.engine.dump()
    assert list(arrays) == list(SECTIONS) and all(len(section) for section in arrays.values())
    second = venue.kind.load(arrays)
    assert second.state_hash() == first.state_hash()
    for seed in range(3):
        batch = trouble(seed)
        assert second.apply(batch).tobytes() == first.apply(batch).tobytes(), f"seed {seed}"
        assert second.state_hash() == first.state_hash()
    tick = make.tick(time_ns=2 * IDEMPOTENCY_WINDOW_NS)
    for engine in (first, second):
        engine.apply(tick)
        engine.audit()
    assert second.state_hash() == first.state_hash()


def test_the_core_loads_what_the_twin_dumped_and_the_other_way_round(open_venue: Maker) -> None:
    arrays = lively(open_venue).engine.dump()
    hashes = {kind.load(arrays).state_hash() for kind in (Engine, Twin)}
    assert len(hashes) == 1


def test_loading_does_not_hold_on_to_the_arrays(open_venue: Maker) -> None:
    engine = lively(open_venue).engine
    arrays = engine.dump()
    loaded = type(engine).load(arrays)
    for section in arrays.values():
        section[:] = 0
    assert loaded.state_hash() == engine.state_hash()


def test_the_hash_depends_on_the_state_and_not_on_how_it_came_about(venue: Venue) -> None:
    before = venue.engine.state_hash()
    assert len(before) == 32
    venue.run(make.tick(time_ns=1))
    assert venue.engine.state_hash() != before
    other = Venue(venue.kind).fund()
    other.run(make.tick(time_ns=1))
    assert other.engine.state_hash() == venue.engine.state_hash()


# What a tampered record breaks: section, field, record, by how much, the invariant (None: the form).
TAMPERED = [
    ("venue", "rules_version", 0, 1, None),
    ("venue", "state", 0, 9, None),
    ("venue", "time_ns", 0, -(10**6), None),
    ("venue", "spare_0", 0, 1, None),
    ("assets", "asset", 0, 1, None),
    ("assets", "net_deposits", 0, 1, "I1"),
    ("markets", "quote_asset", 0, -1, None),
    ("markets", "lot_atoms", 0, 1, "I4"),
    ("markets", "taker_fee_ppm", 0, -1_501, None),
    ("accounts", "account", 1, 7, None),
    ("accounts", "state", 1, 2, None),
    ("balances", "available", 1, 1, "I1"),
    ("balances", "held", 1, 1, "I4"),
    ("balances", "account", 1, 1_000, None),
    ("orders", "price", 0, 1, "I4"),
    ("orders", "leaves", 0, 1, "I3"),
    ("orders", "filled", 0, 1, "I3"),
    ("orders", "quantity", 0, 1, "I3"),
    ("orders", "hold", 0, 1, "I4"),
    ("orders", "fee_residue", 0, 1_000_000, None),
    ("orders", "side", 0, 1, None),
    ("orders", "account", 0, 40, None),
    ("orders", "slot", 0, 1_000_000_000, None),
    ("orders", "priority", 0, 1_000, None),
    ("orders", "order_id", 0, 1_000, None),
    ("orders", "order_type", 0, 1, None),
    ("orders", "flags", 0, 2, None),
    ("transactions", "id_lo", 0, 1, None),
    ("transactions", "quantity", 0, -(10**9), None),
    ("transactions", "type", 0, 1_000, None),
    ("keys", "hash_0", 1, -(1 << 61), None),
    ("keys", "scopes", 0, -2, None),
    ("idempotency", "sequence", 1, 1_000, None),
    ("idempotency", "account", 0, 40, None),
    ("idempotency", "time_ns", 0, 1_000, None),
]


@pytest.mark.parametrize("section,field,record,change,invariant", TAMPERED)
def test_a_tampered_record_is_refused(
    open_venue: Maker, section: str, field: str, record: int, change: int, invariant: str | None
) -> None:
    venue = lively(open_venue)
    arrays = copy.deepcopy(venue.engine.dump())
    target = arrays[section]
    target[field][record] = int(target[field][record]) + change
    if invariant is None:
        with pytest.raises(StateError, match=section):
            venue.kind.load(arrays)
        return
    with pytest.raises(InvariantViolation) as caught:
        venue.kind.load(arrays)
    assert caught.value.invariant == invariant


def test_a_section_that_is_missing_double_or_of_another_type_is_refused(open_venue: Maker) -> None:
    venue = lively(open_venue)
    for name in SECTIONS:
        arrays = venue.engine.dump()
        del arrays[name]
        with pytest.raises(StateError, match=f"{name}: missing"):
            venue.kind.load(arrays)
        for wrong in (arrays | {name: np.zeros(1)}, arrays | {name: [1]}):
            with pytest.raises(StateError, match=f"{name}: not an array"):
                venue.kind.load(wrong)
    with pytest.raises(StateError, match="unknown section"):
        venue.kind.load(venue.engine.dump() | {"rumours": np.zeros(1)})


@pytest.mark.parametrize("name", [name for name in SECTIONS if name != "venue"])
def test_a_record_that_is_lost_or_out_of_order_is_refused(open_venue: Maker, name: str) -> None:
    venue = lively(open_venue)
    arrays = venue.engine.dump()
    with pytest.raises(StateError):
        venue.kind.load(arrays | {name: arrays[name][::-1].copy()})
    if name in ("balances", "orders", "assets", "accounts"):
        with pytest.raises((StateError, InvariantViolation)):
            venue.kind.load(arrays | {name: arrays[name][:-1].copy()})


def test_a_crossed_book_is_refused(venue: Venue) -> None:
    venue.rest(1, BUY, 100, 5)
    venue.rest(2, SELL, 101, 5)
    arrays = venue.engine.dump()
    arrays["orders"]["price"][1] = 100
    with pytest.raises(InvariantViolation) as caught:
        venue.kind.load(arrays)
    assert caught.value.invariant == "I5"


def test_a_negative_balance_is_refused(venue: Venue) -> None:
    arrays = venue.engine.dump()
    arrays["balances"]["available"][0] -= 2_000_000
    arrays["balances"]["available"][2] += 2_000_000
    with pytest.raises(InvariantViolation) as caught:
        venue.kind.load(arrays)
    assert caught.value.invariant == "I2"
    assert (caught.value.account, caught.value.asset, caught.value.delta) == (1, 1, -1_000_000)


def test_arrays_that_are_not_contiguous_load_all_the_same(open_venue: Maker) -> None:
    engine = lively(open_venue).engine
    arrays = {name: np.repeat(section, 2)[::2] for name, section in engine.dump().items()}
    assert not arrays["orders"].flags.c_contiguous
    assert type(engine).load(arrays).state_hash() == engine.state_hash()


def test_slots_with_gaps_are_filled_from_the_lowest(venue: Venue) -> None:
    orders = [venue.rest(1, BUY, 10, 1) for _ in range(200)]
    for order in orders[:199]:
        venue.cancel(order)
    loaded = venue.kind.load(venue.engine.dump())
    venue.engine = loaded
    assert [venue.rest(1, BUY, 10, 1)["slot"] for _ in range(3)] == [0, 1, 2]
    assert list(itertools.islice(sorted(loaded.dump()["orders"]["slot"]), 4)) == [0, 1, 2, 199]
