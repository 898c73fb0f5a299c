"""The names behind the numbers: assets, markets, accounts and keys as people know them.

The core knows numbers.  The symbol of a market, the decimals of an asset, the
name of an account travel as JSON in the text of the command that opens them
(tag DEFINITION) and are kept here, beside the core: rebuilt by replay, stored
in checkpoints as the section ``definitions``.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from engine.types import EventType
from persistence.errors import FormatError
from persistence.text import TextTag, read_text

SECTION = "definitions"

_TABLES: dict[int, tuple[str, str]] = {
    int(EventType.ASSET_OPENED): ("assets", "market"),
    int(EventType.MARKET_OPENED): ("markets", "market"),
    int(EventType.ACCOUNT_OPENED): ("accounts", "account"),
}


def parse_definition(value: bytes) -> dict[str, Any]:
    """The JSON object of a DEFINITION entry.

    Raises
    ------
    FormatError
        It is not one.
    """
    try:
        definition = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise FormatError(f"definition is not JSON: {error}") from error
    if not isinstance(definition, dict):
        raise FormatError("definition is not a JSON object")
    return definition


class Definitions:
    """Definition of each asset, market and account by number, of each key by hash."""

    def __init__(self) -> None:
        self.assets: dict[int, dict[str, Any]] = {}
        self.markets: dict[int, dict[str, Any]] = {}
        self.accounts: dict[int, dict[str, Any]] = {}
        self.keys: dict[str, dict[str, Any]] = {}

    def observe(self, first_sequence: int, events: npt.NDArray[np.void], text: bytes | memoryview) -> None:
        """Keep the definitions of what a frame opened; what was rejected leaves nothing.

        Parameters
        ----------
        first_sequence : int
            Of the frame.
        events : EVENT[n]
            Of the frame.
        text : bytes
            Its text area.
        """
        for index, tag, value in read_text(text):
            if tag != TextTag.DEFINITION:
                continue
            definition = parse_definition(value)
            for event in events[events["sequence"] == first_sequence + index]:
                kind = int(event["type"])
                if kind in _TABLES:
                    table, field = _TABLES[kind]
                    getattr(self, table)[int(event[field])] = definition
                elif kind == EventType.KEY_ADDED:
                    self.keys[key_hash(event)] = definition

    def to_section(self) -> npt.NDArray[np.uint8]:
        """The bytes that a checkpoint keeps."""
        content = {
            "assets": self.assets,
            "markets": self.markets,
            "accounts": self.accounts,
            "keys": self.keys,
        }
        encoded = orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SORT_KEYS)
        return np.frombuffer(encoded, np.uint8)

    @classmethod
    def from_section(cls, section: npt.NDArray[np.uint8]) -> "Definitions":
        """What `to_section` wrote."""
        content = orjson.loads(section.tobytes())
        definitions = cls()
        definitions.assets = {int(number): value for number, value in content["assets"].items()}
        definitions.markets = {int(number): value for number, value in content["markets"].items()}
        definitions.accounts = {int(number): value for number, value in content["accounts"].items()}
        definitions.keys = dict(content["keys"])
        return definitions


def key_hash(event: np.void) -> str:
    """Hex of the hash that a KEY_ADDED or KEY_REVOKED event carries in four words."""
    words = np.array(
        [event["order_id"], *(int(event[name]) & (1 << 64) - 1 for name in ("price", "quantity", "leaves"))],
        "<u8",
    )
    return words.tobytes().hex()
