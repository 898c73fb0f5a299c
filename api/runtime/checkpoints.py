"""Checkpoints while matching goes on (SPEC C1 to C3).

The process forks: the child has the state frozen at one sequence for nothing
more than the fork.  It sweeps the invariants, dumps, hashes, writes the
temporary file and syncs it, then waits for the parent's word that everything up
to that sequence is durable and in the event segments, syncs those, and
publishes.  The parent never waits for a disk.

    parent   fork ─────────── match on ────────── durable ≥ S: "go" ──── report read, child reaped
    child         close descriptors, audit, dump, hash, write ──── wait ── publish, retire ── exit

A checkpoint that fails is told and tried again when the next is due; one whose
sweep breaks an invariant halts the venue.
"""

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from engine.errors import InvariantViolation
from engine.state import state_hash
from persistence import checkpoint
from persistence.storage import AnyDisk
from recovery.definitions import SECTION, Definitions
from recovery.engine import AnyEngine

SPACING_S = 10.0
"""Checkpoints that come due sooner coalesce."""
CHILD_SECONDS_MAX = 600.0
KEEP = 3
_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class Child:
    """A checkpoint being taken."""

    pid: int
    sequence: int
    started: float
    report: int
    go: int
    told: bool = False


class Checkpointer:
    """Takes checkpoints of an engine in forked children, one at a time.

    Parameters
    ----------
    seconds, commands : float, int
        Due after so long, or so many commands, whichever is first.
    """

    def __init__(
        self, disk: AnyDisk, data: Path, *, sequence: int, seconds: float, commands: int, epoch: int
    ) -> None:
        if seconds <= 0 or commands < 1:
            raise ValueError(f"checkpoint every {seconds} s or {commands} commands: both must be positive")
        self._disk = disk
        self._directory = data / "checkpoints"
        self._events = data / "events"
        self._seconds = seconds
        self._commands = commands
        self._spacing = min(SPACING_S, seconds)
        self._epoch = epoch
        self._taken_at = time.monotonic()
        self.sequence = sequence
        """Of the last published checkpoint, 0 for none."""
        self.child: Child | None = None

    @property
    def age_s(self) -> float:
        """Seconds since the last one was begun."""
        return time.monotonic() - self._taken_at

    def is_due(self, sequence: int) -> bool:
        """Whether to take one now."""
        if self.child is not None or sequence <= self.sequence or self.age_s < self._spacing:
            return False
        return self.age_s >= self._seconds or sequence - self.sequence >= self._commands

    def start(self, engine: AnyEngine, definitions: Definitions, time_ns: int) -> Child:
        """Fork; the child's `report` becomes readable when it is done."""
        report_read, report_write = os.pipe2(os.O_CLOEXEC)
        go_read, go_write = os.pipe2(os.O_CLOEXEC)
        self._taken_at = time.monotonic()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _in_child(parent, report_write, go_read, lambda go: self._take(engine, definitions, time_ns, go))
        os.close(report_write)
        os.close(go_read)
        self.child = Child(pid, engine.sequence, self._taken_at, report_read, go_write)
        return self.child

    def tell(self, recorded_sequence: int) -> None:
        """Everything up to here is durable and in the event segments: the child may publish."""
        child = self.child
        if child is not None and not child.told and recorded_sequence >= child.sequence:
            child.told = True
            with contextlib.suppress(BrokenPipeError):
                os.write(child.go, b"g")

    def overdue(self) -> bool:
        """Kill a child that hangs; its report then says so."""
        child = self.child
        if child is not None and time.monotonic() - child.started > CHILD_SECONDS_MAX:
            os.kill(child.pid, signal.SIGKILL)
            return True
        return False

    def finish(self) -> dict[str, Any]:
        """Reap the child whose report is readable; blocks until it has exited.

        Returns
        -------
        dict
            ``path``, ``sequence``, ``state_hash``, ``seconds``; or ``error``, and
            ``violation`` when the sweep broke an invariant.
        """
        child = self.child
        if child is None:
            raise RuntimeError("no checkpoint is being taken")
        parts = []
        while part := os.read(child.report, 65536):
            parts.append(part)
        self._forget(child)
        _, status = os.waitpid(child.pid, 0)
        content = b"".join(parts)
        if not content:
            return {
                "error": f"checkpoint process ended without a report (status {status})",
                "sequence": child.sequence,
            }
        report: dict[str, Any] = orjson.loads(content)
        if "error" not in report:
            self.sequence = child.sequence
        return report

    def wait(self, timeout_s: float) -> dict[str, Any]:
        """Wait for the child, kill it after `timeout_s`; its report."""
        child = self.child
        if child is None:
            raise RuntimeError("no checkpoint is being taken")
        if not select.select([child.report], [], [], timeout_s)[0]:
            os.kill(child.pid, signal.SIGKILL)
        return self.finish()

    def abandon(self) -> None:
        """Kill a running child, keep nothing of it."""
        child = self.child
        if child is not None:
            os.kill(child.pid, signal.SIGKILL)
            self._forget(child)
            os.waitpid(child.pid, 0)

    def _forget(self, child: Child) -> None:
        os.close(child.report)
        os.close(child.go)
        self.child = None

    # In the child.

    def _take(self, engine: AnyEngine, definitions: Definitions, time_ns: int, go: int) -> dict[str, Any]:
        begun = time.monotonic()
        engine.audit()
        sections = engine.dump()
        digest = state_hash(sections)
        temporary = checkpoint.write_temporary(
            self._disk,
            self._directory,
            sequence=engine.sequence,
            epoch=self._epoch,
            time_ns=time_ns,
            state_hash=digest,
            sections={**sections, SECTION: definitions.to_section()},
        )
        if os.read(go, 1) != b"g":
            self._disk.unlink(temporary)
            return {"error": "the engine ended before the checkpoint's commands were durable"}
        # Released events must not be younger on disk than the checkpoint, or a power cut would
        # leave a hole in them that no replay from it can fill.  Earlier segments were synced when full.
        for name in self._disk.list(self._events)[-2:]:
            with contextlib.closing(self._disk.open(self._events / name)) as segment:
                segment.sync()
        path = checkpoint.publish(self._disk, temporary)
        checkpoint.retire(self._disk, self._directory, keep=KEEP)
        return {
            "path": str(path),
            "sequence": engine.sequence,
            "state_hash": digest.hex(),
            "seconds": round(time.monotonic() - begun, 6),
            "memory_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        }


def _in_child(parent: int, report: int, go: int, take: Callable[[int], dict[str, Any]]) -> None:
    """Run `take` in the forked child and exit; never returns."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        # The parent's sockets: its clients must see it die even while this child lives.
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) not in (report, go):
                with contextlib.suppress(OSError):
                    os.close(int(name))
        os.nice(5)
        try:
            outcome = take(go)
            code = 0
        except InvariantViolation as violation:
            outcome = {"error": str(violation), "violation": list(violation.__reduce__()[1])}
        except Exception as error:
            outcome = {"error": f"{type(error).__name__}: {error}"}
        os.write(report, orjson.dumps(outcome))
    except BaseException as error:
        os.write(2, f"checkpoint process: {error!r}\n".encode())
    finally:
        sys.stderr.flush()
        os._exit(code)
