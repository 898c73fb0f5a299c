"""An engine whose answers come as event frames, as the projector gets them from the log."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import commands as make
from engine.types import EventType
from persistence.text import TextBuilder, TextTag


def new_engine() -> Any:
    """The compiled core if it is built, else the twin: they give the same events."""
    try:
        from engine import Engine
    except ImportError:
        from engine.reference import Engine as Twin

        return Twin()
    return Engine()


@dataclass(frozen=True)
class Frame:
    """A frame of the event log."""

    epoch: int
    first_sequence: int
    last_sequence: int
    time_ns: int
    event_number: int
    events: NDArray[Any]
    text: bytes = b""


Entries = list[tuple[int, TextTag, bytes]]


@dataclass
class Venue:
    """Applies commands; each `apply` is one frame, kept in `frames` too."""

    engine: Any = field(default_factory=new_engine)
    frames: list[Frame] = field(default_factory=list)
    epoch: int = 0
    time_ns: int = 1_700_000_000_000_000_000

    def apply(self, *parts: NDArray[Any], text: Entries | None = None) -> Frame:
        """One frame of these commands and text entries (index of the command, tag, bytes)."""
        commands = np.concatenate(parts)
        builder = TextBuilder()
        for index, tag, value in text or []:
            builder.add(index, tag, value)
        first = int(self.engine.sequence) + 1
        events = np.array(self.engine.apply(commands))
        states = events[events["type"] == EventType.VENUE_STATE]
        if len(states):
            self.epoch = int(states[-1]["quantity"])
        last = self.frames[-1] if self.frames else None
        number = last.event_number + len(last.events) if last else 1
        frame = Frame(
            epoch=self.epoch,
            first_sequence=first,
            last_sequence=int(self.engine.sequence),
            time_ns=self.time_ns,
            event_number=number,
            events=events,
            text=bytes(builder),
        )
        self.frames.append(frame)
        self.time_ns += 1_000_000
        return frame

    def open(
        self, accounts: int = 3, funds: int = 1_000_000, maker_ppm: int = 0, taker_ppm: int = 0
    ) -> Frame:
        """Two assets, one market, funded accounts."""
        people = np.arange(1, accounts + 1)
        return self.apply(
            make.open_asset(asset=np.array([1, 2])),
            make.open_market(
                base_asset=1,
                quote_asset=2,
                tick_atoms=1,
                lot_atoms=1,
                maker_fee_ppm=maker_ppm,
                taker_fee_ppm=taker_ppm,
            ),
            make.open_account(account=people),
            *[
                make.deposit(
                    account=people, asset=asset, quantity=funds, transaction_id=people + 1000 * asset
                )
                for asset in (1, 2)
            ],
        )
