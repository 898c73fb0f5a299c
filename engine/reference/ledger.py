"""Double-entry accounts: `available` and `held` per account and asset.

Every movement is a posting on a balance, noted in the journal with the balance
before it.  `order_holds` is the other side of I4: it follows `Order.hold`, never
the postings.
"""

from collections import defaultdict
from dataclasses import dataclass

from engine.reference.journal import Journal, Trade
from engine.reference.records import Asset, Market, Order
from engine.types import FEE_ACCOUNT


@dataclass(slots=True)
class Balance:
    available: int = 0
    held: int = 0


class Ledger:
    """Balances of all accounts; the fee account is one of them."""

    def __init__(self, journal: Journal) -> None:
        self.assets: dict[int, Asset] = {}
        self.balances: defaultdict[tuple[int, int], Balance] = defaultdict(Balance)
        self.order_holds: defaultdict[tuple[int, int], int] = defaultdict(int)
        self._journal = journal

    def available(self, account: int, asset: int) -> int:
        balance = self.balances.get((account, asset))
        return balance.available if balance else 0

    def deposit(self, account: int, asset: int, amount: int) -> None:
        """Money enters the venue; a withdrawal is a deposit of a negative amount."""
        self.assets[asset].net_deposits += amount
        self._touch(account, asset).available += amount
        self._journal.deposited[asset] = amount

    def set_hold(self, order: Order, market: Market, hold: int) -> None:
        """Move what `order` holds from what it was to `hold`, against `available`."""
        asset = held_asset(order, market)
        balance = self._touch(order.account, asset)
        balance.available -= hold - order.hold
        balance.held += hold - order.hold
        self._carry(order, asset, hold)

    def settle(
        self,
        market: Market,
        buyer: Order,
        seller: Order,
        quantity: int,
        notional: int,
        fees: tuple[int, int],
        holds: tuple[int, int],
    ) -> None:
        """Post one trade, and set both orders' holds to what is left to cover.

        `fees` and `holds` (after the trade) are the buyer's, then the seller's.
        """
        base_amount = market.base_amount(quantity)
        buyer_fee, seller_fee = fees
        buyer_hold, seller_hold = holds
        paid = notional + buyer_fee
        received = notional - seller_fee

        buyer_quote = self._touch(buyer.account, market.quote_asset)
        if buyer.holds_nothing:
            buyer_quote.available -= paid
        else:
            buyer_quote.held -= buyer.hold - buyer_hold
            buyer_quote.available += buyer.hold - buyer_hold - paid
        self._touch(buyer.account, market.base_asset).available += base_amount
        self._touch(seller.account, market.base_asset).held -= base_amount
        self._touch(seller.account, market.quote_asset).available += received
        self._touch(FEE_ACCOUNT, market.quote_asset).available += buyer_fee + seller_fee

        self._carry(buyer, market.quote_asset, buyer_hold)
        self._carry(seller, market.base_asset, seller_hold)
        self._journal.trades.append(Trade(paid, received, buyer_fee, seller_fee))

    def restore_hold(self, order: Order, market: Market) -> None:
        """Count the hold of an order that was loaded."""
        self.order_holds[order.account, held_asset(order, market)] += order.hold

    def _carry(self, order: Order, asset: int, hold: int) -> None:
        self.order_holds[order.account, asset] += hold - order.hold
        order.hold = hold

    def _touch(self, account: int, asset: int) -> Balance:
        balance = self.balances[account, asset]
        self._journal.balances.setdefault((account, asset), (balance.available, balance.held))
        return balance


def held_asset(order: Order, market: Market) -> int:
    """A BUY holds quote, a SELL holds base."""
    return market.quote_asset if order.is_buy else market.base_asset
