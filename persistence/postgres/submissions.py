"""PENDING_SUBMISSION: what arrives while the engine is away, kept in the order in which it was accepted.

              enqueue            claim(epoch)          resolve, or the projector
    (nothing) ───────▶ QUEUED ─────────────▶ CLAIMED ─────────────────────────▶ DONE
                         │  ▲                   │  claim(higher epoch)
                 cancel, │  └── never back ──   └──▶ CLAIMED
                 expiry  ▼
                      CANCELED, EXPIRED

Each arrow is one UPDATE that names the state it comes from: of a cancel and a
claim at once exactly one wins. After CLAIMED only the engine decides.

**Order.** `accepted_no` comes from the counter in the row of `venue_mode`, which
is locked from then until the commit: numbers are dense and follow commit order,
so whoever reads *n* + 1 can read *n*. Submissions are given many at a time, one
transaction for all: the lock is held once and one sync carries them.

**No overtaking (F1b).** That same transaction moves the mode to QUEUE. The
drainer moves it back in `try_drained`, which locks the row, sees that the engine
has answered all that was accepted, has the DRAINED command made durable, and only
then commits LIVE. An enqueue is before (and is seen to wait) or after (and flips
the mode again, so that the drainer goes on): nothing is left waiting in mode LIVE.

**Draining ends.** Clients that keep asking would keep the queue from ever being
empty. So the drainer sets the mode CLOSING when a first pass is done: an enqueue
then waits, up to CLOSING_S, for the drainer to finish the rest, which is finite.
A drainer that dies there holds nobody up for longer.

All times are the database's clock, so that gateways need not agree on theirs.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from engine.types import Reason
from persistence.postgres.errors import QueueFull, StaleEpoch
from persistence.postgres.pool import Connection, Pool

WAITING_MAX = 1_000_000
"""Submissions that may wait at once."""
ENQUEUE_MAX = 4096
CLAIM_MAX = 10_000
KEY_WINDOW = "24 hours"
CLOSING_S = 1.0
"""How long an enqueue waits, at most, for a queue that is being closed."""
_CLOSING_POLL_S = 0.01

_KEY_STAYS_FREE = ", ".join(
    str(int(reason))
    for reason in (
        Reason.VENUE_DRAINING,
        Reason.IDEMPOTENCY_CONFLICT,
        Reason.IDEMPOTENCY_QUOTA,
        Reason.UNKNOWN_ACCOUNT,
    )
)
"""Refusals under a key that are not the key's answer."""

OUTCOMES = ("ACCEPTED", "CANCELED", "REJECTED", "DUPLICATE")


@dataclass(frozen=True, slots=True)
class Submission:
    """What a gateway wants kept.

    Parameters
    ----------
    account : int
    kind : str
        `order` or `cancel`.
    idempotency_key : str or None
        Required for an order.
    body : int
        64-bit digest of what was asked; the same key with another one is a conflict.
    command : bytes
        One COMMAND record, without sequence, time or accepted_no.
    text : bytes
        Text area with index 0.
    request : dict
        What to show of it while it waits.
    time_to_live_s : float or None
        When it expires; None for never.
    """

    account: int
    kind: str
    idempotency_key: str | None
    body: int
    command: bytes
    text: bytes
    request: dict[str, Any]
    time_to_live_s: float | None = None


@dataclass(frozen=True, slots=True)
class Enqueued:
    """What became of one: `replayed` if key and body were there before, `conflict` if the body differs."""

    accepted_no: int
    replayed: bool = False
    conflict: bool = False


@dataclass(frozen=True, slots=True)
class Queued:
    """A row of the queue."""

    accepted_no: int
    account: int
    kind: str
    idempotency_key: str | None
    body: int
    command: bytes
    text: bytes
    request: dict[str, Any]
    state: str
    epoch: int
    sequence: int | None
    order_id: int | None
    outcome: str | None
    reason: int
    accepted_at: datetime
    expires_at: datetime | None
    resolved_at: datetime | None


@dataclass(frozen=True, slots=True)
class Resolution:
    """What the engine said to a claimed submission; the fields as in the event that says it."""

    accepted_no: int
    sequence: int
    order_id: int | None
    outcome: str
    reason: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """An order that was CANCELED or EXPIRED in the queue; the engine never heard of its key."""

    account: int
    idempotency_key: str
    body: int
    accepted_no: int
    accepted_at: datetime
    resolved_at: datetime


