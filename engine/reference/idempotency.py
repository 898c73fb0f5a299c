"""Keys already seen: (account, key) → body digest and sequence, for 24 h of logged time."""

from collections import Counter, deque

from engine.reference.records import IdempotencyEntry
from engine.types import IDEMPOTENCY_QUOTA, IDEMPOTENCY_TOTAL, IDEMPOTENCY_WINDOW_NS


class Idempotency:
    """Entries in order of sequence, hence of time: the oldest leave first."""

    def __init__(self) -> None:
        self.entries: deque[IdempotencyEntry] = deque()
        self._by_key: dict[tuple[int, int], IdempotencyEntry] = {}
        self._held: Counter[int] = Counter()

    def find(self, account: int, key: int) -> IdempotencyEntry | None:
        return self._by_key.get((account, key))

    def is_full(self, account: int) -> bool:
        return self._held[account] >= IDEMPOTENCY_QUOTA or len(self.entries) >= IDEMPOTENCY_TOTAL

    def keep(self, entry: IdempotencyEntry) -> None:
        self.entries.append(entry)
        self._by_key[entry.account, entry.key] = entry
        self._held[entry.account] += 1

    def drop_old(self, time_ns: int) -> None:
        """Forget what is 24 h old or older at `time_ns`."""
        while self.entries and time_ns - self.entries[0].time_ns >= IDEMPOTENCY_WINDOW_NS:
            entry = self.entries.popleft()
            del self._by_key[entry.account, entry.key]
            self._held[entry.account] -= 1
