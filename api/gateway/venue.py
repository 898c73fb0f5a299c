"""One gateway put together: link, mirror, queue, reads, order entry."""

import asyncio
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from api.gateway.batcher import Batcher, Reply
from api.gateway.ended import EndedKeys
from api.gateway.entry import OrderEntry, fault_problem
from api.gateway.errors import Problem, rejected
from api.gateway.hub import Hub
from api.gateway.metrics import Metrics
from api.gateway.mirror import Mirror
from api.gateway.orders import REJECTED
from api.gateway.queueing import Enqueuer
from api.gateway.reads import Reads
from api.gateway.used import UsedKeys
from api.gateway.validation import IDEMPOTENCY_KEY, Command
from api.gateway.watch import ProjectionWatch
from api.runtime.errors import RuntimeFault
from api.runtime.link import EngineLink
from engine.types import COMMAND, VenueState
from persistence.postgres.pool import Pool
from persistence.postgres.queries import Queries
from persistence.postgres.submissions import Submissions
from persistence.text import TextBuilder

SPAWNED_MAX = 10_000

_log = logging.getLogger("holdfast.gateway")


class Venue:
    """What every route works with.

    Parameters
    ----------
    socket_path : Path
        The engine's socket.
    dsn : str
        PostgreSQL.
    pending_ttl_s : float
        How long a queued order waits; IOC, FOK and MARKET wait 5 s.
    """

    def __init__(self, socket_path: Path, dsn: str, *, pending_ttl_s: float) -> None:
        self.metrics = Metrics()
        self.hub = Hub()
        self.mirror = Mirror(self.metrics, self.hub)
        self.link = EngineLink(
            socket_path,
            "gateway",
            subscribe=True,
            on_welcome=self._on_welcome,
            on_events=self._on_events,
            on_down=self._on_down,
        )
        self.pool = Pool(dsn)
        queries = Queries(self.pool)
        submissions = Submissions(self.pool)
        self.batcher = Batcher(self.link)
        self.watch = ProjectionWatch(queries, self.mirror, self.metrics)
        self.reads = Reads(self.link, self.mirror, queries, submissions, self.watch)
        self.queue = Enqueuer(submissions, self.watch, self.metrics, pending_ttl_s=pending_ttl_s)
        self.ended = EndedKeys(submissions)
        self.entry = OrderEntry(
            self.link,
            self.batcher,
            self.mirror,
            self.queue,
            self.reads,
            self.metrics,
            ended=self.ended,
            used=UsedKeys(submissions, queries),
        )
        self.admin_lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._watchers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Connect, in the background."""
        await self.link.start()
        self._watchers = [
            asyncio.create_task(self.watch.run(), name="projection-watch"),
            asyncio.create_task(self.ended.run(), name="ended-keys"),
        ]

    async def close(self) -> None:
        """Let what is in flight end, then disconnect."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        self.ended.release()
        await self.link.close()
        await self.entry.close()
        await self.queue.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.pool.close()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside a request; its failure is logged."""
        if len(self._tasks) >= SPAWNED_MAX:
            work.close()
            raise Problem("overloaded", "Too much is being done at once; try again.", limit=str(SPAWNED_MAX))
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._spawned_ended)

    def _spawned_ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.warning("background work failed: %s", task.exception())

    def stream_ended(self, results: list[BaseException | None]) -> None:
        """A WebSocket ended; anything but a cancellation is worth a line."""
        for result in results:
            if result is not None and not isinstance(result, asyncio.CancelledError):
                _log.info("stream ended: %s: %s", type(result).__name__, result)

    def _on_welcome(self, welcome: dict[str, Any]) -> None:
        self.mirror.on_welcome(welcome)
        if self.mirror.venue_state == VenueState.OPEN:
            self.ended.venue_opened()
        self.metrics.engine_up.set(1)
        _log.info("engine up: epoch %d, sequence %d, %s", self.mirror.epoch, self.mirror.sequence,
                  self.mirror.venue_state.name)  # fmt: skip

    def _on_events(
        self, epoch: int, first: int, last: int, time_ns: int, events: npt.NDArray[np.void], text: bytes
    ) -> None:
        before = self.mirror.venue_state
        self.mirror.on_events(epoch, first, last, time_ns, events, text)
        if self.mirror.venue_state == VenueState.OPEN != before:
            self.ended.venue_opened()

    def _on_down(self, error: Exception | None) -> None:
        self.metrics.engine_up.set(0)
        _log.warning("engine down: %s", error)

    async def command(self, record: bytes, texts: tuple[tuple[int, bytes], ...] = ()) -> Reply:
        """Send one admin command and wait for its events.

        Raises
        ------
        Problem
            It was rejected, or the engine did not answer.
        """
        text = TextBuilder()
        for tag, value in texts:
            text.add(0, tag, value)
        if not self.link.connected:
            raise Problem("unavailable", "The engine is down; try again.")
        try:
            answer = await self.link.submit(np.frombuffer(record, COMMAND), bytes(text))
        except RuntimeFault as fault:
            raise fault_problem(fault) from fault
        reply = Reply(answer.first_sequence, answer.time_ns, answer.events.tolist())
        if reply.events and reply.events[0][0] == REJECTED:
            keyed = any(tag == IDEMPOTENCY_KEY for tag, _ in texts)
            raise rejected(reply.events[0][3], reply.sequence, keyed=keyed)
        return reply

    async def ask(self, command: Command) -> Reply:
        """The same for a `Command`."""
        return await self.command(command.record, command.texts)

    def refresh_gauges(self) -> None:
        """Bring the gauges up to date before they are read."""
        metrics, mirror = self.metrics, self.mirror
        metrics.venue_state.set(
            int(mirror.venue_state) if self.link.connected else int(VenueState.RECOVERING)
        )
        metrics.epoch.set(mirror.epoch)
        metrics.sequence.set(mirror.sequence)
        metrics.in_flight.set(self.batcher.in_flight)
        metrics.queue_waiting.set(self.queue.waiting)
