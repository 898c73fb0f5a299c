"""The core and its readable twin give the same events and the same state on any stream.

HOLDFAST_PROPERTY_COMMANDS=2000000 pytest tests/property      # far longer
HOLDFAST_PROPERTY_SEED=123 pytest tests/property              # the same again
"""

import os
import secrets
from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import Engine as Core
from engine import InvariantViolation, Tainted
from engine import commands as make
from engine.reference import Engine as Twin
from engine.reference import book, fees, ledger, matcher, trading
from engine.reference import core as twin_core
from engine.types import EventType, Reason
from tests.property.compare import agree, record, same_state

COMMANDS = int(os.environ.get("HOLDFAST_PROPERTY_COMMANDS", "60000"))
SEED = int(os.environ.get("HOLDFAST_PROPERTY_SEED", str(secrets.randbits(32))))
LENGTH = 800


def test_long_streams_give_the_same_events_and_state() -> None:
    done, seed = 0, SEED
    print(f"HOLDFAST_PROPERTY_SEED={SEED} HOLDFAST_PROPERTY_COMMANDS={COMMANDS}")
    while done < COMMANDS:
        try:
            done += agree(Random(seed), LENGTH, Twin, Core, Twin.load, Core.load)
        except Exception as error:
            error.add_note(
                f"rerun: HOLDFAST_PROPERTY_SEED={seed} HOLDFAST_PROPERTY_COMMANDS=1 pytest {__file__}"
            )
            raise
        seed += 1


@settings(
    max_examples=150,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
@given(random=st.randoms(use_true_random=False), length=st.integers(0, 60))
def test_short_streams_that_shrink_give_the_same_events_and_state(random: Random, length: int) -> None:
    agree(random, length, Twin, Core, Twin.load, Core.load)


def test_a_gap_in_the_sequence_taints_both_engines_alike() -> None:
    for made in (Twin(), Core()):
        made.apply(make.open_asset())
        with pytest.raises(InvariantViolation) as caught:
            made.apply(make.open_asset(sequence=3))
        assert (caught.value.invariant, caught.value.sequence) == ("I9", 2)
        with pytest.raises(Tainted):
            made.apply(make.open_asset())


def _floor_fee(notional: int, ppm: int, residue: int) -> tuple[int, int]:
    return notional * ppm // 1_000_000, 0


def _newest_first(level: book.Level) -> Any:
    return next(reversed(level.orders.values()))


def _worst_first(self: book.Book, side: int) -> Any:
    prices = self.sides[side]
    return prices.peekitem(0 if side == 0 else -1)[1] if prices else None


def _forgets_the_fee(original: Any) -> Any:
    def settle(
        self: Any, market: Any, buyer: Any, seller: Any, quantity: int, notional: int, *rest: Any
    ) -> None:
        (_, seller_fee), holds = rest
        original(self, market, buyer, seller, quantity, notional, (0, seller_fee), holds)

    return settle


def _keeps_priority_on_increase(original: Any) -> Any:
    def requeue(venue: Any, order: Any, price: int, leaves: int, events: Any) -> Any:
        priority = order.priority
        reason = original(venue, order, price, leaves, events)
        order.priority = priority
        return reason

    return requeue


PLANTED = {
    "a fee is rounded down": (fees, matcher, "fee_of", lambda _: _floor_fee),
    "the youngest order of a level trades first": (
        book.Level,
        None,
        "head",
        lambda _: property(_newest_first),
    ),
    "the worst price trades first": (book.Book, None, "best", lambda _: _worst_first),
    "the buyer's fee is not taken": (ledger.Ledger, None, "settle", _forgets_the_fee),
    "an increase keeps its priority": (trading, None, "_requeue", _keeps_priority_on_increase),
    "a fill or kill is never killed": (matcher, trading, "can_fill_whole", lambda _: lambda *_: True),
    "keys are never kept": (twin_core, None, "_keep_key", lambda _: lambda *_: None),
}


@pytest.fixture(params=PLANTED, ids=lambda name: name.replace(" ", "_"))
def planted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    owner, user, name, replace = PLANTED[request.param]
    faulty = replace(getattr(owner, name))
    for where in (owner, user):
        if where is not None:
            monkeypatch.setattr(where, name, faulty)
    return


@pytest.mark.usefixtures("planted")
def test_streams_are_dense_enough_to_catch_a_planted_bug() -> None:
    with pytest.raises((AssertionError, InvariantViolation)):
        for seed in range(4):
            agree(Random(seed), LENGTH, Twin, Core, Twin.load, Core.load)


def test_every_kind_of_event_and_most_reasons_come_up() -> None:
    kinds: set[int] = set()
    reasons: set[int] = set()
    for seed in range(12):
        commands, _ = record(Random(seed), Twin(), LENGTH)
        events = Twin().apply(commands)
        kinds |= set(np.unique(events["type"]).tolist())
        reasons |= set(np.unique(events["reason"]).tolist())
    assert kinds == set(EventType)
    # The bounds of the venue are too large to reach here.
    assert reasons >= set(Reason) - {Reason.IDEMPOTENCY_QUOTA, Reason.LIMIT_REACHED}


def test_a_loaded_twin_and_a_loaded_core_are_the_same_from_either_dump() -> None:
    twin, core = Twin(), Core()
    commands = np.concatenate([make.open_asset(), make.open_asset(), make.open_account()])
    twin.apply(commands)
    core.apply(commands)
    same_state(Twin.load(core.dump()), Core.load(twin.dump()))
