"""Faults done to real files by real processes: kills, full disks, limits, locks."""

import ctypes
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from persistence.errors import LockHeld
from persistence.events import EventReader, EventWriter
from persistence.log import scan, sync_all
from persistence.storage import Disk
from tests.unit.persistence.support import sequences, some_events, write_log

ROOT = Path(__file__).parents[2]


@contextmanager
def worker(*arguments, prefix=()):
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "tests.faults.file_worker", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def wait_for_lock(path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return Disk().lock(path).release()
        except LockHeld:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def test_a_lock_names_its_owner_and_dies_with_it_though_children_live(tmp_path):
    with worker("hold", tmp_path) as process:
        holder, forked, executed = map(int, process.stdout.readline().split())
        try:
            with pytest.raises(LockHeld, match=f"pid {holder} on .*, epoch 9"):
                Disk().lock(tmp_path / "lock")
            process.kill()
            process.wait()
            # A child drops its copy when it first runs after the fork, which may be after the kill.
            wait_for_lock(tmp_path / "lock", seconds=10)
            for child in (forked, executed):
                os.kill(child, 0)  # Both are alive, and neither has the lock.
        finally:
            for child in (forked, executed):
                os.kill(child, signal.SIGKILL)


def test_a_lock_stays_with_a_parent_whose_child_ended(tmp_path):
    with Disk().lock(tmp_path / "lock"):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(LockHeld):
            Disk().lock(tmp_path / "lock")


def test_a_log_killed_again_and_again_keeps_every_durable_command(tmp_path):
    seed = int(os.environ.get("HOLDFAST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"rerun: HOLDFAST_SEED={seed} pytest tests/faults/test_file_faults.py -k killed_again_and_again")
    generator = random.Random(seed)
    durable = 0
    for _ in range(8):
        with worker("log", tmp_path) as process:
            assert process.stdout.readline()
            time.sleep(generator.uniform(0, 0.15))
            process.send_signal(signal.SIGKILL)
            # A line that the kill cut short was not heard.
            lines = [line for line in process.stdout if line.endswith("\n")]
        heard = int(lines[-1]) if lines else durable
        found = scan(Disk(), tmp_path)
        assert sync_all(Disk(), tmp_path) == len(found.segments)
        assert found.last_sequence >= heard > durable - 1
        assert sequences(found) == list(range(1, found.last_sequence + 1))
        durable = found.last_sequence


def fill(directory, limit, prefix=()):
    with worker("fill", directory, limit, prefix=prefix) as process:
        output = process.stdout.read()
    failed, again = output.splitlines()
    _, durable, written, message = failed.split(" ", 3)
    assert again == "again 3"
    return int(durable), int(written), message


def check_nothing_acknowledged_is_lost(directory, durable, written):
    found = scan(Disk(), directory)
    assert durable <= found.last_sequence <= written
    assert sequences(found) == list(range(1, found.last_sequence + 1))
    write_log(directory, [5], epoch=found.end.epoch + 1, segment_bytes=1 << 20)
    assert scan(Disk(), directory).last_sequence == found.last_sequence + 5


def test_a_file_size_limit_in_the_middle_of_a_frame_stops_the_log(tmp_path):
    durable, written, message = fill(tmp_path, 100_001)
    assert "File too large" in message
    assert 100 < durable < written
    check_nothing_acknowledged_is_lost(tmp_path, durable, written)


def test_a_full_disk_stops_the_log_when_it_needs_a_segment(tmp_path):
    libc = ctypes.CDLL(None, use_errno=True)
    place = tmp_path / "small"
    place.mkdir()
    if libc.mount(b"tmpfs", bytes(place), b"tmpfs", 0, b"size=2500k") != 0:
        pytest.skip(f"cannot mount a small tmpfs: {os.strerror(ctypes.get_errno())} (needs root)")
    try:
        durable, written, message = fill(place, 0)
        assert "No space left" in message
        assert durable > 10_000
        copy = tmp_path / "copy"
        shutil.copytree(place, copy)
        check_nothing_acknowledged_is_lost(copy, durable, written)
    finally:
        assert libc.umount(bytes(place)) == 0


@pytest.mark.parametrize("code", ["EIO", "ENOSPC", "EINTR"])
def test_a_sync_that_the_kernel_refuses_stops_the_log(tmp_path, code):
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed: the kernel's answers cannot be changed")
    prefix = (strace, "-f", "-qq", "-o", tmp_path / "trace", "-e", "trace=fdatasync")
    inject = ("-e", f"inject=fdatasync:error={code}:when=9+")
    probe = subprocess.run([strace, "-o", tmp_path / "trace", "true"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"strace may not trace here: {probe.stderr.strip()}")
    directory = tmp_path / "log"
    directory.mkdir()
    durable, written, message = fill(directory, 0, prefix=(*prefix, *inject))
    assert "sync of the log failed" in message
    check_nothing_acknowledged_is_lost(directory, durable, written)
    # Never tried again: one refused sync, and none after it.
    syncs = (tmp_path / "trace").read_text().splitlines()
    assert ["INJECTED" in line for line in syncs] == [False] * (len(syncs) - 1) + [True]


def test_a_follower_behind_a_writer_that_is_killed_and_started_again(tmp_path):
    follower = EventReader(Disk(), tmp_path).follow(0)
    got, numbers = [], []

    def poll() -> None:
        for frame in follower.poll(50):
            got.append(frame.first_sequence)
            numbers.append(frame.event_number)
            assert frame.events.tobytes() == some_events(frame.first_sequence, 3).tobytes()

    for round_ in range(3):
        with worker("events", tmp_path, 10**9) as process:
            assert process.stdout.readline()
            begin, deadline = len(got), time.monotonic() + 30
            while len(got) < begin + 300:
                assert time.monotonic() < deadline, f"{len(got)} frames in round {round_}"
                poll()
        # The tail is torn in the middle of the last frame, and cut by the next writer.
        last = sorted(tmp_path.glob("*.events"))[-1]
        size = last.stat().st_size
        os.truncate(last, max(0, size - 100))
        poll()
    EventWriter.open(Disk(), tmp_path).close()
    upto = got[-1] + 500
    with worker("events", tmp_path, upto) as process:
        deadline = time.monotonic() + 30
        while got[-1] < upto:
            assert time.monotonic() < deadline, f"{got[-1]} of {upto}"
            poll()
    follower.close()
    assert got == list(range(1, upto + 1))
    assert numbers == [1 + 3 * (sequence - 1) for sequence in got]
    assert len(list(tmp_path.glob("*.events"))) > 10
