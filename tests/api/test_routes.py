"""What each route does, on a real venue."""

import pytest

from tests.api.venue import Trader, Venue


def test_the_order_of_the_seed_works_as_it_stands(trader: Trader) -> None:
    body = {
        "idempotency_key": "req_abc123",
        "symbol": "BTC/USDT",
        "quantity": "1.0",
        "side": "buy",
        "price": "50000",
    }
    answer = trader.call("POST", "/v1/orders", {**body, "type": "limit"})
    assert answer.status == 201
    assert answer.body["status"] == "NEW"
    assert (answer.body["quantity"], answer.body["price"]) == ("1.00000", "50000.00")


def test_an_order_is_found_by_each_of_its_names(trader: Trader) -> None:
    placed = trader.place(client_order_id="mine", idempotency_key="by-name").body
    for path in (
        f"/v1/orders/{placed['order_id']}",
        "/v1/orders?client_order_id=mine",
        "/v1/orders?idempotency_key=by-name",
    ):
        found = trader.call("GET", path)
        assert found.status == 200
        assert found.body["order_id"] == placed["order_id"]
        assert found.body["client_order_id"] == "mine"
    assert [order["order_id"] for order in trader.call("GET", "/v1/orders?status=open").body["orders"]] == [
        placed["order_id"]
    ]


def test_a_key_that_no_request_had_was_never_seen(trader: Trader) -> None:
    answer = trader.call("GET", "/v1/orders?idempotency_key=never")
    assert (answer.status, answer.code) == (404, "never_seen")
    assert answer.body["sequence"] > 0


def test_a_trade_shows_on_both_sides_with_fees_and_average_price(trader: Trader, other: Trader) -> None:
    trader.place(side="sell", price="2000", quantity="1")
    trader.place(side="sell", price="2001", quantity="1")
    taken = other.place(price="2001", quantity="1.5").body
    assert (taken["status"], taken["filled_quantity"]) == ("FILLED", "1.5000")
    assert taken["average_price"] == "2000.33333333"
    assert [fill["quantity"] for fill in taken["fills"]] == ["1.0000", "0.5000"]
    assert {fill["liquidity"] for fill in taken["fills"]} == {"taker"}
    maker = trader.call("GET", "/v1/fills").body["fills"]
    assert {fill["trade_id"] for fill in maker} == {fill["trade_id"] for fill in taken["fills"]}
    assert {fill["liquidity"] for fill in maker} == {"maker"}
    public = trader.call("GET", "/v1/markets/ETH-USDT/trades?limit=2").body["trades"]
    assert [trade["trade_id"] for trade in public] == [fill["trade_id"] for fill in reversed(taken["fills"])]
    # 0.02 % for the maker, 0.05 % for the taker.
    assert trader.balance("USDT")[0] == "1002999.8999"
    assert other.balance("USDT")[0] == "996997.99975"


