"""Questions are answered from what they name: none of them dumps the state."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from api.runtime.errors import Refused
from api.runtime.queries import Queries
from engine import Engine
from engine import commands as make
from engine.reference import Engine as Twin
from persistence.storage import Disk
from recovery.definitions import Definitions
from tests.runtime.venue import random_orders, setup_commands


class NeverDumps(Engine):
    def dump(self) -> dict[str, Any]:
        raise AssertionError("the whole state was dumped for one question")


def asked(engine: Any, tmp_path: Path) -> Queries:
    commands, _ = setup_commands()
    engine.apply(commands)
    engine.apply(random_orders(np.random.default_rng(7), 400))
    engine.apply(make.add_key(key_hash=bytes(range(32)), scopes=3, account=1, expire_time_ns=9))
    engine.apply(make.new(account=2, market=1, side=0, price=3, quantity=2, key=1 << 100 | 5, body=6))
    engine.apply(make.new(account=2, market=1, side=0, price=2, quantity=2, accepted_no=4))
    pipeline = SimpleNamespace(engine=engine, definitions=Definitions(), gate=SimpleNamespace())
    return Queries(pipeline, Disk(), tmp_path, lambda: {"sequence": engine.sequence})  # type: ignore[arg-type]


QUESTIONS: list[dict[str, Any]] = [
    {"what": "depth", "market": 1},
    {"what": "depth", "market": 1, "levels": 3},
    {"what": "balances", "account": 1},
    {"what": "balances", "account": 77},
    {"what": "orders", "account": 1},
    {"what": "orders", "account": 0},
    {"what": "order", "order_id": 1 << 62 | 4},
    {"what": "order", "order_id": 12345, "slot": 3},
    {"what": "key", "account": 2, "key_lo": 5, "key_hi": 1 << 36},
    {"what": "key", "account": 1, "key_lo": 5, "key_hi": 1 << 36},
    {"what": "definitions"},
]


def test_the_core_answers_without_a_dump_what_the_twin_answers(tmp_path: Path) -> None:
    core, twin = asked(NeverDumps(), tmp_path), asked(Twin(), tmp_path)
    for question in QUESTIONS:
        assert core.answer(question) == twin.answer(question), question
    assert core.answer({"what": "key", "account": 2, "key_lo": 5, "key_hi": 1 << 36})["body"] == 6
    assert core.answer({"what": "order", "order_id": 1 << 62 | 4})["order"]["price"] == 2
    assert len(core.answer({"what": "depth", "market": 1, "levels": 3})["bids"]) == 3
    with pytest.raises(AssertionError, match="dumped"):
        core.answer({"what": "state_hash"})


def test_a_subscriber_is_welcomed_without_a_dump(tmp_path: Path) -> None:
    core, twin = asked(NeverDumps(), tmp_path), asked(Twin(), tmp_path)
    welcome = core.welcome(True)
    assert welcome == twin.welcome(True)
    assert welcome["keys"] == [[bytes(range(32)).hex(), 1, 3, 9, 0]]
    assert welcome["books"]["1"]["bids"][-1] == [2, 2, 1]
    assert set(core.welcome(False)) == {"sequence"}


@pytest.mark.parametrize(
    ("code", "question"),
    [
        ("BAD_REQUEST", {"what": "nothing"}),
        ("BAD_REQUEST", {"what": "depth"}),
        ("BAD_REQUEST", {"what": "depth", "market": 1, "levels": 0}),
        ("BAD_REQUEST", {"what": "depth", "market": -1}),
        ("UNKNOWN_MARKET", {"what": "depth", "market": 2}),
        ("BAD_REQUEST", {"what": "order", "order_id": 1 << 70}),
        ("BAD_REQUEST", {"what": "key", "account": 1, "key_lo": 1 << 64, "key_hi": 0}),
        ("BAD_REQUEST", {"what": "key", "account": 1, "key_lo": -1, "key_hi": 0}),
    ],
)
def test_what_cannot_be_meant_is_refused(code: str, question: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        asked(NeverDumps(), tmp_path).answer(question)
    assert refused.value.code == code
