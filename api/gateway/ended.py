"""Keys of orders that ended in the queue: the one part of idempotency that the engine cannot know.

An order that was cancelled or expired while it waited never reached the engine.
Sent again under its key when the engine is back it would be a new order there.
So each gateway follows these keys and looks a live order's key up first.

::

    venue (back) to OPEN ──▶ not current: live orders are held ──▶ rows read ──▶ released, in order
                                                     └── no answer in HOLD_S ──────▶ released
    mode row not LIVE, or another accepted_no ──▶ rows read, every REFRESH_S
    cancelled through this gateway            ──▶ at once

What is left (see the README): an order that ends through another gateway, and
is sent again through this one, within REFRESH_S; and a database that is away
when the venue opens.
"""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from api.gateway.clock import datetime_ns, wall_ns
from api.gateway.errors import Problem
from persistence.postgres.errors import DatabaseError
from persistence.postgres.submissions import Mode, Submissions

KEPT_MAX = 200_000
HELD_MAX = 65_536
PAGE = 10_000
REFRESH_S = 0.5
HOLD_S = 1.0
KEY_WINDOW_NS = 24 * 3600 * 1_000_000_000
OVERLAP = timedelta(seconds=15)
"""Rows show the beginning of their transaction, and are seen after its end: statements have 5 s."""

_log = logging.getLogger("holdfast.ended")


class EndedKey(NamedTuple):
    """What a key was used for."""

    body: int
    accepted_no: int
    accepted_ns: int


class EndedKeys:
    """A bounded mirror of the keys that ended in the queue within a day.

    Parameters
    ----------
    submissions : Submissions
        The queue.
    kept_max : int
        Beyond, those that ended first are forgotten.
    """

    def __init__(self, submissions: Submissions, *, kept_max: int = KEPT_MAX, hold_s: float = HOLD_S) -> None:
        if kept_max < 1:
            raise ValueError(f"a set of {kept_max} keys")
        self._submissions = submissions
        self._kept_max = kept_max
        self._hold_s = hold_s
        self._keys: OrderedDict[tuple[int, str], EndedKey] = OrderedDict()
        self._seen_to: datetime | None = None
        self._mode: Mode | None = None
        self._openings = 0
        self._read_for = -1
        self._held: list[Callable[[], None]] = []
        self._give_up: asyncio.TimerHandle | None = None
        self._hurry = asyncio.Event()
        self.current = True
        """Whether live orders need not wait."""

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, account: int, key: str) -> EndedKey | None:
        """What ended under this key; O(1)."""
        found = self._keys.get((account, key))
        if found is not None and wall_ns() - found.accepted_ns >= KEY_WINDOW_NS:
            del self._keys[(account, key)]
            return None
        return found

    # What is held while it is not known.

    def venue_opened(self) -> None:
        """New orders go live from here: hold them until the rows were read, or HOLD_S."""
        self._openings += 1
        self.current = False
        self._hurry.set()
        if self._give_up is None:
            self._give_up = asyncio.get_running_loop().call_later(self._hold_s, self._tired)

    def hold(self, work: Callable[[], None]) -> None:
        """Run `work` when current, in the order of the calls.

        Raises
        ------
        Problem
            overloaded: as many wait as may.
        """
        if len(self._held) >= HELD_MAX:
            limit = str(HELD_MAX)
            raise Problem("overloaded", f"{limit} orders wait for the queue's rows; try again.", limit=limit)
        self._held.append(work)

    def _tired(self) -> None:
        _log.warning("the queue's rows cannot be read: keys that ended in it may be taken for new ones")
        self.release()

    def release(self) -> None:
        """Let go on what was held."""
        if self._give_up is not None:
            self._give_up.cancel()
            self._give_up = None
        held, self._held = self._held, []
        self.current = True
        for work in held:
            try:
                work()
            except Exception:
                _log.exception("a held order could not go on")

    # Following the rows.

    async def run(self) -> None:
        """Follow the rows until cancelled; they are read now, too."""
        self._hurry.set()
        while True:
            try:
                await self._look()
            except DatabaseError as error:
                _log.debug("the queue's rows cannot be read: %s", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), REFRESH_S)

    async def _look(self) -> None:
        self._hurry.clear()
        opening, before = self._openings, self._mode
        # First the mode: what ends after it shows in the next look.
        mode = await self._submissions.mode()
        if self._read_for == opening and mode == before and mode.mode == "LIVE":
            return
        await self.refresh()
        self._mode, self._read_for = mode, opening
        if opening == self._openings and not self.current:
            self.release()

    async def refresh(self) -> None:
        """Read what ended since the last time.

        Raises
        ------
        DatabaseError
        """
        after = None if self._seen_to is None else self._seen_to - OVERLAP
        after_no = 0
        while True:
            rows = await self._submissions.ended(after=after, after_no=after_no, limit=PAGE)
            for row in rows:
                self._add(row.account, row.idempotency_key, row.body, row.accepted_no, row.accepted_at)
            if rows:
                after, after_no = rows[-1].resolved_at, rows[-1].accepted_no
                self._seen_to = after if self._seen_to is None else max(after, self._seen_to)
            if len(rows) < PAGE:
                return

    async def learn(self, accepted_no: int) -> None:
        """One that ended just now, through this gateway."""
        try:
            queued = await self._submissions.get(accepted_no)
        except DatabaseError as error:
            _log.info("q%d ended; its key is known with the next look: %s", accepted_no, error)
            return
        if queued is not None and queued.idempotency_key is not None:
            self._add(
                queued.account, queued.idempotency_key, queued.body, queued.accepted_no, queued.accepted_at
            )

    def _add(self, account: int, key: str, body: int, accepted_no: int, accepted_at: datetime) -> None:
        known = self._keys.get((account, key))
        if known is not None and known.accepted_no >= accepted_no:
            return
        self._keys[(account, key)] = EndedKey(body, accepted_no, datetime_ns(accepted_at))
        self._keys.move_to_end((account, key))
        if len(self._keys) > self._kept_max:
            self._keys.popitem(last=False)
