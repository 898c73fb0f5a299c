"""Reads the log back: where it ends, what is void, and frame after frame.

`scan` goes through every frame once and checks checksum, place, chain,
sequence and epoch. What stops it decides:

    what is found                                   in an older segment   in the last one
    only zeros                                      corruption            the end
    a broken frame, nothing whole behind it         corruption            torn tail: cut, counted
    a broken frame, a whole later one behind it     corruption            corruption
    a whole frame that does not follow              corruption            corruption
    the SEAL                                        next segment          the end (successor unnamed)

An older segment was synced to its SEAL before its successor got its name, so no
crash explains a hole in it. `_judge_tail` is the place where the last record is
told apart more finely (SPEC D4).

A HALT(N) frame voids N and every later command before it. `LogScan.frames`
leaves those out; after the HALT the sequence goes on at N, in a new epoch.

One segment is in memory at a time, and twice read: once by `scan`, which must
have seen every HALT before the first frame is handed out, once by `frames`.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.types import COMMAND
from persistence.errors import CorruptionError, FormatError
from persistence.log import frame
from persistence.log.segment import (
    REMEDY,
    SEGMENT_HEADER_BYTES,
    LogEnd,
    SegmentHeader,
    read_header,
    segment_files,
)
from persistence.storage import AnyDisk, Path
from persistence.text import TextBuilder, read_text

__all__ = ["Frame", "Halt", "LogEnd", "LogScan", "Segment", "TornTail", "scan", "sync_all"]


@dataclass(frozen=True, slots=True)
class Frame:
    """A batch of commands as it was logged, but for what is void.

    Parameters
    ----------
    epoch, first_sequence, count, time_ns
        Of the frame.
    commands : COMMAND[count]
        A view of the segment's bytes, read-only.
    text : bytes
        Text area; the index in an entry counts from `first_sequence`.
    """

    epoch: int
    first_sequence: int
    count: int
    time_ns: int
    commands: NDArray[np.void]
    text: bytes

    @property
    def last_sequence(self) -> int:
        """Sequence of the last command."""
        return self.first_sequence + self.count - 1


@dataclass(frozen=True, slots=True)
class Halt:
    """A HALT frame: `sequence` and every later command before it are void."""

    sequence: int
    epoch: int
    reason: bytes
    segment: int
    """Index in `LogScan.segments`."""
    offset: int


@dataclass(frozen=True, slots=True)
class TornTail:
    """What a crash left of a write that nobody was told of."""

    path: str
    offset: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment that was scanned."""

    path: str
    header: SegmentHeader
    end_offset: int
    frames: int
    sealed: bool


@dataclass(frozen=True, slots=True)
class LogScan:
    """A log that holds together.

    Parameters
    ----------
    segments : tuple of Segment
        In order; those before `from_sequence` are not among them.
    end : LogEnd or None
        None for an empty log.
    torn : TornTail or None
    halts : tuple of Halt
    """

    disk: AnyDisk
    segments: tuple[Segment, ...]
    end: LogEnd | None
    torn: TornTail | None
    halts: tuple[Halt, ...]

    @property
    def last_sequence(self) -> int:
        """Last command that is not void; 0 if there is none."""
        return self.end.last_sequence if self.end else 0

    @property
    def first_sequence(self) -> int:
        """First command that was scanned; 0 in an empty log."""
        return self.segments[0].header.first_sequence if self.segments else 0

    def frames(self, from_sequence: int = 1) -> Iterator[Frame]:
        """Frames with the commands from `from_sequence` on; a frame that contains it is trimmed.

        Raises
        ------
        CorruptionError
            A segment reads otherwise than when it was scanned.
        """
        for index, segment in enumerate(self.segments):
            if index + 1 < len(self.segments) and self._superseded(index, from_sequence):
                continue
            data = _read_segment(self.disk, segment.path, segment.header)
            for row in _rows(segment, data):
                if row["kind"] == frame.COMMANDS:
                    limit = self._limit(index, int(row["offset"]))
                    part = _part(data, row, from_sequence, limit)
                    if part is not None:
                        yield part

    def _superseded(self, index: int, from_sequence: int) -> bool:
        """Whether a later segment begins at or before `from_sequence`: what it needs is there or later."""
        return any(later.header.first_sequence <= from_sequence for later in self.segments[index + 1 :])

    def _limit(self, segment: int, offset: int) -> int | None:
        """Sequence from which on the commands of the frame there are void."""
        later = [halt.sequence for halt in self.halts if (halt.segment, halt.offset) > (segment, offset)]
        return min(later) if later else None


def scan(disk: AnyDisk, directory: Path, from_sequence: int = 1) -> LogScan:
    """Check the log and find its end.

    Parameters
    ----------
    from_sequence : int
        Segments that hold only commands before it are left out.

    Raises
    ------
    CorruptionError
        Naming file, offset and sequence.
    StorageError
    """
    headers = _headers(disk, os.fspath(directory))
    start = max(
        (i for i, (_, header) in enumerate(headers) if header.first_sequence <= from_sequence), default=0
    )
    segments: list[Segment] = []
    halts: list[Halt] = []
    end: LogEnd | None = None
    torn: TornTail | None = None
    for index, (path, header) in enumerate(headers[start:]):
        if end is not None:
            _check_follows(path, header, end)
        last = start + index + 1 == len(headers)
        walk = _walk(header, epoch=end.epoch if end else 0, time_ns=end.time_ns if end else 0)
        data = _read_segment(disk, path, header)
        frames = 0
        stop = frame.ROWS
        while stop in (frame.ROWS, frame.HALTED):
            rows, stop = walk.run(data)
            frames += len(rows)
            if stop == frame.HALTED:
                halts.append(_halt(data, rows[-1], index))
        if stop != frame.SEALED:
            if not last:
                raise CorruptionError(
                    path,
                    walk.offset,
                    walk.next_sequence,
                    "the segment has a successor, but no end of its own",
                    REMEDY,
                )
            torn = _judge_tail(path, data, walk, stop)
        sealed = stop == frame.SEALED
        segments.append(Segment(path, header, walk.offset, frames, sealed))
        end = LogEnd(
            path,
            header,
            walk.offset,
            walk.next_sequence - 1,
            walk.previous_crc,
            walk.epoch,
            walk.time_ns,
            sealed,
            torn.bytes if torn else 0,
        )
    return LogScan(disk, tuple(segments), end, torn, tuple(halts))


