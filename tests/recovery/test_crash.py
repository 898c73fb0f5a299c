"""SIGKILL with commands in flight, again and again, on one directory: nothing acknowledged is lost."""

import asyncio
import os
import random
from pathlib import Path

import numpy as np
import pytest

from api.runtime.errors import LinkDown
from api.runtime.link import Answer, EngineLink
from engine import Engine
from engine.reference import Engine as Twin
from persistence.events import EventReader
from persistence.log import scan
from persistence.storage import Disk
from recovery.restart import recover
from tests.runtime.venue import EngineUnderTest, random_orders, setup_commands

KILLS = 6
SENDERS = 8
TWIN_SAMPLE = 1500


@pytest.mark.drill
async def test_sigkill_at_random_moments_loses_and_doubles_nothing(tmp_path: Path) -> None:
    seed = int(os.environ.get("HOLDFAST_SEED", random.randrange(1 << 32)))
    print(f"rerun: HOLDFAST_SEED={seed} pytest tests/recovery/test_crash.py")
    chance = random.Random(seed)
    orders = np.random.default_rng(seed)
    data = tmp_path / "venue"
    acknowledged: list[Answer] = []
    kills_in_flight = 0

    async def sender(link: EngineLink) -> bool:
        """Submit until the link goes down; whether that met a command in flight."""
        while True:
            try:
                acknowledged.append(await link.submit(random_orders(orders, chance.randrange(1, 200))))
            except LinkDown as error:
                return error.sent

    for round_number in range(KILLS):
        with EngineUnderTest(data, "--no-database", "--checkpoint-seconds", "0.2") as engine:
            if acknowledged:
                check_report(engine.report(), acknowledged)
            link = await engine.link()
            if round_number == 0:
                acknowledged.append(await link.submit(*setup_commands()))
            senders = [asyncio.create_task(sender(link)) for _ in range(SENDERS)]
            await asyncio.sleep(chance.uniform(0.05, 0.5))
            engine.kill()
            kills_in_flight += any(await asyncio.gather(*senders))
            await link.close()
    assert kills_in_flight >= KILLS // 2, "a kill that meets nothing in flight tests nothing"
    check_against_disk(data, acknowledged)


def check_report(report: dict, acknowledged: list[Answer]) -> None:
    last = max(answer.first_sequence + answer.count - 1 for answer in acknowledged)
    assert report["sequence"] >= last, "acknowledged commands are missing"
    assert report["result"] == "RECOVERED"
    assert report["alerts"] == []


def check_against_disk(data: Path, acknowledged: list[Answer]) -> None:
    """Answers, event segments, log, and the twin's replay of it all tell the same story."""
    venue = recover(Disk(), data, engine_class=Engine)
    try:
        stored = {frame.first_sequence: frame for frame in EventReader(Disk(), data / "events").frames(0)}
        commands = np.concatenate([frame.commands for frame in scan(Disk(), data / "log").frames()])
        assert list(commands["sequence"]) == list(range(1, venue.next_sequence))
        events = np.concatenate([stored[first].events for first in sorted(stored)])
        of_event = np.ascontiguousarray(events["sequence"])
        seen: set[int] = set()
        for answer in acknowledged:
            sequences = range(answer.first_sequence, answer.first_sequence + answer.count)
            assert not seen.intersection(sequences), "one sequence was given to two"
            seen.update(sequences)
            low, high = np.searchsorted(of_event, np.array([sequences[0], sequences[-1] + 1], np.uint64))
            assert events[low:high].tobytes() == answer.events.tobytes()
        twin = Twin()
        sample = commands[:TWIN_SAMPLE]
        assert twin.apply(sample).tobytes() == events[events["sequence"] <= len(sample)].tobytes()
        again = Engine()
        assert again.apply(commands).tobytes() == events.tobytes()
        assert again.state_hash() == venue.engine.state_hash()
        balances = again.dump()["balances"]
        for asset in (1, 2):
            own = balances[balances["asset"] == asset]
            assert int(own["available"].sum() + own["held"].sum()) == 2 * 10**15
    finally:
        venue.events.close()
        venue.lock.release()