def test_fills_come_in_pages_without_gaps_or_repeats(trader: Trader, other: Trader) -> None:
    trader.place(side="sell", price="1500", quantity="5")
    for _ in range(5):
        other.place(price="1500", quantity="1")
    seen: list[str] = []
    cursor = ""
    while True:
        page = other.call("GET", f"/v1/fills?limit=2{cursor}").body
        seen += [fill["trade_id"] for fill in page["fills"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert len(seen) == len(set(seen)) == 5


def test_open_orders_come_in_pages_without_gaps_or_repeats(trader: Trader) -> None:
    placed = [trader.place(price=str(100 + i)).body["order_id"] for i in range(5)]
    seen: list[str] = []
    cursor = ""
    while True:
        page = trader.call("GET", f"/v1/orders?status=open&limit=2{cursor}").body
        seen += [order["order_id"] for order in page["orders"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == placed[::-1]


@pytest.mark.parametrize(
    ("fields", "status", "reason"),
    [
        ({"time_in_force": "ioc"}, "CANCELED", "IOC_REMAINDER"),
        ({"time_in_force": "FOK"}, "CANCELED", "FOK_NOT_FILLABLE"),
        ({"type": "market", "price": None}, "CANCELED", "MARKET_REMAINDER"),
    ],
)
def test_what_does_not_fill_at_once_is_created_and_canceled_with_its_reason(
    trader: Trader, fields: dict[str, str], status: str, reason: str
) -> None:
    answer = trader.place(**fields)
    assert answer.status == 201
    assert (answer.body["status"], answer.body["reason"]) == (status, reason)
    assert trader.balance("USDT") == ("1000000", "0")


def test_a_post_only_order_that_would_trade_is_refused(trader: Trader, other: Trader) -> None:
    other.place(side="sell", price="1000")
    answer = trader.place(post_only=True)
    assert (answer.status, answer.code) == (422, "post_only_would_cross")


def test_two_live_orders_cannot_share_a_client_order_id(trader: Trader) -> None:
    first = trader.place(client_order_id="same").body
    answer = trader.place(client_order_id="same")
    assert (answer.status, answer.code) == (409, "duplicate_client_order_id")
    trader.call("DELETE", f"/v1/orders/{first['order_id']}")
    assert trader.place(client_order_id="same").status == 201


def test_cancelling_again_answers_with_the_final_state(trader: Trader) -> None:
    order_id = trader.place().body["order_id"]
    answers = [trader.call("DELETE", f"/v1/orders/{order_id}") for _ in range(2)]
    for answer in answers:
        assert answer.status == 200
        assert (answer.body["status"], answer.body["reason"]) == ("CANCELED", "USER_REQUESTED")
        assert answer.body["remaining_quantity"] == "0.0000"
    assert trader.balance("USDT") == ("1000000", "0")


def test_an_amend_changes_price_and_quantity_and_the_hold(trader: Trader) -> None:
    order_id = trader.place(quantity="2").body["order_id"]
    answer = trader.call("PATCH", f"/v1/orders/{order_id}", {"quantity": "1"})
    assert (answer.status, answer.body["quantity"], answer.body["price"]) == (200, "1.0000", "1000.00")
    answer = trader.call("PATCH", f"/v1/orders/{order_id}", {"price": "1100", "quantity": "3"})
    assert (answer.body["quantity"], answer.body["price"]) == ("3.0000", "1100.00")
    assert trader.balance("USDT")[1] == "3301.65"
    answer = trader.call("PATCH", f"/v1/orders/{order_id}", {})
    assert (answer.status, answer.code) == (422, "missing_field")
    trader.call("DELETE", f"/v1/orders/{order_id}")
    answer = trader.call("PATCH", f"/v1/orders/{order_id}", {"price": "1"})
    assert (answer.status, answer.code) == (409, "not_live")


def test_mass_cancel_takes_the_callers_orders_of_one_market_or_of_all(trader: Trader, other: Trader) -> None:
    eth = [trader.place().body["order_id"] for _ in range(3)]
    btc = trader.place(symbol="BTC/USDT").body["order_id"]
    kept = other.place().body["order_id"]
    assert sorted(trader.call("DELETE", "/v1/orders?symbol=ETH-USDT").body["canceled"]) == sorted(eth)
    assert trader.call("DELETE", "/v1/orders").body == {"canceled": [btc], "failed": []}
    assert other.call("GET", f"/v1/orders/{kept}").body["status"] == "NEW"


def test_a_batch_gives_each_item_its_own_answer_and_replays_whole(trader: Trader) -> None:
    item = {"symbol": "ETH/USDT", "side": "buy", "quantity": "1", "price": "10"}
    body = {"idempotency_key": "batch", "orders": [item, {**item, "price": "0"}, {**item, "price": "11"}]}
    first = trader.call("POST", "/v1/orders/batch", body)
    assert first.status == 200
    assert [result["status"] for result in first.body["results"]] == [201, 422, 201]
    assert first.body["results"][1]["problem"]["code"] == "zero"
    again = trader.call("POST", "/v1/orders/batch", body).body["results"]
    assert [result["replayed"] for result in again] == [True, False, True]
    assert again[0]["order"] == first.body["results"][0]["order"]
    assert len(trader.call("GET", "/v1/orders?status=open").body["orders"]) == 2
    found = trader.call("GET", "/v1/orders?idempotency_key=batch:2").body
    assert found["order_id"] == again[2]["order"]["order_id"]


def test_a_batch_of_more_than_100_is_refused(trader: Trader) -> None:
    item = {"symbol": "ETH/USDT", "side": "buy", "quantity": "1", "price": "10"}
    answer = trader.call("POST", "/v1/orders/batch", {"idempotency_key": "b", "orders": [item] * 101})
    assert (answer.status, answer.code, answer.body["limit"]) == (422, "batch_too_large", "100")


# Idempotency.


def test_the_same_request_again_gets_the_same_answer_and_no_second_order(trader: Trader) -> None:
    first = trader.place(idempotency_key="once")
    again = trader.place(idempotency_key="once")
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.status, again.body) == (first.status, first.body)
    assert len(trader.call("GET", "/v1/orders?status=open").body["orders"]) == 1


def test_a_rejection_is_replayed_too(trader: Trader) -> None:
    first = trader.place(idempotency_key="no", quantity="100000")
    again = trader.place(idempotency_key="no", quantity="100000")
    assert (first.status, first.code) == (422, "insufficient_funds")
    assert again.headers["idempotent-replayed"] == "true"
    assert again.body == first.body
    found = trader.call("GET", "/v1/orders?idempotency_key=no").body
    assert (found["status"], found["reason"]) == ("REJECTED", "INSUFFICIENT_FUNDS")


def test_a_refused_amend_is_refused_again_under_its_key(trader: Trader) -> None:
    order_id = trader.place().body["order_id"]
    body = {"idempotency_key": "too much", "quantity": "100000"}
    first = trader.call("PATCH", f"/v1/orders/{order_id}", body)
    again = trader.call("PATCH", f"/v1/orders/{order_id}", body)
    assert (first.status, first.code) == (422, "insufficient_funds")
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.status, again.body) == (first.status, first.body)


def test_an_amend_again_gets_the_first_answer_and_not_the_order_as_it_is_now(
    trader: Trader, other: Trader
) -> None:
    order_id = trader.place(quantity="5").body["order_id"]
    other.place(side="sell", quantity="1")
    body = {"idempotency_key": "less", "quantity": "4"}
    first = trader.call("PATCH", f"/v1/orders/{order_id}", body)
    other.place(side="sell", quantity="1")
    trader.call("PATCH", f"/v1/orders/{order_id}", {"quantity": "3"})
    again = trader.call("PATCH", f"/v1/orders/{order_id}", body)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.status, again.body) == (200, first.body)
    assert (again.body["quantity"], again.body["remaining_quantity"]) == ("4.0000", "3.0000")


def test_the_same_key_with_another_body_is_a_conflict(trader: Trader) -> None:
    trader.place(idempotency_key="taken", client_order_id="first")
    answer = trader.place(idempotency_key="taken", quantity="2", client_order_id="first")
    assert (answer.status, answer.code) == (409, "idempotency_conflict")
    found = trader.call("GET", "/v1/orders?client_order_id=first").body
    assert (found["status"], found["quantity"]) == ("NEW", "1.0000")


def test_two_accounts_may_use_the_same_key(trader: Trader, other: Trader) -> None:
    assert trader.place(idempotency_key="shared").status == 201
    assert "idempotent-replayed" not in other.place(idempotency_key="shared").headers


# Market data.


def test_the_book_shows_levels_best_first(trader: Trader) -> None:
    for price in ("900", "910", "910"):
        trader.place(price=price)
    trader.place(side="sell", price="1200", quantity="2")
    book = trader.venue.call("GET", "/v1/markets/ETH-USDT/book?levels=5").body
    assert book["bids"] == [["910.00", "2.0000", 2], ["900.00", "1.0000", 1]]
    assert book["asks"] == [["1200.00", "2.0000", 1]]
    assert len(trader.venue.call("GET", "/v1/markets/ETH-USDT/book?levels=1").body["bids"]) == 1


def test_markets_are_public_and_named_with_a_hyphen(venue: Venue) -> None:
    symbols = {market["symbol"] for market in venue.call("GET", "/v1/markets").body["markets"]}
    assert {"BTC/USDT", "ETH/USDT", "AAPL/USD"} <= symbols
    market = venue.call("GET", "/v1/markets/BTC-USDT").body
    assert (market["tick_size"], market["lot_size"], market["state"]) == ("0.01", "0.00001", "OPEN")
    assert venue.call("GET", "/v1/markets/NO-SUCH").code == "market_not_found"


# Operations.


def test_health_metrics_and_documents_are_served_on_both_listeners(venue: Venue) -> None:
    for admin in (False, True):
        assert venue.call("GET", "/health/live", admin=admin).status == 200
        assert venue.call("GET", "/health/ready", admin=admin).status == 200
        health = venue.call("GET", "/health", admin=admin).body
        assert health["components"]["engine"]["connected"] is True
        metrics = venue.call("GET", "/metrics", admin=admin).body
        assert "holdfast_engine_up 1.0" in metrics
        assert "holdfast_http_requests_total{" in metrics
        assert "openapi.json" in venue.call("GET", "/docs", admin=admin).body
        document = venue.call("GET", "/openapi.json", admin=admin).body
        assert document["openapi"].startswith("3.")
    assert "/v1/admin/deposits" in document["paths"]


def test_the_openapi_document_has_every_public_route_and_its_references_resolve(venue: Venue) -> None:
    document = venue.call("GET", "/openapi.json").body
    routes = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert {
        ("post", "/v1/orders"), ("get", "/v1/orders"), ("delete", "/v1/orders"), ("post", "/v1/orders/batch"),
        ("get", "/v1/orders/{order_id}"), ("patch", "/v1/orders/{order_id}"),
        ("delete", "/v1/orders/{order_id}"),
        ("get", "/v1/balances"), ("get", "/v1/fills"), ("get", "/v1/limits"), ("get", "/v1/markets"),
        ("get", "/v1/markets/{symbol}"), ("get", "/v1/markets/{symbol}/book"),
        ("get", "/v1/markets/{symbol}/trades"), ("get", "/health"), ("get", "/metrics"),
    } <= routes  # fmt: skip
    names = set(document["components"]["schemas"])

    def check(node: object) -> None:
        if isinstance(node, dict):
            reference = node.get("$ref")
            assert reference is None or reference.rsplit("/", 1)[1] in names, reference
            for value in node.values():
                check(value)
        elif isinstance(node, list):
            for value in node:
                check(value)

    check(document)


def test_limits_name_the_callers_account(trader: Trader) -> None:
    limits = trader.call("GET", "/v1/limits").body
    assert (limits["account"], limits["body_bytes_max"]) == (trader.account, 65536)


# Admin.


def test_a_deposit_sent_twice_is_booked_once_and_another_under_its_id_is_a_conflict(
    venue: Venue, trader: Trader
) -> None:
    body = {
        "transaction_id": f"twice-{trader.account}",
        "account": trader.account,
        "asset": "BTC",
        "amount": "2",
    }
    first, again = (venue.admin("POST", "/v1/admin/deposits", body) for _ in range(2))
    assert (first.status, again.status) == (201, 200)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.body == first.body
    assert venue.admin("POST", "/v1/admin/deposits", {**body, "amount": "3"}).code == "idempotency_conflict"
    assert trader.balance("BTC") == ("2", "0")
    taken = {**body, "transaction_id": f"out-{trader.account}", "amount": "0.5"}
    assert venue.admin("POST", "/v1/admin/withdrawals", taken).status == 201
    assert trader.balance("BTC") == ("1.5", "0")
    taken = {**body, "transaction_id": f"more-{trader.account}", "amount": "1.6"}
    assert venue.admin("POST", "/v1/admin/withdrawals", taken).code == "insufficient_funds"


def test_a_refused_withdrawal_is_refused_again_under_its_key(venue: Venue, trader: Trader) -> None:
    body = {
        "idempotency_key": "too much",
        "transaction_id": f"out-{trader.account}",
        "account": trader.account,
        "asset": "ETH",
        "amount": "1000.5",
    }
    first, again = (venue.admin("POST", "/v1/admin/withdrawals", body) for _ in range(2))
    assert (first.status, first.code) == (422, "insufficient_funds")
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.status, again.body) == (first.status, first.body)


