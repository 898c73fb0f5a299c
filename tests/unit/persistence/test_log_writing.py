"""Group commit: what a sync covers, what durable means, and that a failure is final."""

import errno
import os
import select
import threading

import pytest

from persistence.errors import FormatError, LogFailed, StorageError
from persistence.log import LogWriter, scan
from persistence.storage import Disk
from tests.unit.persistence.support import (
    SEGMENT_BYTES,
    ControlledDisk,
    only_segment,
    sequences,
    stamped,
    write_log,
)


def open_writer(disk, directory, **options):
    options = {"epoch": 1, "next_sequence": 1, "end": None, "segment_bytes": SEGMENT_BYTES} | options
    return LogWriter(disk, directory, **options)


def readable(descriptor: int, seconds: float = 0) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])


@pytest.fixture
def held(tmp_path):
    """A writer on a disk whose syncs wait for `disk.gate`; too large a segment to prepare the next."""
    disk = ControlledDisk()
    writer = open_writer(disk, tmp_path, segment_bytes=1 << 20)
    while disk.entered.acquire(blocking=False):
        pass
    disk.gate.clear()
    yield disk, writer
    disk.gate.set()
    try:
        writer.close()
    except LogFailed:
        assert disk.sync_error or disk.write_error


def test_one_sync_covers_exactly_what_was_written_before_it_began(held):
    disk, writer = held
    writer.append(stamped(1, 1), b"", 1)
    writer.commit()
    assert disk.entered.acquire(timeout=10)  # The first sync is under way, and covers 1.
    before = disk.syncs
    for sequence in (2, 3, 4):
        writer.append(stamped(sequence, 1), b"", 1)
        writer.commit()
    assert writer.durable_sequence == 0
    assert not readable(writer.completion_fd)
    seen = []
    original = disk.on_sync

    def on_sync(file):
        seen.append(writer.durable_sequence)
        original(file)

    disk.on_sync = on_sync
    disk.gate.set()
    writer.wait(4)
    assert seen == [1]  # When the second sync began, only what the first one covered was durable.
    assert disk.syncs == before + 1  # Three groups, one sync.
    assert readable(writer.completion_fd, 10)
    assert writer.collect() == 4
    assert not readable(writer.completion_fd)


def test_what_is_appended_but_not_committed_is_not_written(tmp_path):
    disk = Disk()
    writer = open_writer(disk, tmp_path)
    writer.append(stamped(1, 1), b"", 1)
    assert scan(disk, tmp_path).last_sequence == 0
    writer.commit()
    assert scan(disk, tmp_path).last_sequence == 1
    writer.close()


def test_who_waits_for_its_own_commit_syncs_it_without_waking_anyone(tmp_path):
    writer = open_writer(Disk(), tmp_path)
    sequence = 0

    def wait_for_one() -> bool:
        """Whether the sync thread took part."""
        nonlocal sequence
        sequence += 1
        writer.append(stamped(sequence, 1), b"", 1)
        assert writer.committed_sequence == sequence - 1
        writer.wait(sequence)
        assert writer.durable_sequence == writer.committed_sequence == sequence
        announced = readable(writer.completion_fd)
        assert writer.collect() == sequence
        assert not readable(writer.completion_fd)
        return announced

    try:
        # The thread may be awake at first; once it sleeps, nobody wakes it.
        while wait_for_one():
            assert sequence < 100
        assert not any(wait_for_one() for _ in range(20))
        sequence += 1
        writer.append(stamped(sequence, 1), b"", 1)
        writer.commit()
        assert readable(writer.completion_fd, 10), "what is left to the thread is announced"
        assert writer.collect() == sequence
    finally:
        writer.close()


def test_wait_commits_what_it_waits_for_and_refuses_what_never_was(tmp_path):
    writer = open_writer(Disk(), tmp_path)
    writer.append(stamped(1, 3), b"", 1)
    writer.wait(3)
    assert writer.durable_sequence == 3
    with pytest.raises(FormatError, match="not appended"):
        writer.wait(4)
    writer.close()


def test_a_failed_sync_is_final(held):
    disk, writer = held
    writer.append(stamped(1, 1), b"", 1)
    writer.commit()
    assert disk.entered.acquire(timeout=10)
    writer.append(stamped(2, 1), b"", 1)
    writer.commit()
    disk.sync_error = errno.EIO
    disk.gate.set()
    with pytest.raises(LogFailed, match="Input/output error"):
        writer.wait(2)
    syncs = disk.syncs
    assert readable(writer.completion_fd, 10)
    disk.sync_error = 0  # The disk feels better: too late.
    for attempt in (
        writer.collect,
        writer.collect,
        writer.commit,
        lambda: writer.append(stamped(3, 1), b"", 1),
        lambda: writer.wait(1),
        lambda: writer.halt(1, b"{}"),
    ):
        with pytest.raises(LogFailed, match="Input/output error"):
            attempt()
    assert writer.durable_sequence == 0
    assert disk.syncs == syncs
    disk.sync_error = errno.EIO  # For the fixture, which expects close to say so.