@dataclass(frozen=True, slots=True)
class Mode:
    """The mode row: LIVE, QUEUE or CLOSING, the last number given, the newest epoch that drained."""

    mode: str
    accepted_no: int
    epoch: int


_COLUMNS = tuple(field.name for field in fields(Queued))
_BODY = _COLUMNS.index("body")
_SELECT = "SELECT " + ", ".join(f"s.{name}" for name in _COLUMNS) + " FROM submissions s "

_LOCK = """
SELECT accepted_no, (SELECT min(accepted_no) FROM submissions WHERE resolved_at IS NULL) AS oldest,
       mode = 'CLOSING' AND clock_timestamp() < changed_at + make_interval(secs => $1) AS closing
  FROM venue_mode FOR UPDATE"""
"""`oldest` may be from before the wait for the lock: too low, so that the bound errs on the safe side."""

_KNOWN = f"""
SELECT k.account, k.idempotency_key, s.accepted_no, s.body
  FROM unnest($1::integer[], $2::text[]) AS k (account, idempotency_key)
 CROSS JOIN LATERAL (
    SELECT accepted_no, body FROM submissions
     WHERE account = k.account AND idempotency_key = k.idempotency_key
       AND (accepted_at > now() - interval '{KEY_WINDOW}' OR resolved_at IS NULL)
     ORDER BY accepted_no DESC LIMIT 1) s"""

_ENDED = f"""
SELECT account, idempotency_key, body, accepted_no, accepted_at, resolved_at FROM submissions
 WHERE resolved_at IS NOT NULL AND outcome IS NULL AND idempotency_key IS NOT NULL
   AND (resolved_at, accepted_no) > (COALESCE($1::timestamptz, now() - interval '{KEY_WINDOW}'), $2::bigint)
   AND accepted_at > now() - interval '{KEY_WINDOW}'
 ORDER BY resolved_at, accepted_no LIMIT $3"""

_USED = f"""
SELECT k.account, k.idempotency_key, u.sequence
  FROM unnest($1::integer[], $2::text[]) AS k (account, idempotency_key)
 CROSS JOIN LATERAL (
    SELECT max(sequence) AS sequence FROM (
        (SELECT created_sequence AS sequence FROM orders
          WHERE account = k.account AND idempotency_key = k.idempotency_key
            AND created_at > now() - interval '{KEY_WINDOW}' ORDER BY created_sequence DESC LIMIT 1)
        UNION ALL
        (SELECT sequence FROM rejections
          WHERE account = k.account AND idempotency_key = k.idempotency_key
            AND created_at > now() - interval '{KEY_WINDOW}' AND reason NOT IN ({_KEY_STAYS_FREE})
          ORDER BY sequence DESC LIMIT 1)) both_tables) u
 WHERE u.sequence IS NOT NULL AND NOT EXISTS (
    SELECT FROM submissions s WHERE s.account = k.account AND s.idempotency_key = k.idempotency_key
       AND (s.accepted_at > now() - interval '{KEY_WINDOW}' OR s.resolved_at IS NULL))"""

_KEEP = """
WITH kept AS (
    INSERT INTO submissions (accepted_no, account, kind, idempotency_key, body, command, text, request, state,
                             accepted_at, expires_at)
    SELECT n, a, k, i, b, c, t, r, 'QUEUED', now(), now() + make_interval(secs => ttl)
      FROM unnest($1::bigint[], $2::integer[], $3::text[], $4::text[], $5::bigint[], $6::bytea[], $7::bytea[],
                  $8::jsonb[], $9::double precision[]) AS x (n, a, k, i, b, c, t, r, ttl)
)
UPDATE venue_mode SET accepted_no = $10, mode = 'QUEUE',
       changed_at = CASE mode WHEN 'QUEUE' THEN changed_at ELSE now() END"""

# The rows to change are an array, computed once. As a join or an IN, a planner that
# believes that few rows wait runs the inner query again for each of them: with a
# few thousand in the queue that is minutes.
_EXPIRE = """
UPDATE submissions SET state = 'EXPIRED', resolved_at = now()
 WHERE accepted_no = ANY (ARRAY(
     SELECT accepted_no FROM submissions
      WHERE resolved_at IS NULL AND state = 'QUEUED' AND expires_at <= now()
      ORDER BY accepted_no LIMIT $1))
   AND resolved_at IS NULL AND state = 'QUEUED'"""

