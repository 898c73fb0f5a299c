"""The projector process: event segments to PostgreSQL, and the queue to the engine.

    python -m api.runtime.projector_process --data DIR --dsn DSN

It follows the event segments, not the engine: it catches up while the engine is
dead, and the engine never waits for it.  An outage of the database is waited
out however long it takes; what cannot be mended by waiting ends the process::

     0  asked to stop; caught up as far as the segments go
    65  the rows and the events contradict each other, or events are missing
    75  another projector, or a newer engine's, is writing

DIR/run/projector.json says how far it is, about once a second.  Where it cannot
be written (a full disk) its time stamp alone is renewed: that is the sign of
life, and takes no space.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from api.runtime import logs
from api.runtime.drainer import Drainer
from api.runtime.link import EngineLink
from api.runtime.paths import engine_socket, run_directory, write_status
from persistence.errors import CorruptionError
from persistence.events import EventFrame, EventReader
from persistence.postgres.errors import (
    CursorMoved,
    DatabaseRefused,
    DatabaseUnavailable,
    EventGap,
    StaleEpoch,
)
from persistence.postgres.migrate import migrate
from persistence.postgres.pool import Pool
from persistence.postgres.projector import Cursor, Projector
from persistence.postgres.submissions import Submissions
from persistence.storage import Disk

EXIT_CLEAN = 0
EXIT_REFUSED = 65
EXIT_FENCED = 75
FRAMES_PER_POLL = 1024
IDLE_S = 0.01
OUTAGE_PAUSE_S = 1.0
CATCH_UP_S = 10.0
STATUS_EVERY_S = 1.0
PRUNE_EVERY_S = 60.0
CONNECTIONS = 4

T = TypeVar("T")

_log = logging.getLogger("holdfast.projector")


class ProjectorProcess:
    """Follows, applies, reports.

    Parameters
    ----------
    data : Path
        The data directory.
    pool : Pool
        Of the venue's database.
    """

    def __init__(self, data: Path, pool: Pool) -> None:
        self._data = data
        self._pool = pool
        self._projector = Projector(pool)
        self._reader = EventReader(Disk(), data / "events")
        self._link = EngineLink(engine_socket(data), "drainer")
        self._drainer = Drainer(self._link, Submissions(pool))
        self._stopping = asyncio.Event()
        self._migrated = asyncio.Event()
        self._cursor: Cursor | None = None
        self._waiting: list[EventFrame] = []
        self._outage = ""

    def stop(self) -> None:
        """Catch up, then end."""
        self._stopping.set()

    async def run(self) -> None:
        """Until stopped.

        Raises
        ------
        EventGap, StaleEpoch, CorruptionError
            Waiting would not help.
        """
        follow = asyncio.create_task(self._follow())
        tasks = [follow, asyncio.create_task(self._report_status()), asyncio.create_task(self._drain())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._link.close()

    async def _follow(self) -> None:
        """Ends when asked to, at the end of the segments or after `CATCH_UP_S`."""
        await self._patiently(lambda: migrate(self._pool))
        self._cursor = await self._patiently(self._projector.cursor)
        self._migrated.set()
        follower = self._reader.follow(self._cursor.sequence)
        pruned_at = time.monotonic()
        stop_at = float("inf")
        try:
            while time.monotonic() < stop_at:
                if self._stopping.is_set() and stop_at == float("inf"):
                    stop_at = time.monotonic() + CATCH_UP_S
                self._waiting = follower.poll(FRAMES_PER_POLL)
                if self._waiting:
                    await self._apply(self._waiting)
                elif self._stopping.is_set():
                    return
                else:
                    await asyncio.sleep(IDLE_S)
                if time.monotonic() - pruned_at > PRUNE_EVERY_S:
                    pruned_at = time.monotonic()
                    await self._patiently(self._projector.prune_outbox)
        finally:
            follower.close()

    async def _apply(self, frames: list[EventFrame]) -> None:
        self._cursor = await self._patiently(lambda: self._projector.apply(frames))
        self._waiting = []

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """The result of `work`, through any outage of the database.

        Raises
        ------
        _Stopped
            Asked to stop during one.
        """
        while True:
            try:
                result = await work()
            except (DatabaseUnavailable, DatabaseRefused) as error:
                if not self._outage:
                    _log.warning("P1 the database does not answer, waiting: %s", error)
                self._outage = str(error)
                if self._stopping.is_set():
                    raise _Stopped from error
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), OUTAGE_PAUSE_S)
                continue
            if self._outage:
                _log.info("the database answers again")
            self._outage = ""
            return result

    async def _drain(self) -> None:
        await self._migrated.wait()
        await self._link.start()
        await self._drainer.run()

    # Status.

    def status(self) -> dict[str, Any]:
        """What projector.json says."""
        cursor, link = self._cursor, self._link
        sequence = cursor.sequence if cursor else 0
        released = max(int(link.heartbeat.get("sequence", 0)), sequence)
        waiting = self._waiting
        if waiting:
            released = max(released, waiting[-1].last_sequence)
        return {
            "pid": os.getpid(),
            "sequence": sequence,
            "epoch": cursor.epoch if cursor else 0,
            "event_number": cursor.event_number if cursor else 0,
            "lag_sequences": released - sequence,
            "lag_s": round(max(0.0, time.time() - waiting[0].time_ns / 1e9), 3) if waiting else 0.0,
            "database": "down" if self._outage else "up",
            "outage": self._outage,
            "engine_connected": link.connected,
            "submissions_taken": self._drainer.taken,
            "updated_at": time.time(),
        }

    async def _report_status(self) -> None:
        path = run_directory(self._data) / "projector.json"
        trouble = ""
        while True:
            earlier, trouble = trouble, renew_status(path, self.status())
            if trouble and trouble != earlier:
                _log.error("P1 the status file cannot be written, and is old: %s", trouble)
            elif earlier and not trouble:
                _log.info("the status file is written again")
            await asyncio.sleep(STATUS_EVERY_S)


def renew_status(path: Path, content: dict[str, Any]) -> str:
    """Write the status file, or at least its time; what went wrong, or nothing."""
    try:
        write_status(path, content)
    except OSError as error:
        trouble = str(error)
        try:
            os.utime(path)
        except OSError as worse:
            trouble += f"; {worse}"
        return trouble
    return ""


class _Stopped(Exception):
    """Asked to stop while the database is away."""


async def run(data: Path, dsn: str) -> int:
    """The process's life; its exit code."""
    loop = asyncio.get_running_loop()
    async with Pool(dsn, minimum=1, maximum=CONNECTIONS) as pool:
        process = ProjectorProcess(data, pool)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, process.stop)
        try:
            await process.run()
        except _Stopped:
            _log.warning("stopped while the database was away; the rest is projected at the next start")
        except (StaleEpoch, CursorMoved) as error:
            _log.error("P1 %s", error)
            return EXIT_FENCED
        except (EventGap, CorruptionError) as error:
            _log.critical("P1 projection stops: %s", error)
            return EXIT_REFUSED
        finally:
            (run_directory(data) / "projector.json").unlink(missing_ok=True)
    return EXIT_CLEAN


def main() -> int:
    """Entry of `python -m api.runtime.projector_process`."""
    parser = argparse.ArgumentParser(prog="holdfast-projector", description="Event segments to PostgreSQL.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dsn", required=True, help="of the venue's database")
    options = parser.parse_args()
    logs.configure("projector")
    options.data.mkdir(parents=True, exist_ok=True)
    return uvloop.run(run(options.data, options.dsn))


if __name__ == "__main__":
    sys.exit(main())
