"""Reads recorded order flow of any format into a `Flow`, and the truth that goes with it.

========================  =============================================================
``*_input.csv.zst``       n, t_ns, phase, op, id, side, px, qty
``*.parquet``             type, side, ioc, qty, order_id, px; the row number is its name
``*.bin.zst``             a header of 64 bytes, then records of 16 bytes::

    header  0 char[8] magic   8 u32 version   12 u32 n_prefill   16 u32 n_cmd   20 u32 max_id
           24 i32 lowest price   28 i32 highest price   32 u64 seed   40 u32 target resting
    record  0 u8 type (0 limit, 1 cancel, 2 modify, 3 immediate-or-cancel)   1 u8 side   2 u16 0
            4 u32 id   8 i32 price   12 u32 quantity

``edge_cases.json``       short sequences in the columns of the parquet, with their reports
``*_trades.csv.zst``      n, buy_id, sell_id, px, qty, aggressor
``*_check_*.csv.zst``     n, one more column, then levels: askpx1, askq1, bidpx1, bidq1, …
                          or ask_px_00, ask_sz_00, ask_ct_00, bid_px_00, bid_sz_00, …
========================  =============================================================
"""

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import zstandard
from numpy.typing import NDArray

from api.flow.errors import UnusableInput
from api.flow.flow import Column, Flow, Op
from engine.types import Side

EXPANDED_BYTES_MAX = 4 << 30
"""A compressed file that grows beyond this is refused."""
_READ_BYTES = 1 << 20
ORDER_MAX = (1 << 63) - 1

_INPUT_COLUMNS = ("n", "phase", "op", "id", "side", "px", "qty")
_TRADE_COLUMNS = ("n", "buy_id", "sell_id", "px", "qty", "aggressor")
_MESSAGE_COLUMNS = ("type", "side", "ioc", "qty", "order_id", "px")
_CSV_OPS = {"N": Op.NEW, "I": Op.IOC, "C": Op.CANCEL, "R": Op.REDUCE, "M": Op.MODIFY}
_AUCTION_PHASES = ("OA", "CA")
_MIXED_OPS = np.array([Op.NEW, Op.CANCEL, Op.REPLACE, Op.IOC], np.uint8)
_MESSAGE_OPS = np.array([[Op.NEW, Op.IOC], [Op.CANCEL] * 2, [Op.REPLACE] * 2], np.uint8)
_MIXED_HEADER_BYTES = 64
_MIXED_HEADER = np.dtype(
    [
        ("magic", "S8"),
        ("version", "<u4"),
        ("n_prefill", "<u4"),
        ("n_cmd", "<u4"),
        ("max_id", "<u4"),
        ("price_min", "<i4"),
        ("price_max", "<i4"),
        ("seed", "<u8"),
        ("target_resting", "<u4"),
    ]
)
_MIXED_RECORD = np.dtype(
    [("type", "u1"), ("side", "u1"), ("zero", "<u2"), ("id", "<u4"), ("price", "<i4"), ("quantity", "<u4")]
)


@dataclass(frozen=True, slots=True)
class Trades:
    """Fills in order, in the columns of a trades file; `buy_aggressor` is a boolean."""

    number: Column
    buy: Column
    sell: Column
    price: Column
    quantity: Column
    buy_aggressor: Column

    def __len__(self) -> int:
        return len(self.number)

    def columns(self) -> tuple[Column, ...]:
        return self.number, self.buy, self.sell, self.price, self.quantity, self.buy_aggressor

    def first(self, rows: int) -> "Trades":
        return Trades(*(column[:rows] for column in self.columns()))

    def describe(self, row: int) -> str:
        """One fill, for people."""
        return (
            f"n {self.number[row]}  buy {self.buy[row]}  sell {self.sell[row]}  price {self.price[row]}  "
            f"quantity {self.quantity[row]}  aggressor {'B' if self.buy_aggressor[row] else 'S'}"
        )


@dataclass(frozen=True, slots=True)
class BookStates:
    """Books that must hold after given inputs.

    Parameters
    ----------
    name : str
        For messages.
    number : int64[s]
        The input after which a state holds.
    bids, asks : int64[s, levels, 3]
        Price, quantity, order count; an empty level is all zeros.
    counts : bool
        Whether the file gives order counts.
    """

    name: str
    number: Column
    bids: Column
    asks: Column
    counts: bool

    def __len__(self) -> int:
        return len(self.number)