_CLAIM = f"""
UPDATE submissions s SET state = 'CLAIMED', epoch = $1
 WHERE s.accepted_no = ANY (ARRAY(
     SELECT accepted_no FROM submissions
      WHERE resolved_at IS NULL AND (state = 'QUEUED' OR epoch < $1)
      ORDER BY accepted_no LIMIT $2))
   AND s.resolved_at IS NULL AND (s.state = 'QUEUED' OR s.epoch < $1)
RETURNING {", ".join(f"s.{name}" for name in _COLUMNS)}"""
"""The condition again, outside: it is judged anew for a row that a cancel had locked. Cheaper than a lock."""

_RESOLVE = """
UPDATE submissions s
   SET state = 'DONE', sequence = r.sequence, order_id = r.order_id, outcome = r.outcome, reason = r.reason,
       resolved_at = now()
  FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::smallint[])
       AS r (accepted_no, sequence, order_id, outcome, reason)
 WHERE s.accepted_no = r.accepted_no AND s.state = 'CLAIMED' AND s.epoch = $6"""


class Submissions:
    """The queue. Safe for several gateways and one drainer; an older drainer is refused."""

    def __init__(self, pool: Pool, *, waiting_max: int = WAITING_MAX) -> None:
        self._pool = pool
        self._waiting_max = waiting_max

    async def mode(self) -> Mode:
        """The mode row, as of now."""
        async with self._pool.acquire() as connection:
            return Mode(**dict(await connection.fetchrow("SELECT mode, accepted_no, epoch FROM venue_mode")))

    async def enqueue(self, submissions: Sequence[Submission]) -> list[Enqueued]:
        """Keep submissions; on return they are committed. One result each, in order.

        After a lost commit this is tried again, and finds by their keys what was
        kept. A cancel without a key may then be kept twice, which cancels once.

        Raises
        ------
        QueueFull
            As many wait as may; none of these was kept.
        DatabaseUnavailable
            Not known whether they were kept: ask `by_key`.
        """
        if not 0 < len(submissions) <= ENQUEUE_MAX:
            raise ValueError(f"{len(submissions)} submissions at once; 1 to {ENQUEUE_MAX}")
        while True:
            kept = await self._pool.run(lambda connection: self._enqueue(connection, submissions))
            if kept is not None:
                return kept
            # Bounded by CLOSING_S: the row says since when, and after that it counts as QUEUE.
            await asyncio.sleep(_CLOSING_POLL_S)

    async def _enqueue(
        self, connection: Connection, submissions: Sequence[Submission]
    ) -> list[Enqueued] | None:
        """None: the queue is being closed, nothing was kept yet."""
        last, oldest, closing = await connection.fetchrow(_LOCK, CLOSING_S)
        if closing:
            return None
        known = await _known(connection, submissions)
        results: list[Enqueued] = []
        fresh: list[tuple[int, Submission]] = []
        for submission in submissions:
            key = (submission.account, submission.idempotency_key)
            found = known.get(key) if submission.idempotency_key is not None else None
            if found is not None:
                number, body = found
                results.append(
                    Enqueued(number, replayed=body == submission.body, conflict=body != submission.body)
                )
                continue
            number = last + len(fresh) + 1
            fresh.append((number, submission))
            known[key] = (number, submission.body)
            results.append(Enqueued(number))
        if fresh:
            await self._keep(connection, oldest, fresh)
        return results

    async def _keep(
        self, connection: Connection, oldest: int | None, fresh: list[tuple[int, Submission]]
    ) -> None:
        # Numbers are dense, so this counts what waits, and what is done between.
        if oldest is not None and fresh[-1][0] - oldest >= self._waiting_max:
            raise QueueFull(f"{self._waiting_max} submissions wait; try again when the engine has taken some")
        await connection.execute(
            _KEEP,
            [number for number, _ in fresh],
            [s.account for _, s in fresh],
            [s.kind for _, s in fresh],
            [s.idempotency_key for _, s in fresh],
            [_signed(s.body) for _, s in fresh],
            [s.command for _, s in fresh],
            [s.text for _, s in fresh],
            [s.request for _, s in fresh],
            [s.time_to_live_s for _, s in fresh],
            fresh[-1][0],
        )

    async def get(self, accepted_no: int) -> Queued | None:
        """One submission, whatever its state."""
        rows = await self._read("WHERE s.accepted_no = $1", accepted_no)
        return rows[0] if rows else None

    async def by_key(self, account: int, idempotency_key: str) -> Queued | None:
        """The newest submission under a key."""
        rows = await self._read(
            "WHERE s.account = $1 AND s.idempotency_key = $2 ORDER BY s.accepted_no DESC LIMIT 1",
            account,
            idempotency_key,
        )
        return rows[0] if rows else None

    async def ended(
        self, *, after: datetime | None = None, after_no: int = 0, limit: int = 10_000
    ) -> list[Ended]:
        """Orders that ended in the queue past (`after`, `after_no`), as they did; from a day ago for None.

        `resolved_at` is when their transaction began, which is not the order of
        commits: who follows begins each time a little before what it saw last.
        """
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(_ENDED, after, after_no, limit)
        return [Ended(**{**dict(row), "body": row["body"] % (1 << 64)}) for row in rows]

    async def used(self, keys: Sequence[tuple[int, str]]) -> dict[tuple[int, str], int]:
        """Which of these (account, key) the engine has used, by the rows: the sequence of the first command.

        Keys that a submission has within the day are left out: `enqueue` knows them.
        An amend that was carried out, and a transfer, leave no key in the rows.
        """
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(_USED, [account for account, _ in keys], [key for _, key in keys])
        return {(row["account"], row["idempotency_key"]): row["sequence"] for row in rows}

    async def frame_of(self, sequence: int) -> tuple[int, int, bytes, bytes] | None:
        """(first sequence, time, EVENT records, text area) of the frame of a command.

        From the outbox, which keeps ten minutes; None afterwards.
        """
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(
                """SELECT first_sequence, time_ns, events, text FROM outbox
                    WHERE first_sequence <= $1 AND last_sequence >= $1
                    ORDER BY first_sequence DESC LIMIT 1""",
                sequence,
            )
        return None if row is None else tuple(row)

    async def list_open(self, account: int, *, after: int = 0, limit: int = 100) -> list[Queued]:
        """An account's waiting submissions past `after`, oldest first."""
        return await self._read(
            """WHERE s.account = $1 AND s.accepted_no > $2 AND s.resolved_at IS NULL
               ORDER BY s.accepted_no LIMIT $3""",
            account,
            after,
            limit,
        )

    async def waiting(self) -> int:
        """How many are QUEUED or CLAIMED."""
        async with self._pool.acquire() as connection:
            return int(
                await connection.fetchval("SELECT count(*) FROM submissions WHERE resolved_at IS NULL")
            )

    async def cancel(self, accepted_no: int, account: int) -> bool:
        """QUEUED order → CANCELED; False if it was not QUEUED any more, is another account's, or a cancel."""

        async def work(connection: Connection) -> bool:
            status = await connection.execute(
                """UPDATE submissions SET state = 'CANCELED', resolved_at = now()
                    WHERE accepted_no = $1 AND account = $2 AND state = 'QUEUED' AND kind = 'order'""",
                accepted_no,
                account,
            )
            return bool(status == "UPDATE 1")

        return await self._pool.run(work)

    async def expire(self, limit: int = CLAIM_MAX) -> int:
        """QUEUED → EXPIRED for those whose time is past; how many."""

        async def work(connection: Connection) -> int:
            return int((await connection.execute(_EXPIRE, limit)).split()[-1])

        return await self._pool.run(work)

    async def claim(self, epoch: int, limit: int = 1024) -> list[Queued]:
        """The oldest waiting submissions, now CLAIMED by this epoch, in accepted_no order.

        Those that an older epoch claimed and did not resolve come again: the
        engine knows by accepted_no which it has applied. What is past its time
        expires first. After a lost commit the rows may be claimed and not
        returned: a drainer submits what `claimed` says.

        Raises
        ------
        StaleEpoch
            A newer engine's drainer is at work.
        """
        if not 0 < limit <= CLAIM_MAX:
            raise ValueError(f"a claim of {limit}; 1 to {CLAIM_MAX}")

        async def work(connection: Connection) -> list[Queued]:
            await _fence(connection, epoch)
            await connection.execute(_EXPIRE, CLAIM_MAX)
            rows = await connection.fetch(_CLAIM, epoch, limit)
            rows.sort(key=lambda row: row[0])
            return [_queued(row) for row in rows]

        return await self._pool.run(work)

    async def claimed(self, epoch: int, *, after: int = 0, limit: int = 1024) -> list[Queued]:
        """What this epoch has claimed past `after` and is not resolved yet, in accepted_no order.

        After a lost commit or a restart of the drainer this, not the result of
        `claim`, says what has to go to the engine.
        """
        return await self._read(
            """WHERE s.resolved_at IS NULL AND s.state = 'CLAIMED' AND s.epoch = $1 AND s.accepted_no > $2
               ORDER BY s.accepted_no LIMIT $3""",
            epoch,
            after,
            limit,
        )

    async def resolve(self, epoch: int, resolutions: Sequence[Resolution]) -> int:
        """CLAIMED by this epoch → DONE; how many were.

        Optional: the projector does the same from the event log. It is for the
        drainer that has the answer at hand.
        """

        async def work(connection: Connection) -> int:
            columns = [
                [getattr(r, name) for r in resolutions]
                for name in ("accepted_no", "sequence", "order_id", "outcome", "reason")
            ]
            return int((await connection.execute(_RESOLVE, *columns, epoch)).split()[-1])

        return await self._pool.run(work)

    async def close_queue(self, epoch: int) -> None:
        """Let new submissions wait until `try_drained` has opened the venue, or CLOSING_S is over.

        Raises
        ------
        StaleEpoch
            A newer engine's drainer is at work.
        """

        async def work(connection: Connection) -> None:
            await _fence(connection, epoch, exclusive=True)
            await connection.execute(
                "UPDATE venue_mode SET mode = 'CLOSING', changed_at = clock_timestamp() WHERE mode = 'QUEUE'"
            )

        await self._pool.run(work)

    async def try_drained(
        self, epoch: int, send: Callable[[], Awaitable[object]], *, answered_no: int = 0
    ) -> bool:
        """Open the venue if nothing waits: `await send()` (DRAINED, durable), then LIVE.

        No submission can be enqueued meanwhile. False if some wait: claim them
        first. If `send` fails nothing changes. If the commit is lost after
        `send`, the mode stays QUEUE, which delays but overtakes nobody; call
        again.

        Parameters
        ----------
        answered_no : int
            What this epoch claimed up to here the engine has answered: it does not
            wait any more, though the projector may not have written its end yet.
        """

        async def work(connection: Connection) -> bool:
            await _fence(connection, epoch, exclusive=True)
            waiting = await connection.fetchval(
                """SELECT EXISTS (SELECT FROM submissions WHERE resolved_at IS NULL
                              AND NOT (state = 'CLAIMED' AND epoch = $1 AND accepted_no <= $2))""",
                epoch,
                answered_no,
            )
            if waiting:
                return False
            await send()
            await connection.execute("UPDATE venue_mode SET mode = 'LIVE', changed_at = now()")
            return True

        # Not retried here: `send` is the caller's, who knows what a second one means.
        return await self._pool.run(work, retries=0)

    async def _read(self, where: str, *arguments: Any) -> list[Queued]:
        async with self._pool.acquire() as connection:
            return [_queued(row) for row in await connection.fetch(_SELECT + where, *arguments)]


