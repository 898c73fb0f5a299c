"""Writes, publishes, loads and retires checkpoints.

    write_temporary   beside, synced      by the forked child, from its frozen copy
    publish           rename, sync        by the parent, once the durable sequence has reached it
    candidates        newest first        recovery tries one after the other
    load              every checksum
    retire            the last few stay

A file under its final name was synced whole before it got the name.
"""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.types import SECTIONS
from persistence.checkpoint.layout import (
    ALIGN,
    ENTRY_BYTES,
    HEADER_BYTES,
    STATE_HASH_BYTES,
    SUFFIX,
    TEMPORARY_SUFFIX,
    Entry,
    Header,
    aligned,
    checkpoint_name,
    plan,
    raw,
    record_digest,
    section_count,
    unpack_header,
)
from persistence.crc32c import crc32c
from persistence.errors import CorruptionError, FormatError
from persistence.storage import AnyDisk, AnyFile, Path

KEEP = 3
REMEDY = "use an older checkpoint and more of the log, which needs nothing from this one"
_WRITE_BYTES = 8 << 20
_BYTES = np.dtype(np.uint8)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified checkpoint.

    Parameters
    ----------
    sequence : int
        Last command in it.
    epoch : int
        Of the process that took it.
    time_ns : int
        Logged time then.
    state_hash : bytes
        32 bytes; the loaded engine must give the same.
    sections : dict of arrays
        Read-only. Records of `engine.types.SECTIONS`; others are uint8.
    """

    sequence: int
    epoch: int
    time_ns: int
    state_hash: bytes
    sections: dict[str, NDArray[Any]]


def write_temporary(
    disk: AnyDisk,
    directory: Path,
    *,
    sequence: int,
    epoch: int,
    time_ns: int,
    state_hash: bytes,
    sections: dict[str, NDArray[Any]],
) -> str:
    """Write a checkpoint beside; it is synced on return, and not yet one.

    Returns
    -------
    str
        Path to give to `publish`.

    Raises
    ------
    FormatError, StorageError
        Nothing is left behind but a temporary file.
    """
    if len(state_hash) != STATE_HASH_BYTES:
        raise FormatError(f"state hash of {len(state_hash)} bytes; {STATE_HASH_BYTES} expected")
    entries, file_bytes = plan(sections)
    header = Header(sequence, epoch, time_ns, file_bytes, state_hash, entries).pack()
    path = f"{os.fspath(directory)}/{sequence:020d}{TEMPORARY_SUFFIX}"
    file = disk.open(path, create=True, writable=True)
    try:
        file.truncate(0)
        file.write_at(0, header.ljust(aligned(len(header)), b"\0"))
        for entry, array in zip(entries, sections.values(), strict=True):
            _write_section(file, entry.offset, raw(array))
        file.sync()
    finally:
        file.close()
    return path


def _write_section(file: AnyFile, offset: int, content: memoryview) -> None:
    for begin in range(0, len(content), _WRITE_BYTES):
        file.write_at(offset + begin, content[begin : begin + _WRITE_BYTES])
    end = offset + len(content)
    if aligned(end) > end:
        file.write_at(end, bytes(aligned(end) - end))


def publish(disk: AnyDisk, temporary: str) -> str:
    """Give it its name. Call it only when the log is durable up to its sequence.

    Returns
    -------
    str
        The checkpoint's path; its name is on disk.
    """
    path = temporary.removesuffix(TEMPORARY_SUFFIX) + SUFFIX
    disk.rename(temporary, path)
    disk.sync_directory(os.path.dirname(path) or ".")
    return path


def candidates(disk: AnyDisk, directory: Path) -> list[str]:
    """Paths of the checkpoints, newest first; none is checked."""
    name = os.fspath(directory)
    return [f"{name}/{each}" for each in reversed(disk.list(name)) if each.endswith(SUFFIX)]


def retire(disk: AnyDisk, directory: Path, keep: int = KEEP) -> list[str]:
    """Remove all but the newest `keep`; returns the paths removed."""
    removed = candidates(disk, directory)[max(keep, 1) :]
    for path in removed:
        disk.unlink(path)
    return removed


def remove_temporaries(disk: AnyDisk, directory: Path) -> list[str]:
    """Remove what a dead process was writing; only while nobody writes. Returns the paths removed."""
    name = os.fspath(directory)
    removed = [f"{name}/{each}" for each in disk.list(name) if each.endswith(TEMPORARY_SUFFIX)]
    for path in removed:
        disk.unlink(path)
    return removed


def load(disk: AnyDisk, path: Path) -> Checkpoint:
    """Read a checkpoint and check every byte of it.

    Raises
    ------
    CorruptionError
        It is not whole, or not one that this program wrote: skip it, loudly.
    StorageError
    """
    name = os.fspath(path)
    file = disk.open(name)
    try:
        return _load(file, name)
    except FormatError as error:
        raise CorruptionError(name, 0, 0, str(error), REMEDY) from error
    finally:
        file.close()


def _load(file: AnyFile, path: str) -> Checkpoint:
    head = file.read_at(0, HEADER_BYTES)
    table = file.read_at(HEADER_BYTES, section_count(head) * ENTRY_BYTES)
    header = unpack_header(head, table)
    if os.path.basename(path) != checkpoint_name(header.sequence):
        raise FormatError(f"it is the checkpoint of sequence {header.sequence}, not of its name")
    size = file.size()
    if size != header.file_bytes:
        raise FormatError(f"{size} bytes, {header.file_bytes} expected")
    sections: dict[str, NDArray[Any]] = {}
    end = HEADER_BYTES + len(table)
    for entry in header.entries:
        _check_zeros(file, end, entry.offset)
        sections[entry.name] = _section(file, path, header, entry)
        end = entry.offset + entry.record_bytes * entry.count
    _check_zeros(file, end, size)
    return Checkpoint(header.sequence, header.epoch, header.time_ns, header.state_hash, sections)


def _section(file: AnyFile, path: str, header: Header, entry: Entry) -> NDArray[Any]:
    dtype = SECTIONS.get(entry.name, _BYTES)
    if entry.record_digest != record_digest(dtype):
        raise FormatError(f"section {entry.name} holds records that this program does not know")
    content = file.read_at(entry.offset, entry.record_bytes * entry.count)
    if crc32c(content) != entry.crc:
        what = f"section {entry.name} does not match its checksum"
        raise CorruptionError(path, entry.offset, header.sequence, what, REMEDY)
    return np.frombuffer(content, dtype) if content else np.empty(0, dtype)


def _check_zeros(file: AnyFile, begin: int, end: int) -> None:
    if not 0 <= end - begin < 2 * ALIGN or any(file.read_at(begin, end - begin)):
        raise FormatError(f"bytes {begin} to {end}, between the sections, are not zero")
