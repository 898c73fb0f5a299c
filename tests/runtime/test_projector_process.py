"""The projector process with a real engine and a real PostgreSQL."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from api.runtime.drainer import build_batch
from api.runtime.link import EngineLink
from engine import commands as make
from engine.types import EventType, VenueState
from persistence.postgres.embedded import EmbeddedPostgres
from persistence.postgres.pool import Pool
from persistence.postgres.projector import Projector
from persistence.postgres.submissions import Submission, Submissions
from persistence.text import TextBuilder, TextTag, read_text
from tests.runtime.venue import ROOT, EngineUnderTest, random_orders, setup_commands

WAIT_S = 30.0


class ProjectorUnderTest:
    """`python -m api.runtime.projector_process` as a child."""

    def __init__(self, data: Path, dsn: str) -> None:
        self.data, self.dsn = data, dsn
        self.log = data.parent / f"{data.name}.projector"

    def __enter__(self) -> "ProjectorUnderTest":
        arguments = ("--data", str(self.data), "--dsn", self.dsn)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "api.runtime.projector_process", *arguments], cwd=ROOT, stderr=log
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)

    def status(self) -> dict:
        try:
            status = json.loads((self.data / "run" / "projector.json").read_bytes())
        except FileNotFoundError:
            return {}
        return status if status["pid"] == self.process.pid else {}


async def until(condition, what: str, *logs: Path) -> None:
    """Wait for `condition()`, a coroutine function or a plain one."""
    deadline = time.monotonic() + WAIT_S
    while True:
        outcome = condition()
        if await outcome if asyncio.iscoroutine(outcome) else outcome:
            return
        assert time.monotonic() < deadline, what + "".join(f"\n{log.read_text()}" for log in logs)
        await asyncio.sleep(0.02)


async def opened(engine: EngineUnderTest) -> EngineLink:
    """A link to a venue with a market and accounts; still DRAINING."""
    link = await engine.link()
    await link.submit(*setup_commands())
    return link


def submission(account: int, number: int, *, price: int = 100, seconds: float | None = None) -> Submission:
    text = TextBuilder()
    text.add(0, TextTag.CLIENT_ORDER_ID, f"c{number}".encode())
    command = make.new(
        account=account, market=1, side=0, price=price, quantity=1, key=number, client_id=number
    )
    return Submission(
        account, "order", f"key-{number}", number, command.tobytes(), bytes(text), {"n": number}, seconds
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "venue"


async def test_rows_follow_the_engine_and_a_stop_catches_up(data: Path, dsn: str) -> None:
    with EngineUnderTest(data) as engine, ProjectorUnderTest(data, dsn) as projector:
        link = await opened(engine)
        await until(lambda: link.venue_state == VenueState.OPEN, "not drained", projector.log)
        random = np.random.default_rng(1)
        for _ in range(20):
            last = await link.submit(random_orders(random, 100))
        end = last.first_sequence + 99
        assert projector.stop() == 0
        async with Pool(dsn, minimum=1) as pool:
            assert (await Projector(pool).cursor()).sequence == end
            balances = await link.query("balances", account=1)
            async with pool.acquire() as connection:
                rows = await connection.fetch(
                    "SELECT asset, available, held FROM balances WHERE account = 1 ORDER BY asset"
                )
            assert [tuple(row) for row in rows] == [
                (row["asset"], row["available"], row["held"]) for row in balances["balances"]
            ]
        await link.close()


async def test_the_queue_is_drained_in_the_order_in_which_it_was_accepted_before_the_venue_opens(
    data: Path, dsn: str
) -> None:
    with EngineUnderTest(data) as engine:
        link = await opened(engine)
        async with Pool(dsn, minimum=1) as pool:
            submissions = Submissions(pool)
            chance = np.random.default_rng(7)
            accounts = chance.integers(1, 3, 60).tolist()
            kept = await submissions.enqueue([submission(a, n + 1) for n, a in enumerate(accounts)])
            first = kept[0].accepted_no
            await submissions.cancel(first + 5, accounts[5])
            live = await link.submit(make.new(account=1, market=1, side=1, price=100, quantity=1))
            assert live.events[0]["type"] == EventType.REJECTED, "nobody overtakes the queue"
            with ProjectorUnderTest(data, dsn) as projector:
                await until(lambda: link.venue_state == VenueState.OPEN, "not drained", projector.log)
                # The venue opens when all are answered; what became of them is written by the projector.
                await until(lambda: _is(submissions, first + 59, "DONE"), "not projected", projector.log)
                rows = [await submissions.get(first + n) for n in range(60)]
                assert [row.state for row in rows] == ["DONE"] * 5 + ["CANCELED"] + ["DONE"] * 54
                assert {row.outcome for row in rows if row.state == "DONE"} == {"ACCEPTED"}
                sequences = [row.sequence for row in rows if row.state == "DONE"]
                assert sequences == sorted(sequences)
                assert (await submissions.mode()).mode == "LIVE"
                more = await submissions.enqueue([submission(1, 1000)])
                await until(
                    lambda: _is(submissions, more[0].accepted_no, "DONE"),
                    "what comes while OPEN is drained too",
                    projector.log,
                )
                await until(lambda: _mode_is(submissions, "LIVE"), "mode", projector.log)
        await link.close()


async def _is(submissions: Submissions, number: int, state: str) -> bool:
    row = await submissions.get(number)
    return row is not None and row.state == state


async def _mode_is(submissions: Submissions, mode: str) -> bool:
    return (await submissions.mode()).mode == mode


async def _none_waits(submissions: Submissions) -> bool:
    return await submissions.waiting() == 0


async def test_a_drainer_and_an_engine_killed_while_draining_take_each_submission_once(
    data: Path, dsn: str
) -> None:
    count = 3000
    async with Pool(dsn, minimum=1) as pool:
        submissions = Submissions(pool)
        with EngineUnderTest(data) as engine:
            link = await opened(engine)
            await link.close()
            for start in range(0, count, 1000):
                await submissions.enqueue([submission(1, n + 1) for n in range(start, start + 1000)])
            with ProjectorUnderTest(data, dsn) as projector:
                await until(lambda: _some_claimed(pool), "nothing claimed", projector.log)
                projector.process.kill()
            with ProjectorUnderTest(data, dsn) as projector:
                await until(lambda: projector.status() != {}, "no status", projector.log)
                engine.kill()
                with EngineUnderTest(data) as again:
                    link = await again.link()
                    await until(lambda: link.venue_state == VenueState.OPEN, "not drained", projector.log)
                    await until(lambda: _none_waits(submissions), "not resolved", projector.log)
                    async with pool.acquire() as connection:
                        rows = await connection.fetch(
                            "SELECT state, outcome, sequence FROM submissions ORDER BY accepted_no"
                        )
                        orders = await connection.fetchval("SELECT count(*) FROM orders")
                    assert [row["state"] for row in rows] == ["DONE"] * count
                    assert {row["outcome"] for row in rows} == {"ACCEPTED"}
                    assert [row["sequence"] for row in rows] == sorted({row["sequence"] for row in rows})
                    live = await link.query("orders", account=1)
                    assert len(live["orders"]) == count == orders
                    await link.close()


async def _some_claimed(pool: Pool) -> bool:
    async with pool.acquire() as connection:
        return bool(
            await connection.fetchval("SELECT EXISTS (SELECT FROM submissions WHERE state <> 'QUEUED')")
        )


async def test_a_halted_venue_takes_nothing_from_the_queue_but_what_is_past_its_time_expires(
    data: Path, dsn: str
) -> None:
    with EngineUnderTest(data) as engine:
        link = await opened(engine)
        await link.submit(make.set_venue_state(state=VenueState.HALTED))
        async with Pool(dsn, minimum=1) as pool:
            submissions = Submissions(pool)
            waits, expires = await submissions.enqueue([submission(1, 1), submission(1, 2, seconds=0.2)])
            with ProjectorUnderTest(data, dsn) as projector:
                await until(
                    lambda: _is(submissions, expires.accepted_no, "EXPIRED"), "no expiry", projector.log
                )
                assert await _is(submissions, waits.accepted_no, "QUEUED")
                await link.submit(make.set_venue_state(state=VenueState.OPEN))
                await until(lambda: _is(submissions, waits.accepted_no, "DONE"), "not resumed", projector.log)
        await link.close()


async def test_an_outage_of_the_database_is_waited_out_and_then_caught_up(
    data: Path, dsn: str, postgres: EmbeddedPostgres
) -> None:
    with EngineUnderTest(data) as engine, ProjectorUnderTest(data, dsn) as projector:
        link = await opened(engine)
        await until(lambda: link.venue_state == VenueState.OPEN, "not drained", projector.log)
        postgres.kill()
        random = np.random.default_rng(1)
        last = await link.submit(random_orders(random, 500))
        await until(lambda: projector.status().get("database") == "down", "no outage seen", projector.log)
        status = projector.status()
        assert status["lag_sequences"] >= 500
        assert projector.process.poll() is None
        postgres.start()
        end = last.first_sequence + 499
        await until(lambda: projector.status().get("sequence") == end, "no catching up", projector.log)
        assert projector.status()["lag_sequences"] == 0
        await link.close()


async def test_a_second_projector_on_the_database_ends_and_harms_nothing(data: Path, dsn: str) -> None:
    with EngineUnderTest(data) as engine, ProjectorUnderTest(data, dsn) as projector:
        link = await opened(engine)
        await until(lambda: link.venue_state == VenueState.OPEN, "not drained", projector.log)
        async with Pool(dsn, minimum=1) as pool, pool.acquire() as connection:
            await connection.execute("UPDATE projection SET event_number = event_number + 1")
        await link.submit(random_orders(np.random.default_rng(1), 10))
        assert projector.process.wait(WAIT_S) in (65, 75)
        await link.close()


def test_a_batch_names_its_submissions_in_command_and_text() -> None:
    rows = [queued(n) for n in (4, 5, 9)]
    commands, text = build_batch(rows)
    assert list(commands["accepted_no"]) == [4, 5, 9]
    assert list(read_text(text)) == [
        (0, TextTag.CLIENT_ORDER_ID, b"c4"),
        (0, TextTag.SUBMISSION, b"4"),
        (1, TextTag.CLIENT_ORDER_ID, b"c5"),
        (1, TextTag.SUBMISSION, b"5"),
        (2, TextTag.CLIENT_ORDER_ID, b"c9"),
        (2, TextTag.SUBMISSION, b"9"),
    ]


def queued(number: int):
    kept = submission(1, number)

    class Row:
        accepted_no = number
        command = kept.command
        text = kept.text

    return Row()
