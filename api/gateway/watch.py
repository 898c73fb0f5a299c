"""What the gateway thinks of the others: projection cursor, health, staleness.

`ProjectionWatch` reads the projector's cursor, at leisure when nobody waits and
quickly when a reader wants to see its own write.  `health` turns what is known
into GREEN, YELLOW or RED (SPEC O1).
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from api.gateway.clock import iso
from api.gateway.errors import Problem
from api.gateway.metrics import Metrics
from api.gateway.mirror import Mirror
from api.runtime.link import EngineLink
from engine.types import VenueState
from persistence.postgres.errors import DatabaseError
from persistence.postgres.queries import Queries

IDLE_S = 0.25
BUSY_S = 0.01
WORK_S = 0.05
WAIT_S_MAX = 1.0
STALE_S = 60.0
LAG_YELLOW_S = 1.0
LAG_RED_S = 10.0
SAMPLES_MAX = 10_000

_log = logging.getLogger("holdfast.watch")


class ProjectionWatch:
    """Follows the projector's cursor.

    Attributes
    ----------
    up : bool
        The database answered last time.
    sequence : int
        Cursor, as read last.
    """

    def __init__(self, queries: Queries, mirror: Mirror, metrics: Metrics) -> None:
        self._queries = queries
        self._mirror = mirror
        self._metrics = metrics
        self.up = False
        self.error = "not asked yet"
        self.sequence = 0
        self._behind: deque[tuple[float, int]] = deque()
        self._waiters = 0
        self._hurry = asyncio.Event()
        self._moved = asyncio.Condition()
        self._work: Callable[[], Awaitable[bool]] | None = None

    async def run(self) -> None:
        """Read the cursor until cancelled."""
        while True:
            await self._look()
            async with self._moved:
                self._moved.notify_all()
            self._mirror.orders.forget(self.sequence)
            left = await self._do_work()
            if self._waiters:
                await asyncio.sleep(BUSY_S)
            elif left:
                await asyncio.sleep(WORK_S)
            else:
                self._hurry.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), IDLE_S)

    def after_each_look(self, work: Callable[[], Awaitable[bool]]) -> None:
        """Have `work` done after each look; while it returns True, looks come sooner."""
        self._work = work

    async def _do_work(self) -> bool:
        try:
            return self._work is not None and await self._work()
        except Exception:
            # Whatever it is, health and waiting readers depend on the next look.
            _log.exception("work after a look failed")
            return False

    async def _look(self) -> None:
        target = self._mirror.sequence
        try:
            cursor = await self._queries.as_of()
        except DatabaseError as error:
            self.up, self.error = False, str(error)
        else:
            self.up, self.error = True, ""
            self.sequence = cursor.sequence
        behind = self._behind
        if target > self.sequence and len(behind) < SAMPLES_MAX:
            behind.append((time.monotonic(), target))
        while behind and behind[0][1] <= self.sequence:
            behind.popleft()
        self._metrics.database_up.set(self.up)
        self._metrics.projection_lag.set(max(0, self._mirror.sequence - self.sequence))

    @property
    def lag_s(self) -> float:
        """Age of the oldest released command that PostgreSQL lacks, to a look's precision."""
        return time.monotonic() - self._behind[0][0] if self._behind else 0.0

    async def reach(self, sequence: int) -> bool:
        """Wait until the rows hold `sequence`, at most a second; whether they do."""
        if self.sequence >= sequence:
            return True
        deadline = time.monotonic() + WAIT_S_MAX
        self._waiters += 1
        self._hurry.set()
        try:
            while self.sequence < sequence:
                rest = deadline - time.monotonic()
                if rest <= 0:
                    return False
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(rest), self._moved:
                        await self._moved.wait()
        finally:
            self._waiters -= 1
        return True


def require_fresh(link: EngineLink, mirror: Mirror) -> None:
    """Refuse market data that is older than 60 s (F3): age counts from the last heartbeat.

    Raises
    ------
    Problem
        stale, or unavailable before the first WELCOME.
    """
    if not mirror.loaded:
        raise Problem("unavailable", "The gateway has not heard from the engine yet.")
    age = time.monotonic() - link.heartbeat_at
    if age > STALE_S:
        raise Problem("stale", f"The engine was last heard {age:.0f} s ago.", limit=f"{STALE_S:.0f} s")


def health(link: EngineLink, mirror: Mirror, watch: ProjectionWatch) -> dict[str, Any]:
    """The health document: RED when the engine is down or settlement is far behind."""
    state = mirror.venue_state if link.connected else VenueState.RECOVERING
    engine: dict[str, Any] = {
        "status": "GREEN" if link.connected else "RED",
        "connected": link.connected,
        "venue_state": state.name,
        "epoch": mirror.epoch,
        "sequence": mirror.sequence,
        "as_of": iso(mirror.time_ns),
    }
    if link.connected and mirror.venue_state != VenueState.OPEN:
        engine["status"] = "RED" if mirror.venue_state == VenueState.HALTED else "YELLOW"
    database: dict[str, Any] = {"status": "GREEN" if watch.up else "YELLOW"}
    if watch.error:
        database["error"] = watch.error
    lag = watch.lag_s
    projector: dict[str, Any] = {
        "status": "RED" if lag > LAG_RED_S else "YELLOW" if lag > LAG_YELLOW_S else "GREEN",
        "sequence": watch.sequence,
        "lag_s": round(lag, 3),
    }
    components = {"engine": engine, "database": database, "projector": projector}
    states = {component["status"] for component in components.values()}
    status = "RED" if "RED" in states else "YELLOW" if "YELLOW" in states else "GREEN"
    return {
        "status": status,
        "venue_state": state.name,
        "epoch": mirror.epoch,
        "sequence": mirror.sequence,
        "components": components,
    }


def ready(link: EngineLink, mirror: Mirror, watch: ProjectionWatch) -> bool:
    """Whether trading or queueing is possible: readiness fails only when neither is."""
    return mirror.loaded and ((link.connected and mirror.venue_state != VenueState.HALTED) or watch.up)
