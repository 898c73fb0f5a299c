"""Traders that never give up on a request: retry under one key until told.

They speak plain HTTP, not our client, so that what they see is what any client
sees.  Each request ends in a definite answer (201 or 200 done, 202 queued, 4xx
refused); 429, 503, 504, a reset or a timeout mean "ask again, same key".
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import aiohttp

from api.drills.journal import Acknowledgement, Journal

RETRY_SECONDS = 0.1
REQUEST_TIMEOUT_SECONDS = 10.0
OPEN_ORDERS_REMEMBERED = 200
TICK = Decimal("0.01")
LOT = Decimal("0.00001")


@dataclass(slots=True)
class Gauge:
    """Counts that all traders of a drill share."""

    in_flight: int = 0
    live: int = 0
    queued: int = 0
    refused: int = 0
    retries: int = 0
    latest_live_at: float = 0.0
    refusals: dict[str, int] = field(default_factory=dict)


class Trader:
    """One account's client: limit orders about a mid price, takers, cancels."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        account: str,
        token: str,
        name: str,
        rng: random.Random,
        journal: Journal,
        gauge: Gauge,
        symbol: str = "BTC/USDT",
        mid: Decimal = Decimal(60000),
    ) -> None:
        self._session = session
        self._url = url
        self._account = account
        self._headers = {"Authorization": f"Bearer {token}"}
        self._name = name
        self._rng = rng
        self._journal = journal
        self._gauge = gauge
        self._symbol = symbol
        self._mid = mid
        self._count = 0
        self._open: list[str] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Trade until `stop` is set and the last request has its answer."""
        while not stop.is_set():
            if self._open and self._rng.random() < 0.25:
                await self._cancel(self._open.pop(self._rng.randrange(len(self._open))))
            else:
                await self._order()

    async def _order(self) -> None:
        self._count += 1
        key = f"{self._name}-{self._count}"
        taker = self._rng.random() < 0.15
        body: dict[str, Any] = {
            "idempotency_key": key,
            "client_order_id": f"c-{key}",
            "symbol": self._symbol,
            "side": self._rng.choice(("buy", "sell")),
            "type": "limit",
            "quantity": str(self._rng.randint(1, 500) * LOT),
            "price": str(self._mid + self._rng.randint(-40, 40) * TICK),
            "time_in_force": "ioc" if taker else "gtc",
        }
        code, answer = await self._until_definite("POST", "/v1/orders", body)
        if code in (200, 201, 202):
            self._acknowledge(key, "order", code, answer)
            if answer["status"] in ("NEW", "PARTIALLY_FILLED", "PENDING_SUBMISSION"):
                self._open = [*self._open[-OPEN_ORDERS_REMEMBERED:], answer["order_id"]]

    async def _cancel(self, order_id: str) -> None:
        code, answer = await self._until_definite("DELETE", f"/v1/orders/{order_id}", None)
        if code in (200, 202):
            self._acknowledge(f"{self._name}-cancel-{order_id}", "cancel", code, answer)

    def _acknowledge(self, key: str, kind: str, code: int, answer: dict[str, Any]) -> None:
        self._journal.record(
            Acknowledgement(
                key=key,
                kind=kind,
                account=self._account,
                code=code,
                order_id=answer["order_id"],
                status=answer["status"],
                filled=answer.get("filled_quantity") or "0",
                trades=[fill["trade_id"] for fill in answer.get("fills") or ()],
                sequence=answer.get("sequence") or 0,
                at=time.time(),
                queued_as=(answer.get("cancel_id") or answer["order_id"]) if code == 202 else "",
            )
        )
        if code == 202:
            self._gauge.queued += 1
        else:
            self._gauge.live += 1
            self._gauge.latest_live_at = time.monotonic()

    async def _until_definite(
        self, method: str, path: str, body: dict[str, Any] | None
    ) -> tuple[int, dict[str, Any]]:
        while True:
            self._gauge.in_flight += 1
            try:
                async with self._session.request(
                    method,
                    self._url + path,
                    json=body,
                    headers=self._headers,
                    timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS),
                ) as response:
                    answer = await response.json(content_type=None)
                    code = response.status
            except (aiohttp.ClientError, TimeoutError):
                code, answer = 0, {}
            finally:
                self._gauge.in_flight -= 1
            if code in (200, 201, 202):
                return code, answer
            if 400 <= code < 500 and code != 429:
                self._gauge.refused += 1
                reason = str(answer.get("code"))
                self._gauge.refusals[reason] = self._gauge.refusals.get(reason, 0) + 1
                return code, answer
            self._gauge.retries += 1
            await asyncio.sleep(RETRY_SECONDS * (1 + self._rng.random()))
