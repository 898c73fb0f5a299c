"""Rows for COPY … (FORMAT binary), made by numpy without an object per value.

A row of fixed-width columns is a fixed-width record, so a whole batch is one
structured array whose bytes are the wire format; big endian throughout::

    0  i16  number of columns
    2  i32  bytes of the first value     6  the first value
       i32  bytes of the second value       the second value …

    int2 2 bytes · int4 4 · int8 8 · bool 1
    timestamptz  int8, microseconds since 2000-01-01
    numeric      i16 digits (NUMERIC_DIGITS), i16 weight, u16 sign (0x4000: negative), i16 scale (0),
                 then digits to base 10,000; leading zeros are allowed

Columns that may be NULL or are text come last, and are joined to each row's
bytes one by one. The stream opens with a signature of 19 bytes and ends with −1.

COPY goes straight into the table, not into a temporary one and from there by
INSERT … ON CONFLICT: each row is written once, and a duplicate key is an error
rather than an overwritten row. Rows and cursor commit together, so there are no
honest duplicates.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persistence.postgres.pool import Connection

NUMERIC_DIGITS = 6
"""10^24: the sum of two int64 and some."""
_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_EPOCH_2000_US = 946_684_800_000_000
_CHUNK_ROWS = 16_384

_WIDTHS = {"int2": ">i2", "int4": ">i4", "int8": ">i8", "bool": "u1", "timestamptz": ">i8"}


class Columns:
    """The columns of a COPY: fixed ones first, nullable ones at the end.

    Parameters
    ----------
    table : str
    fixed : dict
        Column name → int2, int4, int8, bool, timestamptz or numeric.
    tail : sequence of str
        Names of the nullable columns.
    """

    def __init__(self, table: str, fixed: dict[str, str], tail: Sequence[str] = ()) -> None:
        self.table = table
        self.names = [*fixed, *tail]
        self._kinds = fixed
        self._tail = len(tail)
        fields: list[tuple[str, str]] = [("columns", ">i2")]
        for name, kind in fixed.items():
            fields.append((f"{name} bytes", ">i4"))
            if kind == "numeric":
                fields += [(f"{name} head {i}", ">u2") for i in range(4)]
                fields += [(f"{name} digit {i}", ">u2") for i in range(NUMERIC_DIGITS)]
            else:
                fields.append((name, _WIDTHS[kind]))
        self._record = np.dtype(fields)

    def rows(self, values: dict[str, Any], tails: Sequence[bytes] | None = None) -> list[bytes]:
        """Chunks of wire bytes: one array in `values` a fixed column, each row followed by its tail."""
        count = len(next(iter(values.values())))
        records = np.zeros(count, self._record)
        records["columns"] = len(self.names)
        for name, kind in self._kinds.items():
            if kind == "numeric":
                self._put_numeric(records, name, values[name])
                continue
            records[f"{name} bytes"] = self._record[name].itemsize
            if kind == "timestamptz":
                records[name] = values[name] // 1000 - _EPOCH_2000_US
            else:
                records[name] = values[name]
        chunks: list[bytes] = []
        width = self._record.itemsize
        for start in range(0, count, _CHUNK_ROWS):
            raw = records[start : start + _CHUNK_ROWS].tobytes()
            if self._tail:
                if tails is None:
                    raise ValueError(f"rows of {self.table} need their nullable columns")
                cut = tails[start : start + _CHUNK_ROWS]
                raw = b"".join(
                    [part for i, tail in enumerate(cut) for part in (raw[i * width : (i + 1) * width], tail)]
                )
            chunks.append(raw)
        return chunks

    def _put_numeric(self, records: NDArray[np.void], name: str, values: NDArray[Any]) -> None:
        negative = values < 0
        rest = np.where(negative, -values, values)
        records[f"{name} bytes"] = 8 + 2 * NUMERIC_DIGITS
        records[f"{name} head 0"] = NUMERIC_DIGITS
        records[f"{name} head 1"] = NUMERIC_DIGITS - 1
        records[f"{name} head 2"] = np.where(negative, 0x4000, 0)
        for place in range(NUMERIC_DIGITS - 1, -1, -1):
            records[f"{name} digit {place}"] = (rest % 10_000).astype(np.int64)
            rest = rest // 10_000
        if np.any(rest != 0):
            raise OverflowError(f"{self.table}.{name}: a value of more than {4 * NUMERIC_DIGITS} digits")

    async def copy(self, connection: Connection, chunks: list[bytes]) -> None:
        """Send the rows."""
        await connection.copy_to_table(
            self.table, columns=self.names, source=_stream(chunks), format="binary"
        )


async def _stream(chunks: list[bytes]) -> AsyncIterator[bytes]:
    yield _SIGNATURE
    for chunk in chunks:
        yield chunk
    yield _END


def text_value(value: bytes | None) -> bytes:
    """A nullable text column in a tail.

    PostgreSQL holds only valid UTF-8 without NUL. What is not is replaced:
    nothing that a client wrote may stop the projector.
    """
    if value is None:
        return _NULL
    if not value.isascii() or 0 in value:
        value = value.decode(errors="replace").replace("\0", "\ufffd").encode()
    return len(value).to_bytes(4, "big") + value


def int8_value(value: int | None) -> bytes:
    """A nullable bigint column in a tail."""
    return _NULL if value is None else b"\0\0\0\x08" + value.to_bytes(8, "big", signed=True)