def test_a_revoked_key_opens_nothing_from_then_on(venue: Venue, trader: Trader) -> None:
    assert trader.call("GET", "/v1/balances").status == 200
    assert venue.admin("DELETE", f"/v1/admin/keys/{trader.key_id}").status == 200
    answer = trader.call("GET", "/v1/balances")
    assert (answer.status, answer.code) == (401, "invalid_key")
    assert venue.admin("DELETE", "/v1/admin/keys/00").code == "unknown_key"


def test_a_market_opened_by_the_operator_trades(venue: Venue) -> None:
    asset = {"symbol": "XYZ", "decimals": 4}
    assert venue.admin("POST", "/v1/admin/assets", asset).status in (200, 201)
    assert venue.admin("POST", "/v1/admin/assets", asset).headers["idempotent-replayed"] == "true"
    assert venue.admin("POST", "/v1/admin/assets", {**asset, "decimals": 5}).code == "already_exists"
    market = {"symbol": "XYZ/USDT", "base": "XYZ", "quote": "USDT", "tick_size": "0.05", "lot_size": "0.1"}
    assert (
        venue.admin("POST", "/v1/admin/markets", {**market, "tick_size": "0.00000001"}).code
        == "invalid_amount"
    )
    assert venue.admin("POST", "/v1/admin/markets", market).status in (200, 201)
    seller, buyer = venue.trader(XYZ="10"), venue.trader(USDT="100")
    assert seller.place(symbol="XYZ/USDT", side="sell", price="1.03", quantity="1").code == "wrong_tick"
    assert seller.place(symbol="XYZ/USDT", side="sell", price="1.05", quantity="1").status == 201
    assert buyer.place(symbol="XYZ/USDT", price="1.05", quantity="1").body["status"] == "FILLED"


