"""Builds small logs, and a disk whose syncs a test controls."""

import os
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.types import COMMAND, EVENT
from persistence.errors import StorageError
from persistence.log import LogScan, LogWriter, scan
from persistence.storage import Buffer, Disk, File
from persistence.storage import Path as AnyPath
from persistence.text import TextBuilder

SEGMENT_BYTES = 16384


def stamped(first: int, count: int) -> NDArray[np.void]:
    """Commands with these sequences and recognisable contents."""
    commands = np.zeros(count, COMMAND)
    commands["type"] = 1
    commands["sequence"] = np.arange(first, first + count)
    commands["price"] = commands["sequence"] * 7
    return commands


def some_events(first: int, count: int) -> NDArray[np.void]:
    """Events with recognisable contents."""
    events = np.zeros(count, EVENT)
    events["type"] = 3
    events["sequence"] = first
    events["quantity"] = np.arange(count)
    return events


def text_of(*entries: tuple[int, int, bytes]) -> bytes:
    """A text area with these entries."""
    builder = TextBuilder()
    for entry in entries:
        builder.add(*entry)
    return bytes(builder)


def write_log(
    directory: Path,
    counts: list[int],
    *,
    epoch: int = 1,
    segment_bytes: int = SEGMENT_BYTES,
    disk: Disk | None = None,
) -> None:
    """A log with one frame for each count, continuing what is there."""
    disk = disk or Disk()
    end = scan(disk, directory).end
    sequence = end.last_sequence + 1 if end else 1
    writer = LogWriter(
        disk, directory, epoch=epoch, next_sequence=sequence, end=end, segment_bytes=segment_bytes
    )
    for count in counts:
        writer.append(stamped(sequence, count), text_of((0, 1, b"c%d" % sequence)), sequence * 10)
        writer.commit()
        sequence += count
    writer.close()


def sequences(found: LogScan, from_sequence: int = 1) -> list[int]:
    """Sequences that a scan hands out, in order."""
    return [int(s) for frame in found.frames(from_sequence) for s in frame.commands["sequence"]]


def only_segment(directory: Path) -> Path:
    """The one segment in a directory."""
    (path,) = directory.glob("*.log")
    return path


class ControlledFile(File):
    """A real file without a descriptor for the sync thread; each sync asks the disk's `gate`."""

    def __init__(self, path: str, descriptor: int, disk: "ControlledDisk") -> None:
        super().__init__(path, descriptor)
        self._disk = disk

    def fileno(self) -> int | None:
        return None

    def sync(self) -> None:
        self._disk.on_sync(self)
        super().sync()

    def write_at(self, offset: int, buffer: Buffer) -> None:
        self._disk.on_write(self)
        super().write_at(offset, buffer)


class ControlledDisk(Disk):
    """Syncs block while `gate` is closed, and fail with the errno in `sync_error`; so do writes."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.sync_error = 0
        self.write_error = 0
        self.syncs = 0

    def open(self, path: AnyPath, *, create: bool = False, writable: bool = False) -> ControlledFile:
        file = super().open(path, create=create, writable=writable)
        descriptor = os.dup(file._descriptor)
        file.close()
        return ControlledFile(os.fspath(path), descriptor, self)

    def on_sync(self, file: File) -> None:
        self.syncs += 1
        self.entered.release()
        if not self.gate.wait(30):
            raise TimeoutError("the test never opened the gate")
        if self.sync_error:
            raise StorageError("sync", file.path, self.sync_error)

    def on_write(self, file: File) -> None:
        if self.write_error:
            raise StorageError("write", file.path, self.write_error)
