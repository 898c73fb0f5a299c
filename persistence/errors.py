"""What can go wrong with bytes on disk.

    PersistenceError
    ├── StorageError      the operating system refused: operation, path, errno
    ├── CorruptionError   bytes that were whole once are not: file, offset, sequence, remedy
    ├── LockHeld          another process owns the data directory
    ├── LogFailed         a write or a sync of the log failed: fail-stop, never retried
    └── FormatError       a value that no format of ours can hold (also a ValueError)

A torn tail is not here: a crash that cuts the last write is expected, and is
cut and counted (`persistence.log.reader.TornTail`).
"""

import os


class PersistenceError(Exception):
    """Root of the tree."""


class StorageError(PersistenceError):
    """A file operation failed.

    Parameters
    ----------
    operation : str
        `write`, `sync`, `rename`, …
    path : str
        The file or directory it was for.
    errno : int
        The operating system's number; 0 where it gave none (a short read, say).
    detail : str
        What was being attempted, in words.
    """

    def __init__(self, operation: str, path: str, errno: int, detail: str = "") -> None:
        self.operation = operation
        self.path = path
        self.errno = errno
        self.detail = detail
        cause = os.strerror(errno) if errno else "unexpected result"
        super().__init__(f"{operation} of {path} failed: {cause}" + (f" ({detail})" if detail else ""))

    def __reduce__(self) -> tuple[type["StorageError"], tuple[str, str, int, str]]:
        return type(self), (self.operation, self.path, self.errno, self.detail)


class CorruptionError(PersistenceError):
    """Bytes that were whole once are not any more; nothing may be built on them.

    Parameters
    ----------
    path, offset
        Where.
    sequence : int
        The first sequence that cannot be trusted; 0 if unknown.
    what : str
        What is wrong with it.
    remedy : str
        What to do about it.
    """

    def __init__(self, path: str, offset: int, sequence: int, what: str, remedy: str) -> None:
        self.path = path
        self.offset = offset
        self.sequence = sequence
        self.what = what
        self.remedy = remedy
        at = f"{path} at offset {offset}" + (f", sequence {sequence}" if sequence else "")
        super().__init__(f"corruption in {at}: {what}; {remedy}")

    def __reduce__(self) -> tuple[type["CorruptionError"], tuple[str, int, int, str, str]]:
        return type(self), (self.path, self.offset, self.sequence, self.what, self.remedy)


class LockHeld(PersistenceError):
    """Another process owns what the lock protects.

    Parameters
    ----------
    path : str
        The lock file.
    owner : str
        What the owner wrote into it (pid, host, epoch).
    """

    def __init__(self, path: str, owner: str) -> None:
        self.path = path
        self.owner = owner
        super().__init__(
            f"{path} is held by {owner or 'an unnamed process'}; stop that process, or use another directory"
        )

    def __reduce__(self) -> tuple[type["LockHeld"], tuple[str, str]]:
        return type(self), (self.path, self.owner)


class LogFailed(PersistenceError):
    """A write or sync of the log failed. The process must stop; what is on disk decides at restart."""


class FormatError(PersistenceError, ValueError):
    """A value that the format cannot hold, or text that does not follow it."""
