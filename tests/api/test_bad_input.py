"""Every bad input is refused by name and changes nothing."""

import json
from typing import Any

import pytest

from tests.api.venue import Trader, Venue

GOOD: dict[str, Any] = {
    "idempotency_key": "bad-input",
    "symbol": "ETH/USDT",
    "side": "buy",
    "type": "limit",
    "quantity": "1.0",
    "price": "1000",
}


@pytest.mark.parametrize(
    ("change", "status", "code", "field"),
    [
        ({"price": "-1"}, 422, "negative", "price"),
        ({"price": "0"}, 422, "zero", "price"),
        ({"price": "1.0000000001"}, 422, "too_precise", "price"),
        ({"price": "1.001"}, 422, "wrong_tick", "price"),
        ({"price": "9" * 40}, 422, "overflow", "price"),
        ({"price": "one"}, 422, "malformed_decimal", "price"),
        ({"price": 1000}, 422, "wrong_type", "price"),
        ({"price": None}, 422, "missing_field", "price"),
        ({"quantity": "-1"}, 422, "negative", "quantity"),
        ({"quantity": "0"}, 422, "zero", "quantity"),
        ({"quantity": "0.000000001"}, 422, "too_precise", "quantity"),
        ({"quantity": "0.00001"}, 422, "wrong_lot", "quantity"),
        ({"quantity": "9" * 40}, 422, "overflow", "quantity"),
        ({"quantity": "900000000000", "price": "900000000000"}, 422, "overflow", "quantity"),
        ({"quantity": "0.0001", "price": "90000000000000000"}, 422, "overflow", "price"),
        ({"quantity": 1.5}, 422, "wrong_type", "quantity"),
        ({"quantity": "100000"}, 422, "insufficient_funds", "quantity"),
        ({"symbol": "NO/SUCH"}, 422, "unknown_symbol", "symbol"),
        ({"side": "hold"}, 422, "invalid_value", "side"),
        ({"type": "stop"}, 422, "invalid_value", "type"),
        ({"time_in_force": "forever"}, 422, "invalid_value", "time_in_force"),
        ({"post_only": True, "time_in_force": "ioc"}, 422, "invalid_flags", "post_only"),
        ({"surprise": 1}, 422, "unknown_field", "surprise"),
        ({"idempotency_key": "x" * 65}, 422, "too_long", "idempotency_key"),
        ({"idempotency_key": ""}, 422, "invalid_value", "idempotency_key"),
        ({"client_order_id": "x" * 65}, 422, "too_long", "client_order_id"),
        ({"client_order_id": 7}, 422, "wrong_type", "client_order_id"),
    ],
)
def test_a_bad_order_names_the_field_and_changes_nothing(
    trader: Trader, change: dict[str, Any], status: int, code: str, field: str
) -> None:
    answer = trader.call("POST", "/v1/orders", {**GOOD, **change})
    assert (answer.status, answer.code, answer.body["field"]) == (status, code, field)
    assert field in answer.body["detail"] or code in ("insufficient_funds", "overflow")
    assert trader.balance("USDT") == ("1000000", "0")
    assert trader.call("GET", "/v1/orders?status=open").body["orders"] == []


@pytest.mark.parametrize("field", ["idempotency_key", "symbol", "side", "quantity"])
def test_each_required_field_is_asked_for_by_name(trader: Trader, field: str) -> None:
    body = {name: value for name, value in GOOD.items() if name != field}
    answer = trader.call("POST", "/v1/orders", body)
    assert (answer.status, answer.code, answer.body["field"]) == (422, "missing_field", field)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b'{"a": 1,}', b"[1, 2", b"[" * 60_000])
def test_what_is_no_json_is_malformed(trader: Trader, raw: bytes) -> None:
    answer = trader.call("POST", "/v1/orders", raw=raw)
    assert (answer.status, answer.code) == (400, "malformed_json")


def test_a_body_beyond_64_kib_is_refused_on_every_way_in(trader: Trader) -> None:
    raw = json.dumps({**GOOD, "client_order_id": "x" * 70_000}).encode()
    for method, path in (("POST", "/v1/orders"), ("POST", "/v1/orders/batch"), ("PATCH", "/v1/orders/1-1")):
        answer = trader.call(method, path, raw=raw)
        assert (answer.status, answer.code, answer.body["limit"]) == (413, "body_too_large", "65536")


def test_a_body_that_does_not_say_its_length_is_bounded_too(trader: Trader) -> None:
    for method, path in (("POST", "/v1/orders"), ("POST", "/v1/orders/batch")):
        answer = trader.call(method, path, raw=iter([b" " * 40_000] * 2))
        assert (answer.status, answer.code) == (413, "body_too_large")
    chunks = iter([json.dumps(GOOD).encode()[:20], json.dumps(GOOD).encode()[20:]])
    assert trader.call("POST", "/v1/orders", raw=chunks).status == 201


def test_a_missing_or_bad_key_opens_nothing(venue: Venue) -> None:
    for key, code in ((None, "missing_key"), ("hf_wrong", "invalid_key")):
        for method, path in (("POST", "/v1/orders"), ("GET", "/v1/balances"), ("DELETE", "/v1/orders/1-1")):
            answer = venue.call(method, path, GOOD if method == "POST" else None, key=key)
            assert (answer.status, answer.code) == (401, code)


