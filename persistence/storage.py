"""The one door to the operating system for files, and for clocks.

    Disk    open, list, rename, unlink, lock, write_atomic     names and directories
    File    write_at, read_at, sync, truncate                  bytes at offsets
    Lock    held until released or until the process dies
    Clock   wall and monotonic nanoseconds

Everything in this package takes a disk, typed as one of the protocols
`AnyDisk`, `AnyFile`, `AnyLock`, `AnyClock`, so that a simulated one can stand
in. `File.fileno` is None on such a file; the log's sync thread then calls
`sync` from Python instead of the kernel from C.

A write loops until all is written (the kernel may write less) and restarts
after a signal (the `os` functions do, unless the handler raises). Anything else
that the kernel says becomes a `StorageError`. Nothing here retries a failure.
"""

import contextlib
import fcntl
import os
import socket
import time
import warnings
import weakref
from types import TracebackType
from typing import Protocol, Self

from persistence.errors import LockHeld, StorageError

Path = str | os.PathLike[str]
Buffer = bytes | bytearray | memoryview

READ_BYTES_MAX = 1 << 30
"""The kernel moves at most 2 GiB − 4 KiB a call; stay well below."""


class AnyFile(Protocol):
    """Bytes at offsets. Written bytes may be lost in a power cut until `sync` returned."""

    @property
    def path(self) -> str: ...
    def write_at(self, offset: int, buffer: Buffer) -> None: ...
    def read_at(self, offset: int, size: int) -> bytes: ...
    def sync(self) -> None: ...
    def truncate(self, size: int) -> None: ...
    def size(self) -> int: ...
    def fileno(self) -> int | None: ...
    def renamed(self, path: str) -> None: ...
    def close(self) -> None: ...


class AnyLock(Protocol):
    """An exclusive lock; the kernel drops it with the process."""

    def set_epoch(self, epoch: int) -> None: ...
    def release(self) -> None: ...


class AnyDisk(Protocol):
    """Names and directories. A rename may be lost until its directory is synced."""

    def open(self, path: Path, *, create: bool = False, writable: bool = False) -> AnyFile: ...
    def list(self, directory: Path) -> list[str]: ...
    def exists(self, path: Path) -> bool: ...
    def size(self, path: Path) -> int: ...
    def rename(self, source: Path, target: Path) -> None: ...
    def unlink(self, path: Path) -> None: ...
    def make_directory(self, path: Path) -> None: ...
    def sync_directory(self, path: Path) -> None: ...
    def lock(self, path: Path, *, epoch: int = 0) -> AnyLock: ...
    def free_bytes(self, directory: Path) -> int: ...
    def write_atomic(self, path: Path, content: bytes) -> None: ...


class AnyClock(Protocol):
    """Nanoseconds."""

    def wall_ns(self) -> int: ...
    def monotonic_ns(self) -> int: ...


def _failed(operation: str, path: str, error: OSError, detail: str = "") -> StorageError:
    return StorageError(operation, path, error.errno or 0, detail)


class File:
    """A file of the real disk. Made by `Disk.open`; close it."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @property
    def path(self) -> str:
        return self._path

    def write_at(self, offset: int, buffer: Buffer) -> None:
        """Write all of `buffer`; on return the kernel has it, the disk may not."""
        with memoryview(buffer) as whole, whole.cast("B") as view:
            done = 0
            while done < len(view):
                try:
                    with view[done:] as rest:
                        written = os.pwrite(self._descriptor, rest, offset + done)
                except OSError as error:
                    detail = f"{len(view)} bytes at {offset}, {done} written"
                    raise _failed("write", self._path, error, detail) from error
                if written == 0:
                    raise StorageError("write", self._path, 0, f"no progress at {offset + done}")
                done += written

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes; fewer only where the file ends."""
        parts = []
        while size > 0:
            try:
                part = os.pread(self._descriptor, min(size, READ_BYTES_MAX), offset)
            except OSError as error:
                raise _failed("read", self._path, error, f"{size} bytes at {offset}") from error
            if not part:
                break
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def sync(self) -> None:
        """`fdatasync`. After a failure the page cache lies: never call it again on this file."""
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise _failed("sync", self._path, error) from error

    def truncate(self, size: int) -> None:
        """Cut or extend (with a hole) to `size` bytes."""
        try:
            os.ftruncate(self._descriptor, size)
        except OSError as error:
            raise _failed("truncate", self._path, error, f"to {size} bytes") from error

    def size(self) -> int:
        """Bytes, now."""
        try:
            return os.fstat(self._descriptor).st_size
        except OSError as error:
            raise _failed("stat", self._path, error) from error

    def fileno(self) -> int | None:
        """The descriptor, for a sync without the GIL."""
        return self._descriptor

    def renamed(self, path: str) -> None:
        """The open file has another name now, which errors should say."""
        self._path = path

    def close(self) -> None:
        """Close; a second time does nothing. Does not sync."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            try:
                os.close(descriptor)
            except OSError as error:
                raise _failed("close", self._path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            warnings.warn(f"unclosed {self._path}", ResourceWarning, source=self, stacklevel=2)
            os.close(self._descriptor)


_locks: "weakref.WeakSet[Lock]" = weakref.WeakSet()


class Lock:
    """A kernel lock (`flock`) on a file that names its owner. Made by `Disk.lock`.

    The lock belongs to the open file, so a forked child would keep it alive
    after its parent died. Children that exec lose it (close-on-exec); those
    that only fork close their copy in a fork hook, the first thing they run: a
    holder killed in the moment between is outlived by its lock for that moment.
    """

    def __init__(self, path: str, descriptor: int, epoch: int) -> None:
        self._path = path
        self._descriptor = descriptor
        _locks.add(self)
        self.set_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Write who holds the lock, for whoever is refused; 0 stands for no epoch."""
        of_epoch = f", epoch {epoch}" if epoch else ""
        owner = f"pid {os.getpid()} on {socket.gethostname()}{of_epoch}\n".encode()
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, owner, 0)
        except OSError as error:
            raise _failed("write", self._path, error, "the owner of the lock") from error

    def release(self) -> None:
        """Give it up; a second time does nothing."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            try:
                os.ftruncate(descriptor, 0)
            except OSError as error:
                raise _failed("truncate", self._path, error, "the owner of the lock") from error
            finally:
                os.close(descriptor)

    def forget(self) -> None:
        """In a forked child: close the copy, which leaves the parent's lock alone."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            warnings.warn(f"unreleased lock {self._path}", ResourceWarning, source=self, stacklevel=2)
            os.close(self._descriptor)


