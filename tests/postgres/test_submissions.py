"""The queue: numbered in commit order, each once, one winner of every race, nothing left behind in LIVE."""

import asyncio
import json
import random
import re
from dataclasses import replace

import pytest

from engine import commands as make
from engine.types import QUEUED, Reason
from persistence.postgres.embedded import EmbeddedPostgres
from persistence.postgres.errors import DatabaseUnavailable, QueueFull, StaleEpoch
from persistence.postgres.pool import Pool
from persistence.postgres.projector import Projector
from persistence.postgres.queries import Queries
from persistence.postgres.submissions import _CLAIM, _ENDED, _EXPIRE, Resolution, Submission, Submissions
from persistence.text import TextTag
from tests.postgres.venue import Venue


def submission(
    key: str | None = "k", *, account: int = 1, body: int = 7, ttl: float | None = None
) -> Submission:
    command = make.new(account=account, market=1, side=0, price=10, quantity=1).tobytes()
    kind = "order" if key is not None else "cancel"
    return Submission(account, kind, key, body, command, b"text", {"quantity": "1.0"}, ttl)


@pytest.fixture
def queue(pool: Pool) -> Submissions:
    return Submissions(pool)


async def test_what_was_kept_comes_back_whole(queue: Submissions) -> None:
    asked = replace(submission("päron"), body=(1 << 64) - 1)
    [kept] = await queue.enqueue([asked])
    row = await queue.get(kept.accepted_no)
    assert row is not None and row == await queue.by_key(1, "päron")
    assert (row.account, row.kind, row.idempotency_key, row.body) == (1, "order", "päron", (1 << 64) - 1)
    assert (row.command, row.text, row.request) == (asked.command, asked.text, asked.request)
    assert (row.state, row.epoch, row.outcome, row.expires_at) == ("QUEUED", 0, None, None)
    assert (await queue.mode()).mode == "QUEUE"
    assert await queue.list_open(1) == [row] and await queue.list_open(2) == []
    assert await queue.get(99) is None


async def test_the_same_key_and_body_is_kept_once_and_another_body_is_a_conflict(queue: Submissions) -> None:
    [first] = await queue.enqueue([submission("a")])
    again = await queue.enqueue(
        [
            submission("a"),
            submission("a", body=8),
            submission("a", account=2),
            submission("b"),
            submission("b"),
            submission("b", body=9),
        ]
    )
    assert [(e.accepted_no, e.replayed, e.conflict) for e in again] == [
        (first.accepted_no, True, False),
        (first.accepted_no, False, True),
        (2, False, False),
        (3, False, False),
        (3, True, False),
        (3, False, True),
    ]
    assert await queue.waiting() == 3


async def test_a_key_is_free_again_a_day_after_it_was_used(queue: Submissions, pool: Pool) -> None:
    await queue.enqueue([submission("a")])
    assert await queue.cancel(1, 1)
    assert (await queue.enqueue([submission("a")]))[0].replayed
    async with pool.acquire() as connection:
        await connection.execute("UPDATE submissions SET accepted_at = accepted_at - interval '25 hours'")
    [fresh] = await queue.enqueue([submission("a", body=99)])
    assert (fresh.accepted_no, fresh.replayed, fresh.conflict) == (2, False, False)


async def test_what_ended_in_the_queue_is_told_in_pages_in_the_order_of_its_end(
    queue: Submissions, pool: Pool
) -> None:
    """Cancelled and expired orders of a day, and nothing that the engine has heard of."""
    await queue.enqueue([submission("waits"), submission("expires", ttl=0.0), submission(None)])
    await queue.enqueue([submission("cancelled", body=(1 << 64) - 1), submission("old"), submission("done")])
    assert await queue.cancel(5, 1) and await queue.cancel(4, 1)
    assert not await queue.cancel(3, 1), "a cancel is no order that could be cancelled"
    assert [row.accepted_no for row in await queue.claim(1)] == [1, 3, 6]
    await queue.resolve(1, [Resolution(6, 50, QUEUED | 6, "ACCEPTED")])
    async with pool.acquire() as connection:
        await connection.execute(
            "UPDATE submissions SET accepted_at = now() - interval '25 hours' WHERE accepted_no = 5"
        )
    rows = await queue.ended()
    assert [(row.idempotency_key, row.accepted_no, row.body) for row in rows] == [
        ("cancelled", 4, (1 << 64) - 1),
        ("expires", 2, 7),
    ]
    page = await queue.ended(limit=1)
    assert page == rows[:1]
    assert await queue.ended(after=page[0].resolved_at, after_no=4) == rows[1:]
    statement = _ENDED.replace("$1", "NULL").replace("$2", "0").replace("$3", "10")
    async with pool.acquire() as connection:
        await connection.execute("SET enable_seqscan = off")
        plan = str(await connection.fetchval(f"EXPLAIN (FORMAT JSON) {statement}"))
    assert "submissions_ended" in plan


