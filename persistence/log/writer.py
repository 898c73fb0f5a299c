"""The one writer of the log: group commit, segment changes, fail-stop.

    append   frame into the group buffer          memcpy and checksum, nothing else
    commit   group buffer → one write → sync thread
    collect  what the sync thread has done so far

The tail of the group buffer is always the tail of the log: `previous_crc` runs
through it. A frame that does not fit into the segment any more seals it:

    write [frames, SEAL] to A; hand A to the sync thread
    hand over the task: sync header of B → rename B → sync directory
    write frames to B; hand B over

so that B appears only after A is synced, and no frame of B counts before B has
its name. `commit` waits for neither.

After any failed write or sync (`LogFailed`) nothing becomes durable any more,
no call does anything but raise, and the process must stop (SPEC D5).
"""

import os
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from persistence.errors import FormatError, LogFailed, StorageError
from persistence.log import frame
from persistence.log.file_syncer import AnySyncer, FileSyncer
from persistence.log.preparer import Preparer
from persistence.log.segment import (
    SEGMENT_HEADER_BYTES,
    SUFFIX,
    TEMPORARY_SUFFIX,
    LogEnd,
    SegmentHeader,
    check_segment_bytes,
    segment_files,
    segment_name,
)
from persistence.log.syncer import Syncer
from persistence.storage import AnyClock, AnyDisk, AnyFile, Buffer, Clock, Path
from persistence.text import TextBuilder, TextTag

SEGMENT_BYTES = 64 << 20
GROUP_BYTES = 16 << 20
"""Capacity of the group buffer; an append beyond it commits first."""
PREPARE_AT = 16
"""The next segment is prepared once 1 / PREPARE_AT of the current one is used."""


