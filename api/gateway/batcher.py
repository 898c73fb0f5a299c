"""Requests of one turn of the event loop go to the engine as one SUBMIT.

A future per command is what limits throughput, so there is one per frame; each
request has a callback instead, called exactly once with a `Reply` or with the
`RuntimeFault` that ended it.  A callback that fails is logged and costs nobody
else an answer.  Requests in flight are bounded: beyond, `submit` refuses with
`overloaded`.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from api.gateway.errors import Problem
from api.gateway.orders import Row
from api.gateway.validation import Command
from api.runtime.errors import LinkDown, RuntimeFault, WireError
from api.runtime.link import Answer, EngineLink
from engine.types import COMMAND
from persistence.text import TextBuilder

FRAME_COMMANDS_MAX = 2_048
"""Two texts of 64 bytes each stay far below the 1 MiB of text that a frame may carry."""
IN_FLIGHT_MAX = 65_536


class Reply(NamedTuple):
    """What the engine made of one command, durable."""

    sequence: int
    time_ns: int
    events: list[Row]


Done = Callable[[Reply | RuntimeFault], None]

_log = logging.getLogger("holdfast.batcher")


class Batcher:
    """Groups commands for an `EngineLink`.

    Parameters
    ----------
    link : EngineLink
        The engine.
    in_flight_max : int
        Commands submitted and not answered.
    """

    def __init__(self, link: EngineLink, in_flight_max: int = IN_FLIGHT_MAX) -> None:
        if in_flight_max < 1:
            raise ValueError(f"{in_flight_max} requests in flight")
        self._link = link
        self._in_flight_max = in_flight_max
        self._waiting: list[tuple[Command, Done]] = []
        self.in_flight = 0

    def submit(self, command: Command, done: Done) -> None:
        """Send at the end of this turn of the loop.

        Raises
        ------
        Problem
            overloaded: nothing was sent.
        """
        if self.in_flight >= self._in_flight_max:
            limit = str(self._in_flight_max)
            raise Problem("overloaded", f"{limit} requests wait for the engine; try again.", limit=limit)
        self.in_flight += 1
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting.append((command, done))

    async def ask(self, command: Command) -> Reply:
        """The same for one who waits; raises `RuntimeFault`."""
        future: asyncio.Future[Reply | RuntimeFault] = asyncio.get_running_loop().create_future()

        def done(reply: Reply | RuntimeFault) -> None:
            if not future.done():
                future.set_result(reply)

        self.submit(command, done)
        reply = await future
        if isinstance(reply, RuntimeFault):
            raise reply
        return reply

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), FRAME_COMMANDS_MAX):
            self._send(waiting[start : start + FRAME_COMMANDS_MAX])

    def _send(self, group: list[tuple[Command, Done]]) -> None:
        text = TextBuilder()
        for index, (command, _) in enumerate(group):
            for tag, value in command.texts:
                text.add(index, tag, value)
        commands = np.frombuffer(b"".join([command.record for command, _ in group]), COMMAND)
        future = self._link.submit(commands, bytes(text))
        future.add_done_callback(lambda answered: self._resolve(group, answered))

    def _resolve(self, group: list[tuple[Command, Done]], answered: "asyncio.Future[Answer]") -> None:
        self.in_flight -= len(group)
        outcomes = _outcomes(len(group), answered)
        for (_, done), outcome in zip(group, outcomes, strict=True):
            try:
                done(outcome)
            except Exception:
                _log.exception("an answer could not be handed on")


def _outcomes(count: int, answered: "asyncio.Future[Answer]") -> Sequence[Reply | RuntimeFault]:
    """One outcome a command of the frame, whatever became of it."""
    if answered.cancelled():
        return [LinkDown("the link gave the answer up", sent=True)] * count
    error = answered.exception()
    if isinstance(error, RuntimeFault):
        return [error] * count
    if error is not None:
        _log.error("the link failed", exc_info=error)
        return [LinkDown(f"the link failed: {error}", sent=True)] * count
    answer = answered.result()
    first = answer.first_sequence
    replies: list[list[Row]] = [[] for _ in range(count)]
    for row in answer.events.tolist():
        if not 0 <= row[5] - first < count:
            _log.error(
                "an event of sequence %d among the answers to %d..%d", row[5], first, first + count - 1
            )
            return [WireError(f"an event of sequence {row[5]} came with another request")] * count
        replies[row[5] - first].append(row)
    return [Reply(first + index, answer.time_ns, events) for index, events in enumerate(replies)]