def test_a_failed_write_is_final_and_a_sync_under_way_acknowledges_nothing_more(held):
    disk, writer = held
    writer.append(stamped(1, 1), b"", 1)
    writer.commit()
    assert disk.entered.acquire(timeout=10)
    disk.write_error = errno.ENOSPC
    writer.append(stamped(2, 1), b"", 1)
    with pytest.raises(LogFailed, match="No space left"):
        writer.commit()
    assert readable(writer.completion_fd)
    disk.gate.set()
    for attempt in (writer.collect, writer.commit, lambda: writer.wait(1)):
        with pytest.raises(LogFailed, match="No space left"):
            attempt()
    assert writer.durable_sequence == 0


@pytest.mark.parametrize("failing", ["sync", "write", "rename", "sync_directory"])
def test_a_failure_while_changing_segments_is_final(tmp_path, monkeypatch, failing):
    disk = ControlledDisk()
    writer = open_writer(disk, tmp_path)
    writer.append(stamped(1, 80), b"", 1)
    writer.wait(80)
    if failing == "sync":
        disk.sync_error = errno.EIO
    elif failing == "write":
        disk.write_error = errno.EIO
    else:

        def refuse(*arguments):
            raise StorageError(failing, str(tmp_path), errno.EIO)

        monkeypatch.setattr(disk, failing, refuse)
    with pytest.raises(LogFailed, match="Input/output error"):
        writer.append(stamped(81, 80), b"", 1)
        writer.wait(160)
    assert writer.durable_sequence == 80
    with pytest.raises(LogFailed):
        writer.close()
    # Behind what was acknowledged there may be more, if the name was already there: never less.
    last = 160 if failing == "sync_directory" else 80
    assert sequences(scan(Disk(), tmp_path)) == list(range(1, last + 1))


def test_nothing_in_a_new_segment_is_durable_before_its_name_is(tmp_path):
    disk = ControlledDisk()
    writer = open_writer(disk, tmp_path)
    writer.append(stamped(1, 80), b"", 1)
    writer.wait(80)
    renamed, go = threading.Event(), threading.Event()
    original = disk.rename

    def rename(source, target):
        renamed.set()
        assert go.wait(30)
        original(source, target)

    disk.rename = rename
    writer.append(stamped(81, 80), b"", 1)
    writer.commit()
    assert renamed.wait(10)
    assert writer.durable_sequence == 80
    # A crash now: the log ends with the seal, and a writer goes on behind it.
    crashed = scan(Disk(), tmp_path)
    assert crashed.end.sealed and crashed.last_sequence == 80
    go.set()
    writer.wait(160)
    writer.close()
    assert sequences(scan(Disk(), tmp_path)) == list(range(1, 161))


