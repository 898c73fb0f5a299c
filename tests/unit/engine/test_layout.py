"""types.py and types.pxd say the same: names, values, fields, offsets, sizes."""

import re
from enum import IntEnum
from pathlib import Path

import numpy as np
import pytest

from engine import types

PXD = Path(types.__file__).with_suffix(".pxd").read_text()
SIZES = {
    "uint8_t": "u1",
    "uint16_t": "u2",
    "uint32_t": "u4",
    "uint64_t": "u8",
    "int32_t": "i4",
    "int64_t": "i8",
}
STRUCTS = {
    "Command": types.COMMAND,
    "Event": types.EVENT,
    "VenueRecord": types.VENUE,
    "AssetRecord": types.ASSET,
    "MarketRecord": types.MARKET,
    "AccountRecord": types.ACCOUNT,
    "BalanceRecord": types.BALANCE,
    "OrderRecord": types.ORDER,
    "TransactionRecord": types.TRANSACTION,
    "KeyRecord": types.KEY,
    "IdempotencyRecord": types.IDEMPOTENCY,
    "LevelRecord": types.LEVEL,
}
ENUMS = {
    "CommandType": ("COMMAND", types.CommandType),
    "EventType": ("EVENT", types.EventType),
    "Side": ("SIDE", types.Side),
    "OrderType": ("ORDER_TYPE", types.OrderType),
    "TimeInForce": ("TIME_IN_FORCE", types.TimeInForce),
    "CommandFlag": ("COMMAND_FLAG", types.CommandFlag),
    "EventFlag": ("EVENT_FLAG", types.EventFlag),
    "VenueState": ("VENUE_STATE", types.VenueState),
    "MarketState": ("MARKET_STATE", types.MarketState),
    "AccountState": ("ACCOUNT_STATE", types.AccountState),
    "Reason": ("REASON", types.Reason),
}


def block(head: str) -> list[str]:
    """The indented lines that follow a head in types.pxd."""
    return re.search(rf"^cdef {head}:\n((?:    .*\n)+)", PXD, re.MULTILINE)[1].split("\n")[:-1]


@pytest.mark.parametrize("name", STRUCTS)
def test_a_struct_has_the_fields_of_its_dtype_at_the_same_offsets(name: str) -> None:
    fields = [line.split() for line in block(f"struct {name}")]
    as_compiled = np.dtype([(field, SIZES[kind]) for kind, field in fields], align=True)
    assert as_compiled.fields == STRUCTS[name].fields
    assert as_compiled.itemsize == STRUCTS[name].itemsize


def test_every_section_of_the_state_has_a_struct() -> None:
    dtypes = list(STRUCTS.values())
    assert all(dtype in dtypes and dtype.itemsize % 32 == 0 for dtype in types.SECTIONS.values())


@pytest.mark.parametrize("name", ENUMS)
def test_an_enumeration_has_the_same_members(name: str) -> None:
    prefix, enum = ENUMS[name]
    in_c = {line.split(" = ")[0].strip(): int(line.split(" = ")[1]) for line in block(f"enum {name}")}
    members: list[IntEnum] = list(enum)
    assert in_c == {f"{prefix}_{member.name}": member.value for member in members}


def test_the_constants_are_the_same() -> None:
    for line in block("enum"):
        name, value = line.strip().split(" = ")
        assert getattr(types, name) == int(value, 0), name
