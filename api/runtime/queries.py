"""What a client may ask the engine: WELCOME and the answers of QUERY.

Everything here is asked when all that was applied is durable, so that no answer
can outlive its commands.  Matching waits meanwhile, so each answer asks the core for
what it names and nothing else: none dumps the state but `state_hash`, which is for
drills and operators.  What is O(the venue) are the definitions and, of the orders,
one walk through the pool in memory order.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from api.runtime.errors import Refused
from api.runtime.pipeline import Pipeline
from engine.types import NO_SLOT
from persistence.events import EventReader
from persistence.storage import AnyDisk
from persistence.text import read_text
from recovery.engine import Records

ORDERS_MAX = 100_000
"""Orders in one answer."""
DEPTH_LEVELS_MAX = 10_000


class Queries:
    """Answers of one engine process.

    Parameters
    ----------
    status : callable
        What HEARTBEAT says, for ``status``.
    """

    def __init__(
        self, pipeline: Pipeline, disk: AnyDisk, events: Path, status: Callable[[], dict[str, Any]]
    ) -> None:
        self._pipeline = pipeline
        self._disk = disk
        self._events = events
        self._status = status
        self._answers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "status": lambda _: self._status(),
            "depth": self._depth,
            "balances": self._balances,
            "orders": self._orders,
            "order": self._order,
            "key": self._key,
            "events": self._events_of,
            "definitions": lambda _: self._definitions(),
            "state_hash": lambda _: {
                "state_hash": self._pipeline.engine.state_hash().hex(),
                "sequence": self._pipeline.engine.sequence,
            },
        }

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """The RESULT of a QUERY.

        Raises
        ------
        Refused
            BAD_REQUEST: no such question, or an argument is missing or wrong.
        """
        answer = self._answers.get(str(question.get("what")))
        if answer is None:
            raise Refused("BAD_REQUEST", f"ask one of {', '.join(sorted(self._answers))}")
        try:
            return answer(question)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise Refused("BAD_REQUEST", f"{question['what']}: argument {error}") from error

    def welcome(self, snapshot: bool) -> dict[str, Any]:
        """WELCOME; with `snapshot` all that a subscriber starts from."""
        content = self._status()
        if snapshot:
            engine = self._pipeline.engine
            markets = engine.markets()
            content |= {
                "definitions": self._definitions(),
                "keys": _keys(engine.keys()),
                "books": {str(market): self._book(market) for market in markets["market"].tolist()},
                "market_states": {str(row["market"]): int(row["state"]) for row in markets},
                "last_prices": {str(row["market"]): int(row["last_price"]) for row in markets},
            }
        return content

    def _definitions(self) -> dict[str, Any]:
        engine, names = self._pipeline.engine, self._pipeline.definitions
        return {
            "assets": [{**names.assets.get(row["asset"], {}), **row} for row in _rows(engine.assets())],
            "markets": [{**names.markets.get(row["market"], {}), **row} for row in _rows(engine.markets())],
            "accounts": [
                {**names.accounts.get(row["account"], {}), **row} for row in _rows(engine.accounts())
            ],
            "keys": names.keys,
        }

    def _book(self, market: int, levels: int = 0) -> dict[str, list[list[int]]]:
        """Price, quantity, orders of the best levels of each side; 0 for all."""
        bids, asks = self._pipeline.engine.depth(market, levels)
        return {"bids": list(map(list, bids.tolist())), "asks": list(map(list, asks.tolist()))}

    def _depth(self, question: dict[str, Any]) -> dict[str, Any]:
        market = int(question["market"])
        levels = int(question.get("levels", 50))
        if levels < 1:
            raise ValueError(f"levels {levels}: at least 1")
        try:
            book = self._book(market, min(levels, DEPTH_LEVELS_MAX))
        except KeyError as error:
            raise Refused("UNKNOWN_MARKET", f"market {market} does not exist") from error
        return {"market": market, "sequence": self._pipeline.engine.sequence, **book}

    def _balances(self, question: dict[str, Any]) -> dict[str, Any]:
        engine = self._pipeline.engine
        return {
            "sequence": engine.sequence,
            "balances": _rows(engine.balances(int(question["account"]))),
        }

    def _orders(self, question: dict[str, Any]) -> dict[str, Any]:
        engine = self._pipeline.engine
        rows = _rows(engine.orders(int(question["account"]))[:ORDERS_MAX])
        return {"sequence": engine.sequence, "orders": rows}

    def _order(self, question: dict[str, Any]) -> dict[str, Any]:
        """By order_id and slot, the parts of its public name; without a slot only QUEUED ids are found."""
        engine = self._pipeline.engine
        found = engine.order(int(question["order_id"]), int(question.get("slot", NO_SLOT)))
        return {"sequence": engine.sequence, "order": None if found is None else _row(found)}

    def _key(self, question: dict[str, Any]) -> dict[str, Any]:
        engine = self._pipeline.engine
        low, high = int(question["key_lo"]), int(question["key_hi"])
        if not (0 <= low < 1 << 64 and 0 <= high < 1 << 64):
            raise ValueError("key_lo and key_hi are 64 bits each")
        seen = engine.find_seen(int(question["account"]), high << 64 | low)
        first = None if seen is None else int(seen["sequence"])
        body = None if seen is None else int(seen["body"])
        return {"as_of": engine.sequence, "sequence": first, "body": body}

    def _events_of(self, question: dict[str, Any]) -> dict[str, Any]:
        sequence = int(question["sequence"])
        if not 1 <= sequence <= self._pipeline.gate.released_sequence:
            raise Refused("UNKNOWN_SEQUENCE", f"sequence {sequence} is not there")
        self._pipeline.events.drain()
        reader = EventReader(self._disk, self._events)
        for frame in reader.frames(sequence - 1):
            if not frame.first_sequence <= sequence <= frame.last_sequence:
                break
            own = frame.events[frame.events["sequence"] == sequence]
            return {
                "sequence": sequence,
                "epoch": frame.epoch,
                "time_ns": frame.time_ns,
                "events": own.tobytes().hex(),
                "text": [[tag, value.hex()] for tag, value in _text_of(frame, sequence)],
            }
        raise Refused("RETIRED", f"the events of sequence {sequence} are not kept any more")


def _text_of(frame: Any, sequence: int) -> Iterator[tuple[int, bytes]]:
    for index, tag, value in read_text(frame.text):
        if frame.first_sequence + index == sequence:
            yield tag, value


def _keys(keys: Records) -> list[list[Any]]:
    return [
        [
            np.array([key[f"hash_{word}"] for word in range(4)], "<u8").tobytes().hex(),
            int(key["account"]),
            int(key["scopes"]),
            int(key["expire_time_ns"]),
            int(key["revoked"]),
        ]
        for key in keys
    ]


def _named(dtype: np.dtype[Any]) -> list[str]:
    """Fields that are not spare."""
    return [name for name in dtype.names or () if not name.startswith("spare")]


def _rows(records: Records) -> list[dict[str, Any]]:
    names = _named(records.dtype)
    return [dict(zip(names, row, strict=True)) for row in records[names].tolist()]


def _row(record: Any) -> dict[str, Any]:
    return {name: record[name].item() for name in _named(record.dtype)}
