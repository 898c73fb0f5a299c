"""Everything that `apply` can see: the state of the venue and nothing else."""

from dataclasses import dataclass, field

from engine.reference.book import Book
from engine.reference.idempotency import Idempotency
from engine.reference.journal import Journal
from engine.reference.ledger import Ledger
from engine.reference.live_orders import LiveOrders
from engine.reference.records import Account, ApiKey, Market, Transaction
from engine.types import FEE_ACCOUNT, VenueState


@dataclass(slots=True)
class Venue:
    """An empty venue is OPEN, epoch 0, with the fee account only."""

    journal: Journal = field(default_factory=Journal)
    sequence: int = 0
    time_ns: int = 0
    epoch: int = 0
    accepted_no: int = 0
    events: int = 0
    trades: int = 0
    state: int = VenueState.OPEN
    accounts: dict[int, Account] = field(default_factory=lambda: {FEE_ACCOUNT: Account(FEE_ACCOUNT)})
    markets: dict[int, Market] = field(default_factory=dict)
    books: dict[int, Book] = field(default_factory=dict)
    orders: LiveOrders = field(default_factory=LiveOrders)
    transactions: dict[int, Transaction] = field(default_factory=dict)
    keys: dict[tuple[int, int, int, int], ApiKey] = field(default_factory=dict)
    idempotency: Idempotency = field(default_factory=Idempotency)
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.journal)

    def start_journal(self) -> Journal:
        """Forget what the last command touched."""
        journal = self.journal
        journal.balances.clear()
        journal.levels.clear()
        journal.orders.clear()
        journal.trades.clear()
        journal.deposited.clear()
        return journal

    def open_market(self, market: Market) -> None:
        self.markets[market.market] = market
        self.books[market.market] = Book(market.market, self.journal)

    def is_customer(self, account: int) -> bool:
        """Known, and not the venue's own fee account."""
        return account != FEE_ACCOUNT and account in self.accounts