@dataclass(frozen=True, slots=True)
class EdgeCase:
    """A short sequence with the report lines that a correct book gives."""

    flow: Flow
    reports: Sequence[str]


def read_flow(path: Path) -> Flow:
    """Read order flow, its format by its name.

    Raises
    ------
    UnusableInput
        The file is missing, of no known format, damaged, or needs a call auction.
    """
    if path.name.endswith(".csv.zst"):
        return _read_csv_flow(path)
    if path.name.endswith(".bin.zst"):
        return _read_mixed(path)
    if path.suffix == ".parquet":
        return _read_messages(path)
    raise UnusableInput(str(path), "not a format of order flow (.csv.zst, .bin.zst, .parquet)")


def read_trades(path: Path) -> Trades:
    """Read what the exchange traded.

    Raises
    ------
    UnusableInput
    """
    table = _read_csv(path, _TRADE_COLUMNS)
    n, buy, sell, price, quantity = (_integers(path, table, name) for name in _TRADE_COLUMNS[:-1])
    return Trades(n, buy, sell, price, quantity, _text(table, "aggressor") == "B")


def read_book_states(path: Path) -> BookStates:
    """Read the books that must hold, with or without order counts.

    Raises
    ------
    UnusableInput
    """
    table = _read_csv(path, ("n",))
    names = set(table.column_names)
    counts = "ask_ct_00" in names
    if counts:
        levels = sum(bool(re.fullmatch(r"ask_px_\d\d", name)) for name in names)
        wanted = [(f"{{}}_px_{i:02}", f"{{}}_sz_{i:02}", f"{{}}_ct_{i:02}") for i in range(levels)]
    else:
        levels = sum(bool(re.fullmatch(r"askpx\d+", name)) for name in names)
        wanted = [(f"{{}}px{i + 1}", f"{{}}q{i + 1}", "") for i in range(levels)]
    if not levels:
        raise UnusableInput(str(path), "no column of levels (askpx1 … or ask_px_00 …)")
    number = _integers(path, table, "n")
    books: dict[str, Column] = {}
    for side in ("bid", "ask"):
        book = books[side] = np.zeros((len(number), levels, 3), np.int64)
        for level, fields in enumerate(wanted):
            for part, field in enumerate(filter(None, fields)):
                book[:, level, part] = _integers(path, table, field.format(side))
        book[book[:, :, 1] == 0] = 0
    return BookStates(path.name, number, books["bid"], books["ask"], counts)


def read_edge_cases(path: Path) -> list[EdgeCase]:
    """Read `edge_cases.json`.

    Raises
    ------
    UnusableInput
    """
    try:
        cases = json.loads(path.read_bytes())["cases"]
        return [
            EdgeCase(_message_flow(name, list(np.array(case["messages"], np.int64).T)), case["reports"])
            for name, case in cases.items()
        ]
    except (OSError, ValueError, LookupError, TypeError) as problem:
        raise UnusableInput(str(path), f"not a file of edge cases: {problem}") from problem


def _expand(path: Path) -> bytes:
    """The one frame of a .zst file, whole: a reader that streams would take a torn one for short."""
    content = bytearray()
    frame = zstandard.ZstdDecompressor().decompressobj()
    try:
        with path.open("rb") as file:
            while not frame.eof and (part := file.read(_READ_BYTES)):
                content += frame.decompress(part)
                if len(content) > EXPANDED_BYTES_MAX:
                    raise UnusableInput(str(path), f"expands beyond {EXPANDED_BYTES_MAX} bytes")
            if not frame.eof or frame.unused_data or file.read(1):
                raise UnusableInput(str(path), "is not one whole zstd frame; it may be cut off")
    except (OSError, zstandard.ZstdError) as problem:
        raise UnusableInput(str(path), f"cannot be read: {problem}") from problem
    return bytes(content)


def _read_csv(path: Path, columns: Sequence[str]) -> Any:
    try:
        table = pyarrow.csv.read_csv(io.BytesIO(_expand(path)))
    except pyarrow.ArrowException as problem:
        raise UnusableInput(str(path), f"not a CSV table: {problem}") from problem
    _require_columns(path, table, columns)
    return table


