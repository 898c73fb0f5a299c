"""The sync thread for files without a descriptor: a simulated disk, a test double.

Same behaviour as `persistence.log.syncer`, in Python: see there for the
protocol. `threaded=False` syncs inside `submit` instead, on the caller's
thread, so that a simulation has no thread timing in it.
"""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from persistence.errors import LogFailed, StorageError
from persistence.storage import AnyFile

RING = 8


class AnySyncer(Protocol):
    """What the writer needs of a sync thread."""

    @property
    def durable(self) -> int: ...
    def start(self) -> None: ...
    def submit(self, file: AnyFile, sequence: int, wake: bool = True) -> None: ...
    def submit_task(self, task: Callable[[], None]) -> None: ...
    def wait(self, sequence: int) -> None: ...
    def collect(self) -> int: ...
    def drain(self) -> None: ...
    def check(self) -> None: ...
    def fail(self, cause: Exception) -> None: ...
    def stop(self) -> None: ...


@dataclass(slots=True)
class _Entry:
    file: AnyFile | None
    sequence: int
    task: Callable[[], None] | None = None


class FileSyncer:
    """Syncs through `File.sync`."""

    def __init__(self, durable: int, completion_fd: int, *, threaded: bool) -> None:
        self._durable = durable
        self._completion_fd = completion_fd
        self._threaded = threaded
        self._changed = threading.Condition()
        self._entries: deque[_Entry] = deque()
        self._busy = False
        self._stopping = False
        self._cause: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="log-sync", daemon=True)

    @property
    def durable(self) -> int:
        """Last sequence known to be on disk."""
        return self._durable

    def start(self) -> None:
        """Start the thread, if there is to be one."""
        if self._threaded:
            self._thread.start()

    def submit(self, file: AnyFile, sequence: int, wake: bool = True) -> None:
        """All up to `sequence` is written to `file`: sync it (always on the thread, if there is one)."""
        with self._changed:
            last = self._entries[-1] if self._entries else None
            if last is not None and last.file is file and self._cause is None:
                last.sequence = sequence
                return
        self._push(_Entry(file, sequence))

    def submit_task(self, task: Callable[[], None]) -> None:
        """Call `task` after what was submitted before and before what follows."""
        self._push(_Entry(None, 0, task))

    def _push(self, entry: _Entry) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._cause is not None or len(self._entries) < RING)
            self.check()
            self._entries.append(entry)
            self._changed.notify_all()
        if not self._threaded:
            self._step()
            self.check()

    def _step(self) -> None:
        with self._changed:
            entry = self._entries.popleft()
            self._busy = True
        try:
            if entry.task is not None:
                entry.task()
            elif entry.file is not None:
                entry.file.sync()
        except Exception as error:  # Whatever it is: fail-stop, and every caller hears the cause.
            self.fail(error)
        finally:
            with self._changed:
                self._busy = False
                if self._cause is None and entry.sequence > self._durable:
                    self._durable = entry.sequence
                    os.eventfd_write(self._completion_fd, 1)
                self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._entries or self._stopping or self._cause is not None)
                if self._cause is not None or not self._entries:
                    return
            self._step()

    def wait(self, sequence: int) -> None:
        """Until `sequence`, which was submitted, is durable."""
        with self._changed:
            self._changed.wait_for(lambda: self._cause is not None or self._durable >= sequence)
            self.check()

    def collect(self) -> int:
        """Clear the eventfd; the durable sequence."""
        with contextlib.suppress(BlockingIOError):  # Nothing new, which is an answer.
            os.eventfd_read(self._completion_fd)
        self.check()
        return self._durable

    def drain(self) -> None:
        """Until everything submitted is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._cause is not None or not (self._entries or self._busy))
            self.check()

    def check(self) -> None:
        """Raise what failed, if anything did."""
        if self._cause is not None:
            failed = "sync of the log" if _is_sync(self._cause) else "the log"
            raise LogFailed(f"{failed} failed: {self._cause}; stop, and recover from disk") from self._cause

    def fail(self, cause: Exception) -> None:
        """Nothing becomes durable any more."""
        with self._changed:
            if self._cause is None:
                self._cause = cause
                os.eventfd_write(self._completion_fd, 1)
            self._changed.notify_all()

    def stop(self) -> None:
        """End the thread, after what was submitted (or at once after a failure)."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()


def _is_sync(cause: Exception) -> bool:
    return isinstance(cause, StorageError) and cause.operation == "sync"
