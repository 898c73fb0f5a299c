"""The venue that recorded flow runs on: one market, a few rich accounts, fees, scrambled names.

Everything is on as in production: ledger, holds, fees (the maker's a rebate),
invariants, client ids spread over 64 bits.  Deposits are so large that no order is
refused for want of money, and their sum still fits int64.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import commands as make
from engine.types import INT64_MAX

ACCOUNTS = 8
BASE_ASSET = 1
QUOTE_ASSET = 2
MARKET = 1
MAKER_FEE_PPM = -100
TAKER_FEE_PPM = 300

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def scramble(order: NDArray[Any]) -> NDArray[np.uint64]:
    """Client ids: the file's ids under a bijection of 64 bits (SplitMix64's step and finaliser).

    Equal ids stay equal and different ones different, and neighbours end far
    apart.  The one id that would become 0, "no client id", is 2**64 - the golden
    gamma; the readers refuse ids that large.
    """
    mixed = order.astype(np.uint64) + _GOLDEN
    mixed ^= mixed >> np.uint64(30)
    mixed *= _MIX_1
    mixed ^= mixed >> np.uint64(27)
    mixed *= _MIX_2
    mixed ^= mixed >> np.uint64(31)
    return mixed


def account_of(client_id: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """The owner of an order, from its client id alone: its top three bits."""
    return (client_id >> np.uint64(61)).astype(np.uint32) + np.uint32(1)


def setup() -> NDArray[np.void]:
    """COMMAND[n] that open the venue and fund the accounts."""
    deposit = INT64_MAX // ACCOUNTS
    accounts = np.arange(1, ACCOUNTS + 1)
    return np.concatenate(
        [
            make.open_asset(asset=np.array([BASE_ASSET, QUOTE_ASSET])),
            make.open_market(
                base_asset=BASE_ASSET,
                quote_asset=QUOTE_ASSET,
                tick_atoms=1,
                lot_atoms=1,
                maker_fee_ppm=MAKER_FEE_PPM,
                taker_fee_ppm=TAKER_FEE_PPM,
            ),
            make.open_account(account=accounts),
            make.deposit(account=accounts, asset=BASE_ASSET, quantity=deposit, transaction_id=accounts),
            make.deposit(
                account=accounts, asset=QUOTE_ASSET, quantity=deposit, transaction_id=ACCOUNTS + accounts
            ),
        ]
    )