def _require_columns(path: Path, table: Any, columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise UnusableInput(str(path), f"no column {', '.join(missing)}; there is {table.column_names}")


def _integers(path: Path, table: Any, name: str) -> NDArray[np.int64]:
    if name not in table.column_names or not pyarrow.types.is_integer(table[name].type):
        raise UnusableInput(str(path), f"column {name} is missing or not of integers")
    if table[name].null_count:
        raise UnusableInput(str(path), f"column {name} has empty cells")
    values: NDArray[np.int64] = table[name].to_numpy().astype(np.int64)
    return values


def _text(table: Any, name: str) -> NDArray[np.str_]:
    return np.asarray(table[name].to_numpy(zero_copy_only=False), dtype=str)


def _read_csv_flow(path: Path) -> Flow:
    table = _read_csv(path, _INPUT_COLUMNS)
    number = _integers(path, table, "n")
    ops, phases = _text(table, "op"), _text(table, "phase")
    auction = np.isin(phases, _AUCTION_PHASES) | (ops == "U")
    if auction.any():
        row = int(np.flatnonzero(auction)[0])
        raise UnusableInput(
            str(path), f"n {number[row]} belongs to a call auction (phase {phases[row]}), not built yet"
        )
    known = np.isin(ops, list(_CSV_OPS))
    if not known.all():
        row = int(np.flatnonzero(~known)[0])
        raise UnusableInput(str(path), f"n {number[row]}: unknown op {str(ops[row])!r}")
    op = np.zeros(len(ops), np.uint8)
    for letter, meaning in _CSV_OPS.items():
        op[ops == letter] = meaning
    side = np.where(_text(table, "side") == "S", Side.SELL, Side.BUY).astype(np.uint8)
    columns = (_integers(path, table, name) for name in ("id", "px", "qty"))
    order, price, quantity = columns
    return _checked(path, Flow(path.name, number, op, order.view(np.uint64), side, price, quantity))


def _read_messages(path: Path) -> Flow:
    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as problem:
        raise UnusableInput(str(path), f"not a parquet table: {problem}") from problem
    _require_columns(path, table, _MESSAGE_COLUMNS)
    columns = [_integers(path, table, name) for name in _MESSAGE_COLUMNS]
    try:
        return _checked(path, _message_flow(path.name, columns))
    except ValueError as problem:
        raise UnusableInput(str(path), str(problem)) from problem


def _message_flow(name: str, columns: Sequence[Column]) -> Flow:
    """Flow of the columns type, side, ioc, qty, order_id, px."""
    kind, side, ioc, quantity, order, price = columns
    if not (np.isin(kind, (0, 1, 2)) & np.isin(side, (0, 1)) & np.isin(ioc, (0, 1))).all():
        raise ValueError("a type, side or ioc out of range")
    return Flow(
        name=name,
        number=np.arange(len(kind)),
        op=_MESSAGE_OPS[kind, ioc],
        order=order.astype(np.uint64),
        side=side.astype(np.uint8),
        price=price,
        quantity=quantity,
    )


def _read_mixed(path: Path) -> Flow:
    content = _expand(path)
    if len(content) < _MIXED_HEADER_BYTES:
        raise UnusableInput(str(path), f"{len(content)} bytes are less than a header")
    header = np.frombuffer(content, _MIXED_HEADER, count=1)[0]
    prefill, rows = int(header["n_prefill"]), int(header["n_prefill"]) + int(header["n_cmd"])
    if len(content) != _MIXED_HEADER_BYTES + rows * _MIXED_RECORD.itemsize:
        raise UnusableInput(str(path), f"{len(content)} bytes do not hold the {rows} records of its header")
    records = np.frombuffer(content, _MIXED_RECORD, offset=_MIXED_HEADER_BYTES)
    if (records["type"] > 3).any() or (records["side"] > 1).any():
        raise UnusableInput(str(path), "a type or side out of range")
    flow = Flow(
        name=path.name,
        number=np.arange(rows),
        op=_MIXED_OPS[records["type"]],
        order=records["id"].astype(np.uint64),
        side=records["side"].copy(),
        price=records["price"].astype(np.int64),
        quantity=records["quantity"].astype(np.int64),
        prefill=prefill,
    )
    return _checked(path, flow)


def _checked(path: Path, flow: Flow) -> Flow:
    """Refuse what the mapping from events back to rows could not carry."""
    if (flow.order > ORDER_MAX).any():
        raise UnusableInput(str(path), "an order id is negative or above int64")
    if (np.diff(flow.number) <= 0).any():
        raise UnusableInput(str(path), "rows are not in increasing order of n")
    return flow