def test_a_halted_market_takes_nothing_and_opens_again(venue: Venue, trader: Trader) -> None:
    def set_state(state: str) -> None:
        answer = venue.admin("POST", "/v1/admin/markets/SOL-USDT/state", {"state": state, "reason": "a test"})
        assert (answer.status, answer.body["state"]) == (200, state)

    set_state("HALTED")
    try:
        answer = trader.place(symbol="SOL/USDT", idempotency_key="while halted")
        assert (answer.status, answer.code) == (409, "market_halted")
        assert "retry-after" not in answer.headers
    finally:
        set_state("OPEN")
    # The refusal is the stored answer of its key: another key, another answer.
    again = trader.place(symbol="SOL/USDT", idempotency_key="while halted")
    assert again.body == answer.body
    assert again.headers["idempotent-replayed"] == "true"
    assert trader.place(symbol="SOL/USDT").status == 201


def test_a_halted_venue_resumes_with_a_reason(venue: Venue, trader: Trader) -> None:
    order_id = trader.place().body["order_id"]
    halt = {"state": "HALTED", "reason": "a test"}
    assert venue.admin("POST", "/v1/admin/venue/state", halt).body["state"] == "HALTED"
    try:
        assert trader.place().code == "venue_halted"
        assert trader.call("DELETE", f"/v1/orders/{order_id}").code == "venue_halted"
        assert venue.call("GET", "/health").body["status"] == "RED"
        assert venue.admin("POST", "/v1/admin/resume", {}).code == "missing_field"
    finally:
        assert venue.admin("POST", "/v1/admin/resume", {"reason": "the test is over"}).body["state"] == "OPEN"
    assert trader.place().status == 201


def test_a_checkpoint_is_taken_when_asked(venue: Venue, trader: Trader) -> None:
    sequence = trader.place().body["sequence"]
    answer = venue.admin("POST", "/v1/admin/checkpoint")
    assert (answer.status, answer.body["sequence"] >= sequence) == (200, True)
    names = [path.name for path in (venue.data / "checkpoints").iterdir()]
    assert any(int(name.split(".")[0]) >= sequence for name in names)


def test_no_token_is_ever_in_a_log(venue: Venue, trader: Trader) -> None:
    trader.call("GET", "/v1/balances")
    text = (venue.data.parent / "serve.log").read_text()
    assert text
    assert not [token for token in (trader.token, *venue.keys.values()) if token in text]
