"""A real venue under test, started by the CLI, and a plain HTTP client for it."""

import http.client
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

READY_S = 60.0
WAIT_S = 30.0
_numbers = itertools.count(1)


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def code(self) -> str:
        """The stable code of a problem."""
        assert self.headers["content-type"] == "application/problem+json", self
        assert self.body["status"] == self.status
        return str(self.body["code"])


class Venue:
    """`holdfast serve --demo` in a process of its own."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.data = data
        self._log = (data.parent / "serve.log").open("ab")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "api.cli", "serve", "--data", str(data), "--demo", "--json"),
                *("--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", *arguments),
            ],
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, (data.parent / "serve.log").read_text()
        self.ready: dict[str, Any] = json.loads(line)

    @property
    def url(self) -> str:
        return str(self.ready["url"])

    @property
    def keys(self) -> dict[str, str]:
        return dict(self.ready["keys"])

    def stop(self) -> int:
        """Ctrl-C; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        code = self.process.wait(WAIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()
        return code

    def status(self) -> dict[str, Any]:
        """`holdfast status --json`."""
        command = [sys.executable, "-m", "api.cli", "status", "--data", str(self.data), "--json"]
        done = subprocess.run(command, capture_output=True, check=False, timeout=WAIT_S)
        return dict(json.loads(done.stdout))

    def pid(self, name: str) -> int:
        """Pid of one process."""
        return int(self.status()["processes"][name]["pid"])

    def kill(self, name: str) -> int:
        """SIGKILL to one process; its pid."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        admin: bool = False,
        raw: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request; an iterable `raw` is sent in chunks, without a length."""
        address = urlsplit(self.ready["admin_url" if admin else "url"])
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=WAIT_S)
        sent = dict(headers or {})
        if key is not None:
            sent["Authorization"] = f"Bearer {key}"
        elif admin and "Authorization" not in sent:
            sent["Authorization"] = f"Bearer {self.keys['admin']}"
        payload = raw if raw is not None else None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, path, payload, sent)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        received = {name.lower(): value for name, value in response.getheaders()}
        is_json = "json" in received.get("content-type", "")
        return Answer(response.status, received, json.loads(content) if is_json else content.decode())

    def admin(self, method: str, path: str, body: Any = None) -> Answer:
        """One request of the operator."""
        return self.call(method, path, body, admin=True)

    def trader(self, **funds: str) -> "Trader":
        """A new account with a key and these funds."""
        name = f"trader-{next(_numbers)}"
        account = self.admin("POST", "/v1/admin/accounts", {"name": name}).body["account"]
        made = self.admin("POST", "/v1/admin/keys", {"account": account, "scopes": ["read", "trade"]})
        for asset, amount in funds.items():
            deposit = {
                "transaction_id": f"{name}-{asset}",
                "account": account,
                "asset": asset,
                "amount": amount,
            }
            assert self.admin("POST", "/v1/admin/deposits", deposit).status == 201
        return Trader(self, account, made.body["token"], made.body["key_id"])

    def wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        """Poll until it holds."""
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {WAIT_S:.0f} s"
            time.sleep(0.02)

    def wait_open(self, after_epoch: int = 0) -> None:
        """Until an engine of a later epoch is OPEN for this gateway."""

        def is_open() -> bool:
            health = self.call("GET", "/health").body
            return bool(health["venue_state"] == "OPEN" and health["epoch"] > after_epoch)

        self.wait_for("OPEN", is_open)

    def epoch(self) -> int:
        """The epoch that the gateway knows."""
        return int(self.call("GET", "/health").body["epoch"])


class Trader:
    """An account's requests."""

    def __init__(self, venue: Venue, account: int, token: str, key_id: str) -> None:
        self.venue = venue
        self.account = account
        self.token = token
        self.key_id = key_id

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        """One request."""
        return self.venue.call(method, path, body, key=self.token, **options)

    def place(self, **fields: Any) -> Answer:
        """An order; a buy of 1 ETH at 1000 unless told otherwise."""
        body = {
            "idempotency_key": f"key-{next(_numbers)}",
            "symbol": "ETH/USDT",
            "side": "buy",
            "type": "limit",
            "quantity": "1.0",
            "price": "1000",
            **fields,
        }
        return self.call(
            "POST", "/v1/orders", {name: value for name, value in body.items() if value is not None}
        )

    def balance(self, asset: str) -> tuple[str, str]:
        """available, held."""
        rows = self.call("GET", "/v1/balances").body["balances"]
        return next(((row["available"], row["held"]) for row in rows if row["asset"] == asset), ("0", "0"))
