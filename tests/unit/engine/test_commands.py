"""The builders lay fields where the records say."""

import numpy as np
import pytest

from engine import commands as make
from engine.types import COMMAND, NO_SLOT, CommandType


def test_scalars_give_one_record() -> None:
    record = make.new(
        account=3, market=2, side=1, price=7, quantity=9, client_id=(5 << 64) | 6, key=8, body=4
    )
    assert record.dtype == COMMAND and record.shape == (1,)
    assert (record["type"], record["version"]) == (CommandType.NEW, 1)
    expected = {"account": 3, "market": 2, "side": 1, "price": 7, "quantity": 9, "body": 4}
    expected |= {"client_id_lo": 6, "client_id_hi": 5, "key_lo": 8, "key_hi": 0}
    assert {name: record[name][0] for name in expected} == expected


def test_arrays_are_spread_with_scalars() -> None:
    records = make.deposit(account=1, asset=2, quantity=np.arange(3), transaction_id=[1, 1 << 64, 2])
    assert records["quantity"].tolist() == [0, 1, 2]
    assert records["account"].tolist() == [1, 1, 1]
    assert records["client_id_hi"].tolist() == [0, 1, 0]


def test_a_name_without_slot_says_so() -> None:
    assert make.cancel(account=1, order_id=5)["slot"][0] == NO_SLOT


def test_the_hash_of_a_key_is_four_little_endian_words() -> None:
    record = make.add_key(key_hash=bytes(range(32)), scopes=1)
    words = record[["client_id_lo", "client_id_hi", "key_lo", "key_hi"]].tolist()[0]
    assert b"".join(word.to_bytes(8, "little") for word in words) == bytes(range(32))


def test_what_no_field_can_hold_is_refused() -> None:
    with pytest.raises(OverflowError, match="128 bits"):
        make.cancel(account=1, client_id=1 << 128)
    with pytest.raises(ValueError, match="32 bytes"):
        make.revoke_key(key_hash=b"short")
    with pytest.raises(ValueError, match="shape"):
        make.tick(time_ns=[1, 2], sequence=[1, 2, 3])