async def test_a_key_that_the_engine_has_used_is_known_by_the_rows(queue: Submissions, pool: Pool) -> None:
    venue = Venue()
    venue.open()
    texts = ("placed", "refused", "of nobody")
    frame = venue.apply(
        make.new(account=1, market=1, side=0, price=10, quantity=1, key=5),
        make.new(account=1, market=1, side=0, price=10**6, quantity=10**6, key=6),
        make.new(account=99, market=1, side=0, price=10, quantity=1, key=7),
        text=[(i, TextTag.IDEMPOTENCY_KEY, text.encode()) for i, text in enumerate(texts)],
    )
    await Projector(pool).apply(venue.frames)
    first = frame.first_sequence
    keys = [(1, "placed"), (1, "refused"), (99, "of nobody"), (1, "unheard"), (2, "placed")]
    async with pool.acquire() as connection:
        await connection.execute("UPDATE orders SET created_at = now()")
        await connection.execute("UPDATE rejections SET created_at = now()")
    assert await queue.used(keys) == {(1, "placed"): first, (1, "refused"): first + 1}
    # What the queue itself knows is the queue's to say.
    await queue.enqueue([submission("placed")])
    assert await queue.used(keys) == {(1, "refused"): first + 1}
    found = await queue.frame_of(first + 1)
    assert found is not None and (found[0], found[2]) == (first, frame.events.tobytes())
    assert await queue.frame_of(first + 100) is None


async def test_concurrent_enqueues_are_dense_and_visible_in_order(queue: Submissions, pool: Pool) -> None:
    """A reader that sees number n sees every number below it: numbers follow commit order."""
    done = asyncio.Event()

    async def gateway(name: int) -> list[int]:
        given = []
        for turn in range(25):
            results = await queue.enqueue([submission(f"{name}-{turn}-{i}") for i in range(1 + turn % 5)])
            given += [result.accepted_no for result in results]
        return given

    async def watch() -> int:
        looks = 0
        while not done.is_set():
            async with pool.acquire() as connection:
                row = await connection.fetchrow(
                    "SELECT count(*) AS n, max(accepted_no) AS last FROM submissions"
                )
            assert row["n"] == (row["last"] or 0)
            looks += 1
        return looks

    watcher = asyncio.create_task(watch())
    given = await asyncio.gather(*[gateway(name) for name in range(6)])
    done.set()
    assert await watcher > 3
    assert sorted(number for mine in given for number in mine) == list(range(1, 6 * 75 + 1))
    assert all(mine == sorted(mine) for mine in given)


async def test_one_key_from_many_gateways_at_once_is_kept_once(queue: Submissions) -> None:
    results = await asyncio.gather(*[queue.enqueue([submission("same")]) for _ in range(8)])
    assert {result[0].accepted_no for result in results} == {1}
    assert sum(not result[0].replayed for result in results) == 1