async def _known(
    connection: Connection, submissions: Sequence[Submission]
) -> dict[tuple[int, str | None], tuple[int, int]]:
    keyed = [s for s in submissions if s.idempotency_key is not None]
    if not keyed:
        return {}
    rows = await connection.fetch(_KNOWN, [s.account for s in keyed], [s.idempotency_key for s in keyed])
    return {(r["account"], r["idempotency_key"]): (r["accepted_no"], r["body"] % (1 << 64)) for r in rows}


async def _fence(connection: Connection, epoch: int, *, exclusive: bool = False) -> None:
    """Hold the mode row, and refuse an epoch below the newest that held it."""
    newest = await connection.fetchval(
        "SELECT epoch FROM venue_mode " + ("FOR UPDATE" if exclusive else "FOR SHARE")
    )
    if newest > epoch:
        raise StaleEpoch(epoch, newest)
    if newest < epoch:
        await connection.execute("UPDATE venue_mode SET epoch = $1", epoch)


def _signed(body: int) -> int:
    """The same 64 bits as a bigint."""
    return body - (1 << 64) if body >= 1 << 63 else body


def _queued(row: Any) -> Queued:
    values: tuple[Any, ...] = tuple(row)
    return Queued(*values[:_BODY], values[_BODY] % (1 << 64), *values[_BODY + 1 :])  # type: ignore[call-arg]
