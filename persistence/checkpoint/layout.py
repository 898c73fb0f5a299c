"""The bytes of a checkpoint.

`checkpoints/00000000000005000000.checkpoint` is the state after that sequence.
Header, 128 bytes, little endian::

     0  u32  magic "HFC1"       16  u64  sequence       64  u8[32]  state hash
     4  u16  version (1)        24  u64  epoch          96  zeros
     6  u16  sections           32  i64  time_ns
     8  u32  crc32c             40  u64  bytes of the file
    12  u32  0                  48  zeros

then an entry of 64 bytes for each section::

     0  u8[24]  name, zeros behind it      40  u64  count
    24  u64     digest of the record       48  u64  offset
    32  u32     bytes of a record          56  u64  0
    36  u32     crc32c of its bytes

then the sections' raw bytes, each at a multiple of 64, zeros between them. The
header's checksum covers header and table with its own field zero; each section
has its own. So every byte of the file is covered, or checked to be zero.

Sections are opaque: a name and an array of records. The digest is BLAKE2b-64
of the record's field list, so that a checkpoint of other records is refused
rather than misread.
"""

import hashlib
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persistence.crc32c import crc32c
from persistence.errors import FormatError

HEADER_BYTES = 128
ENTRY_BYTES = 64
ALIGN = 64
SECTIONS_MAX = 1024
NAME_BYTES_MAX = 24
STATE_HASH_BYTES = 32
SUFFIX = ".checkpoint"
TEMPORARY_SUFFIX = ".checkpoint.tmp"

_MAGIC = 0x31434648
_VERSION = 1
_HEADER = struct.Struct("<IHHIIQQqQ16x32s32x")
_ENTRY = struct.Struct("<24sQIIQQQ")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the table of sections."""

    name: str
    record_digest: int
    record_bytes: int
    crc: int
    count: int
    offset: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a checkpoint says of itself, table included."""

    sequence: int
    epoch: int
    time_ns: int
    file_bytes: int
    state_hash: bytes
    entries: tuple[Entry, ...]

    def pack(self) -> bytes:
        """Header and table, checksum filled in."""
        table = b"".join(
            _ENTRY.pack(e.name.encode(), e.record_digest, e.record_bytes, e.crc, e.count, e.offset, 0)
            for e in self.entries
        )

        def packed(crc: int) -> bytes:
            return _HEADER.pack(
                _MAGIC,
                _VERSION,
                len(self.entries),
                crc,
                0,
                self.sequence,
                self.epoch,
                self.time_ns,
                self.file_bytes,
                self.state_hash,
            )

        return packed(crc32c(table, crc32c(packed(0)))) + table


def unpack_header(head: bytes, table: bytes) -> Header:
    """Header and table from their bytes.

    Raises
    ------
    FormatError
        Saying what is wrong with them.
    """
    if len(head) < HEADER_BYTES:
        raise FormatError(f"{len(head)} bytes, shorter than a header")
    magic, version, count, crc, _, sequence, epoch, time_ns, file_bytes, state_hash = _HEADER.unpack(head)
    if magic != _MAGIC:
        raise FormatError("it is not a checkpoint")
    covered = crc32c(head[12:], crc32c(b"\0\0\0\0", crc32c(head[:8])))
    if len(table) != count * ENTRY_BYTES or crc32c(table, covered) != crc:
        raise FormatError("header and table do not match their checksum")
    if version != _VERSION:
        raise FormatError(f"checkpoint format version {version} is not known to this program")
    entries = []
    for place in range(count):
        name, digest, record_bytes, section_crc, records, offset, _ = _ENTRY.unpack_from(
            table, place * ENTRY_BYTES
        )
        entries.append(Entry(name.rstrip(b"\0").decode(), digest, record_bytes, section_crc, records, offset))
    return Header(sequence, epoch, time_ns, file_bytes, state_hash, tuple(entries))


def section_count(head: bytes) -> int:
    """Number of sections that a header claims, so that the table can be read; not checked yet."""
    return int(struct.unpack_from("<H", head, 6)[0]) if len(head) >= HEADER_BYTES else 0


def record_digest(dtype: np.dtype[Any]) -> int:
    """Digest of a record's fields: names, types, offsets, size."""
    if dtype.fields is None:
        fields = dtype.str
    else:
        fields = ";".join(
            f"{name},{dtype.fields[name][0].str},{dtype.fields[name][1]}" for name in dtype.names or ()
        )
    digest = hashlib.blake2b(f"{dtype.itemsize};{fields}".encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def plan(sections: dict[str, NDArray[Any]]) -> tuple[tuple[Entry, ...], int]:
    """Where each section goes, with its checksum; and the length of the file.

    Raises
    ------
    FormatError
        A name or an array that no section can be.
    """
    if len(sections) > SECTIONS_MAX:
        raise FormatError(f"{len(sections)} sections; at most {SECTIONS_MAX}")
    entries = []
    offset = aligned(HEADER_BYTES + len(sections) * ENTRY_BYTES)
    for name, array in sections.items():
        if not name.isascii() or not 0 < len(name) <= NAME_BYTES_MAX or "\0" in name:
            raise FormatError(f"section name {name!r}; 1 to {NAME_BYTES_MAX} ASCII characters expected")
        if array.ndim != 1 or not array.flags.c_contiguous or array.dtype.hasobject:
            raise FormatError(f"section {name} is not a contiguous row of records")
        crc = crc32c(raw(array))
        entries.append(Entry(name, record_digest(array.dtype), array.dtype.itemsize, crc, len(array), offset))
        offset = aligned(offset + array.nbytes)
    return tuple(entries), offset


def raw(array: NDArray[Any]) -> memoryview:
    """The bytes of a section."""
    return array.view(np.uint8).data


def aligned(offset: int) -> int:
    """The next multiple of ALIGN."""
    return (offset + ALIGN - 1) & ~(ALIGN - 1)


def checkpoint_name(sequence: int) -> str:
    """File name of the checkpoint at this sequence."""
    return f"{sequence:020d}{SUFFIX}"
