"""The way into the submissions queue: PENDING_SUBMISSION.

Submissions of one turn of the loop share a transaction, and while one commits
the next group gathers.  Nothing is answered 202 before the commit.  A key
that the engine used before it went is found in the rows first (`KeyUsed`).  When the
database fails, a request that never reached the engine is told 503 only if
nothing can have been kept, 504 OUTCOME_UNKNOWN otherwise.
"""

import asyncio
import logging
from typing import Any

from api.gateway.clock import iso, wall_ns
from api.gateway.errors import GatewayError, Problem
from api.gateway.metrics import Metrics
from api.gateway.models import BatchItem, NewOrder
from api.gateway.orders import TIME_IN_FORCE_TEXTS
from api.gateway.registry import Market
from api.gateway.validation import TIMES_IN_FORCE, Command, price_ticks, quantity_lots
from api.gateway.watch import ProjectionWatch
from persistence.postgres.errors import DatabaseError, DatabaseUnavailable, QueueFull
from persistence.postgres.submissions import ENQUEUE_MAX, Enqueued, Submission, Submissions
from persistence.text import TextBuilder

WAITING_MAX = 20_000
SHORT_LIVED_S = 5.0
"""IOC, FOK and MARKET orders mean "now"; a queue may keep them no longer."""

Waiting = tuple[Submission, asyncio.Future[Enqueued], bool]
"""What is to be kept, who waits for it, and whether an engine that died may have it."""

_log = logging.getLogger("holdfast.queue")


def queue_document(market: Market, order: NewOrder | BatchItem) -> dict[str, Any]:
    """A queued order's JSON; `order_id` is known when it is committed."""
    now = iso(wall_ns())
    lots = quantity_lots(market, order.quantity)
    return {
        "order_id": "",
        "client_order_id": order.client_order_id,
        "symbol": market.symbol,
        "side": order.side,
        "type": order.type,
        "time_in_force": TIME_IN_FORCE_TEXTS[TIMES_IN_FORCE[order.time_in_force]],
        "status": "PENDING_SUBMISSION",
        "quantity": market.quantity_text(lots),
        "price": None if order.price is None else market.price_text(price_ticks(market, order.price)),
        "filled_quantity": market.quantity_text(0),
        "remaining_quantity": market.quantity_text(lots),
        "average_price": None,
        "fills": [],
        "reason": None,
        "created_at": now,
        "updated_at": now,
        "sequence": None,
        "post_only": order.post_only,
    }


class KeyUsed(GatewayError):
    """The engine knows the key already: nothing was queued.

    Attributes
    ----------
    sequence : int
        Of the first command under the key.
    """

    def __init__(self, sequence: int) -> None:
        super().__init__(f"the key was used by command {sequence}")
        self.sequence = sequence


class Enqueuer:
    """Groups submissions into transactions.

    Parameters
    ----------
    submissions : Submissions
        The queue.
    watch : ProjectionWatch
        Knows whether the database answered lately.
    pending_ttl_s : float
        How long an order may wait.
    """

    def __init__(
        self, submissions: Submissions, watch: ProjectionWatch, metrics: Metrics, *, pending_ttl_s: float
    ) -> None:
        if pending_ttl_s <= 0:
            raise ValueError(f"a queue that keeps orders for {pending_ttl_s} s")
        self._submissions = submissions
        self._watch = watch
        self._metrics = metrics
        self._pending_ttl_s = pending_ttl_s
        self._waiting: list[Waiting] = []
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Submissions that no transaction has taken yet."""
        return len(self._waiting)

    async def enqueue(
        self, command: Command, kind: str, document: dict[str, Any], *, sent: bool
    ) -> tuple[int, bool]:
        """Commit a submission: its accepted_no, and whether its key was there before.

        Parameters
        ----------
        sent : bool
            It had been handed to an engine that died, so that "no" would be a guess.

        Raises
        ------
        Problem
            idempotency_conflict; unavailable or overloaded (nothing was kept);
            outcome_unknown.
        KeyUsed
            The rows have an answer to this key; not asked for what was `sent`, whose
            own command that may be.
        """
        if not sent and not self._watch.up:
            raise Problem(
                "unavailable", "Neither the engine nor the database can be reached; nothing was kept."
            )
        if len(self._waiting) >= WAITING_MAX:
            raise _failed(sent, "overloaded", f"{WAITING_MAX} submissions wait for the database.")
        text = TextBuilder()
        for tag, value in command.texts:
            text.add(0, tag, value)
        lives = None if kind == "cancel" else SHORT_LIVED_S if command.short_lived else self._pending_ttl_s
        submission = Submission(
            command.account, kind, command.key, command.body, command.record, bytes(text), document, lives
        )
        future: asyncio.Future[Enqueued] = asyncio.get_running_loop().create_future()
        self._waiting.append((submission, future, sent))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work(), name="enqueue")
        try:
            enqueued = await future
        except QueueFull as error:
            raise _failed(sent, "overloaded", str(error)) from error
        except DatabaseUnavailable as error:
            raise Problem(
                "outcome_unknown", "The queue may or may not hold the request; ask again with the same key."
            ) from error
        except DatabaseError as error:
            _log.error("the queue refused a submission: %s", error)
            raise _failed(
                sent, "unavailable", "The queue cannot take the request; nothing was kept."
            ) from error
        if enqueued.conflict:
            raise Problem(
                "idempotency_conflict",
                "Another request waits or was taken under this key.",
                field="idempotency_key",
            )
        return enqueued.accepted_no, enqueued.replayed

    async def close(self) -> None:
        """Wait for what is being committed."""
        if self._worker is not None:
            await asyncio.gather(self._worker, return_exceptions=True)

    async def _work(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:ENQUEUE_MAX], self._waiting[ENQUEUE_MAX:]
            group = await self._without_used(group)
            if not group:
                continue
            try:
                results = await self._submissions.enqueue([submission for submission, _, _ in group])
            except Exception as error:
                for _, future, _ in group:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future, _), result in zip(group, results, strict=True):
                if not future.done():
                    future.set_result(result)

    async def _without_used(self, group: list[Waiting]) -> list[Waiting]:
        """The group without those whose key the rows know; these are told."""
        keys = [
            (submission.account, submission.idempotency_key)
            for submission, _, sent in group
            if submission.idempotency_key is not None and not sent
        ]
        if not keys:
            return group
        try:
            used = await self._submissions.used(keys)
        except Exception as error:
            # They go on into the queue: the engine will find their keys, only later.
            _log.warning("the rows cannot be asked for keys: %s", error)
            return group
        rest: list[Waiting] = []
        for submission, future, sent in group:
            sequence = None if sent else used.get((submission.account, submission.idempotency_key or ""))
            if sequence is None:
                rest.append((submission, future, sent))
            elif not future.done():
                future.set_exception(KeyUsed(sequence))
        return rest


def _failed(sent: bool, code: str, detail: str) -> Problem:
    """`code`, unless the engine may have taken the request before it died."""
    if sent:
        return Problem(
            "outcome_unknown", "The engine was lost with the request in flight; ask again with its key."
        )
    return Problem(code, detail)
