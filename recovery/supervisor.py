"""Starts the processes of a venue, watches them, brings them back, stops them in order.

    start     in the order of the specs, each when the one before is ready
    watch     every second: alive? healthy within a second? three failures in a row → kill, restart
    restart   after 0.1, 0.2, 0.4 … 5 s; five crashes within 60 s → a pause of 30 s, doubling to 300 s
    stop      in the reverse order, or by `stop_rank`; SIGKILL after the spec's patience

A start that fails (no memory for a process, no space for its files) counts as a
crash; only at the first start does it end the venue.  A status file that cannot
be written is logged, and ends nothing: trading goes on when a disk is full.

It is not needed for correctness: a child that finds its parent dead dies too
(PR_SET_PDEATHSIG), and the data directory's lock, not the supervisor, keeps a
second engine out.  What it knows stands in run/supervisor.json.
"""

import ctypes
import logging
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson

from persistence.errors import LockHeld
from persistence.storage import AnyDisk, AnyLock

CHECK_EVERY_S = 1.0
HEALTH_TIMEOUT_S = 1.0
HEALTH_FAILURES_MAX = 3
BACKOFF_FIRST_S = 0.1
BACKOFF_LAST_S = 5.0
CRASHES_MAX = 5
CRASH_WINDOW_S = 60.0
COOLDOWN_FIRST_S = 30.0
COOLDOWN_LAST_S = 300.0
LATE_MAX = 2
"""So often may a process be late at the start of a venue before that is given up."""
STEADY_S = 60.0
"""A child that lived so long starts again with the shortest pauses."""
POLL_S = 0.02
_PR_SET_PDEATHSIG = 1

_log = logging.getLogger("holdfast.supervisor")
_libc = ctypes.CDLL(None)


