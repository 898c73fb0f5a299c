"""A segment of the log: its name, its header, how it comes to be.

`log/00000000000000000001.log` is named by its first sequence; where that name
is taken (a HALT gave sequences back, see below) the epoch is put behind it. The
file has its full size from the start, filled with zeros, so that a sync of a
frame changes no metadata. Header, 4,096 bytes, little endian::

     0  u32  magic "HFLS"      16  u64  epoch                   48  u64  previous segment's first sequence
     4  u16  version (1)       24  u64  first_sequence          56  u64  bytes of the segment
     6  u16  0                 32  i64  created, wall ns        64  zeros
     8  u32  4096              40  u64  crc of the last frame
    12  u32  crc32c                     of the previous segment

Order of segments is (epoch, first_sequence) of the headers: after HALT(N) the
next epoch begins at N again, possibly below the first sequence of a segment
that the HALT voided.

A segment appears under its name only when the one before is synced to its SEAL
and its own header is synced: zeros → sync (ahead of time) → header → sync →
rename → sync of the directory. So a segment with a successor is always whole.
"""

import struct
from dataclasses import dataclass

from persistence.crc32c import crc32c
from persistence.errors import CorruptionError, FormatError
from persistence.storage import AnyDisk, AnyFile, Path

SEGMENT_HEADER_BYTES = 4096
SEGMENT_BYTES_MIN = 2 * SEGMENT_HEADER_BYTES
SEGMENT_BYTES_MAX = 1 << 30
SUFFIX = ".log"
TEMPORARY_SUFFIX = ".tmp"
"""Of a segment without its name yet; what a dead process left so was never acknowledged."""

REMEDY = "restore the file from a backup, or run `holdfast verify` and `holdfast repair`"

_HEADER = struct.Struct("<IHHIIQQqQQQ")
_MAGIC = 0x534C4648
_VERSION = 1
_ZERO_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What a segment says of itself."""

    epoch: int
    first_sequence: int
    created_ns: int
    previous_crc: int
    previous_first_sequence: int
    segment_bytes: int
    crc: int = 0

    def pack(self) -> bytes:
        """The 4,096 bytes, checksum filled in."""

        def packed(crc: int) -> bytes:
            return _HEADER.pack(
                _MAGIC,
                _VERSION,
                0,
                SEGMENT_HEADER_BYTES,
                crc,
                self.epoch,
                self.first_sequence,
                self.created_ns,
                self.previous_crc,
                self.previous_first_sequence,
                self.segment_bytes,
            ).ljust(SEGMENT_HEADER_BYTES, b"\0")

        return packed(crc32c(packed(0)))


@dataclass(frozen=True, slots=True)
class LogEnd:
    """Where the log ends, as `scan` found it: what the writer continues.

    Parameters
    ----------
    path, header
        The last segment.
    offset : int
        Behind its last whole frame.
    last_sequence : int
        Last command that is not voided; 0 if there is none.
    last_crc : int
        Of the last frame, or of the segment's header.
    epoch : int
        Highest seen, in frames or headers.
    time_ns : int
        Logged time of the last frame of commands; 0 if none was read.
    sealed : bool
        The segment ends with its SEAL: the next frame needs a new one.
    torn_bytes : int
        What a crash left behind `offset`.
    """

    path: str
    header: SegmentHeader
    offset: int
    last_sequence: int
    last_crc: int
    epoch: int
    time_ns: int
    sealed: bool
    torn_bytes: int

    @property
    def segment_first_sequence(self) -> int:
        """First sequence of the last segment."""
        return self.header.first_sequence


def segment_name(first_sequence: int) -> str:
    """File name of the segment that begins with this sequence."""
    return f"{first_sequence:020d}{SUFFIX}"


def read_header(path: str, content: bytes) -> SegmentHeader:
    """Header of a segment from its first bytes.

    Raises
    ------
    CorruptionError
        It is not whole. A header is synced before its file gets its name, so a crash does not explain it.
    """
    block = content[:SEGMENT_HEADER_BYTES]
    if len(block) < SEGMENT_HEADER_BYTES:
        raise CorruptionError(path, 0, 0, f"segment of {len(content)} bytes, shorter than its header", REMEDY)
    (
        magic,
        version,
        spare,
        size,
        crc,
        epoch,
        first,
        created_ns,
        previous_crc,
        previous_first,
        segment_bytes,
    ) = _HEADER.unpack_from(block)
    if magic != _MAGIC or crc32c(block[16:], crc32c(b"\0\0\0\0", crc32c(block[:12]))) != crc:
        raise CorruptionError(path, 0, 0, "the segment's header does not match its checksum", REMEDY)
    if version != _VERSION or spare or size != SEGMENT_HEADER_BYTES:
        raise CorruptionError(
            path, 0, 0, f"segment format version {version} is not known", "use the program that wrote it"
        )
    return SegmentHeader(epoch, first, created_ns, previous_crc, previous_first, segment_bytes, crc)


def check_segment_bytes(segment_bytes: int) -> None:
    """Refuse a size that no segment can have."""
    if not SEGMENT_BYTES_MIN <= segment_bytes <= SEGMENT_BYTES_MAX or segment_bytes % SEGMENT_HEADER_BYTES:
        raise FormatError(
            f"segments of {segment_bytes} bytes; a multiple of {SEGMENT_HEADER_BYTES} "
            f"from {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX} expected"
        )


def zero_fill(file: AnyFile, segment_bytes: int) -> None:
    """Write zeros over the whole file and sync them, a part at a time.

    A sync per part keeps the burst small that the log's own syncs have to share
    the disk with.
    """
    zeros = bytes(min(_ZERO_BYTES, segment_bytes))
    for offset in range(0, segment_bytes, len(zeros)):
        file.write_at(offset, zeros[: segment_bytes - offset])
        if offset // len(zeros) % 8 == 7:
            file.sync()
    file.sync()


def segment_files(disk: AnyDisk, directory: Path) -> list[str]:
    """Names of the segments in a directory."""
    return [name for name in disk.list(directory) if name.endswith(SUFFIX)]