async def test_claims_go_in_order_and_older_claims_come_again_to_a_newer_epoch(queue: Submissions) -> None:
    await queue.enqueue([submission(str(i)) for i in range(10)])
    first = await queue.claim(3, 4)
    assert [row.accepted_no for row in first] == [1, 2, 3, 4]
    assert {(row.state, row.epoch) for row in first} == {("CLAIMED", 3)}
    assert [row.accepted_no for row in await queue.claim(3, 4)] == [5, 6, 7, 8]
    assert await queue.resolve(3, [Resolution(2, 50, QUEUED | 2, "ACCEPTED")]) == 1
    assert [row.accepted_no for row in await queue.claim(4, 100)] == [1, 3, 4, 5, 6, 7, 8, 9, 10]
    with pytest.raises(StaleEpoch):
        await queue.claim(3)
    assert await queue.resolve(3, [Resolution(1, 51, QUEUED | 1, "ACCEPTED")]) == 0
    row = await queue.get(2)
    assert row is not None and (row.state, row.outcome, row.sequence, row.order_id) == (
        "DONE",
        "ACCEPTED",
        50,
        QUEUED | 2,
    )


async def test_what_is_claimed_can_be_read_back_in_order(queue: Submissions) -> None:
    """A claim whose answer was lost is not claimed again by the same epoch; it is read back."""
    await queue.enqueue([submission(str(i)) for i in range(6)])
    await queue.claim(3, 4)
    assert [row.accepted_no for row in await queue.claimed(3)] == [1, 2, 3, 4]
    assert [row.accepted_no for row in await queue.claimed(3, after=1, limit=2)] == [2, 3]
    await queue.resolve(3, [Resolution(2, 50, QUEUED | 2, "ACCEPTED")])
    assert [row.accepted_no for row in await queue.claimed(3)] == [1, 3, 4]
    assert await queue.claimed(2) == await queue.claimed(4) == []


async def test_of_a_cancel_and_a_claim_at_once_exactly_one_wins(queue: Submissions) -> None:
    both_ways = set()
    for turn in range(40):
        [kept] = await queue.enqueue([submission(str(turn))])
        number = kept.accepted_no

        async def cancel(number: int = number, wait: int = turn % 4) -> bool:
            await asyncio.sleep(0.0004 * wait)
            return await queue.cancel(number, 1)

        cancelled, claimed = await asyncio.gather(cancel(), queue.claim(1))
        assert cancelled != (number in [row.accepted_no for row in claimed])
        row = await queue.get(number)
        assert row is not None and row.state == ("CANCELED" if cancelled else "CLAIMED")
        both_ways.add(cancelled)
    assert both_ways == {True, False}, "the race had only one winner: it was no race"


async def test_only_the_owner_cancels(queue: Submissions) -> None:
    await queue.enqueue([submission()])
    assert not await queue.cancel(1, 2)
    assert await queue.cancel(1, 1)
    assert not await queue.cancel(1, 1)


async def test_what_is_past_its_time_expires_and_is_never_claimed(queue: Submissions, pool: Pool) -> None:
    await queue.enqueue([submission("a", ttl=0.0), submission("b", ttl=60.0), submission("c")])
    assert [row.idempotency_key for row in await queue.claim(1)] == ["b", "c"]
    row = await queue.get(1)
    assert row is not None and row.state == "EXPIRED" and row.resolved_at is not None
    assert not await queue.cancel(1, 1)
    async with pool.acquire() as connection:
        await connection.execute("UPDATE submissions SET expires_at = now() WHERE accepted_no = 2")
    assert await queue.expire() == 0, "a claimed submission is the engine's to decide"


async def test_the_queue_is_bounded(pool: Pool) -> None:
    queue = Submissions(pool, waiting_max=3)
    await queue.enqueue([submission(str(i)) for i in range(3)])
    with pytest.raises(QueueFull):
        await queue.enqueue([submission("more")])
    assert (await queue.enqueue([submission("0")]))[0].replayed
    assert await queue.cancel(1, 1)
    assert (await queue.enqueue([submission("more")]))[0].accepted_no == 4


async def test_claiming_and_expiring_run_no_query_again_for_each_row(queue: Submissions, pool: Pool) -> None:
    """With statistics from when nothing waited, a planner may think that few rows do."""
    waiting = 500
    await queue.enqueue([submission(f"done-{i}") for i in range(2000)])
    async with pool.acquire() as connection:
        await connection.execute("UPDATE submissions SET state = 'CANCELED', resolved_at = now()")
        await connection.execute("ANALYZE submissions")
    await queue.enqueue([submission(f"waits-{i}") for i in range(waiting)])
    for statement, arguments in ((_EXPIRE, ("10000",)), (_CLAIM, ("1", "100"))):
        for number, value in enumerate(arguments, start=1):
            statement = statement.replace(f"${number}", value)
        async with pool.acquire() as connection:
            text = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}")
        plan = str(json.loads(text))
        loops = [int(found) for found in re.findall(r"'Actual Loops': (\d+)", plan)]
        assert loops and max(loops) == 1, plan


