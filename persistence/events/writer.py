"""Appends event frames; cuts what a crash left.

The caller appends what the gate released, so an event is on file only when its
command is durable. `flush` writes and does not sync; a segment is synced when it
is full, before the next one has a name, and when the writer is closed.

Until `start` everything happens on the caller's thread (recovery); from then on
writes, syncs and changes of segments are the event thread's (`spooler`), and the
caller waits only when too much is under way.

A failure is final, as in the log: every later call raises it. Events are derived,
replay writes them again; but a venue whose disk has begun to refuse stops.
"""

import os
from typing import Self

import numpy as np
from numpy.typing import NDArray

from persistence.errors import FormatError, StorageError
from persistence.events.arena import Arena, PackedFrame
from persistence.events.frame import first_of, read_frame, segment_name
from persistence.events.reader import segment_files
from persistence.events.scan import scan_frames
from persistence.events.spooler import Spooler
from persistence.storage import AnyDisk, AnyFile, Buffer, Path

SEGMENT_BYTES = 64 << 20
PENDING_BYTES_MAX = 8 << 20
"""An append beyond it flushes."""


class EventWriter:
    """The one writer of the event segments. Made by `open`; close it.

    Attributes
    ----------
    last_sequence : int
        Last command whose events were appended; 0 if none ever was.
    next_event_number : int
        Number of the next event, from 1.
    cut_bytes : int
        What `open` cut off the end.
    """

    def __init__(self, disk: AnyDisk, directory: str, segment_bytes: int) -> None:
        self.last_sequence = 0
        self.next_event_number = 1
        self.cut_bytes = 0
        self._disk = disk
        self._directory = directory
        self._segment_bytes = segment_bytes
        # Of the thread, once there is one; `_begun` is the caller's: a segment is there or on its way.
        self._file: AnyFile | None = None
        self._begun = False
        self._offset = 0
        self._arena = Arena()
        # Parts of chunks, and the last sequence in each; neighbours are one part.
        self._pending: list[tuple[bytearray, int, int, int]] = []
        self._pending_bytes = 0
        self._written = 0
        self._spooler: Spooler | None = None
        # No frame is known: the first one may have any number, and sequence.
        self._empty = True

    @classmethod
    def open(cls, disk: AnyDisk, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> Self:
        """Continue behind the last whole frame; cut what follows it.

        Segments before the last were synced whole. One without any whole frame
        is emptied, not removed: a follower may have it open.

        Raises
        ------
        StorageError
        """
        writer = cls(disk, os.fspath(directory), segment_bytes)
        for name in reversed(segment_files(disk, directory)):
            if writer._continue(name):
                break
        return writer

    def _continue(self, name: str) -> bool:
        """Take over from this segment; False if it has no frame and the one before has to say the number."""
        file = self._disk.open(f"{self._directory}/{name}", writable=True)
        try:
            data = file.read_at(0, file.size())
            last, end = _last_frame(data)
            if self._file is None:
                if end < len(data):
                    file.truncate(end)
                    self.cut_bytes = len(data) - end
                self.last_sequence = first_of(name) - 1
                self._file, self._offset, self._begun = file, end, True
        finally:
            if self._file is not file:
                file.close()
        if last is None:
            return False
        frame = read_frame(data, last)
        self.last_sequence = frame.last_sequence
        self.next_event_number = frame.event_number + frame.count
        self._empty = False
        self._written = self.last_sequence
        return True

    def start(self) -> None:
        """Leave writes and syncs to a thread from now on, if there is a segment, and it has a descriptor."""
        if self._spooler is None and self._file is not None and self._file.fileno() is not None:
            self.flush()
            self._spooler = Spooler()
            self._spooler.start(self._file, self._offset, self._written)

    @property
    def written_sequence(self) -> int:
        """Last command whose events the kernel has, so that readers see them."""
        return self._written if self._spooler is None else self._spooler.mark

    def pack(
        self,
        epoch: int,
        first_sequence: int,
        last_sequence: int,
        time_ns: int,
        event_number: int,
        events: NDArray[np.void],
        text: Buffer = b"",
    ) -> PackedFrame:
        """Copy events into a frame to be appended later; in the order in which they are to be appended.

        Raises
        ------
        FormatError
            A frame cannot hold them.
        """
        return self._arena.pack(epoch, first_sequence, last_sequence, time_ns, event_number, events, text)

    def append(
        self,
        epoch: int,
        first_sequence: int,
        last_sequence: int,
        time_ns: int,
        event_number: int,
        events: NDArray[np.void],
        text: Buffer = b"",
    ) -> None:
        """Pack a frame and append it; see there."""
        self.append_frame(
            self.pack(epoch, first_sequence, last_sequence, time_ns, event_number, events, text)
        )

    def append_frame(self, frame: PackedFrame) -> None:
        """Put one frame behind the others; `flush` writes it.

        Raises
        ------
        FormatError
            It does not follow the frame before; nothing was appended.
        StorageError
            A segment could not be changed, or what is pending not be written.
        """
        known = self.last_sequence > 0 or self._begun
        if (known and frame.first_sequence != self.last_sequence + 1) or (
            frame.event_number != self.next_event_number and not self._empty
        ):
            raise FormatError(
                f"events of {frame.first_sequence} numbered {frame.event_number} do not follow sequence "
                f"{self.last_sequence} and number {self.next_event_number - 1}"
            )
        if not self._begun or self._offset + self._pending_bytes >= self._segment_bytes:
            self._roll(frame.first_sequence)
        pending = self._pending
        if pending and pending[-1][0] is frame.chunk and pending[-1][2] == frame.begin:
            pending[-1] = (frame.chunk, pending[-1][1], frame.end, frame.last_sequence)
        else:
            pending.append((frame.chunk, frame.begin, frame.end, frame.last_sequence))
        self._pending_bytes += len(frame)
        self.last_sequence = frame.last_sequence
        self.next_event_number = frame.event_number + frame.count
        self._empty = False
        if self._pending_bytes >= PENDING_BYTES_MAX:
            self.flush()

    def flush(self) -> None:
        """Write what was appended, or hand it to the thread; the disk may not have it yet.

        Raises
        ------
        StorageError
            A write or sync failed, now or before.
        """
        spooler, file = self._spooler, self._file
        if spooler is not None:
            spooler.check()
            for chunk, begin, end, last in self._pending:
                spooler.put(chunk, begin, end, last)
            self._offset += self._pending_bytes
        elif file is not None:
            for chunk, begin, end, last in self._pending:
                with memoryview(chunk) as whole, whole[begin:end] as part:
                    file.write_at(self._offset, part)
                self._offset += end - begin
                self._written = last
        self._pending.clear()
        self._pending_bytes = 0

    def check(self) -> None:
        """Raise what failed on the thread, if anything did.

        Raises
        ------
        StorageError
        """
        if self._spooler is not None:
            self._spooler.check()

    def drain(self) -> None:
        """Flush, and wait until readers see everything.

        Raises
        ------
        StorageError
        """
        self.flush()
        if self._spooler is not None:
            self._spooler.drain()

    def _roll(self, first_sequence: int) -> None:
        """Finish this segment and begin the next."""
        self.flush()
        self._begun = True
        spooler = self._spooler
        if spooler is None:
            self._change(first_sequence)
        else:
            spooler.put_task(lambda: self._change(first_sequence, spooler))
        self._offset = 0

    def _change(self, first_sequence: int, spooler: Spooler | None = None) -> None:
        """A successor gets its name only when the segment before is on disk: a hole in that is corruption."""
        self._finish()
        file = self._disk.open(
            f"{self._directory}/{segment_name(first_sequence)}", create=True, writable=True
        )
        self._file = file
        if spooler is not None:
            spooler.use(file, 0)
        self._disk.sync_directory(self._directory)

    def _finish(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.sync()
            finally:
                file.close()

    def sync(self) -> None:
        """Flush, and make it durable."""
        self.drain()
        if self._file is not None:
            self._file.sync()

    def close(self) -> None:
        """Flush, sync and close; a second time does nothing. After a failure only the latter.

        Raises
        ------
        StorageError
            The last frames could not be written or synced, or something failed before.
        """
        spooler, failure = self._spooler, None
        try:
            self.drain()
        except StorageError as error:
            failure = error
        if spooler is not None:
            spooler.stop()
            self._spooler = None
        if failure is None:
            self._finish()
            return
        self._pending.clear()
        if self._file is not None:
            self._file.close()
            self._file = None
        raise failure


def _last_frame(data: bytes) -> tuple[int | None, int]:
    """Offset of the last of the whole frames at the beginning of `data`, and where they end."""
    last, end = None, 0
    while True:
        offsets, end = scan_frames(data, end, 0, 4096)
        if not len(offsets):
            return last, end
        last = int(offsets[-1])
