"""Runs the engine process with an engine or a disk that breaks on purpose.

python -m tests.runtime.run_engine FAULT [VALUE] -- <arguments of the engine process>

--break-on-quantity Q   an invariant breaks at the first NEW whose quantity is Q, as a bug would do it:
                        the commands before it in the same batch have been applied
--break-audit           the full sweep finds a violation once there are more than five commands
--fail-sync N           from the N-th on, syncs of the log fail, as of a dying disk
--stall-sync N          they never return
--fail-events N         event segments are small, and the N-th sync of a full one fails
"""

import errno
import sys
import threading
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from api.runtime import logs
from api.runtime.engine_process import EngineProcess, parse
from engine import Engine
from engine.errors import InvariantViolation
from engine.types import CommandType
from persistence.errors import StorageError
from persistence.events import EventWriter
from persistence.storage import Disk, File


class BreakingEngine:
    """An engine with a planted bug."""

    quantity = 0
    audit_breaks = False

    def __init__(self, inner: Engine | None = None) -> None:
        self._inner = inner if inner is not None else Engine()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def apply(self, commands: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        bad = np.flatnonzero((commands["type"] == CommandType.NEW) & (commands["quantity"] == self.quantity))
        if not len(bad):
            return self._inner.apply(commands)
        self._inner.apply(commands[: bad[0]])
        raise InvariantViolation("I1", int(commands[bad[0]]["sequence"]), 1, 2, 5)

    @classmethod
    def load(cls, arrays: Mapping[str, Any]) -> Self:
        return cls(Engine.load(arrays))

    def audit(self) -> None:
        if self.audit_breaks and self._inner.sequence > 5:
            raise InvariantViolation("I6", self._inner.sequence, 0, 1, 1)
        self._inner.audit()


class FailingFile:
    """A segment without a descriptor, so that its syncs come through here."""

    syncs = 0

    def __init__(self, file: File, disk: "FailingDisk") -> None:
        self._file, self._disk = file, disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def fileno(self) -> None:
        return None

    def sync(self) -> None:
        FailingFile.syncs += threading.current_thread() is not threading.main_thread()
        if FailingFile.syncs >= self._disk.fails_at:
            if self._disk.stalls:
                threading.Event().wait()
            raise StorageError("sync", self._file.path, errno.EIO)
        self._file.sync()


class FailingEvents(Disk):
    """The real disk but for the syncs of event segments while the engine runs."""

    def __init__(self, fails_at: int) -> None:
        self.fails_at = fails_at
        self.syncs = 0

    def open(self, path: Any, *, create: bool = False, writable: bool = False) -> Any:
        file = super().open(path, create=create, writable=writable)
        if "/events/" in str(path) and create:
            sync = file.sync

            def failing() -> None:
                self.syncs += 1
                if self.syncs >= self.fails_at:
                    raise StorageError("sync", file.path, errno.EIO)
                sync()

            file.sync = failing  # type: ignore[method-assign]
        return file


def with_small_segments() -> None:
    """Event segments change often enough for a test to see it."""
    original = EventWriter.open
    EventWriter.open = lambda disk, directory: original(  # type: ignore[method-assign,assignment]
        disk, directory, segment_bytes=100_000
    )


class FailingDisk(Disk):
    """The real disk but for the syncs of the log's segments."""

    def __init__(self, fails_at: int, stalls: bool) -> None:
        self.fails_at, self.stalls = fails_at, stalls

    def open(self, path: Any, *, create: bool = False, writable: bool = False) -> Any:
        file = super().open(path, create=create, writable=writable)
        return FailingFile(file, self) if "/log/" in str(path) and (create or writable) else file


if __name__ == "__main__":
    logs.configure("engine")
    split = sys.argv.index("--")
    fault, value = sys.argv[1], int(sys.argv[2]) if split > 2 else 0
    options = parse(sys.argv[split + 1 :])
    disk = FailingDisk(value, fault == "--stall-sync") if fault.endswith("-sync") else None
    if fault == "--fail-events":
        disk = FailingEvents(value)
        with_small_segments()
    BreakingEngine.quantity = value if fault == "--break-on-quantity" else 0
    BreakingEngine.audit_breaks = fault == "--break-audit"
    sys.exit(EngineProcess(options, BreakingEngine, disk=disk).run())