async def test_draining_ends_only_when_nothing_waits(queue: Submissions) -> None:
    sent = []

    async def send() -> None:
        sent.append(1)

    await queue.enqueue([submission()])
    assert not await queue.try_drained(1, send)
    await queue.claim(1)
    assert not await queue.try_drained(1, send)
    await queue.resolve(1, [Resolution(1, 5, QUEUED | 1, "ACCEPTED")])
    assert not sent
    assert await queue.try_drained(1, send)
    assert sent == [1] and (await queue.mode()).mode == "LIVE"
    with pytest.raises(StaleEpoch):
        await queue.try_drained(0, send)


async def test_what_the_engine_has_answered_no_longer_waits(queue: Submissions) -> None:
    async def send() -> None: ...

    await queue.enqueue([submission("a"), submission("b")])
    await queue.claim(1)
    assert not await queue.try_drained(1, send, answered_no=1)
    assert await queue.try_drained(1, send, answered_no=2)
    # Claimed by another epoch: that engine's answers say nothing of this one's.
    await queue.enqueue([submission("c")])
    await queue.claim(2)
    assert not await queue.try_drained(3, send, answered_no=3)


async def test_an_enqueue_waits_while_the_queue_closes_and_goes_on_when_it_is_drained(
    queue: Submissions,
) -> None:
    async def send() -> None: ...

    await queue.enqueue([submission("before")])
    await queue.close_queue(1)
    late = asyncio.create_task(queue.enqueue([submission("late")]))
    await asyncio.sleep(0.1)
    assert not late.done()
    assert [row.accepted_no for row in await queue.claim(1)] == [1]
    assert await queue.try_drained(1, send, answered_no=1)
    assert (await late)[0].accepted_no == 2
    assert (await queue.mode()).mode == "QUEUE"


async def test_a_drainer_that_dies_while_closing_holds_up_nobody_for_long(queue: Submissions) -> None:
    await queue.enqueue([submission("before")])
    await queue.close_queue(1)
    assert (await queue.enqueue([submission("late")]))[0].accepted_no == 2
    assert (await queue.mode()).mode == "QUEUE"


async def test_closing_means_nothing_while_the_venue_is_live(queue: Submissions) -> None:
    await queue.close_queue(1)
    assert (await queue.mode()).mode == "LIVE"


async def test_a_failed_drained_command_leaves_the_mode_as_it_was(queue: Submissions) -> None:
    await queue.enqueue([submission()])
    await queue.cancel(1, 1)

    async def send() -> None:
        raise ConnectionResetError("the engine is gone")

    with pytest.raises(DatabaseUnavailable, match="engine is gone"):
        await queue.try_drained(1, send)
    assert (await queue.mode()).mode == "QUEUE"


async def test_no_submission_is_left_behind_in_mode_live(queue: Submissions) -> None:
    """Gateways enqueue while a drainer drains: at each DRAINED nothing waits, and nothing comes before LIVE.

    `send` checks from another connection, inside the window in which an enqueue
    would be overtaken. The drainer stops when the gateways have; in the end all
    is done.
    """
    gateways = 4
    finished = 0
    drained = 0

    async def gateway(name: int) -> None:
        nonlocal finished
        rng = random.Random(name)
        for turn in range(20):
            await queue.enqueue([submission(f"{name}-{turn}")])
            await asyncio.sleep(rng.random() * 0.03)
        finished += 1

    async def send() -> None:
        nonlocal drained
        before = await queue.mode()
        assert await queue.waiting() == 0
        await asyncio.sleep(0.002)
        assert await queue.mode() == before and await queue.waiting() == 0
        drained += 1

    async def drainer() -> None:
        sequence = 0
        while True:
            last_turn = finished == gateways
            rows = await queue.claim(1, 3)
            resolutions = []
            for row in rows:
                sequence += 1
                resolutions.append(
                    Resolution(row.accepted_no, sequence, QUEUED | row.accepted_no, "ACCEPTED")
                )
            if resolutions:
                assert await queue.resolve(1, resolutions) == len(resolutions)
            elif (await queue.mode()).mode == "QUEUE":
                await queue.try_drained(1, send)
            elif last_turn:
                return

    await asyncio.gather(drainer(), *[gateway(name) for name in range(gateways)])
    assert drained > 1
    assert (await queue.mode()).mode == "LIVE" and await queue.waiting() == 0


