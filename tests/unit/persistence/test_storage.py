"""The door to the disk: all of it written, every refusal named."""

import errno
import os

import pytest

from persistence.errors import LockHeld, StorageError
from persistence.storage import Clock, Disk


def test_write_and_read_at_offsets(tmp_path):
    with Disk().open(tmp_path / "file", create=True) as file:
        file.write_at(3, b"abc")
        file.write_at(0, memoryview(b"xyz!")[:3])
        file.sync()
        assert file.read_at(0, 100) == b"xyzabc"
        assert file.read_at(4, 1) == b"b"
        assert file.read_at(6, 4) == b""
        file.truncate(2)
        assert file.size() == 2 == Disk().size(tmp_path / "file")


def test_a_short_write_is_continued(tmp_path, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, bytes(data)[:3], offset))
    with Disk().open(tmp_path / "file", create=True) as file:
        file.write_at(1, b"0123456789")
        assert file.read_at(0, 20) == b"\x000123456789"


def test_a_write_without_progress_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: 0)
    with (
        Disk().open(tmp_path / "file", create=True) as file,
        pytest.raises(StorageError, match="no progress"),
    ):
        file.write_at(0, b"abc")


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize(
    ("call", "operation"),
    [
        ("pwrite", "write"),
        ("pread", "read"),
        ("fdatasync", "sync"),
        ("ftruncate", "truncate"),
        ("fstat", "stat"),
    ],
)
def test_each_refusal_of_a_file_names_operation_path_and_errno(tmp_path, monkeypatch, call, operation, code):
    def refuse(*arguments):
        raise OSError(code, os.strerror(code))

    with Disk().open(tmp_path / "file", create=True) as file:
        with monkeypatch.context() as patch:
            patch.setattr(os, call, refuse)
            with pytest.raises(StorageError, match=os.strerror(code)) as caught:
                {
                    "write": lambda: file.write_at(0, b"x"),
                    "read": lambda: file.read_at(0, 1),
                    "sync": file.sync,
                    "truncate": lambda: file.truncate(0),
                    "stat": file.size,
                }[operation]()
        assert (caught.value.operation, caught.value.path, caught.value.errno) == (
            operation,
            str(tmp_path / "file"),
            code,
        )


def test_each_refusal_of_a_directory_is_named(tmp_path):
    disk, missing = Disk(), tmp_path / "no" / "such"
    for attempt in (
        lambda: disk.open(missing),
        lambda: disk.list(missing),
        lambda: disk.size(missing),
        lambda: disk.rename(missing, tmp_path / "x"),
        lambda: disk.unlink(missing),
        lambda: disk.sync_directory(missing),
        lambda: disk.free_bytes(missing),
        lambda: disk.lock(missing),
        lambda: disk.write_atomic(missing, b""),
    ):
        with pytest.raises(StorageError, match=str(missing)) as caught:
            attempt()
        assert caught.value.errno == errno.ENOENT
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        disk.make_directory(tmp_path / "file")
    assert disk.free_bytes(tmp_path) > 0


def test_an_atomic_write_that_fails_leaves_the_old_content(tmp_path, monkeypatch):
    disk, path = Disk(), tmp_path / "small"
    disk.write_atomic(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", lambda fd: (_ for _ in ()).throw(OSError(errno.EIO, "no")))
        with pytest.raises(StorageError):
            disk.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert disk.list(tmp_path) == ["small"]
    disk.write_atomic(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_second_holder_is_refused_and_told_the_owner(tmp_path):
    disk = Disk()
    with disk.lock(tmp_path / "lock", epoch=3) as lock:
        lock.set_epoch(4)
        with pytest.raises(LockHeld, match=f"pid {os.getpid()} on .*, epoch 4"):
            disk.lock(tmp_path / "lock")
    disk.lock(tmp_path / "lock").release()


def test_the_monotonic_clock_does_not_fall():
    clock = Clock()
    times = [clock.monotonic_ns() for _ in range(100)]
    assert times == sorted(times)
    assert clock.wall_ns() > 1_600_000_000 * 10**9