class State(StrEnum):
    WAITING = "WAITING"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    UNHEALTHY = "UNHEALTHY"
    BACKOFF = "BACKOFF"
    COOLDOWN = "COOLDOWN"
    REFUSED = "REFUSED"
    STOPPED = "STOPPED"


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One child.

    Attributes
    ----------
    name : str
        As in the status file.
    argv : sequence of str
        The program; run without a shell, in a process group of its own.
    environment : mapping
        Added to this process's own.
    ready : callable
        Given the pid: whether it can be used now.  Must not block long.
    healthy : callable
        Given the pid: whether it answers.  Runs in a thread of its own, and more than
        `HEALTH_TIMEOUT_S` counts as no.
    ready_s : float
        How long it may take to become ready before it counts as crashed.
    stop_signal, stop_s : int, float
        How it is asked to end, and when it is killed.
    stop_rank : int
        Lower ranks are stopped first; equal ranks in reverse order of start.
    death_signal : int
        What the kernel sends it when the supervisor dies.
    stays_down : set of int
        Exit codes after which a restart would not help.
    before_start : callable
        Run before each start (a stale file to remove, say).
    restart_s, restart_s_max : float
        The first pause before a restart, and the longest.
    crashes_max : int
        Crashes within a minute before the long pause.
    """

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[int], bool] = lambda pid: True
    healthy: Callable[[int], bool] = lambda pid: True
    ready_s: float = 60.0
    stop_signal: int = signal.SIGTERM
    stop_s: float = 30.0
    stop_rank: int = 0
    death_signal: int = signal.SIGKILL
    stays_down: frozenset[int] = frozenset()
    before_start: Callable[[], None] = lambda: None
    restart_s: float = BACKOFF_FIRST_S
    restart_s_max: float = BACKOFF_LAST_S
    crashes_max: int = CRASHES_MAX


class Child:
    """A process and what the supervisor remembers of it."""

    def __init__(self, spec: ProcessSpec, on_change: Callable[[], None]) -> None:
        self.spec = spec
        self.process: subprocess.Popen[bytes] | None = None
        self.state = State.WAITING
        self.since = time.time()
        self.restarts = 0
        self.exit_code: int | None = None
        self.late = 0
        self.trouble = ""
        self._on_change = on_change
        self._started_at = 0.0
        self._start_at = 0.0
        self._checked_at = 0.0
        self._failures = 0
        self._backoff_s = spec.restart_s
        self._cooldown_s = COOLDOWN_FIRST_S
        self._crashes: deque[float] = deque(maxlen=spec.crashes_max)
        self._check: _Check | None = None

    @property
    def pid(self) -> int | None:
        """Of the living process."""
        return self.process.pid if self.process is not None and self.process.returncode is None else None

    def status(self) -> dict[str, Any]:
        """For the status file."""
        return {
            "pid": self.pid,
            "state": str(self.state),
            "restarts": self.restarts,
            "since": self.since,
            "exit_code": self.exit_code,
        }

    def start(self) -> None:
        """Start the process now.

        Raises
        ------
        Exception
            Whatever `before_start` or the operating system says; no process was started.
        """
        self.spec.before_start()
        death_signal = self.spec.death_signal
        parent = os.getpid()

        def prepare() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

        # preexec_fn is safe here: prctl and getppid take no lock that another thread could hold.
        self.process = subprocess.Popen(
            list(self.spec.argv),
            env={**os.environ, **self.spec.environment},
            stdin=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=prepare,
        )
        self._started_at = time.monotonic()
        self._failures = 0
        self._check = None
        self._enter(State.STARTING)

    def tend(self) -> None:
        """Look at it once; called often, blocks no longer than `before_start`, raises nothing."""
        now = time.monotonic()
        if self.process is None:
            if self.state in (State.BACKOFF, State.COOLDOWN) and now >= self._start_at:
                self._restart()
            return
        code = self.process.poll()
        if code is not None:
            self._ended(code, now)
        elif self.state == State.STARTING:
            if self.spec.ready(self.process.pid):
                self.trouble = ""
                self._checked_at = now
                self._enter(State.RUNNING)
            elif now - self._started_at > self.spec.ready_s:
                self.late += 1
                self.trouble = f"not ready within {self.spec.ready_s:.0f} s"
                _log.error("P1 %s was not ready within %.0f s: killed", self.spec.name, self.spec.ready_s)
                self.kill()
        else:
            self._watch(now, self.process.pid)

    def kill(self) -> None:
        """SIGKILL to the process; `tend` sees it end."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()

    def ask_to_stop(self) -> None:
        """Send the stop signal."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(self.spec.stop_signal)

    def stop(self) -> None:
        """Ask, wait, kill; on return it is gone."""
        process = self.process
        if process is not None:
            self.ask_to_stop()
            try:
                process.wait(self.spec.stop_s)
            except subprocess.TimeoutExpired:
                _log.error("P1 %s did not stop within %.0f s: killed", self.spec.name, self.spec.stop_s)
                process.kill()
                process.wait()
            self.exit_code = process.returncode
        self.process = None
        self._enter(State.STOPPED)

    def _watch(self, now: float, pid: int) -> None:
        if self._check is None:
            if now - self._checked_at >= CHECK_EVERY_S:
                self._checked_at = now
                self._check = _Check(self.spec.healthy, pid)
            return
        healthy = self._check.outcome(now)
        if healthy is None:
            return
        self._check = None
        if healthy:
            self._failures = 0
            if self.state != State.RUNNING:
                self._enter(State.RUNNING)
            return
        self._failures += 1
        if self.state != State.UNHEALTHY:
            self._enter(State.UNHEALTHY)
        if self._failures >= HEALTH_FAILURES_MAX:
            _log.error("P1 %s failed %d health checks in a row: killed", self.spec.name, self._failures)
            self.kill()

    def _restart(self) -> None:
        self.restarts += 1
        try:
            self.start()
        except Exception as error:
            # Whatever it is, the other processes are well: theirs must not end with this one's start.
            self.trouble = str(error)
            _log.error("P1 %s cannot be started: %s", self.spec.name, error)
            now = time.monotonic()
            self._started_at = now
            self._crashed("was not started", now)

    def _ended(self, code: int, now: float) -> None:
        self.process = None
        self.exit_code = code
        if code in self.spec.stays_down:
            _log.critical("P0 %s ended with %d and stays down: see its log", self.spec.name, code)
            self._enter(State.REFUSED)
            return
        self._crashed(f"ended with {code}", now)

    def _crashed(self, how: str, now: float) -> None:
        lived_s = now - self._started_at
        if lived_s >= STEADY_S:
            self._backoff_s, self._cooldown_s = self.spec.restart_s, COOLDOWN_FIRST_S
            self._crashes.clear()
        self._crashes.append(now)
        in_window = len(self._crashes) == self.spec.crashes_max and now - self._crashes[0] <= CRASH_WINDOW_S
        pause_s = self._cooldown_s if in_window else self._backoff_s
        _log.error("P1 %s %s after %.1f s; again in %.1f s", self.spec.name, how, lived_s, pause_s)
        if in_window:
            self._cooldown_s = min(self._cooldown_s * 2, COOLDOWN_LAST_S)
            self._crashes.clear()
        else:
            self._backoff_s = min(self._backoff_s * 2, self.spec.restart_s_max)
        self._start_at = now + pause_s
        self._enter(State.COOLDOWN if in_window else State.BACKOFF)

    def _enter(self, state: State) -> None:
        self.state = state
        self.since = time.time()
        self._on_change()


class _Check:
    """A health check in a thread of its own, so that one that hangs hangs alone."""

    def __init__(self, healthy: Callable[[int], bool], pid: int) -> None:
        self._begun = time.monotonic()
        self._outcome: bool | None = None
        self._healthy = healthy
        self._pid = pid
        threading.Thread(target=self._run, name="health-check", daemon=True).start()

    def _run(self) -> None:
        try:
            self._outcome = bool(self._healthy(self._pid))
        except Exception as error:
            _log.warning("health check failed: %s", error)
            self._outcome = False

    def outcome(self, now: float) -> bool | None:
        """Yes, no, or not known yet."""
        if self._outcome is None and now - self._begun >= HEALTH_TIMEOUT_S:
            return False
        return self._outcome


class Supervisor:
    """Runs `specs` on a data directory.

    The kernel ties a child's death signal to the thread that started it: call
    `start` and `run` from one thread that lives as long as the venue, best the main one.

    Parameters
    ----------
    specs : sequence of ProcessSpec
        In the order of start.
    data : Path
        `data/supervisor.lock` is held from `start` to `stop`.
    lock : AnyLock, optional
        The same lock, when it was taken before (`take_lock`).

    Examples
    --------
    ::

        with Supervisor(specs, disk, data) as supervisor:   # lock, start all, wait until ready
            supervisor.run()                                # until SIGTERM, SIGINT or `request_stop`
    """

    def __init__(
        self, specs: Sequence[ProcessSpec], disk: AnyDisk, data: Path, lock: AnyLock | None = None
    ) -> None:
        if len({spec.name for spec in specs}) != len(specs):
            raise ValueError("each process needs a name of its own")
        self._disk = disk
        self._data = data
        self._lock = lock
        self._stopping = threading.Event()
        self._started_at = time.time()
        self._status_error = ""
        self.children = {spec.name: Child(spec, self._write_status) for spec in specs}

    def __enter__(self) -> "Supervisor":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Take the lock, start everything in order; on return all are ready.

        Raises
        ------
        LockHeld
            Another supervisor runs this directory; the message names its pid and since when.
        StartFailed
            A process will not come up; those that had been started are stopped again.
        """
        self._disk.make_directory(self._data / "run")
        if self._lock is None:
            self._lock = take_lock(self._disk, self._data)
        try:
            for child in self.children.values():
                child.start()
                while child.state != State.RUNNING and not self._stopping.is_set():
                    self._tend_all()
                    self._give_up_on_the_hopeless()
                    time.sleep(POLL_S)
        except BaseException:
            self.stop()
            raise

    def run(self) -> None:
        """Tend the children until asked to stop; SIGTERM and SIGINT ask when called from the main thread."""
        is_main = threading.current_thread() is threading.main_thread()
        numbers = (signal.SIGTERM, signal.SIGINT) if is_main else ()
        earlier = {number: signal.signal(number, lambda *_: self.request_stop()) for number in numbers}
        try:
            while not self._stopping.wait(POLL_S):
                self._tend_all()
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def request_stop(self) -> None:
        """Make `run` return; safe in a signal handler and from any thread."""
        self._stopping.set()

    def stop(self) -> None:
        """Stop everything in order and give up the lock; a second time does nothing."""
        self._stopping.set()
        if self._lock is None:
            return
        backwards = list(self.children.values())[::-1]
        for child in sorted(backwards, key=lambda child: child.spec.stop_rank):
            child.stop()
        (self._data / "run" / "supervisor.json").unlink(missing_ok=True)
        self._lock.release()
        self._lock = None

    def status(self) -> dict[str, Any]:
        """What supervisor.json says."""
        return {
            "pid": os.getpid(),
            "since": self._started_at,
            "processes": {name: child.status() for name, child in self.children.items()},
        }

    def _tend_all(self) -> None:
        for child in self.children.values():
            child.tend()

    def _give_up_on_the_hopeless(self) -> None:
        for child in self.children.values():
            if child.state in (State.REFUSED, State.COOLDOWN) or child.late >= LATE_MAX:
                why = child.trouble or f"exit code {child.exit_code}"
                raise StartFailed(f"{child.spec.name} does not start ({why}): see its log")

    def _write_status(self) -> None:
        path = self._data / "run" / "supervisor.json"
        temporary = path.with_name("supervisor.json.tmp")
        trouble = ""
        try:
            temporary.write_bytes(orjson.dumps(self.status(), option=orjson.OPT_INDENT_2))
            temporary.replace(path)
        except OSError as error:
            trouble = str(error)
        if trouble and trouble != self._status_error:
            _log.error("P1 the status file cannot be written, and is old: %s", trouble)
        elif self._status_error and not trouble:
            _log.info("the status file is written again")
        self._status_error = trouble


def take_lock(disk: AnyDisk, data: Path) -> AnyLock:
    """The lock of a data directory's supervisor.

    Raises
    ------
    LockHeld
        Another supervisor runs this directory; the message names its pid and since when.
    """
    try:
        return disk.lock(data / "supervisor.lock")
    except LockHeld as error:
        raise LockHeld(error.path, f"{error.owner}{_since(data)}") from None


def _since(data: Path) -> str:
    """Since when the owner of the lock runs, as its status file says."""
    try:
        since = float(orjson.loads((data / "run" / "supervisor.json").read_bytes())["since"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return time.strftime(", since %Y-%m-%d %H:%M:%S UTC", time.gmtime(since))


class StartFailed(Exception):
    """A process of the venue does not come up."""
