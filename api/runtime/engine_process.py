"""The engine process: recover, log START, serve, stop.

    python -m api.runtime.engine_process --data DIR [--no-database] [--socket PATH]
           [--checkpoint-seconds 60] [--checkpoint-commands 1000000]

Exit codes, for the supervisor and for people::

     0  asked to stop: everything acknowledged is on disk, a checkpoint was taken
     1  a fault of the program (a traceback says which)
    65  the data was refused: corruption, or history that contradicts itself; stays down
    70  an invariant broke: HALT is logged, the next start stays HALTED
    73  another process holds the directory
    74  the log or the disk failed: nothing more was acknowledged; the next start decides

SIGTERM and SIGINT stop it.  During recovery they simply end it: recovery can be
begun again at any point.
"""

import argparse
import gc
import logging
import os
import signal
import sys
import uuid
from pathlib import Path

import numpy as np
import orjson

from api.runtime import logs
from api.runtime.checkpoints import Checkpointer
from api.runtime.paths import engine_socket, run_directory
from api.runtime.pipeline import Halted, Pipeline
from api.runtime.sequencer import LoggedTime
from api.runtime.server import EngineServer
from engine import commands as make
from engine.types import VenueState
from persistence.errors import CorruptionError, LockHeld, LogFailed, StorageError
from persistence.log import LogWriter
from persistence.storage import AnyClock, AnyDisk, Clock, Disk
from persistence.text import TextBuilder, TextTag
from recovery.engine import AnyEngine
from recovery.errors import RecoveryError, ReplayHalted
from recovery.restart import Recovered, recover, take_lock

EXIT_CLEAN = 0
EXIT_REFUSED = 65
EXIT_HALTED = 70
EXIT_LOCKED = 73
EXIT_STORAGE = 74

_log = logging.getLogger("holdfast.engine")


class EngineProcess:
    """Composes recovery, pipeline and server.

    Parameters
    ----------
    options : argparse.Namespace
        As `parse` gives them.
    engine_class : class
        `engine.Engine`, or one that stands in for it.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        engine_class: type[AnyEngine],
        *,
        disk: AnyDisk | None = None,
        clock: AnyClock | None = None,
    ) -> None:
        self._options = options
        self._engine_class = engine_class
        self._disk = disk if disk is not None else Disk()
        self._clock = clock if clock is not None else Clock()
        self._data: Path = options.data

    def run(self) -> int:
        """Until stopped or failed; the exit code."""
        try:
            return self._run()
        except LockHeld as error:
            _log.error("%s", error)
            return EXIT_LOCKED
        except (Halted, ReplayHalted) as error:
            _log.critical("P0 %s; an operator must look before trading resumes", error)
            return EXIT_HALTED
        except (CorruptionError, RecoveryError) as error:
            _log.critical("P0 the venue refuses to start: %s", error)
            return EXIT_REFUSED
        except (LogFailed, StorageError) as error:
            _log.critical("P0 %s; nothing more was acknowledged", error)
            return EXIT_STORAGE

    def _run(self) -> int:
        lock = take_lock(self._disk, self._data)
        ready = run_directory(self._data) / "engine.json"
        ready.unlink(missing_ok=True)
        recovered = recover(self._disk, self._data, engine_class=self._engine_class, progress=True, lock=lock)
        _log.info("%s", recovered.report.summary())
        for alert in recovered.report.alerts:
            _log.warning("P1 %s", alert)
        try:
            writer = LogWriter(
                self._disk,
                self._data / "log",
                epoch=recovered.epoch,
                next_sequence=recovered.next_sequence,
                end=recovered.log_end,
            )
            try:
                self._serve(recovered, writer, ready)
            finally:
                writer.close()
        finally:
            recovered.events.close()
            lock.release()
        return EXIT_CLEAN

    def _serve(self, recovered: Recovered, writer: LogWriter, ready: Path) -> None:
        pipeline = Pipeline(
            recovered.engine,
            recovered.definitions,
            writer,
            recovered.events,
            LoggedTime(self._clock, recovered.time_ns),
            next_sequence=recovered.next_sequence,
            next_event_number=recovered.next_event_number,
            epoch=recovered.epoch,
        )
        self._log_start(pipeline, recovered)
        recovered.events.start()
        checkpointer = Checkpointer(
            self._disk,
            self._data,
            sequence=recovered.checkpoint_sequence,
            seconds=self._options.checkpoint_seconds,
            commands=self._options.checkpoint_commands,
            epoch=recovered.epoch,
        )
        path = self._options.socket or engine_socket(self._data)
        with StopSignals() as stop:
            server = EngineServer(
                pipeline,
                checkpointer,
                self._disk,
                self._data,
                path=path,
                instance=uuid.uuid4().hex,
                stop=stop.descriptor,
            )
            try:
                content = server.status() | {"socket": str(path), "recovery": recovered.report.result}
                self._disk.write_atomic(ready, orjson.dumps(content, option=orjson.OPT_INDENT_2))
                # What recovery left lives as long as the process: the collector need not walk it.
                gc.collect()
                gc.freeze()
                server.serve()
            finally:
                server.close()
                ready.unlink(missing_ok=True)

    def _log_start(self, pipeline: Pipeline, recovered: Recovered) -> None:
        """The first frame of this epoch; durable and on record before anyone can connect.

        START and the HALTED that must follow a HALT are one frame, so that no crash
        can leave one without the other.
        """
        frame = make.start(epoch=recovered.epoch)
        text = TextBuilder()
        if recovered.halted:
            frame = np.concatenate([frame, make.set_venue_state(state=VenueState.HALTED)])
            text.add(1, TextTag.REASON, f"HALT at {recovered.report.halt_sequence}".encode())
        pipeline.submit_own(frame, bytes(text))
        pipeline.settle()
        if pipeline.venue_state == VenueState.DRAINING and not self._options.database:
            pipeline.submit_own(make.drained())
            pipeline.settle()


class StopSignals:
    """SIGTERM and SIGINT as a readable descriptor."""

    def __enter__(self) -> "StopSignals":
        self.descriptor, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._earlier = {
            number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self.descriptor)
        os.close(self._write)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(prog="holdfast-engine", description="The matching engine's process.")
    parser.add_argument("--data", type=Path, required=True, help="data directory; made when missing")
    parser.add_argument(
        "--no-database",
        dest="database",
        action="store_false",
        help="there is no submissions queue: open at once instead of waiting for DRAINED",
    )
    parser.add_argument("--socket", type=Path, help="Unix socket to serve on")
    parser.add_argument("--checkpoint-seconds", type=float, default=60.0)
    parser.add_argument("--checkpoint-commands", type=int, default=1_000_000)
    options = parser.parse_args(arguments)
    if options.checkpoint_seconds <= 0 or options.checkpoint_commands < 1:
        parser.error("--checkpoint-seconds and --checkpoint-commands must be positive")
    return options


def main() -> int:
    """Entry of `python -m api.runtime.engine_process`."""
    from engine import Engine

    logs.configure("engine")
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return EngineProcess(parse(sys.argv[1:]), Engine).run()


if __name__ == "__main__":
    sys.exit(main())
