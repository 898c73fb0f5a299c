"""What a client may ask the engine: WELCOME and the answers of QUERY.

Everything here is asked when all that was applied is durable, so that no answer
can outlive its commands.  Whole-state questions read one dump of the state,
kept until the next command changes it.
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
        self._dump: dict[str, Any] = {}
        self._dump_sequence = -1
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
            state = self._state()
            markets = state["markets"]
            content |= {
                "definitions": self._definitions(),
                "keys": self._keys(state["keys"]),
                "books": self._books(state["orders"], None),
                "market_states": {str(row["market"]): int(row["state"]) for row in markets},
                "last_prices": {str(row["market"]): int(row["last_price"]) for row in markets},
            }
        return content

    def _state(self) -> dict[str, Any]:
        engine = self._pipeline.engine
        if self._dump_sequence != engine.sequence:
            self._dump = engine.dump()
            self._dump_sequence = engine.sequence
        return self._dump

    def _definitions(self) -> dict[str, Any]:
        state, names = self._state(), self._pipeline.definitions
        return {
            "assets": [{**names.assets.get(row["asset"], {}), **row} for row in _rows(state["assets"])],
            "markets": [{**names.markets.get(row["market"], {}), **row} for row in _rows(state["markets"])],
            "accounts": [
                {**names.accounts.get(row["account"], {}), **row} for row in _rows(state["accounts"])
            ],
            "keys": names.keys,
        }

    @staticmethod
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

    def _books(self, orders: Records, levels: int | None) -> dict[str, Any]:
        """Levels of each market; `orders` come sorted by market, side, best price first."""
        books: dict[str, Any] = {
            str(row["market"]): {"bids": [], "asks": []} for row in self._state()["markets"]
        }
        if not len(orders):
            return books
        changed = np.zeros(len(orders), bool)
        changed[0] = True
        for name in ("market", "side", "price"):
            changed[1:] |= orders[name][1:] != orders[name][:-1]
        starts = np.flatnonzero(changed)
        totals = np.add.reduceat(orders["leaves"], starts)
        counts = np.diff(np.append(starts, len(orders)))
        heads = orders[starts]
        for head, total, count in zip(heads, totals.tolist(), counts.tolist(), strict=True):
            side = books[str(head["market"])]["asks" if head["side"] else "bids"]
            if levels is None or len(side) < levels:
                side.append([int(head["price"]), total, count])
        return books

    def _depth(self, question: dict[str, Any]) -> dict[str, Any]:
        market = int(question["market"])
        levels = min(int(question.get("levels", 50)), DEPTH_LEVELS_MAX)
        orders = self._state()["orders"]
        book = self._books(orders[orders["market"] == market], levels).get(str(market))
        if book is None:
            raise Refused("UNKNOWN_MARKET", f"market {market} does not exist")
        return {"market": market, "sequence": self._pipeline.engine.sequence, **book}

    def _balances(self, question: dict[str, Any]) -> dict[str, Any]:
        balances = self._state()["balances"]
        rows = _rows(balances[balances["account"] == int(question["account"])])
        return {"sequence": self._pipeline.engine.sequence, "balances": rows}

    def _orders(self, question: dict[str, Any]) -> dict[str, Any]:
        orders = self._state()["orders"]
        rows = _rows(orders[orders["account"] == int(question["account"])][:ORDERS_MAX])
        return {"sequence": self._pipeline.engine.sequence, "orders": rows}

    def _order(self, question: dict[str, Any]) -> dict[str, Any]:
        orders = self._state()["orders"]
        found = orders[orders["order_id"] == np.uint64(int(question["order_id"]))]
        slot = int(question.get("slot", NO_SLOT))
        if slot != NO_SLOT:
            found = found[found["slot"] == slot]
        rows = _rows(found)
        return {"sequence": self._pipeline.engine.sequence, "order": rows[0] if rows else None}

    def _key(self, question: dict[str, Any]) -> dict[str, Any]:
        keys = self._state()["idempotency"]
        low, high = np.uint64(int(question["key_lo"])), np.uint64(int(question["key_hi"]))
        account = int(question["account"])
        found = keys[(keys["account"] == account) & (keys["key_lo"] == low) & (keys["key_hi"] == high)]
        first = int(found[0]["sequence"]) if len(found) else None
        body = int(found[0]["body"]) if len(found) else None
        return {"as_of": self._pipeline.engine.sequence, "sequence": first, "body": body}

    def _events_of(self, question: dict[str, Any]) -> dict[str, Any]:
        sequence = int(question["sequence"])
        if not 1 <= sequence <= self._pipeline.gate.released_sequence:
            raise Refused("UNKNOWN_SEQUENCE", f"sequence {sequence} is not there")
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


def _rows(records: Records) -> list[dict[str, Any]]:
    names = [name for name in records.dtype.names or () if not name.startswith("spare")]
    return [dict(zip(names, row, strict=True)) for row in records[names].tolist()]
