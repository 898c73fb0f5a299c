"""Fees and holds: exact sums, rounded up once for an order however many fills it has.

An order carries `residue` in [0, PPM): what its fees so far were rounded up by,
in millionths of an atom.  The next fee starts from there.
"""

from engine.reference.records import Market, Order
from engine.types import PPM


def ceil_div(numerator: int, denominator: int) -> int:
    """Quotient rounded towards plus infinity."""
    return -(-numerator // denominator)


def fee_of(notional: int, ppm: int, residue: int) -> tuple[int, int]:
    """Fee of a fill and the residue after it.

    >>> fee_of(400, 1_500, 0)
    (1, 400000)
    """
    exact = notional * ppm - residue
    fee = ceil_div(exact, PPM)
    return fee, fee * PPM - exact


def hold_of(order: Order, market: Market, price: int, leaves: int) -> int:
    """What `order` must hold for `leaves` at `price`: base of a SELL, quote of a BUY."""
    if not order.is_buy:
        return market.base_amount(leaves)
    if price == 0:
        return 0
    notional = market.notional(price, leaves)
    rate = max(order.maker_fee_ppm, order.taker_fee_ppm, 0)
    return notional + ceil_div(notional * rate - order.fee_residue, PPM)


def affordable(available: int, price: int, ppm: int, residue: int, market: Market) -> int:
    """Largest quantity whose notional + fee is within `available`.

    N + ceil((N × ppm − residue) / PPM) ≤ available holds exactly when
    N × (PPM + ppm) ≤ available × PPM + residue.
    """
    notional = (available * PPM + residue) // (PPM + ppm)
    return notional // market.notional(price, 1)