def sync_all(disk: AnyDisk, directory: Path) -> int:
    """Sync every segment and the directory; recovery calls it before anything is released.

    What was read may have come from the page cache of a process that was killed
    before its sync; after this it is on disk. Returns the number of segments.

    Raises
    ------
    StorageError
        A sync failed: release nothing, do not try again.
    """
    name = os.fspath(directory)
    files = segment_files(disk, name)
    for file_name in files:
        file = disk.open(f"{name}/{file_name}", writable=True)
        try:
            file.sync()
        finally:
            file.close()
    disk.sync_directory(name)
    return len(files)


def _headers(disk: AnyDisk, directory: str) -> list[tuple[str, SegmentHeader]]:
    found = []
    for name in segment_files(disk, directory):
        path = f"{directory}/{name}"
        file = disk.open(path)
        try:
            header = read_header(path, file.read_at(0, SEGMENT_HEADER_BYTES))
        finally:
            file.close()
        if not name.startswith(f"{header.first_sequence:020d}."):
            raise CorruptionError(
                path, 0, header.first_sequence, "the file is not the one its name says", REMEDY
            )
        found.append((path, header))
    return sorted(found, key=lambda each: (each[1].epoch, each[1].first_sequence))


def _check_follows(path: str, header: SegmentHeader, end: LogEnd) -> None:
    if header.previous_crc != end.last_crc or header.first_sequence != end.last_sequence + 1:
        what = (
            f"the segment does not follow {os.path.basename(end.path)}, which ends at {end.last_sequence}: "
            "one between them is missing, or one was replaced"
        )
        raise CorruptionError(path, 0, end.last_sequence + 1, what, REMEDY)


def _walk(header: SegmentHeader, *, epoch: int = 0, time_ns: int = 0) -> frame.Walk:
    first = header.first_sequence
    return frame.Walk(first, SEGMENT_HEADER_BYTES, first, header.crc, max(epoch, header.epoch), time_ns)


def _read_segment(disk: AnyDisk, path: str, header: SegmentHeader) -> bytes:
    file = disk.open(path)
    try:
        size = file.size()
        if size != header.segment_bytes:
            what = f"the segment has {size} bytes, its header says {header.segment_bytes}"
            raise CorruptionError(path, min(size, header.segment_bytes), 0, what, REMEDY)
        return file.read_at(0, size)
    finally:
        file.close()


def _judge_tail(path: str, data: bytes, walk: frame.Walk, stop: int) -> TornTail | None:
    """Why the last segment's frames end at `walk.offset`: the end, a torn tail, or corruption."""
    if stop == frame.UNLINKED:
        what = "a whole frame that does not follow the one before: a frame was removed, swapped or replaced"
        raise CorruptionError(path, walk.offset, walk.next_sequence, what, REMEDY)
    left = frame.last_nonzero(data, walk.offset) - walk.offset
    if left == 0:
        return None
    later = frame.find_later(data, walk.offset, walk.segment, walk.next_sequence, walk.epoch)
    if later >= 0:
        what = f"a broken frame, with a whole later one behind it at offset {later}"
        raise CorruptionError(path, walk.offset, walk.next_sequence, what, REMEDY)
    return TornTail(path, walk.offset, left)


def _rows(segment: Segment, data: bytes) -> Iterator[np.void]:
    """Frames of a segment that was scanned before."""
    walk = _walk(segment.header)
    left = segment.frames
    while left:
        rows, _ = walk.run(data, min(left, 4096))
        if not len(rows):
            what = "the segment reads otherwise than a moment ago"
            raise CorruptionError(segment.path, walk.offset, walk.next_sequence, what, REMEDY)
        left -= len(rows)
        yield from rows


def _halt(data: bytes, row: np.void, segment: int) -> Halt:
    begin = int(row["offset"]) + frame.HEADER_BYTES
    area = data[begin : begin + int(row["text_bytes"])]
    try:
        reason = next((value for _, _, value in read_text(area)), b"")
    except FormatError:
        reason = area  # An unreadable reason voids no less.
    return Halt(int(row["first_sequence"]), int(row["epoch"]), reason, segment, int(row["offset"]))


def _part(data: bytes, row: np.void, from_sequence: int, limit: int | None) -> Frame | None:
    """The commands of a frame within [from_sequence, limit)."""
    _, _, _, epoch, first, count, text_bytes, time_ns, _ = row.item()
    begin = int(row["offset"]) + frame.HEADER_BYTES
    commands = np.frombuffer(data, COMMAND, count, begin)
    text_begin = begin + count * frame.COMMAND_BYTES
    text = data[text_begin : text_begin + text_bytes]
    skip = max(0, from_sequence - first)
    stop = count if limit is None else max(0, min(count, limit - first))
    if skip >= stop:
        return None
    if skip or stop < count:
        builder = TextBuilder()
        for index, tag, value in read_text(text):
            if skip <= index < stop:
                builder.add(index - skip, tag, value)
        text = bytes(builder)
        commands = commands[skip:stop]
    return Frame(epoch, first + skip, stop - skip, time_ns, commands, text)
