"""Appends event frames; cuts what a crash left.

The caller appends what the gate released, so an event is on file only when its
command is durable. `flush` is one write and no sync; a segment is synced when
it is full and when the writer is closed.
"""

import os
from typing import Self

import numpy as np
from numpy.typing import NDArray

from persistence.errors import FormatError
from persistence.events.frame import first_of, pack_frame, read_frame, segment_name
from persistence.events.reader import segment_files
from persistence.events.scan import scan_frames
from persistence.storage import AnyDisk, AnyFile, Buffer, Path

SEGMENT_BYTES = 64 << 20
BUFFER_BYTES_MAX = 8 << 20
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
        self._file: AnyFile | None = None
        self._offset = 0
        self._buffer = bytearray()
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
                self._file, self._offset = file, end
        finally:
            if self._file is not file:
                file.close()
        if last is None:
            return False
        frame = read_frame(data, last)
        self.last_sequence = frame.last_sequence
        self.next_event_number = frame.event_number + frame.count
        self._empty = False
        return True

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
        """Put one frame into the buffer; its bytes are copied.

        Raises
        ------
        FormatError
            It does not follow the frame before; nothing was appended.
        StorageError
            A segment could not be changed, or a full buffer not be written.
        """
        known = self.last_sequence > 0 or self._file is not None
        if (known and first_sequence != self.last_sequence + 1) or (
            event_number != self.next_event_number and not self._empty
        ):
            raise FormatError(
                f"events of {first_sequence} numbered {event_number} do not follow sequence "
                f"{self.last_sequence} and number {self.next_event_number - 1}"
            )
        parts = pack_frame(epoch, first_sequence, last_sequence, time_ns, event_number, events, text)
        if self._file is None or self._offset + len(self._buffer) >= self._segment_bytes:
            self._roll(first_sequence)
        for part in parts:
            self._buffer += part
        self.last_sequence = last_sequence
        self.next_event_number = event_number + len(events)
        self._empty = False
        if len(self._buffer) >= BUFFER_BYTES_MAX:
            self.flush()

    def flush(self) -> None:
        """Write what was appended; readers see it, the disk may not have it yet."""
        if self._buffer and self._file is not None:
            self._file.write_at(self._offset, self._buffer)
            self._offset += len(self._buffer)
            self._buffer.clear()

    def _roll(self, first_sequence: int) -> None:
        self._finish()
        path = f"{self._directory}/{segment_name(first_sequence)}"
        self._file = self._disk.open(path, create=True, writable=True)
        self._offset = 0
        self._disk.sync_directory(self._directory)

    def _finish(self) -> None:
        file = self._file
        if file is not None:
            try:
                self.flush()
                file.sync()
            finally:
                self._file = None
                file.close()

    def sync(self) -> None:
        """Flush, and make it durable."""
        if self._file is not None:
            self.flush()
            self._file.sync()

    def close(self) -> None:
        """Flush, sync and close; a second time does nothing."""
        self._finish()


def _last_frame(data: bytes) -> tuple[int | None, int]:
    """Offset of the last of the whole frames at the beginning of `data`, and where they end."""
    last, end = None, 0
    while True:
        offsets, end = scan_frames(data, end, 0, 4096)
        if not len(offsets):
            return last, end
        last = int(offsets[-1])
