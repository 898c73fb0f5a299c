"""The supervisor with real, small children."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from persistence.errors import LockHeld
from persistence.storage import Disk
from recovery import supervisor as module
from recovery.supervisor import ProcessSpec, StartFailed, State, Supervisor

SLEEPER = "import time; time.sleep(600)"
WAIT_S = 20.0


def spec(name: str, code: str = SLEEPER, **options) -> ProcessSpec:
    return ProcessSpec(name, (sys.executable, "-c", code), **options)


def tend_until(supervisor: Supervisor, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, supervisor.status()
        for child in supervisor.children.values():
            child.tend()
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Running, and not a zombie that nobody reaps here."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_children_start_in_order_each_when_the_one_before_is_ready(tmp_path: Path) -> None:
    first_ready = tmp_path / "first"
    seen: list[bool] = []
    specs = [
        spec(
            "first",
            "import time, pathlib; time.sleep(0.3); "
            f"pathlib.Path({str(first_ready)!r}).touch(); time.sleep(600)",
            ready=lambda pid: first_ready.exists(),
        ),
        spec("second", before_start=lambda: seen.append(first_ready.exists())),
    ]
    with Supervisor(specs, Disk(), tmp_path) as supervisor:
        assert seen == [True]
        status = json.loads((tmp_path / "run" / "supervisor.json").read_bytes())
        assert status["pid"] == os.getpid()
        assert {name: child["state"] for name, child in status["processes"].items()} == {
            "first": "RUNNING",
            "second": "RUNNING",
        }
        pids = [child.pid for child in supervisor.children.values()]
        assert all(alive(pid) for pid in pids)
    assert not any(alive(pid) for pid in pids)
    assert not (tmp_path / "run" / "supervisor.json").exists()


def test_a_killed_child_comes_back_and_the_restart_is_counted(tmp_path: Path) -> None:
    with Supervisor([spec("engine")], Disk(), tmp_path) as supervisor:
        child = supervisor.children["engine"]
        before = child.pid
        os.kill(before, signal.SIGKILL)
        tend_until(supervisor, lambda: child.state == State.RUNNING and child.pid not in (None, before))
        assert child.restarts == 1
        assert child.exit_code == -signal.SIGKILL


def test_five_crashes_in_a_minute_bring_a_pause_that_doubles(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_LAST_S", 0.01)
    monkeypatch.setattr(module, "COOLDOWN_FIRST_S", 0.2)
    monkeypatch.setattr(module, "BACKOFF_FIRST_S", 0.01)
    with Supervisor([spec("flapping", SLEEPER)], Disk(), tmp_path) as supervisor:
        child = supervisor.children["flapping"]

        def crash_until_cooldown() -> float:
            while True:
                tend_until(supervisor, lambda: child.pid is not None)
                child.kill()
                tend_until(supervisor, lambda: child.pid is None)
                if child.state == State.COOLDOWN:
                    began = time.monotonic()
                    tend_until(supervisor, lambda: child.pid is not None)
                    return time.monotonic() - began

        first = crash_until_cooldown()
        assert child.restarts == 5
        second = crash_until_cooldown()
        assert child.restarts == 10
        assert first >= 0.2
        assert second >= 0.4


def test_a_child_that_hangs_its_health_check_is_killed_after_three_failures(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(module, "CHECK_EVERY_S", 0.02)
    monkeypatch.setattr(module, "HEALTH_TIMEOUT_S", 0.05)
    hang = threading.Event()
    checks: list[int] = []

    def healthy(pid: int) -> bool:
        checks.append(pid)
        if len(checks) > 2:
            hang.wait(WAIT_S)
        return True

    with Supervisor([spec("engine", healthy=healthy)], Disk(), tmp_path) as supervisor:
        child = supervisor.children["engine"]
        before = child.pid
        tend_until(supervisor, lambda: child.state == State.UNHEALTHY)
        assert alive(before), "one failure is not three"
        tend_until(supervisor, lambda: child.pid not in (None, before))
        assert checks.count(before) == 5
        hang.set()


def test_a_stopped_process_is_unhealthy_and_replaced(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "CHECK_EVERY_S", 0.02)

    def healthy(pid: int) -> bool:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T"

    with Supervisor([spec("engine", healthy=healthy)], Disk(), tmp_path) as supervisor:
        child = supervisor.children["engine"]
        before = child.pid
        os.kill(before, signal.SIGSTOP)
        tend_until(supervisor, lambda: child.pid not in (None, before))
        assert not alive(before)


def test_a_status_file_that_cannot_be_written_is_said_once_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_the_way = tmp_path / "run" / "supervisor.json.tmp"
    with Supervisor([spec("engine"), spec("gateway")], Disk(), tmp_path) as supervisor:
        in_the_way.mkdir()
        for child in supervisor.children.values():
            before = child.pid
            child.kill()
            tend_until(supervisor, lambda c=child, b=before: c.state == State.RUNNING and c.pid != b)
        assert caplog.text.count("cannot be written") == 1
        in_the_way.rmdir()
        child.kill()
        tend_until(supervisor, lambda: child.restarts == 2 and child.state == State.RUNNING)
        status = json.loads((tmp_path / "run" / "supervisor.json").read_bytes())
        assert status["processes"]["gateway"]["restarts"] == 2


def test_a_restart_that_cannot_be_begun_is_a_crash_and_tried_again(tmp_path: Path) -> None:
    troubles = iter((None, OSError(28, "No space left on device"), ValueError("stale"), None))

    def before_start() -> None:
        if trouble := next(troubles):
            raise trouble

    with Supervisor([spec("other"), spec("postgres", before_start=before_start)], Disk(), tmp_path) as venue:
        child, other = venue.children["postgres"], venue.children["other"]
        others_pid = other.pid
        child.kill()
        tend_until(venue, lambda: child.restarts == 3 and child.state == State.RUNNING)
        assert other.pid == others_pid


def test_a_first_start_that_cannot_be_begun_ends_the_venue(tmp_path: Path) -> None:
    def before_start() -> None:
        raise OSError(28, "No space left on device")

    supervisor = Supervisor([spec("postgres", before_start=before_start)], Disk(), tmp_path)
    with pytest.raises(OSError, match="No space"):
        supervisor.start()


def test_a_child_that_is_twice_not_ready_in_time_is_given_up_at_the_start(tmp_path: Path) -> None:
    gateway = spec("gateway", ready=lambda pid: False, ready_s=0.1)
    supervisor = Supervisor([spec("engine"), gateway], Disk(), tmp_path)
    with pytest.raises(StartFailed, match=r"gateway does not start \(not ready within"):
        supervisor.start()
    assert supervisor.children["gateway"].restarts == 1
    assert not alive(supervisor.children["engine"].pid or 0)


def test_an_exit_code_that_a_restart_would_not_help_stays_down(tmp_path: Path) -> None:
    refused = spec("engine", "raise SystemExit(65)", ready=lambda pid: False, stays_down=frozenset((65,)))
    supervisor = Supervisor([refused], Disk(), tmp_path)
    with pytest.raises(StartFailed, match="exit code 65"):
        supervisor.start()
    with Disk().lock(tmp_path / "supervisor.lock"):
        pass  # It was given back.


def test_a_child_that_ignores_the_stop_signal_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    stubborn = (
        "import signal, time, pathlib; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(600)"
    )
    child = spec("stubborn", stubborn, stop_s=0.2, ready=lambda pid: ready.exists())
    with Supervisor([child], Disk(), tmp_path) as supervisor:
        pid = supervisor.children["stubborn"].pid
    assert not alive(pid)
    assert supervisor.children["stubborn"].exit_code == -signal.SIGKILL


def test_the_stop_goes_by_rank(tmp_path: Path) -> None:
    log = tmp_path / "log"
    told = (
        "import signal, sys, time\n"
        "def stop(*_):\n"
        "    open({log!r}, 'a').write({name!r} + '\\n'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "open({log!r} + {name!r}, 'w').close()\n"
        "time.sleep(600)\n"
    )
    ranks = {"postgres": 4, "engine": 2, "projector": 3, "gateway": 1}
    specs = [
        spec(
            name,
            told.format(log=str(log), name=name),
            stop_rank=rank,
            ready=lambda pid, name=name: Path(f"{log}{name}").exists(),
        )
        for name, rank in ranks.items()
    ]
    with Supervisor(specs, Disk(), tmp_path):
        pass
    assert log.read_text().split() == ["gateway", "engine", "projector", "postgres"]


def test_a_second_supervisor_refuses_at_once_and_says_whose_and_since_when(tmp_path: Path) -> None:
    with Supervisor([spec("engine")], Disk(), tmp_path):
        with pytest.raises(LockHeld, match=rf"pid {os.getpid()} .*since \d{{4}}-") as refusal:
            Supervisor([spec("other")], Disk(), tmp_path).start()
        assert "supervisor.lock" in str(refusal.value)


def test_children_die_with_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from persistence.storage import Disk
from recovery.supervisor import ProcessSpec, Supervisor
data = Path({str(tmp_path)!r})
with Supervisor([ProcessSpec("engine", (sys.executable, "-c", {SLEEPER!r}))], Disk(), data) as s:
    print(s.children["engine"].pid, flush=True)
    s.run()
"""
    root = Path(__file__).parent.parent.parent
    with subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE) as process:
        pid = int(process.stdout.readline())
        assert alive(pid)
        process.kill()
        process.wait()
    deadline = time.monotonic() + WAIT_S
    while alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_sigterm_ends_run_and_stops_the_children_in_order(tmp_path: Path) -> None:
    with Supervisor([spec("engine")], Disk(), tmp_path) as supervisor:
        pid = supervisor.children["engine"].pid
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
        earlier = signal.getsignal(signal.SIGTERM)
        supervisor.run()
        assert signal.getsignal(signal.SIGTERM) is earlier
    assert not alive(pid)
