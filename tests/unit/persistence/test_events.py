"""Event segments: numbered, cut at a torn tail, resumed from any sequence, followed."""

import errno
import os
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persistence.errors import CorruptionError, FormatError, StorageError
from persistence.events import EventReader, EventWriter, retire
from persistence.events.spooler import Spooler
from persistence.storage import Disk, File
from tests.unit.persistence.support import some_events

DISK = Disk()


def append(writer: EventWriter, commands: int, events: int) -> None:
    first = writer.last_sequence + 1
    writer.append(
        2,
        first,
        first + commands - 1,
        first * 10,
        writer.next_event_number,
        some_events(first, events),
        b"t" * (first % 40),
    )


def write(directory, shapes, segment_bytes=1000) -> EventWriter:
    writer = EventWriter.open(DISK, directory, segment_bytes=segment_bytes)
    for commands, events in shapes:
        append(writer, commands, events)
    writer.close()
    return writer


def drain(follower, limit=3) -> list[int]:
    got = []
    while frames := follower.poll(limit):
        assert len(frames) <= limit
        got += [frame.last_sequence for frame in frames]
    return got


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 12)), min_size=1, max_size=30), st.integers(0, 100)
)
@settings(
    print_blob=True,
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_what_was_appended_is_read_from_any_sequence(tmp_path_factory, shapes, after):
    directory = tmp_path_factory.mktemp("events")
    write(directory, shapes)
    expected, sequence, number = [], 1, 1
    for commands, events in shapes:
        last = sequence + commands - 1
        if last > after:
            expected.append(
                (
                    2,
                    sequence,
                    last,
                    sequence * 10,
                    number,
                    some_events(sequence, events).tobytes(),
                    b"t" * (sequence % 40),
                )
            )
        sequence, number = last + 1, number + events
    assert [
        (f.epoch, f.first_sequence, f.last_sequence, f.time_ns, f.event_number, f.events.tobytes(), f.text)
        for f in EventReader(DISK, directory).frames(after)
    ] == expected
    reopened = EventWriter.open(DISK, directory)
    assert (reopened.last_sequence, reopened.next_event_number, reopened.cut_bytes) == (
        sequence - 1,
        number,
        0,
    )
    reopened.close()


def test_a_tail_cut_at_every_byte_loses_no_whole_frame_and_is_written_again(tmp_path):
    write(tmp_path, [(1, 1), (2, 2), (1, 0), (3, 3)], segment_bytes=1 << 20)
    (path,) = tmp_path.glob("*.events")
    whole = path.read_bytes()
    ends, offset = [0], 0
    for frame in EventReader(DISK, tmp_path).frames():
        offset += -(-(64 + frame.events.nbytes + len(frame.text)) // 32) * 32
        ends.append(offset)
    assert ends[-1] == len(whole)
    lasts = [0, 1, 3, 4, 7]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = max(i for i, end in enumerate(ends) if end <= cut)
        writer = EventWriter.open(DISK, tmp_path, segment_bytes=1 << 20)
        assert (writer.last_sequence, writer.cut_bytes) == (lasts[kept], cut - ends[kept])
        for commands, events in [(1, 1), (2, 2), (1, 0), (3, 3)][kept:]:
            append(writer, commands, events)
        writer.close()
        assert path.read_bytes() == whole


def test_every_flipped_bit_ends_the_reading_or_is_corruption(tmp_path):
    write(tmp_path, [(1, 1), (2, 2), (1, 1)], segment_bytes=1 << 20)
    (path,) = tmp_path.glob("*.events")
    whole = path.read_bytes()
    genuine = [f.events.tobytes() for f in EventReader(DISK, tmp_path).frames()]
    with DISK.open(path, writable=True) as file:
        for place in range(len(whole)):
            for bit in range(8):
                file.write_at(place, bytes([whole[place] ^ 1 << bit]))
                got = [f.events.tobytes() for f in EventReader(DISK, tmp_path).frames()]
                assert len(got) < 3 and got == genuine[: len(got)]
            file.write_at(place, whole[place : place + 1])


def test_a_broken_frame_in_a_finished_segment_is_corruption(tmp_path):
    write(tmp_path, [(1, 5)] * 12)
    first = sorted(tmp_path.glob("*.events"))[0]
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    first.write_bytes(data)
    with pytest.raises(CorruptionError, match="finished"):
        list(EventReader(DISK, tmp_path).frames())


def test_a_missing_segment_is_noticed(tmp_path):
    write(tmp_path, [(1, 5)] * 20)
    paths = sorted(tmp_path.glob("*.events"))
    assert len(paths) > 3
    paths[1].unlink()
    with pytest.raises(CorruptionError, match="missing"):
        list(EventReader(DISK, tmp_path).frames())


@pytest.mark.parametrize(("first", "number"), [(1, 3), (3, 3), (2, 2), (2, 4)])
def test_a_frame_that_does_not_follow_is_refused(tmp_path, first, number):
    writer = EventWriter.open(DISK, tmp_path)
    append(writer, 1, 2)
    with pytest.raises(FormatError, match="do not follow"):
        writer.append(2, first, first, 1, number, some_events(first, 1))
    writer.append(2, 2, 2, 1, 3, some_events(2, 1))
    writer.close()


def test_what_is_not_flushed_is_not_seen(tmp_path):
    writer = EventWriter.open(DISK, tmp_path)
    follower = EventReader(DISK, tmp_path).follow(0)
    assert follower.poll() == []
    append(writer, 1, 1)
    assert follower.poll() == []
    writer.flush()
    assert drain(follower) == [1]
    writer.close()
    follower.close()


def test_segments_may_begin_anywhere_when_replay_fills_an_empty_directory(tmp_path):
    writer = EventWriter.open(DISK, tmp_path)
    writer.append(1, 501, 510, 1, 77, some_events(501, 3))
    writer.close()
    assert [f.event_number for f in EventReader(DISK, tmp_path).frames(500)] == [77]
    with pytest.raises(CorruptionError, match="no longer kept"):
        list(EventReader(DISK, tmp_path).frames(499))


def test_an_empty_last_segment_takes_its_number_from_the_one_before(tmp_path):
    write(tmp_path, [(1, 5)] * 4)
    paths = sorted(tmp_path.glob("*.events"))
    last = int(paths[-1].stem)
    paths[-1].write_bytes(b"torn")
    writer = EventWriter.open(DISK, tmp_path, segment_bytes=1000)
    assert (writer.last_sequence, writer.cut_bytes) == (last - 1, 4)
    assert writer.next_event_number == (last - 1) * 5 + 1
    append(writer, 1, 5)
    writer.close()
    assert [f.last_sequence for f in EventReader(DISK, tmp_path).frames()] == list(range(1, last + 1))


def test_a_frame_longer_than_one_read_arrives_whole(tmp_path):
    writer = EventWriter.open(DISK, tmp_path)
    for events in (1, 200_000, 1):
        append(writer, 1, events)
    writer.close()
    assert [f.count for f in EventReader(DISK, tmp_path).frames()] == [1, 200_000, 1]


def test_a_follower_crosses_segments_and_a_tail_cut_and_written_again(tmp_path):
    follower = EventReader(DISK, tmp_path).follow(0)
    writer = EventWriter.open(DISK, tmp_path, segment_bytes=1000)
    got: list[int] = []
    for _ in range(3):
        append(writer, 1, 4)
        writer.flush()
        got += drain(follower)
    writer.close()
    # The crash: the last frame that the follower saw is gone, half of it is left, and more.
    path = sorted(tmp_path.glob("*.events"))[-1]
    whole = path.read_bytes()
    assert int(path.stem) < 3
    path.write_bytes(whole[:-200])
    got += drain(follower)
    writer = EventWriter.open(DISK, tmp_path, segment_bytes=1000)
    assert writer.last_sequence == 2
    got += drain(follower)
    for _ in range(20):
        append(writer, 1, 4)
        writer.flush()
        got += drain(follower, 1)
    writer.close()
    got += drain(follower)
    follower.close()
    assert got == list(range(1, 23))


def test_a_frame_written_just_before_the_segment_changes_is_not_overlooked(tmp_path, monkeypatch):
    writer = EventWriter.open(DISK, tmp_path, segment_bytes=1000)
    append(writer, 1, 4)
    writer.flush()
    follower = EventReader(DISK, tmp_path).follow(0)
    assert drain(follower) == [1]
    look = follower._successor

    def look_late() -> str | None:
        while len(DISK.list(tmp_path)) < 2:
            append(writer, 1, 4)
            writer.flush()
        return look()

    # The writer ends this segment between the follower's read and its look for the next one.
    monkeypatch.setattr(follower, "_successor", look_late)
    got = drain(follower)
    writer.close()
    assert got == list(range(2, writer.last_sequence + 1)) and len(got) >= 2
    follower.close()


def test_old_segments_can_be_retired_but_never_the_last(tmp_path):
    write(tmp_path, [(1, 5)] * 20)
    names = DISK.list(tmp_path)
    begins = [int(name.removesuffix(".events")) for name in names]
    assert retire(DISK, tmp_path, begins[2] - 1) == names[:1]
    assert next(EventReader(DISK, tmp_path).frames(begins[2])).last_sequence == begins[2] + 1
    assert retire(DISK, tmp_path, 10**9) == names[1:-1]
    assert DISK.list(tmp_path) == names[-1:]
    with pytest.raises(CorruptionError, match="no longer kept"):
        list(EventReader(DISK, tmp_path).frames(0))


class HeldFile(File):
    """A real file with a descriptor; its syncs wait for the disk's gate, and may fail."""

    def __init__(self, path: str, descriptor: int, disk: "HeldDisk") -> None:
        super().__init__(path, descriptor)
        self._disk = disk

    def sync(self) -> None:
        self._disk.entered.set()
        assert self._disk.gate.wait(30), "the test never opened the gate"
        if self._disk.sync_error:
            raise StorageError("sync", self.path, self._disk.sync_error)
        super().sync()


class HeldDisk(Disk):
    def __init__(self) -> None:
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.sync_error = 0

    def open(self, path, *, create=False, writable=False):
        file = super().open(path, create=create, writable=writable)
        descriptor = os.dup(file._descriptor)
        file.close()
        return HeldFile(os.fspath(path), descriptor, self)


def started(disk: Disk, directory, **options) -> EventWriter:
    """A writer whose thread runs, with one frame in its segment."""
    writer = EventWriter.open(disk, directory, **options)
    append(writer, 1, 1)
    writer.flush()
    writer.start()
    return writer


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 900), st.booleans()), min_size=1, max_size=60),
    st.sampled_from([1000, 100_000, 1 << 26]),
)
@settings(
    print_blob=True,
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_the_thread_writes_the_same_bytes_as_the_caller_would(tmp_path_factory, shapes, segment_bytes):
    one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    plain = EventWriter.open(DISK, one, segment_bytes=segment_bytes)
    append(plain, 1, 1)
    plain.flush()
    threaded = started(DISK, other, segment_bytes=segment_bytes)
    for commands, events, flush in shapes:
        for writer in (plain, threaded):
            append(writer, commands, events)
            if flush:
                writer.flush()
    threaded.drain()
    assert threaded.written_sequence == threaded.last_sequence == plain.last_sequence
    plain.close()
    threaded.close()
    assert {p.name: p.read_bytes() for p in one.iterdir()} == {
        p.name: p.read_bytes() for p in other.iterdir()
    }


def test_a_change_of_segments_does_not_hold_up_who_appends(tmp_path):
    disk = HeldDisk()
    writer = started(disk, tmp_path, segment_bytes=1000)
    disk.gate.clear()
    while not disk.entered.is_set():
        append(writer, 1, 4)
        writer.flush()
        disk.entered.wait(0.01)
    held = writer.last_sequence
    for _ in range(20):
        append(writer, 1, 4)
        writer.flush()
    assert len(DISK.list(tmp_path)) == 1, "no successor gets its name while the sync is under way"
    assert writer.written_sequence < held
    disk.gate.set()
    writer.drain()
    assert writer.written_sequence == held + 20
    writer.close()
    assert [f.last_sequence for f in EventReader(DISK, tmp_path).frames()] == list(range(1, held + 21))


def test_a_failed_sync_of_a_full_segment_is_told_and_nothing_follows_it(tmp_path):
    disk = HeldDisk()
    writer = started(disk, tmp_path, segment_bytes=1000)
    disk.sync_error = errno.EIO
    with pytest.raises(StorageError, match=r"sync of .*events failed"):
        for _ in range(2000):
            append(writer, 1, 4)
            writer.flush()
    for call in (writer.check, writer.flush, writer.drain, writer.close):
        with pytest.raises(StorageError, match="sync of"):
            call()
    assert len(DISK.list(tmp_path)) == 1
    writer.close()


@pytest.mark.parametrize("events", [1, 5000])
def test_a_failed_write_is_told_whoever_made_it(tmp_path, events):
    writer = started(DISK, tmp_path)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, writer._file.fileno())
    os.close(full)
    with pytest.raises(StorageError, match="No space left") as told:
        for _ in range(3):
            append(writer, 1, events)
            writer.flush()
            writer.drain()
    assert told.value.path.endswith(".events")
    assert writer.written_sequence == 1
    with pytest.raises(StorageError):
        writer.close()


def test_what_waits_for_the_thread_is_bounded(tmp_path):
    disk = HeldDisk()
    file = disk.open(tmp_path / "x", create=True)
    spooler = Spooler(100_000)
    spooler.start(file, 0, 0)
    disk.gate.clear()
    spooler.put_task(file.sync)
    assert disk.entered.wait(10)
    done: list[int] = []

    def fill() -> None:
        for number in range(1, 6):
            spooler.put(bytes([number]) * 40_000, 0, 40_000, number)
            done.append(number)

    filler = threading.Thread(target=fill)
    filler.start()
    filler.join(0.3)
    assert filler.is_alive() and done == [1, 2], "80,000 bytes wait, 120,000 would be too many"
    disk.gate.set()
    filler.join(10)
    spooler.drain()
    assert spooler.mark == 5
    spooler.stop()
    assert file.read_at(0, 1 << 20) == b"".join(bytes([number]) * 40_000 for number in range(1, 6))
    file.close()