async def test_the_projector_resolves_submissions_with_the_commands_outcome(
    queue: Submissions, pool: Pool
) -> None:
    await queue.enqueue([submission(str(i)) for i in range(4)] + [submission(None)])
    await queue.claim(1)
    venue = Venue()
    venue.open()
    frame = venue.apply(
        make.new(account=1, market=1, side=0, price=10, quantity=1, accepted_no=1, key=5),
        make.new(account=1, market=1, side=0, price=10**6, quantity=10**6, accepted_no=2),
        make.new(account=1, market=1, side=0, price=10, quantity=1, accepted_no=1),
        make.new(account=1, market=1, side=0, price=10, quantity=1, accepted_no=3, key=5),
        make.cancel(account=1, order_id=QUEUED | 1, accepted_no=5),
        text=[(i, TextTag.SUBMISSION, str(n).encode()) for i, n in enumerate((1, 2, 1, 3, 5))],
    )
    await Projector(pool).apply(venue.frames)
    first = frame.first_sequence
    rows = [await queue.get(number) for number in (1, 2, 3, 4, 5)]
    assert [(r.state, r.outcome, r.sequence, r.order_id, r.reason) for r in rows if r] == [
        ("DONE", "ACCEPTED", first, QUEUED | 1, 0),
        ("DONE", "REJECTED", first + 1, QUEUED | 2, Reason.INSUFFICIENT_FUNDS),
        ("DONE", "DUPLICATE", first, QUEUED | 1, 0),
        ("CLAIMED", None, None, None, 0),
        ("DONE", "CANCELED", first + 4, QUEUED | 1, Reason.USER_REQUESTED),
    ]
    refused = await Queries(pool).order(QUEUED | 2)
    assert refused is not None and refused.public_id == "q2"


async def test_enqueues_survive_kills_of_postgres_each_exactly_once(
    postgres: EmbeddedPostgres, dsn: str
) -> None:
    """What was answered is there; what was in doubt is there once, found by its key."""
    async with Pool(dsn, minimum=0) as pool:
        queue = Submissions(pool)
        answered: dict[str, int] = {}

        async def gateway(name: int) -> None:
            for turn in range(60):
                key = f"{name}-{turn}"
                answered[key] = (await queue.enqueue([submission(key)]))[0].accepted_no

        task = asyncio.gather(*[gateway(name) for name in range(3)])
        for _ in range(3):
            await asyncio.sleep(0.03)
            postgres.kill()
            postgres.start()
        await task
        async with pool.acquire() as connection:
            rows = await connection.fetch("SELECT accepted_no, idempotency_key FROM submissions")
        assert {row["idempotency_key"]: row["accepted_no"] for row in rows} == answered
        assert len(rows) == 180


async def test_the_newest_waiting_order_under_a_client_id_is_found_however_long_the_queue(
    queue: Submissions, pool: Pool
) -> None:
    def named(number: int, name: str, account: int = 1) -> Submission:
        asked = submission(f"{account}-{number}", account=account)
        return replace(asked, request={**asked.request, "client_order_id": name})

    kept = await queue.enqueue([named(i, f"id-{i % 1500}") for i in range(2000)])
    await queue.enqueue([named(1, "id-1499", account=2)])
    queries = Queries(pool)
    assert await queries.waiting_by_client_id(1, "id-1499") == kept[1499].accepted_no
    assert await queries.waiting_by_client_id(1, "id-3") == kept[1503].accepted_no
    assert await queries.waiting_by_client_id(2, "id-3") is None
    assert await queue.cancel(kept[1503].accepted_no, 1)
    assert await queries.waiting_by_client_id(1, "id-3") == kept[3].accepted_no
