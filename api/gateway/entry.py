"""Order entry: place, cancel, amend, mass cancel, batch.

The way of an order::

    decoded request → COMMAND → engine up and open?
        yes, and its key ended in the queue → that order's final state
        yes → batcher → events of its sequence → 201, or the problem of its rejection
        no, and the rows know its key → the stored answer, as far as they tell
        no  → submissions queue → 202 PENDING_SUBMISSION
    link lost with the order in flight → queue under its own key → 202: whether
        or not it had reached the log, the key makes it one order
    DUPLICATE → the stored answer, from the cache or rebuilt from the events

Every `place` and `cancel` calls its `done` exactly once, with an `Outcome`.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

import orjson

from api.gateway.batcher import Batcher, Reply
from api.gateway.ended import EndedKeys
from api.gateway.errors import KEY_STAYS_FREE, REASON_CODES, Problem, rejected
from api.gateway.http import Outcome, problem_outcome
from api.gateway.metrics import Metrics
from api.gateway.mirror import Mirror
from api.gateway.models import Amend, NewBatch, NewOrder
from api.gateway.orders import CANCELED, DUPLICATE, REJECTED, Row, document_as_of, view_of_command
from api.gateway.queueing import Enqueuer, KeyUsed, queue_document
from api.gateway.reads import Reads, from_database
from api.gateway.used import UsedKeys, conflict
from api.gateway.validation import (
    CLIENT_ORDER_ID,
    Command,
    amend_command,
    cancel_command,
    market_of,
    new_command,
    order_name,
)
from api.identity import digest_pair
from api.runtime.errors import LinkDown, Refused, RuntimeFault
from api.runtime.link import EngineLink
from engine.types import INT64_MAX, QUEUED, Reason, VenueState
from persistence.identity import public_order_id
from persistence.postgres.errors import DatabaseError
from persistence.postgres.queries import OrderRow, OrderStatus

ANSWERS_KEPT = 50_000
BACKGROUND_MAX = 65_536
"""Answers that need more than the engine's first word: queueing, replay, final states."""

VENUE_DRAINING = int(Reason.VENUE_DRAINING)
NOT_LIVE = int(Reason.NOT_LIVE)
NOT_OWNER = int(Reason.NOT_OWNER)
OVERFLOW = int(Reason.OVERFLOW)
Finish = Callable[[Outcome], None]

_log = logging.getLogger("holdfast.entry")


class AnswerCache:
    """The answers of recent commands by sequence, bounded; what it lacks is rebuilt."""

    def __init__(self, answers_max: int = ANSWERS_KEPT) -> None:
        self._answers: OrderedDict[int, Outcome] = OrderedDict()
        self._answers_max = answers_max

    def keep(self, sequence: int, outcome: Outcome) -> None:
        """Remember the answer of a command."""
        self._answers[sequence] = outcome
        if len(self._answers) > self._answers_max:
            self._answers.popitem(last=False)

    def replay(self, sequence: int) -> Outcome | None:
        """The same answer, marked as replayed."""
        outcome = self._answers.get(sequence)
        return None if outcome is None else outcome._replace(replayed=True)


def fault_problem(fault: RuntimeFault) -> Problem:
    """The problem for a request that the engine did not answer."""
    if isinstance(fault, LinkDown):
        if fault.sent:
            detail = "The engine was lost with the request in flight; ask again with the same key."
            return Problem("outcome_unknown", detail)
        return Problem("unavailable", "The engine is not reachable; nothing was done.")
    if isinstance(fault, Refused):
        code = fault.code.lower()
        if code == "venue_halted":
            return Problem("venue_halted", fault.message or "The venue is halted; nothing was done.")
        if code == "link_busy":
            return Problem("overloaded", fault.message)
        return Problem("unavailable", f"The engine refused the request: {fault}.")
    return Problem("outcome_unknown", f"The engine's answer cannot be read: {fault}.")


