"""While the engine is away: what the rows know of a key that it used before it went.

The queue would take such an order as a new one, and the engine, when it is back,
would find the key and place nothing.  The client is better told at once: its first
answer, or that it used the key for something else.  In order of what is known:

1. The events of the first command, in the outbox for ten minutes.  An ACCEPTED tells
   all that the body digest is made of: the answer is the stored one.
2. The order's row.  Price and quantity are as amended since; when they differ and
   the order has changed, nobody can tell (`unknown_outcome`).  The answer is the
   order as it is now.
3. Of a refused order neither tells type, time in force and post-only.  What differs
   in these alone is taken for the same, and gets the refusal: nothing was placed,
   and nothing is.
"""

from typing import Any

import numpy as np

from api.gateway.batcher import Reply
from api.gateway.errors import Problem
from api.gateway.orders import ACCEPTED, POST_ONLY, REJECTED, SELL, Row
from api.gateway.validation import CLIENT_ORDER_ID, Command
from api.identity import body_digest, digest_pair
from engine.types import COMMAND, EVENT, CommandType
from persistence.postgres.queries import OrderRow, OrderStatus, Queries
from persistence.postgres.submissions import Submissions
from persistence.text import read_text

NEW = int(CommandType.NEW)


def conflict() -> Problem:
    """The key was used for something else."""
    return Problem(
        "idempotency_conflict", "Another request was taken under this key.", field="idempotency_key"
    )


def same_as_events(command: Command, first: Row, client_order_id: str | None) -> bool:
    """Whether the command with this first event asked what `command` asks."""
    _, _, flags, _, _, _, _, _, market, price, quantity, _, amount = first
    if first[0] == ACCEPTED:
        body = body_digest(
            NEW,
            side=flags & SELL,
            order_type=amount & 0xFF,
            time_in_force=(amount >> 8) & 0xFF,
            flags=(amount >> 32) & 0xFFFF,
            market=market,
            price=price,
            quantity=quantity,
            client_id=(0, 0) if client_order_id is None else digest_pair(client_order_id),
        )
        return body == command.body
    if first[0] != REJECTED or amount != NEW:
        return False
    told = (flags & SELL, market, price, quantity, client_order_id)
    return told == _told(command)


def same_as_row(command: Command, row: OrderRow) -> bool:
    """The same for an order's row.

    Raises
    ------
    Problem
        unknown_outcome: the order was changed since, so its row does not tell.
    """
    wanted = np.frombuffer(command.record, COMMAND)[0]
    side, market, price, quantity, client_order_id = _told(command)
    if (row.side, row.market, row.client_order_id) != (side, market, client_order_id):
        return False
    accepted = row.status != OrderStatus.REJECTED
    if accepted:
        kind = (int(wanted["order_type"]), int(wanted["time_in_force"]), bool(wanted["flags"] & POST_ONLY))
        if (row.order_type, row.time_in_force, row.post_only) != kind:
            return False
    if (row.price, row.quantity) == (price, quantity):
        return True
    if accepted and row.updated_sequence != row.created_sequence:
        raise Problem(
            "unknown_outcome",
            "This key placed an order that has changed since; whether it was this one is known when the "
            "engine is back.",
            field="idempotency_key",
        )
    return False


def _told(command: Command) -> tuple[int, int, int, int, str | None]:
    record: Any = np.frombuffer(command.record, COMMAND)[0]
    client_order_id = next((text.decode() for tag, text in command.texts if tag == CLIENT_ORDER_ID), None)
    return (
        int(record["side"]),
        int(record["market"]),
        int(record["price"]),
        int(record["quantity"]),
        client_order_id,
    )


class UsedKeys:
    """Finds the first answer of a key in the database."""

    def __init__(self, submissions: Submissions, queries: Queries) -> None:
        self._submissions = submissions
        self._queries = queries

    async def first(self, command: Command, sequence: int) -> tuple[Reply, str | None] | OrderRow:
        """What the first command under the key did: its events and client_order_id, else its row.

        Raises
        ------
        Problem
            idempotency_conflict, or unknown_outcome.
        DatabaseError
        """
        frame = await self._submissions.frame_of(sequence)
        if frame is not None:
            first_sequence, time_ns, events, text = frame
            rows = [row for row in np.frombuffer(events, EVENT).tolist() if row[5] == sequence]
            texts = {
                tag: value.decode() for i, tag, value in read_text(text) if first_sequence + i == sequence
            }
            client_order_id = texts.get(CLIENT_ORDER_ID)
            if not same_as_events(command, rows[0], client_order_id):
                raise conflict()
            return Reply(sequence, time_ns, rows), client_order_id
        row = await self._queries.order_by_key(command.account, command.key or "")
        if row is None or not same_as_row(command, row):
            raise conflict()
        return row