class RecordingDisk(ControlledDisk):
    """Notes what reaches the disk, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[str, str]] = []

    def on_sync(self, file):
        self.done.append(("sync", os.path.basename(file.path)))

    def rename(self, source, target):
        super().rename(source, target)
        self.done.append(("rename", os.path.basename(target)))

    def sync_directory(self, path):
        super().sync_directory(path)
        self.done.append(("sync directory", ""))


def test_a_segment_gets_its_name_after_all_before_it_and_its_own_header_are_synced(tmp_path):
    disk = RecordingDisk()
    writer = open_writer(disk, tmp_path, threaded=False)
    first, second = f"{1:020d}.log", f"{81:020d}.log"
    assert disk.done[-3:] == [("sync", "next-1.tmp"), ("rename", first), ("sync directory", "")]
    writer.append(stamped(1, 80), b"", 1)
    writer.commit()
    disk.done.clear()
    writer.append(stamped(81, 80), b"", 1)
    writer.commit()
    writer.close()
    assert disk.done == [
        ("sync", first),  # Its SEAL.
        ("sync", "next-2.tmp"),  # Its zeros.
        ("sync", "next-2.tmp"),  # Its header.
        ("rename", second),
        ("sync directory", ""),
        ("sync", second),  # Its frame.
    ]


def test_an_old_segment_is_synced_before_a_writer_goes_on_in_it(tmp_path):
    write_log(tmp_path, [1])
    disk = RecordingDisk()
    writer = open_writer(
        disk, tmp_path, epoch=2, next_sequence=2, end=scan(Disk(), tmp_path).end, threaded=False
    )
    assert disk.done == [("sync", f"{1:020d}.log")]
    writer.close()


def test_a_log_that_ends_with_a_seal_is_continued_in_a_new_segment(tmp_path):
    write_log(tmp_path, [80, 80])
    _, second = sorted(tmp_path.glob("*.log"))
    second.rename(tmp_path / "next-1.tmp")
    end = scan(Disk(), tmp_path).end
    assert end.sealed and end.last_sequence == 80
    write_log(tmp_path, [5], epoch=2)
    assert sequences(scan(Disk(), tmp_path)) == list(range(1, 86))
    assert not list(tmp_path.glob("*.tmp"))


def test_many_segments_and_restarts_read_back_as_one_log(tmp_path):
    for epoch in range(1, 6):
        write_log(tmp_path, [17, 40, 80, 3], epoch=epoch)
    found = scan(Disk(), tmp_path)
    assert sequences(found) == list(range(1, 5 * 140 + 1))
    assert found.end.epoch == 5
    assert len(found.segments) > 5
    assert all(segment.sealed for segment in found.segments[:-1])


def test_a_torn_tail_is_wiped_before_the_log_goes_on(tmp_path):
    write_log(tmp_path, [1, 1, 2])
    path = only_segment(tmp_path)
    data = bytearray(path.read_bytes())
    found = scan(Disk(), tmp_path)
    data[found.end.offset - 40] ^= 1
    data[found.end.offset + 5000] = 7  # Of a page that reached the disk before the torn one.
    path.write_bytes(data)
    found = scan(Disk(), tmp_path)
    assert found.torn is not None and found.last_sequence == 2
    write_log(tmp_path, [1], epoch=2)
    found = scan(Disk(), tmp_path)
    assert (found.torn, sequences(found)) == (None, [1, 2, 3])
    assert not any(path.read_bytes()[found.end.offset :])


def test_a_halt_is_synced_on_return_and_nothing_follows_it(tmp_path):
    disk = ControlledDisk()
    writer = open_writer(disk, tmp_path)
    writer.append(stamped(1, 4), b"", 1)
    syncs = disk.syncs
    writer.halt(3, b'{"account":1}')
    assert disk.syncs == syncs + 1
    for attempt in (writer.commit, lambda: writer.append(stamped(5, 1), b"", 1), lambda: writer.halt(1, b"")):
        with pytest.raises(LogFailed, match="HALT"):
            attempt()
    writer.close()
    assert sequences(scan(disk, tmp_path)) == [1, 2]


@pytest.mark.parametrize("sequence", [0, 6])
def test_a_halt_outside_of_the_log_is_refused(tmp_path, sequence):
    writer = open_writer(Disk(), tmp_path)
    writer.append(stamped(1, 4), b"", 1)
    with pytest.raises(FormatError, match="outside"):
        writer.halt(sequence, b"{}")
    writer.close()


def test_a_writer_that_does_not_continue_the_log_is_refused(tmp_path):
    write_log(tmp_path, [3])
    end = scan(Disk(), tmp_path).end
    for options in (
        {"end": None},
        {"end": end, "next_sequence": 5, "epoch": 2},
        {"end": end, "next_sequence": 4, "epoch": 1},
        {"segment_bytes": 5000},
    ):
        with pytest.raises(FormatError):
            open_writer(Disk(), tmp_path, **options)
    assert sequences(scan(Disk(), tmp_path)) == [1, 2, 3]


def test_a_group_larger_than_the_buffer_is_written_in_parts(tmp_path):
    writer = open_writer(Disk(), tmp_path, segment_bytes=40 << 20)
    for index in range(3):
        writer.append(stamped(1 + index * 65536, 65536), b"", 1)
    writer.wait(3 * 65536)
    writer.close()
    assert scan(Disk(), tmp_path).last_sequence == 3 * 65536


@pytest.mark.parametrize("threaded", [True, False])
def test_a_disk_without_descriptors_gives_the_same_log(tmp_path, threaded):
    writer = open_writer(ControlledDisk(), tmp_path, threaded=threaded)
    threads = {thread.name for thread in threading.enumerate()}
    assert ("log-sync" in threads) == threaded
    sequence = 1
    for count in (1, 40, 80, 80, 2):
        writer.append(stamped(sequence, count), b"", 1)
        sequence += count
        writer.commit()
        if not threaded:
            assert writer.durable_sequence == sequence - 1
    writer.wait(sequence - 1)
    assert writer.collect() == sequence - 1
    writer.close()
    assert sequences(scan(Disk(), tmp_path)) == list(range(1, sequence))


def test_closing_leaves_no_descriptor_and_no_thread(tmp_path):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    before = descriptors(), threading.active_count()
    writer = open_writer(Disk(), tmp_path)
    for index in range(20):
        writer.append(stamped(1 + index * 50, 50), b"", 1)
        writer.commit()
    writer.close()
    writer.close()
    assert (descriptors(), threading.active_count()) == before
    assert not list(tmp_path.glob("*.tmp"))