class OrderEntry:
    """All that changes orders."""

    def __init__(
        self,
        link: EngineLink,
        batcher: Batcher,
        mirror: Mirror,
        queue: Enqueuer,
        reads: Reads,
        metrics: Metrics,
        *,
        ended: EndedKeys,
        used: UsedKeys,
    ) -> None:
        self._link = link
        self._batcher = batcher
        self._mirror = mirror
        self._queue = queue
        self._reads = reads
        self._metrics = metrics
        self._ended = ended
        self._used = used
        self._answers = AnswerCache()
        self._tasks: set[asyncio.Task[None]] = set()

    # Whom to ask.

    @property
    def engine_takes_orders(self) -> bool:
        """Whether new orders go to the engine rather than into the queue."""
        return self._link.connected and self._mirror.venue_state not in (
            VenueState.RECOVERING,
            VenueState.DRAINING,
        )

    def require_engine(self) -> None:
        """For what is never queued.

        Raises
        ------
        Problem
            unavailable.
        """
        if not self._link.connected:
            raise Problem("unavailable", "The engine is down; this request is not queued. Try again.")

    async def close(self) -> None:
        """Wait for the answers that are still being made."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # New orders.

    def place(self, account: int, order: NewOrder, done: Finish) -> None:
        """Place an order; `done` gets 201, 202, or a problem.

        Raises
        ------
        Problem
            Refused before anything was sent.
        """
        if not self._mirror.loaded:
            raise Problem("unavailable", "The gateway has not heard from the engine yet.")
        command = new_command(self._mirror.registry, account, order, order.idempotency_key)
        self._place(command, order, done)

    def _place(self, command: Command, order: Any, done: Finish) -> None:
        if not self.engine_takes_orders:
            self._in_background(self._enqueue_order(command, order, sent=False), done)
            return
        if self._ended.current:
            self._place_live(command, order, done)
        else:
            self._ended.hold(lambda: self._place_held(command, order, done))

    def _place_held(self, command: Command, order: Any, done: Finish) -> None:
        if not self.engine_takes_orders:
            self._in_background(self._enqueue_order(command, order, sent=False), done)
            return
        try:
            self._place_live(command, order, done)
        except Problem as problem:
            done(problem_outcome(problem))

    def _place_live(self, command: Command, order: Any, done: Finish) -> None:
        if self._ended.find(command.account, command.key or "") is not None:
            self._in_background(self._ended_outcome(command, order), done)
            return
        self._batcher.submit(command, lambda reply: self._placed(command, order, done, reply))

    async def _ended_outcome(self, command: Command, order: Any) -> Outcome:
        """The final state of what ended in the queue under this key, unless the engine knows the key too."""
        ended = self._ended.find(command.account, command.key or "")
        if ended is None or await self._engine_knows(command):
            future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            self._batcher.submit(
                command, lambda reply: self._placed(command, order, lambda got: _set(future, got), reply)
            )
            return await future
        if ended.body != command.body:
            raise conflict()
        self._metrics.orders_replayed.inc()
        document = await self._reads.order(command.account, f"q{ended.accepted_no}")
        return Outcome(202, orjson.dumps(document), replayed=True)

    async def _engine_knows(self, command: Command) -> bool:
        """Whether the engine has an answer to this key."""
        low, high = digest_pair(command.key or "")
        try:
            known = await self._link.query("key", account=command.account, key_lo=low, key_hi=high)
        except RuntimeFault as fault:
            raise Problem(
                "unavailable", "The engine went away before anything was sent; try again."
            ) from fault
        return known["sequence"] is not None

    def _placed(self, command: Command, order: Any, done: Finish, reply: Reply | RuntimeFault) -> None:
        try:
            if isinstance(reply, Reply):
                first = reply.events[0]
                if first[0] == DUPLICATE:
                    outcome = self._answers.replay(first[10])
                    if outcome is None:
                        self._in_background(self._replay(command.account, first[10], command.key), done)
                        return
                    self._metrics.orders_replayed.inc()
                elif first[0] == REJECTED and first[3] == VENUE_DRAINING:
                    self._in_background(self._enqueue_order(command, order, sent=False), done)
                    return
                else:
                    outcome = self._new_outcome(reply, order.client_order_id)
            elif isinstance(reply, LinkDown):
                self._in_background(self._enqueue_order(command, order, sent=reply.sent), done)
                return
            else:
                self._metrics.orders_failed.inc()
                outcome = problem_outcome(fault_problem(reply))
        except Exception:
            _log.exception("an answer could not be made")
            outcome = problem_outcome(
                Problem("internal", "The order was taken, its answer could not be made.")
            )
        done(outcome)

    def _new_outcome(self, reply: Reply, client_order_id: str | None) -> Outcome:
        """The answer of a NEW from its own events; kept for replays."""
        first = reply.events[0]
        if first[0] == REJECTED:
            self._metrics.orders_rejected.inc()
            outcome = problem_outcome(self._rejected(first))
            if REASON_CODES[Reason(first[3])] == "idempotency_conflict":
                return outcome
        else:
            view = view_of_command(reply.events, reply.time_ns, client_order_id)
            if view is None:
                raise ValueError(f"sequence {reply.sequence} has no ACCEPTED: {reply.events}")
            self._metrics.orders_accepted.inc()
            outcome = Outcome(201, orjson.dumps(view.document(self._mirror.registry.markets[view.market])))
        self._answers.keep(reply.sequence, outcome)
        return outcome

    def _rejected(self, event: Row, *, keyed: bool = True) -> Problem:
        """The problem of a REJECTED; of an overflow, with the field that is too large."""
        field = None
        if event[3] == OVERFLOW:
            market = self._mirror.registry.markets.get(event[8])
            alone = market is None or event[10] * market.lot_atoms > INT64_MAX
            field = "quantity" if alone or not event[9] else "price"
        return rejected(event[3], event[5], field=field, keyed=keyed)

    async def _replay(self, account: int, sequence: int, key: str | None) -> Outcome:
        """The answer of an earlier NEW, rebuilt from its events."""
        self._metrics.orders_replayed.inc()
        if sequence == 0:
            return await self._reads.by_key_outcome(account, key)
        try:
            reply, texts = await self._reads.events_of(sequence)
        except RuntimeFault as fault:
            raise fault_problem(fault) from fault
        client_order_id = texts.get(CLIENT_ORDER_ID)
        return self._new_outcome(reply, client_order_id)._replace(replayed=True)

    async def _enqueue_order(self, command: Command, order: Any, *, sent: bool) -> Outcome:
        market = market_of(self._mirror.registry, order.symbol)
        document = queue_document(market, order)
        try:
            accepted_no, replayed = await self._queue.enqueue(command, "order", document, sent=sent)
        except KeyUsed as used:
            return await self._used_outcome(command, used.sequence)
        self._metrics.orders_queued.inc()
        document["order_id"] = f"q{accepted_no}"
        if replayed:
            document = await self._reads.order(command.account, f"q{accepted_no}")
        return Outcome(202, orjson.dumps(document), replayed)

    async def _used_outcome(self, command: Command, sequence: int) -> Outcome:
        """The stored answer of a key, as far as the rows tell it."""
        self._metrics.orders_replayed.inc()
        first = await from_database(self._used.first(command, sequence))
        if not isinstance(first, OrderRow):
            return self._new_outcome(*first)._replace(replayed=True)
        if first.status == OrderStatus.REJECTED:
            return problem_outcome(rejected(first.reason, sequence), replayed=True)
        document = await self._reads.order(command.account, first.public_id)
        return Outcome(201, orjson.dumps(document), replayed=True)

    # Cancels.

    def cancel(self, account: int, public_id: str, done: Finish) -> None:
        """Cancel an order by its name; `done` gets 200 with its final state, 202, or a problem."""
        if not self._mirror.loaded:
            raise Problem("unavailable", "The gateway has not heard from the engine yet.")
        order_id, slot = order_name(public_id)
        if order_id & QUEUED and self._mirror.orders.get(order_id) is None:
            self._in_background(self._cancel_queued(account, public_id, order_id), done)
            return
        self._cancel(cancel_command(account, order_id, slot), public_id, done)

    def _cancel(self, command: Command, public_id: str, done: Finish) -> None:
        if not self._link.connected:
            self._in_background(self._enqueue_cancel(command, public_id, sent=False), done)
            return
        self._batcher.submit(
            command,
            lambda reply: self._in_background(self._canceled(command, public_id, reply), done),
        )

    async def _canceled(self, command: Command, public_id: str, reply: Reply | RuntimeFault) -> Outcome:
        if isinstance(reply, LinkDown):
            return await self._enqueue_cancel(command, public_id, sent=reply.sent)
        if isinstance(reply, RuntimeFault):
            raise fault_problem(reply)
        event = reply.events[0]
        if event[0] == REJECTED and event[3] == VENUE_DRAINING:
            return await self._enqueue_cancel(command, public_id, sent=False)
        if event[0] == REJECTED and event[3] not in (NOT_LIVE, NOT_OWNER):
            raise self._rejected(event, keyed=False)
        # NOT_LIVE: the core keeps no tombstones; what became of the order is ours to say.
        # NOT_OWNER: another account's order is as good as unknown, to the last byte of the answer.
        if event[0] == REJECTED:
            document = await self._reads.order(command.account, public_id)
        else:
            document = await self._reads.changed(command.account, public_id, reply.events, reply.time_ns)
        return Outcome(200, orjson.dumps(document))

    async def _enqueue_cancel(self, command: Command, public_id: str, *, sent: bool) -> Outcome:
        document = {"order_id": public_id, "status": "PENDING_SUBMISSION", "operation": "cancel"}
        accepted_no, replayed = await self._queue.enqueue(command, "cancel", document, sent=sent)
        return Outcome(202, orjson.dumps({**document, "cancel_id": f"q{accepted_no}"}), replayed)

    async def _cancel_queued(self, account: int, public_id: str, order_id: int) -> Outcome:
        """Cancel what may still be in the queue; after CLAIMED only the engine decides."""
        try:
            if await self._reads.cancel_waiting(account, order_id ^ QUEUED):
                await self._ended.learn(order_id ^ QUEUED)
                return Outcome(200, orjson.dumps(await self._reads.order(account, public_id)))
            name = await self._reads.resolved_name(account, order_id ^ QUEUED)
        except DatabaseError as error:
            if not self._link.connected:
                raise Problem("unavailable", "Neither the engine nor the queue can be reached.") from error
            # The engine finds an order of the queue by its number, if it has taken it.
            name = public_id
        if name is None:
            return Outcome(200, orjson.dumps(await self._reads.order(account, public_id)))
        resolved_id, slot = order_name(name)
        command = cancel_command(account, resolved_id, slot)
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._cancel(command, name, lambda outcome: _set(future, outcome))
        return await future

    # Amends, mass cancel, batches: never queued.

    async def amend(self, account: int, public_id: str, amend: Amend) -> Outcome:
        """Change an order; 200 with the order as it is now."""
        self.require_engine()
        order_id, slot = order_name(public_id)
        symbol = await self._reads.symbol_of(account, public_id)
        market = market_of(self._mirror.registry, symbol)
        command = amend_command(market, account, order_id, slot, amend)
        if (
            command.key is not None
            and self._ended.find(account, command.key) is not None
            and not await self._engine_knows(command)
        ):
            raise conflict()
        try:
            reply = await self._batcher.ask(command)
        except RuntimeFault as fault:
            raise fault_problem(fault) from fault
        if reply.events[0][0] == DUPLICATE:
            return await self._amend_again(account, public_id, reply.events[0][10])
        outcome = await self._amend_outcome(account, public_id, reply, keyed=command.key is not None)
        if command.key is not None and not _leaves_key_free(reply.events[0]):
            self._answers.keep(reply.sequence, outcome)
        return outcome

    async def _amend_outcome(self, account: int, public_id: str, reply: Reply, *, keyed: bool) -> Outcome:
        if reply.events[0][0] == REJECTED:
            return problem_outcome(self._rejected(reply.events[0], keyed=keyed))
        document = await self._reads.changed(account, public_id, reply.events, reply.time_ns)
        return Outcome(200, orjson.dumps(document))

    async def _amend_again(self, account: int, public_id: str, sequence: int) -> Outcome:
        """The first answer; when it is not kept, from the amend's own events what they tell of it."""
        outcome = self._answers.replay(sequence)
        if outcome is not None:
            return outcome
        try:
            reply, _ = await self._reads.events_of(sequence)
        except RuntimeFault as fault:
            raise fault_problem(fault) from fault
        if reply.events[0][0] == REJECTED:
            return problem_outcome(self._rejected(reply.events[0]), replayed=True)
        document = await self._reads.order(account, public_id)
        market = market_of(self._mirror.registry, document["symbol"])
        document = document_as_of(document, market, reply.events, sequence, reply.time_ns)
        return Outcome(200, orjson.dumps(document), replayed=True)

    def amend_later(self, account: int, public_id: str, amend: Amend, done: Finish) -> None:
        """The same for one who does not wait."""
        self._in_background(self.amend(account, public_id, amend), done)

    async def cancel_all(self, account: int, symbol: str | None) -> Outcome:
        """Cancel the account's open orders, of one market or of all."""
        self.require_engine()
        market = None if symbol is None else market_of(self._mirror.registry, symbol)
        try:
            names = await self._reads.live_names(account, None if market is None else market.number)
            replies = await asyncio.gather(
                *(self._batcher.ask(cancel_command(account, order_id, slot)) for order_id, slot in names),
                return_exceptions=True,
            )
        except RuntimeFault as fault:
            raise fault_problem(fault) from fault
        canceled: list[str] = []
        failed: list[str] = []
        for (order_id, slot), reply in zip(names, replies, strict=True):
            done = isinstance(reply, Reply) and reply.events[0][0] == CANCELED
            (canceled if done else failed).append(public_order_id(order_id, slot))
        return Outcome(200, orjson.dumps({"canceled": canceled, "failed": failed}))

    async def batch(self, account: int, batch: NewBatch) -> Outcome:
        """Place up to 100 orders; each has its own answer."""
        self.require_engine()
        if not self.engine_takes_orders:
            raise Problem("unavailable", "The venue is taking its queue; batches are not queued. Try again.")
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Outcome]] = []
        for index, item in enumerate(batch.orders):
            future: asyncio.Future[Outcome] = loop.create_future()
            futures.append(future)
            try:
                command = new_command(
                    self._mirror.registry, account, item, f"{batch.idempotency_key}:{index}"
                )
                self._place(command, item, lambda outcome, future=future: _set(future, outcome))  # type: ignore[misc]
            except Problem as problem:
                future.set_result(problem_outcome(problem))
        outcomes = await asyncio.gather(*futures)
        results = [
            {
                "status": outcome.status,
                "replayed": outcome.replayed,
                ("problem" if outcome.problem else "order"): orjson.Fragment(outcome.body),
            }
            for outcome in outcomes
        ]
        return Outcome(200, orjson.dumps({"results": results}))

    # Answers that take more than one step.

    def _in_background(self, work: Coroutine[Any, Any, Outcome], done: Finish) -> None:
        if len(self._tasks) >= BACKGROUND_MAX:
            work.close()
            limit = str(BACKGROUND_MAX)
            done(
                problem_outcome(
                    Problem("overloaded", f"{limit} answers are being made; try again.", limit=limit)
                )
            )
            return
        task = asyncio.get_running_loop().create_task(self._finish(work, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self, work: Coroutine[Any, Any, Outcome], done: Finish) -> None:
        try:
            outcome = await work
        except Problem as problem:
            outcome = problem_outcome(problem)
        except Exception:
            _log.exception("an answer could not be made")
            outcome = problem_outcome(
                Problem("internal", "The answer could not be made; ask with the same key.")
            )
        try:
            done(outcome)
        except Exception:
            _log.exception("an answer could not be handed on")


def _leaves_key_free(event: Row) -> bool:
    """A refusal that is not the stored answer of the key that it came under."""
    return event[0] == REJECTED and (
        Reason(event[3]) in KEY_STAYS_FREE or REASON_CODES[Reason(event[3])] == "idempotency_conflict"
    )


def _set(future: "asyncio.Future[Outcome]", outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)
