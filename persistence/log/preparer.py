"""Prepares the next segment ahead, on a thread of its own: zeros, synced, under a temporary name.

One at a time: `prepare` begins it (and does nothing if it is under way or
ready), `take` hands it out, waiting if it must. A failure is kept and raised by
`take`: until then the log goes on in the segment that it has.
"""

import threading

from persistence.errors import StorageError
from persistence.log.segment import TEMPORARY_SUFFIX, zero_fill
from persistence.storage import AnyDisk, AnyFile


class Preparer:
    """Makes zero-filled files of `segment_bytes` in `directory`."""

    def __init__(self, disk: AnyDisk, directory: str, segment_bytes: int, *, threaded: bool) -> None:
        self._disk = disk
        self._directory = directory
        self._made = 0
        self._path = ""
        self._segment_bytes = segment_bytes
        self._threaded = threaded
        self._thread: threading.Thread | None = None
        self._file: AnyFile | None = None
        self._error: StorageError | None = None

    def prepare(self) -> None:
        """Begin, in the background."""
        if self._threaded and self._thread is None and self._file is None:
            self._thread = threading.Thread(target=self._make, name="log-prepare", daemon=True)
            self._thread.start()

    def _make(self) -> None:
        # A name of its own each: the one before may still wait for its real name.
        self._made += 1
        self._path = f"{self._directory}/next-{self._made}{TEMPORARY_SUFFIX}"
        file: AnyFile | None = None
        try:
            file = self._disk.open(self._path, create=True, writable=True)
            file.truncate(0)
            zero_fill(file, self._segment_bytes)
            self._file, file = file, None
        except StorageError as error:
            self._error = error
        finally:
            if file is not None:
                file.close()

    def take(self) -> AnyFile:
        """The file, open for writing; the caller owns it.

        Raises
        ------
        StorageError
            It could not be made.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            self._make()
        else:
            thread.join()
        if self._error is not None:
            raise self._error
        if self._file is None:
            raise StorageError("prepare", self._path, 0, "the thread ended without a segment")
        file, self._file = self._file, None
        return file

    def close(self) -> None:
        """Wait for what is under way, and remove a prepared file that nobody took."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._file is not None:
            self._file.close()
            self._file = None
            self._disk.unlink(self._path)