def _forget_locks() -> None:
    for lock in list(_locks):
        lock.forget()


os.register_at_fork(after_in_child=_forget_locks)


class Disk:
    """The real disk."""

    def open(self, path: Path, *, create: bool = False, writable: bool = False) -> File:
        """Open a file; `create` makes it if it is missing, and implies `writable`."""
        name = os.fspath(path)
        flags = os.O_CLOEXEC | (os.O_RDWR if create or writable else os.O_RDONLY)
        try:
            return File(name, os.open(name, flags | (os.O_CREAT if create else 0), 0o640))
        except OSError as error:
            raise _failed("open", name, error) from error

    def list(self, directory: Path) -> list[str]:
        """Names in a directory, sorted."""
        name = os.fspath(directory)
        try:
            return sorted(os.listdir(name))
        except OSError as error:
            raise _failed("list", name, error) from error

    def exists(self, path: Path) -> bool:
        """Whether the name is there."""
        return os.path.lexists(path)

    def size(self, path: Path) -> int:
        """Bytes of a file."""
        name = os.fspath(path)
        try:
            return os.stat(name).st_size
        except OSError as error:
            raise _failed("stat", name, error) from error

    def rename(self, source: Path, target: Path) -> None:
        """Replace `target` by `source`; sure only after `sync_directory`."""
        name = os.fspath(source)
        try:
            os.rename(name, target)
        except OSError as error:
            raise _failed("rename", name, error, f"to {os.fspath(target)}") from error

    def unlink(self, path: Path) -> None:
        """Remove a file's name."""
        name = os.fspath(path)
        try:
            os.unlink(name)
        except OSError as error:
            raise _failed("unlink", name, error) from error

    def make_directory(self, path: Path) -> None:
        """Make a directory (0750) and its parents; an existing one is fine."""
        name = os.fspath(path)
        try:
            os.makedirs(name, mode=0o750, exist_ok=True)
        except OSError as error:
            raise _failed("make directory", name, error) from error

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""
        name = os.fspath(path)
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _failed("open", name, error) from error
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise _failed("sync", name, error, "directory") from error
        finally:
            os.close(descriptor)

    def lock(self, path: Path, *, epoch: int = 0) -> Lock:
        """Take the lock, or say who has it.

        Raises
        ------
        LockHeld
            Naming the owner's pid, host and epoch.
        """
        name = os.fspath(path)
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise _failed("open", name, error, "lock file") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 256, 0).decode("utf-8", "replace").strip()
            os.close(descriptor)
            raise LockHeld(name, owner) from None
        except OSError as error:
            os.close(descriptor)
            raise _failed("lock", name, error) from error
        return Lock(name, descriptor, epoch)

    def free_bytes(self, directory: Path) -> int:
        """Bytes that an unprivileged process can still write there."""
        name = os.fspath(directory)
        try:
            status = os.statvfs(name)
        except OSError as error:
            raise _failed("statvfs", name, error) from error
        return status.f_bavail * status.f_frsize

    def write_atomic(self, path: Path, content: bytes) -> None:
        """Replace a small file; on return the new content is on disk, at any crash one or the other is."""
        name = os.fspath(path)
        temporary = f"{name}.tmp"
        try:
            with self.open(temporary, create=True) as file:
                file.truncate(0)
                file.write_at(0, content)
                file.sync()
            self.rename(temporary, name)
        except StorageError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        self.sync_directory(os.path.dirname(name) or ".")


class Clock:
    """The machine's clocks."""

    def wall_ns(self) -> int:
        """Nanoseconds since 1970 UTC; may step."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """Nanoseconds since some start; never falls."""
        return time.monotonic_ns()
