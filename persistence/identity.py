"""The public text of an order's name.

    order_id, slot              text
    812, 5                      812-5       the order in slot 5, if it still has that id
    812, NO_SLOT                812         never rested
    QUEUED | 31, anything       q31         born from the submissions queue

A queued order is told its name before it has a slot, so the name never carries
one: the core finds it through its side index. One text for one order: leading
zeros, signs and other digits than ASCII's are refused.
"""

import re

from engine.types import NO_SLOT, QUEUED
from persistence.errors import FormatError

_PATTERN = re.compile(r"(?:q([1-9][0-9]{0,18})|([1-9][0-9]{0,18})(?:-(0|[1-9][0-9]{0,9}))?)\Z")


def public_order_id(order_id: int, slot: int) -> str:
    """Text of an order's name.

    Parameters
    ----------
    order_id : int
        Sequence of the NEW, or `QUEUED | accepted_no`.
    slot : int
        Its slot, or `NO_SLOT`.
    """
    if order_id & QUEUED:
        return f"q{order_id ^ QUEUED}"
    if slot == NO_SLOT:
        return str(order_id)
    return f"{order_id}-{slot}"


def parse_order_id(text: str) -> tuple[int, int]:
    """Order id and slot (`NO_SLOT` where the name carries none) of a public name.

    Raises
    ------
    FormatError
        The text is not a name that `public_order_id` writes.
    """
    match = _PATTERN.match(text)
    if match is not None:
        queued, plain, slot_text = match.groups()
        number = int(queued or plain)
        slot = int(slot_text) if slot_text is not None else NO_SLOT
        if number < QUEUED and (slot < NO_SLOT or slot_text is None):
            return (QUEUED | number, NO_SLOT) if queued else (number, slot)
    raise FormatError(f"{text[:64]!r} is not an order id")
