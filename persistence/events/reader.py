"""Reads event segments: from a sequence to the end, or on and on behind a writer.

    EventReader.frames(after)   what is there now
    EventReader.follow(after)   an `EventFollower`: `poll` it for what came since

A consumer resumes from any retained sequence by passing the last one that it
has. What is incomplete at the end of the last segment is a write under way, or
a torn tail that recovery will cut and write again with the same bytes: both
mean "not yet". In a segment that has a successor it is corruption, because a
segment is synced whole before the next one is made.
"""

import os
from collections.abc import Iterator
from itertools import pairwise

from persistence.errors import CorruptionError
from persistence.events.frame import (
    HEADER_BYTES,
    SUFFIX,
    EventFrame,
    first_of,
    frame_length,
    read_frame,
    segment_name,
)
from persistence.events.scan import scan_frames
from persistence.storage import AnyDisk, AnyFile, Path

READ_BYTES = 4 << 20
"""Bytes looked at a time; a longer frame is read whole."""
REMEDY = "move the event segments from that one on away and restart: replay of the log writes them again"


def segment_files(disk: AnyDisk, directory: Path) -> list[str]:
    """Names of the event segments, oldest first."""
    return [name for name in disk.list(directory) if name.endswith(SUFFIX)]


def retire(disk: AnyDisk, directory: Path, before_sequence: int) -> list[str]:
    """Remove the segments that hold nothing from `before_sequence` on; the last one always stays.

    The caller has made sure that every consumer and every checkpoint is past
    them, and that they are older than the retention. Returns the names removed.
    """
    names = segment_files(disk, directory)
    removed = []
    for name, successor in pairwise(names):
        if first_of(successor) > before_sequence:
            break
        disk.unlink(f"{os.fspath(directory)}/{name}")
        removed.append(name)
    if removed:
        disk.sync_directory(directory)
    return removed


class EventReader:
    """Reads the event segments of `directory`, in this process or another than the writer's."""

    def __init__(self, disk: AnyDisk, directory: Path) -> None:
        self._disk = disk
        self._directory = os.fspath(directory)

    def follow(self, after_sequence: int) -> "EventFollower":
        """A reader that can be polled for frames past `after_sequence`, for ever. Close it."""
        return EventFollower(self._disk, self._directory, after_sequence)

    def frames(self, after_sequence: int = 0) -> Iterator[EventFrame]:
        """Frames past `after_sequence` that are there now; the first one may contain it.

        Raises
        ------
        CorruptionError
            A frame is broken, or those asked for are no longer retained.
        """
        follower = self.follow(after_sequence)
        try:
            while frames := follower.poll():
                yield from frames
        finally:
            follower.close()


class EventFollower:
    """A position behind the writer. `last_sequence` is what `poll` has handed out."""

    def __init__(self, disk: AnyDisk, directory: str, after_sequence: int) -> None:
        self.last_sequence = after_sequence
        self._disk = disk
        self._directory = directory
        self._file: AnyFile | None = None
        self._name = ""
        self._offset = 0
        self._event_number: int | None = None

    def poll(self, limit: int = 1024) -> list[EventFrame]:
        """At most `limit` frames, in order; none if nothing new is whole yet. Never waits.

        Raises
        ------
        CorruptionError
            A finished segment holds a broken frame, or frames are missing.
        StorageError
        """
        while True:
            if self._file is None and not self._open_first():
                return []
            frames = self._read(limit)
            if frames:
                return frames
            # Looked for before the last read of this one: what the writer put
            # there before it made the successor must be seen.
            successor = self._successor()
            if successor is None:
                return []
            frames = self._read(limit)
            if frames:
                return frames
            self._leave(successor)

    def close(self) -> None:
        """Close; a second time does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open_first(self) -> bool:
        names = segment_files(self._disk, self._directory)
        fitting = [name for name in names if first_of(name) <= self.last_sequence + 1]
        if not names:
            return False
        if not fitting:
            first = first_of(names[0])
            what = f"events from {self.last_sequence + 1} on are no longer kept; {first} is the first"
            remedy = "start the consumer from a new snapshot"
            raise CorruptionError(self._directory, 0, self.last_sequence + 1, what, remedy)
        self._open(fitting[-1])
        return True

    def _open(self, name: str) -> None:
        self._file = self._disk.open(f"{self._directory}/{name}")
        self._name = name
        self._offset = 0

    def _successor(self) -> str | None:
        later = [name for name in segment_files(self._disk, self._directory) if name > self._name]
        return later[0] if later else None

    def _read(self, limit: int) -> list[EventFrame]:
        """Frames from the offset on; goes past those that were handed out before."""
        file = self._file
        if file is None:
            return []
        # Where recovery cut more than was torn, the file ends before the offset
        # for a while; it grows again with the same bytes, and the offset stays right.
        size = READ_BYTES
        while True:
            data = file.read_at(self._offset, size)
            offsets, end = scan_frames(data, 0, self.last_sequence, limit)
            if len(offsets):
                frames = [self._accept(read_frame(data, int(offset)), int(offset)) for offset in offsets]
                self._offset += end
                return frames
            if end:
                self._offset += end
                continue
            length = frame_length(data)
            if length <= size or len(data) < size:
                return []
            size = length

    def _accept(self, frame: EventFrame, offset: int) -> EventFrame:
        number = self._event_number
        if frame.first_sequence > self.last_sequence + 1 or (
            number is not None and frame.event_number != number
        ):
            what = f"frame {frame.first_sequence} with event {frame.event_number} does not follow"
            raise self._corruption(self._offset + offset, what)
        self.last_sequence = frame.last_sequence
        self._event_number = frame.event_number + frame.count
        return frame

    def _leave(self, successor: str) -> None:
        """Nothing whole is left in this segment, which has a successor: go there."""
        file = self._file
        if file is not None and file.read_at(self._offset, HEADER_BYTES):
            raise self._corruption(self._offset, "a broken frame in a finished event segment")
        self.close()
        if first_of(successor) > self.last_sequence + 1:
            what = f"the next event segment begins at {first_of(successor)}: one is missing"
            raise self._corruption(self._offset, what)
        self._open(successor)

    def _corruption(self, offset: int, what: str) -> CorruptionError:
        path = f"{self._directory}/{self._name or segment_name(1)}"
        return CorruptionError(path, offset, self.last_sequence + 1, what, REMEDY)
