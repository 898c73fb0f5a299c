"""Takes the queue of submissions to the engine, in the order in which they were accepted (SPEC F1, F1b).

    engine DRAINING or OPEN, queue not empty   claim → submit with accepted_no → next batch
    the same, a pass is done and more came     CLOSING: newcomers wait, so that draining ends
    engine DRAINING, queue empty               DRAINED, under the exclusive lock of the mode row
    engine OPEN, mode still QUEUE, empty       mode back to LIVE (a commit was lost after DRAINED)
    engine HALTED, CANCEL_ONLY or away         nothing is taken; what is past its time expires

One batch is out at a time, and what was claimed but not answered is submitted
again before anything newer: the engine knows by accepted_no what it has applied.
The projector, not the drainer, writes what became of a submission.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from api.runtime.errors import LinkDown, Refused
from api.runtime.link import EngineLink
from engine import commands as make
from engine.types import COMMAND, EventType, VenueState
from persistence.postgres.errors import DatabaseError, StaleEpoch
from persistence.postgres.submissions import Queued, Submissions
from persistence.text import TextBuilder, TextTag, read_text

BATCH = 1024
TEXT_BYTES_PER_BATCH = 768 << 10
POLL_S = 0.1
PAUSE_S = 0.5
EXPIRE_EVERY_S = 1.0

_log = logging.getLogger("holdfast.drainer")


class Drainer:
    """Drains until cancelled; every failure of database or engine is waited out.

    Parameters
    ----------
    link : EngineLink
        Of role ``drainer``; started and closed by the caller.
    """

    def __init__(self, link: EngineLink, submissions: Submissions) -> None:
        self._link = link
        self._submissions = submissions
        self._epoch = 0
        self._answered_no = 0
        self._expired_at = 0.0
        self.taken = 0
        """Submissions that the engine has answered, since this process began."""

    async def run(self) -> None:
        """For ever."""
        trouble = ""
        while True:
            try:
                pause_s = await self._step()
                trouble = ""
            except LinkDown:
                pause_s = POLL_S
            except (DatabaseError, Refused) as error:
                # Told when it begins, not at every try.
                if type(error).__name__ != trouble:
                    _log.warning(
                        "%sdraining waits: %s", "P1 " if isinstance(error, StaleEpoch) else "", error
                    )
                trouble = type(error).__name__
                pause_s = PAUSE_S
            await asyncio.sleep(pause_s)

    async def _step(self) -> float:
        """One batch, or what else is to be done; how long to pause then."""
        link = self._link
        if not link.connected or link.venue_state not in (VenueState.DRAINING, VenueState.OPEN):
            await self._expire()
            return POLL_S
        if link.epoch != self._epoch:
            self._epoch, self._answered_no = link.epoch, 0
        mode = await self._submissions.mode()
        if mode.mode == "LIVE" and link.venue_state == VenueState.OPEN:
            return POLL_S
        # Read back rather than taken from `claim`: after a lost commit only the rows know.
        rows = await self._submissions.claimed(self._epoch, after=self._answered_no, limit=BATCH)
        if rows:
            await self._submit(rows)
            return 0.0
        if await self._submissions.claim(self._epoch, BATCH):
            return 0.0
        if await self._submissions.try_drained(
            self._epoch, self._send_drained, answered_no=self._answered_no
        ):
            _log.info("the queue of submissions is drained, epoch %d", self._epoch)
            return POLL_S
        await self._submissions.close_queue(self._epoch)
        return 0.0

    async def _submit(self, rows: list[Queued]) -> None:
        """Submit the first of `rows`; those that are not answered come again, before anything newer."""
        commands, text = build_batch(rows)
        await self._link.submit(commands, text)
        self._answered_no = int(commands[-1]["accepted_no"])
        self.taken += len(commands)

    async def _send_drained(self) -> None:
        """DRAINED, durable; raises unless the venue is OPEN after it."""
        if self._link.epoch != self._epoch:
            raise LinkDown("another engine has taken over", sent=False)
        if self._link.venue_state == VenueState.OPEN:
            return
        answer = await self._link.submit(make.drained())
        states = answer.events["amount"][answer.events["type"] == EventType.VENUE_STATE]
        if not len(states) or int(states[-1]) != VenueState.OPEN:
            raise Refused("NOT_DRAINING", "the venue left DRAINING meanwhile")

    async def _expire(self) -> None:
        if time.monotonic() - self._expired_at >= EXPIRE_EVERY_S:
            self._expired_at = time.monotonic()
            await self._submissions.expire()


def build_batch(rows: Sequence[Queued]) -> tuple[np.ndarray[Any, Any], bytes]:
    """Commands and text of the first rows that fit into one SUBMIT; at least one.

    Each command carries its accepted_no, and the text of each names it (tag SUBMISSION),
    which is how the projector finds the row again.
    """
    text = TextBuilder()
    records: list[bytes] = []
    for row in rows:
        if len(records) == BATCH or len(text) > TEXT_BYTES_PER_BATCH:
            break
        index = len(records)
        for _, tag, value in read_text(row.text):
            text.add(index, tag, value)
        text.add(index, TextTag.SUBMISSION, str(row.accepted_no).encode())
        records.append(row.command)
    commands = np.frombuffer(b"".join(records), COMMAND).copy()
    commands["accepted_no"] = [row.accepted_no for row, _ in zip(rows, records, strict=False)]
    return commands, bytes(text)