class LogWriter:
    """Appends to the log in `directory`.

    Parameters
    ----------
    disk : AnyDisk
    directory : path
        Exists; holds the segments.
    epoch : int
        Of this process; above every epoch in the log.
    next_sequence : int
        Sequence of the first command to come.
    end : LogEnd or None
        Where `scan` found the end; None for an empty directory. What a crash
        left behind that end is overwritten with zeros and synced.
    segment_bytes : int
        Of segments made from now on.
    clock : AnyClock, optional
        For the creation time in segment headers.
    threaded : bool
        False keeps everything on the caller's thread, for simulations.

    Raises
    ------
    FormatError
        Epoch or sequence do not continue the log.
    StorageError
        The disk refused; nothing was appended.
    """

    def __init__(
        self,
        disk: AnyDisk,
        directory: Path,
        *,
        epoch: int,
        next_sequence: int,
        end: LogEnd | None,
        segment_bytes: int = SEGMENT_BYTES,
        clock: AnyClock | None = None,
        threaded: bool = True,
    ) -> None:
        check_segment_bytes(segment_bytes)
        self._disk = disk
        self._directory = os.fspath(directory)
        self._epoch = epoch
        self._clock = clock if clock is not None else Clock()
        self._next_sequence = next_sequence
        self._committed = next_sequence - 1
        self._segment_bytes = segment_bytes
        self._buffer = frame.FrameBuffer(GROUP_BYTES)
        self._open: list[AnyFile] = []
        self._halted = False
        self._closed = False
        self._check_continues(end)
        for name in disk.list(self._directory):
            if name.endswith(TEMPORARY_SUFFIX):
                disk.unlink(f"{self._directory}/{name}")
        self._preparer = Preparer(disk, self._directory, segment_bytes, threaded=threaded)
        self._file: AnyFile
        self._header: SegmentHeader
        if end is None or end.sealed:
            self._create_segment(end)
        else:
            self._continue_segment(end)
        self._completion_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._syncer: AnySyncer
        if threaded and self._file.fileno() is not None:
            self._syncer = Syncer(next_sequence - 1, self._completion_fd)
        else:
            self._syncer = FileSyncer(next_sequence - 1, self._completion_fd, threaded=threaded)
        self._syncer.start()

    def _check_continues(self, end: LogEnd | None) -> None:
        if end is None:
            names = segment_files(self._disk, self._directory)
            if names:
                raise FormatError(f"{self._directory} holds a log ({names[0]}): scan it, and pass its end")
            if self._next_sequence < 1 or self._epoch < 1:
                raise FormatError("sequences and epochs begin at 1")
        elif self._next_sequence != end.last_sequence + 1:
            raise FormatError(f"the log ends at {end.last_sequence}; {self._next_sequence} does not follow")
        elif self._epoch <= end.epoch:
            raise FormatError(
                f"the log was written by epoch {end.epoch}; epoch {self._epoch} is not above it"
            )

    # Segments.

    def _use_segment(self, file: AnyFile, header: SegmentHeader, offset: int, previous_crc: int) -> None:
        self._file = file
        self._header = header
        self._offset = offset
        # For frames that are neither written nor in the buffer; room for the SEAL is kept back.
        self._room = header.segment_bytes - offset - frame.HEADER_BYTES
        self._buffer.follow(previous_crc)

    def _new_header(self, previous_crc: int, previous_first_sequence: int) -> SegmentHeader:
        return SegmentHeader(
            self._epoch,
            self._next_sequence,
            self._clock.wall_ns(),
            previous_crc,
            previous_first_sequence,
            self._segment_bytes,
        )

    def _next_path(self) -> str:
        path = f"{self._directory}/{segment_name(self._next_sequence)}"
        if self._disk.exists(path):
            path = f"{path.removesuffix(SUFFIX)}.{self._epoch}{SUFFIX}"
        return path

    def _create_segment(self, end: LogEnd | None) -> None:
        header = self._new_header(end.last_crc if end else 0, end.segment_first_sequence if end else 0)
        file = self._preparer.take()
        try:
            packed = header.pack()
            file.write_at(0, packed)
            file.sync()
            path = self._next_path()
            self._disk.rename(file.path, path)
            file.renamed(path)
            self._disk.sync_directory(self._directory)
        except StorageError:
            file.close()
            raise
        self._open.append(file)
        self._use_segment(file, header, SEGMENT_HEADER_BYTES, _header_crc(packed))

    def _continue_segment(self, end: LogEnd) -> None:
        file = self._disk.open(end.path, writable=True)
        try:
            if end.torn_bytes:
                file.write_at(end.offset, bytes(end.torn_bytes))
            file.sync()
        except StorageError:
            file.close()
            raise
        self._open.append(file)
        self._use_segment(file, end.header, end.offset, end.last_crc)

    def _roll(self) -> None:
        """Seal the segment and go on in the next one."""
        first_sequence = self._header.first_sequence
        self._buffer.add(frame.SEAL, self._epoch, self._next_sequence, None, b"", 0, first_sequence)
        self._write()
        self._syncer.submit(self._file, self._next_sequence - 1)
        sealed = self._file
        try:
            file = self._preparer.take()
            self._open.append(file)
            header = self._new_header(self._buffer.last_crc, first_sequence)
            packed = header.pack()
            path = self._next_path()
            file.write_at(0, packed)
        except StorageError as error:
            self._fail(error)
        self._use_segment(file, header, SEGMENT_HEADER_BYTES, _header_crc(packed))

        def publish() -> None:
            self._open.remove(sealed)
            sealed.close()
            file.sync()
            self._disk.rename(file.path, path)
            file.renamed(path)
            self._disk.sync_directory(self._directory)

        self._syncer.submit_task(publish)

    # The hot path.

    def append(self, commands: NDArray[np.void], text: Buffer, time_ns: int) -> None:
        """Put one frame into the group; its bytes are copied.

        Parameters
        ----------
        commands : COMMAND[n], contiguous, 1 <= n <= 65536
            Stamped with their sequences.
        text : bytes
            Text area (`persistence.text`), may be empty.
        time_ns : int
            Logged time of the frame.

        Raises
        ------
        FormatError
            The frame is none; nothing was appended.
        LogFailed
        """
        self._check_open()
        length = frame.frame_bytes(len(commands), len(text))
        if length > self._room:
            if length > self._segment_bytes - SEGMENT_HEADER_BYTES - frame.HEADER_BYTES:
                raise FormatError(f"a frame of {length} bytes does not fit into a segment")
            self._roll()
        elif length > self._buffer.capacity - self._buffer.size - frame.HEADER_BYTES:
            self.commit()
        self._buffer.add(
            frame.COMMANDS,
            self._epoch,
            self._next_sequence,
            commands,
            text,
            time_ns,
            self._header.first_sequence,
        )
        self._room -= length
        self._next_sequence += len(commands)

    def commit(self) -> None:
        """Write the group with one write and hand it to the sync thread; does not wait.

        Raises
        ------
        LogFailed
        """
        self._commit(wake=True)

    def _commit(self, *, wake: bool) -> None:
        self._check_open()
        if self._buffer.size:
            self._write()
            self._syncer.submit(self._file, self._next_sequence - 1, wake)
            if self._offset > self._header.segment_bytes // PREPARE_AT:
                self._preparer.prepare()

    def _write(self) -> None:
        try:
            self._file.write_at(self._offset, self._buffer.view())
        except StorageError as error:
            self._fail(error)
        self._offset += self._buffer.size
        self._committed = self._next_sequence - 1
        self._buffer.clear()

    # What became of it.

    @property
    def next_sequence(self) -> int:
        """Sequence that the next appended command must carry."""
        return self._next_sequence

    @property
    def committed_sequence(self) -> int:
        """Last sequence that was written; what was appended after it waits in the group buffer."""
        return self._committed

    @property
    def durable_sequence(self) -> int:
        """Last sequence on disk; moves only after a sync returned."""
        return self._syncer.durable

    @property
    def completion_fd(self) -> int:
        """An eventfd: readable when the sync thread moved `durable_sequence`, or the log failed."""
        return self._completion_fd

    def collect(self) -> int:
        """Clear `completion_fd` and return the durable sequence.

        Raises
        ------
        LogFailed
            A write or sync failed, now or at any time before.
        """
        return self._syncer.collect()

    def wait(self, sequence: int) -> None:
        """Until `sequence`, which was appended, is durable; commits if it must.

        What it commits it syncs on the caller's own thread, unless the sync thread is at work.

        Raises
        ------
        FormatError
            It was never appended.
        LogFailed
        """
        if sequence >= self._next_sequence:
            raise FormatError(f"sequence {sequence} was not appended; the next is {self._next_sequence}")
        if sequence > self._committed:
            self._commit(wake=False)
        self._syncer.wait(sequence)

    def halt(self, sequence: int, reason: bytes) -> None:
        """Void `sequence` and all after it: a HALT frame, synced before return. Nothing can follow it.

        Parameters
        ----------
        sequence : int
            The command that broke an invariant; appended, or the next to be.
        reason : bytes
            JSON naming account, asset and delta.
        """
        self._check_open()
        if not 1 <= sequence <= self._next_sequence:
            raise FormatError(f"HALT({sequence}) outside of the log, which ends before {self._next_sequence}")
        text = TextBuilder()
        text.add(0, TextTag.REASON, reason)
        area = bytes(text)
        length = frame.frame_bytes(0, len(area))
        if length > self._room:
            self._roll()
        elif length > self._buffer.capacity - self._buffer.size:
            self.commit()
        self._buffer.add(frame.HALT, self._epoch, sequence, None, area, 0, self._header.first_sequence)
        self._write()
        self._syncer.submit(self._file, self._next_sequence - 1)
        self._halted = True
        self._syncer.drain()

    def close(self) -> None:
        """Commit, sync, stop the threads, close the files. After a failure only the latter.

        Raises
        ------
        LogFailed
            The last group could not be synced.
        """
        if self._closed:
            return
        failure: LogFailed | None = None
        try:
            if not self._halted:
                self.commit()
            self._syncer.drain()
        except LogFailed as error:
            failure = error
        self._closed = True
        self._syncer.stop()
        self._preparer.close()
        for file in self._open:
            file.close()
        os.close(self._completion_fd)
        if failure is not None:
            raise failure

    def _check_open(self) -> None:
        if self._closed or self._halted:
            raise LogFailed("the log is closed" if self._closed else "the log ends with a HALT")
        self._syncer.check()

    def _fail(self, cause: StorageError) -> NoReturn:
        self._syncer.fail(cause)
        raise LogFailed(f"the log failed: {cause}; stop, and recover from disk") from cause


def _header_crc(packed: bytes) -> int:
    return int.from_bytes(packed[12:16], "little")
