"""The demo venue: assets, markets and funded accounts, made once.

Everything is looked up by name first and deposited by transaction id, so that
seeding a venue again, or after a crash in the middle of it, changes nothing.
Tokens are written to ``demo-keys.json`` (mode 0600) before their hashes are
logged: a key that the venue knows is never one that nobody has.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from api.gateway.admin import market_numbers
from api.gateway.keys import ADMIN, READ, TRADE
from api.gateway.registry import Registry
from api.gateway.validation import pack
from api.identity import body_digest, digest_pair, hash_words, new_token, token_hash
from api.runtime.link import Answer, EngineLink
from engine.types import COMMAND, CommandType, EventType
from persistence.storage import Disk
from persistence.text import TextBuilder, TextTag

KEYS_FILE = "demo-keys.json"
CONNECT_S = 30.0

ASSETS: dict[str, int] = {"BTC": 8, "ETH": 8, "SOL": 8, "USDT": 8, "USD": 6, "AAPL": 0, "ARL": 0}
MARKETS: tuple[tuple[str, str, str, str], ...] = (
    ("BTC", "USDT", "0.01", "0.00001"),
    ("ETH", "USDT", "0.01", "0.0001"),
    ("SOL", "USDT", "0.001", "0.001"),
    ("AAPL", "USD", "0.0001", "1"),
    ("ARL", "USD", "0.0001", "1"),
)
"""base, quote, tick size, lot size."""
MAKER_FEE_PPM = 200
TAKER_FEE_PPM = 500
ACCOUNTS = ("alice", "bob", "carol", "dave")
FUNDS: dict[str, int] = {
    "BTC": 1_000_000,
    "ETH": 10_000_000,
    "SOL": 100_000_000,
    "USDT": 10_000_000_000,
    "USD": 1_000_000_000_000,
    "AAPL": 1_000_000_000_000,
    "ARL": 1_000_000_000_000,
}
"""Whole units for each account."""


class DemoError(Exception):
    """The venue could not be seeded."""


async def seed(socket_path: Path, data: Path) -> dict[str, str]:
    """Make what is missing of the demo; the tokens by name.

    Raises
    ------
    DemoError
        The engine was not there, or rejected a definition.
    """
    welcomes: list[dict[str, Any]] = []
    link = EngineLink(socket_path, "admin", subscribe=True, on_welcome=welcomes.append)
    await link.start()
    try:
        if not await link.wait_connected(CONNECT_S):
            raise DemoError(f"the engine was not reachable within {CONNECT_S:.0f} s at {socket_path}")
        return await _Seeder(link, welcomes[0], data).run()
    finally:
        await link.close()


class _Seeder:
    """One seeding over one connection."""

    def __init__(self, link: EngineLink, welcome: dict[str, Any], data: Path) -> None:
        self._link = link
        self._data = data
        self._registry = Registry()
        self._registry.load(welcome["definitions"])
        self._known_keys = {row[0] for row in welcome["keys"]}

    async def run(self) -> dict[str, str]:
        registry = self._registry
        for symbol, decimals in ASSETS.items():
            if symbol not in registry.assets_by_symbol:
                definition = {"symbol": symbol, "decimals": decimals}
                answer = await self._send(pack(CommandType.OPEN_ASSET), definition)
                registry.add_asset(int(answer.events[0]["market"]), definition)
        for base, quote, tick, lot in MARKETS:
            if f"{base}/{quote}" not in registry.markets_by_symbol:
                await self._open_market(base, quote, tick, lot)
        for name in ACCOUNTS:
            if name not in registry.accounts_by_name:
                answer = await self._send(pack(CommandType.OPEN_ACCOUNT), {"name": name})
                registry.add_account(int(answer.events[0]["account"]), {"name": name})
        for name in ACCOUNTS:
            await self._fund(name)
        tokens = self._tokens()
        for name, token in tokens.items():
            await self._add_key(name, token)
        return tokens

    async def _open_market(self, base: str, quote: str, tick: str, lot: str) -> None:
        assets = self._registry.assets_by_symbol
        tick_atoms, lot_atoms = market_numbers(assets[base], assets[quote], tick, lot)
        definition = {
            "symbol": f"{base}/{quote}",
            "base": base,
            "quote": quote,
            "tick_size": tick,
            "lot_size": lot,
        }
        record = pack(
            CommandType.OPEN_MARKET,
            asset=assets[base].number,
            slot=assets[quote].number,
            price=tick_atoms,
            quantity=lot_atoms,
            trigger_price=MAKER_FEE_PPM,
            expire_time_ns=TAKER_FEE_PPM,
        )
        await self._send(record, definition)

    async def _fund(self, name: str) -> None:
        account = self._registry.accounts_by_name[name].number
        for symbol, units in FUNDS.items():
            asset = self._registry.assets_by_symbol[symbol]
            quantity = units * 10**asset.decimals
            transaction = f"demo {name} {symbol}"
            client_id = digest_pair(transaction)
            body = body_digest(
                CommandType.DEPOSIT, asset=asset.number, quantity=quantity, client_id=client_id
            )
            record = pack(
                CommandType.DEPOSIT,
                account=account,
                asset=asset.number,
                quantity=quantity,
                client_id=client_id,
                body=body,
            )
            await self._send(record, transaction=transaction)

    def _tokens(self) -> dict[str, str]:
        """Tokens of the accounts and the operator; kept over restarts."""
        path = self._data / KEYS_FILE
        tokens: dict[str, str] = orjson.loads(path.read_bytes()) if path.exists() else {}
        missing = [name for name in (*ACCOUNTS, "admin") if name not in tokens]
        if missing:
            tokens |= {name: new_token() for name in missing}
            mask = os.umask(0o077)
            try:
                Disk().write_atomic(path, orjson.dumps(tokens))
            finally:
                os.umask(mask)
            path.chmod(0o600)
        return tokens

    async def _add_key(self, name: str, token: str) -> None:
        digest = token_hash(token)
        if digest.hex() in self._known_keys:
            return
        words = hash_words(digest)
        admin = name == "admin"
        record = pack(
            CommandType.ADD_KEY,
            account=0 if admin else self._registry.accounts_by_name[name].number,
            asset=ADMIN if admin else READ | TRADE,
            client_id=words[:2],
            key=words[2:],
        )
        await self._send(record, {"name": name, "prefix": token[:7]})

    async def _send(
        self, record: bytes, definition: dict[str, Any] | None = None, *, transaction: str | None = None
    ) -> Answer:
        text = TextBuilder()
        if definition is not None:
            text.add(0, TextTag.DEFINITION, orjson.dumps(definition))
        if transaction is not None:
            text.add(0, TextTag.TRANSACTION_ID, transaction.encode())
        answer = await self._link.submit(np.frombuffer(record, COMMAND), bytes(text))
        first = answer.events[0]
        if first["type"] == EventType.REJECTED:
            raise DemoError(f"the engine rejected {definition or transaction}: reason {first['reason']}")
        return answer