def test_a_key_without_the_scope_is_forbidden(venue: Venue, trader: Trader) -> None:
    made = venue.admin("POST", "/v1/admin/keys", {"account": trader.account, "scopes": ["read"]})
    reader = made.body["token"]
    assert venue.call("GET", "/v1/balances", key=reader).status == 200
    answer = venue.call("POST", "/v1/orders", GOOD, key=reader)
    assert (answer.status, answer.code) == (403, "forbidden")
    answer = venue.call("POST", "/v1/admin/accounts", {"name": "x"}, admin=True, key=reader)
    assert (answer.status, answer.code) == (403, "forbidden")


def test_the_admin_routes_are_not_on_the_public_listener(venue: Venue) -> None:
    answer = venue.call("POST", "/v1/admin/accounts", {"name": "x"}, key=venue.keys["admin"])
    assert (answer.status, answer.code) == (404, "route_not_found")


def test_a_stream_that_is_asked_for_elsewhere_is_refused_with_a_code(venue: Venue) -> None:
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    answer = venue.call("GET", "/v1/streams", headers=headers)
    assert (answer.status, answer.code) == (404, "route_not_found")


def test_an_order_takes_no_parameters(trader: Trader) -> None:
    for method, path in (("POST", "/v1/orders?x=1"), ("DELETE", "/v1/orders/1-1?force=true")):
        answer = trader.call(method, path, GOOD if method == "POST" else None)
        assert (answer.status, answer.code) == (422, "unknown_field")
        assert answer.body["field"] in ("x", "force")
    assert trader.call("GET", "/v1/orders?status=open").body["orders"] == []


@pytest.mark.parametrize("symbol", ["A/B", "A-B"])
def test_an_asset_may_not_be_named_like_a_market(venue: Venue, symbol: str) -> None:
    answer = venue.admin("POST", "/v1/admin/assets", {"symbol": symbol, "decimals": 2})
    assert (answer.status, answer.code, answer.body["field"]) == (422, "invalid_value", "symbol")


@pytest.mark.parametrize("name", ["999999999", "999999999-3", "q999999", "nonsense", "01-2", "-", "1-1-1"])
def test_an_unknown_order_is_not_found(trader: Trader, name: str) -> None:
    for method in ("GET", "DELETE"):
        answer = trader.call(method, f"/v1/orders/{name}")
        assert (answer.status, answer.code) == (404, "order_not_found")
    answer = trader.call("PATCH", f"/v1/orders/{name}", {"price": "1"})
    assert (answer.status, answer.code) == (404, "order_not_found")


def test_another_accounts_order_is_not_to_be_told_from_an_unknown_one(trader: Trader, other: Trader) -> None:
    order_id = trader.place().body["order_id"]
    for method, body in (("GET", None), ("PATCH", {"quantity": "0.5"}), ("DELETE", None)):
        foreign = other.call(method, f"/v1/orders/{order_id}", body)
        unknown = other.call(method, "/v1/orders/999999999-3", body)
        assert (foreign.status, foreign.code) == (404, "order_not_found")
        assert json.dumps(foreign.body).replace(order_id, "999999999-3") == json.dumps(unknown.body)
    assert trader.call("GET", f"/v1/orders/{order_id}").body["status"] == "NEW"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/orders?status=done", "invalid_parameter"),
        ("/v1/orders?nonsense=1", "unknown_field"),
        ("/v1/orders?limit=0", "invalid_parameter"),
        ("/v1/orders?limit=1001", "invalid_parameter"),
        ("/v1/orders?cursor=x", "invalid_parameter"),
        ("/v1/fills?cursor=1", "invalid_parameter"),
        ("/v1/orders?symbol=NO-SUCH", "unknown_symbol"),
        ("/v1/markets/BTC-USDT/book?levels=many", "invalid_parameter"),
    ],
)
def test_bad_parameters_are_refused(trader: Trader, path: str, code: str) -> None:
    answer = trader.call("GET", path)
    assert (answer.status, answer.code) == (422, code)


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"transaction_id": "t", "account": 1, "asset": "NONE", "amount": "1"}, "unknown_asset", "asset"),
        ({"transaction_id": "t", "account": 0, "asset": "ETH", "amount": "1"}, "unknown_account", "account"),
        (
            {"transaction_id": "t", "account": 10**6, "asset": "ETH", "amount": "1"},
            "unknown_account",
            "account",
        ),
        ({"transaction_id": "t", "account": 1, "asset": "ETH", "amount": "-1"}, "negative", "amount"),
        ({"transaction_id": "t", "account": 1, "asset": "ETH", "amount": "0"}, "zero", "amount"),
        (
            {"transaction_id": "t", "account": 1, "asset": "ETH", "amount": "1e9"},
            "malformed_decimal",
            "amount",
        ),
        ({"account": 1, "asset": "ETH", "amount": "1"}, "missing_field", "transaction_id"),
    ],
)
def test_a_bad_deposit_names_the_field(venue: Venue, body: dict[str, Any], code: str, field: str) -> None:
    answer = venue.admin("POST", "/v1/admin/deposits", body)
    assert (answer.status, answer.code, answer.body["field"]) == (422, code, field)


def test_a_market_that_no_gateway_could_represent_is_refused_before_it_is_logged(venue: Venue) -> None:
    for symbol in ("P", "Q"):
        venue.admin("POST", "/v1/admin/assets", {"symbol": symbol, "decimals": 18})
    before = venue.call("GET", "/v1/markets").body
    sizes = {"tick_size": "1000000000000", "lot_size": "0.000000000000000001"}
    answer = venue.admin("POST", "/v1/admin/markets", {"symbol": "P/Q", "base": "P", "quote": "Q", **sizes})
    assert (answer.status, answer.code, answer.body["field"]) == (422, "invalid_amount", "tick_size")
    assert venue.call("GET", "/health").body["components"]["engine"]["connected"]
    assert venue.call("GET", "/v1/markets").body == before
