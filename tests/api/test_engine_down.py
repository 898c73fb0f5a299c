"""The engine dies: orders wait in the queue and come back exactly once."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.api.venue import Trader, Venue


def kill_engine(venue: Venue) -> int:
    """SIGKILL the engine; the epoch that died.  It stays away for the restart delay."""
    epoch = venue.epoch()
    venue.kill("engine")
    venue.wait_for(
        "the gateway notices",
        lambda: not venue.call("GET", "/health").body["components"]["engine"]["connected"],
    )
    return epoch


def restart_gateway(venue: Venue) -> None:
    """SIGKILL the gateway, and wait for the next."""
    pid = venue.kill("gateway")
    venue.wait_for(
        "another gateway", lambda: venue.status()["processes"]["gateway"]["pid"] not in (None, pid)
    )
    venue.wait_for("the gateway listens", lambda: venue.status()["health"] == "GREEN")


def rows_are_current(venue: Venue) -> bool:
    """Whether PostgreSQL holds all that was released."""
    health = venue.call("GET", "/health").body
    return bool(health["components"]["projector"]["sequence"] == health["sequence"])


def test_orders_wait_while_the_engine_is_down_and_are_live_once_afterwards(
    venue: Venue, trader: Trader
) -> None:
    before = trader.place(price="500").body
    epoch = kill_engine(venue)

    queued = trader.place(idempotency_key="queued", client_order_id="mine", quantity="2").body
    assert queued["status"] == "PENDING_SUBMISSION"
    assert queued["order_id"].startswith("q")
    again = trader.place(idempotency_key="queued", client_order_id="mine", quantity="2")
    assert (again.status, again.headers["idempotent-replayed"]) == (202, "true")
    assert again.body == queued
    assert trader.place(idempotency_key="queued", quantity="3").code == "idempotency_conflict"
    for path in (
        f"/v1/orders/{queued['order_id']}",
        "/v1/orders?client_order_id=mine",
        "/v1/orders?idempotency_key=queued",
    ):
        assert trader.call("GET", path).body["status"] == "PENDING_SUBMISSION"
    listed = [order["order_id"] for order in trader.call("GET", "/v1/orders?status=open").body["orders"]]
    assert set(listed) == {queued["order_id"], before["order_id"]}
    # Whether the dead engine had seen a key is not for the gateway to say.
    assert trader.call("GET", "/v1/orders?idempotency_key=unheard").code == "unknown_outcome"

    health = venue.call("GET", "/health").body
    assert (health["status"], health["venue_state"]) == ("RED", "RECOVERING")
    assert venue.call("GET", "/health/ready").status == 200
    assert venue.call("GET", "/v1/markets/ETH-USDT/book").body["bids"]

    venue.wait_open(after_epoch=epoch)
    live = trader.call("GET", f"/v1/orders/{queued['order_id']}").body
    assert (live["status"], live["quantity"], live["client_order_id"]) == ("NEW", "2.0000", "mine")
    replayed = trader.place(idempotency_key="queued", client_order_id="mine", quantity="2")
    assert replayed.headers["idempotent-replayed"] == "true"
    assert replayed.body["order_id"] == queued["order_id"]
    book = venue.call("GET", "/v1/markets/ETH-USDT/book").body
    assert [level for level in book["bids"] if level[0] == "1000.00"] == [["1000.00", "2.0000", 1]]
    canceled = trader.call("DELETE", f"/v1/orders/{queued['order_id']}")
    assert (canceled.status, canceled.body["status"]) == (200, "CANCELED")


def test_a_queued_order_can_be_cancelled_before_the_engine_is_back(venue: Venue, trader: Trader) -> None:
    epoch = kill_engine(venue)
    order_id = trader.place().body["order_id"]
    for _ in range(2):
        canceled = trader.call("DELETE", f"/v1/orders/{order_id}")
        assert (canceled.status, canceled.body["status"]) == (200, "CANCELED")
    venue.wait_open(after_epoch=epoch)
    assert trader.call("GET", f"/v1/orders/{order_id}").body["status"] == "CANCELED"
    assert trader.balance("USDT") == ("1000000", "0")


def test_what_ended_in_the_queue_does_not_go_live_under_its_key(venue: Venue, trader: Trader) -> None:
    """The engine never heard of the key: the gateway has to know it, also one that started since."""
    epoch = kill_engine(venue)
    queued = trader.place(idempotency_key="ended").body
    assert trader.call("DELETE", f"/v1/orders/{queued['order_id']}").body["status"] == "CANCELED"
    item = {"symbol": "ETH/USDT", "side": "buy", "quantity": "1.0", "price": "1000"}
    venue.wait_open(after_epoch=epoch)
    for turn in ("the gateway that cancelled it", "one that started since"):
        again = trader.place(idempotency_key="ended")
        assert (again.status, again.headers["idempotent-replayed"]) == (202, "true"), turn
        assert (again.body["order_id"], again.body["status"]) == (queued["order_id"], "CANCELED")
        other = trader.place(idempotency_key="ended", quantity="2")
        assert (other.status, other.code) == (409, "idempotency_conflict")
        live = trader.place(idempotency_key=f"unused {turn}"[:64], price="900")
        assert live.status == 201
        amend = {"idempotency_key": "ended", "quantity": "0.5"}
        answer = trader.call("PATCH", f"/v1/orders/{live.body['order_id']}", amend)
        assert (answer.status, answer.code) == (409, "idempotency_conflict")
        assert trader.call("DELETE", f"/v1/orders/{live.body['order_id']}").status == 200
        if turn.startswith("the gateway"):
            restart_gateway(venue)
    batch = trader.call("POST", "/v1/orders/batch", {"idempotency_key": "b", "orders": [item]}).body
    assert batch["results"][0]["status"] == 201
    assert [order["quantity"] for order in trader.call("GET", "/v1/orders?status=open").body["orders"]] == [
        "1.0000"
    ]


def test_a_key_that_was_used_is_known_while_the_engine_is_down(venue: Venue, trader: Trader) -> None:
    first = trader.place(idempotency_key="live", client_order_id="mine", quantity="2")
    refused = trader.place(idempotency_key="refused", quantity="100000")
    trader.call("PATCH", f"/v1/orders/{first.body['order_id']}", {"quantity": "1"})
    venue.wait_for("the rows have it", lambda: rows_are_current(venue))
    epoch = kill_engine(venue)
    for _ in range(2):
        again = trader.place(idempotency_key="live", client_order_id="mine", quantity="2")
        assert again.headers["idempotent-replayed"] == "true"
        assert (again.status, again.body) == (201, first.body)
    no = trader.place(idempotency_key="refused", quantity="100000")
    assert no.headers["idempotent-replayed"] == "true"
    assert (no.status, no.body) == (refused.status, refused.body)
    for key, fields in (("live", {"client_order_id": "mine"}), ("refused", {"quantity": "99999"})):
        other = trader.place(idempotency_key=key, **fields)
        assert (other.status, other.code) == (409, "idempotency_conflict")
    venue.wait_open(after_epoch=epoch)
    open_orders = trader.call("GET", "/v1/orders?status=open").body["orders"]
    assert [order["order_id"] for order in open_orders] == [first.body["order_id"]]


def test_the_cancel_of_a_live_order_is_queued_and_done_after_recovery(venue: Venue, trader: Trader) -> None:
    order_id = trader.place().body["order_id"]
    epoch = kill_engine(venue)
    answer = trader.call("DELETE", f"/v1/orders/{order_id}")
    assert (answer.status, answer.body["status"]) == (202, "PENDING_SUBMISSION")
    venue.wait_open(after_epoch=epoch)
    assert trader.call("GET", f"/v1/orders/{order_id}").body["status"] == "CANCELED"
    assert trader.balance("USDT") == ("1000000", "0")


def test_a_queued_cancel_is_no_order_that_could_be_cancelled(venue: Venue, trader: Trader) -> None:
    order_id = trader.place().body["order_id"]
    epoch = kill_engine(venue)
    cancel_id = trader.call("DELETE", f"/v1/orders/{order_id}").body["cancel_id"]
    answer = trader.call("DELETE", f"/v1/orders/{cancel_id}")
    assert (answer.status, answer.code) == (404, "order_not_found")
    venue.wait_open(after_epoch=epoch)
    assert trader.call("GET", f"/v1/orders/{order_id}").body["status"] == "CANCELED"
    answer = trader.call("DELETE", f"/v1/orders/{cancel_id}")
    assert (answer.status, answer.code) == (404, "order_not_found")


def test_funds_are_judged_when_the_order_is_sequenced(venue: Venue, trader: Trader) -> None:
    epoch = kill_engine(venue)
    order_id = trader.place(quantity="100000").body["order_id"]
    venue.wait_open(after_epoch=epoch)
    order = trader.call("GET", f"/v1/orders/{order_id}").body
    assert (order["status"], order["reason"]) == ("REJECTED", "INSUFFICIENT_FUNDS")


def test_what_is_not_queued_is_told_to_try_again(venue: Venue, trader: Trader) -> None:
    order_id = trader.place().body["order_id"]
    epoch = kill_engine(venue)
    item = {"symbol": "ETH/USDT", "side": "buy", "quantity": "1", "price": "10"}
    for method, path, body in (
        ("PATCH", f"/v1/orders/{order_id}", {"price": "900"}),
        ("DELETE", "/v1/orders", None),
        ("POST", "/v1/orders/batch", {"idempotency_key": "b", "orders": [item]}),
    ):
        answer = trader.call(method, path, body)
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "unavailable", "1")
    assert trader.place(price="0").code == "zero"
    venue.wait_open(after_epoch=epoch)
    assert trader.call("GET", f"/v1/orders/{order_id}").body["price"] == "1000.00"


def test_what_was_in_flight_at_the_kill_is_one_order_each(venue: Venue, trader: Trader) -> None:
    epoch, engine = venue.epoch(), venue.pid("engine")
    count = 200
    with ThreadPoolExecutor(8) as pool:
        futures = [
            pool.submit(trader.place, idempotency_key=f"flight-{i}", quantity="0.1") for i in range(count)
        ]
        # With a quarter answered, others are at the engine, and the rest will find it dead.
        for future in futures[: count // 4]:
            future.result()
        os.kill(engine, signal.SIGKILL)
        answers = [future.result() for future in futures]
    assert {answer.status for answer in answers} <= {201, 202}
    assert 202 in {answer.status for answer in answers}
    venue.wait_open(after_epoch=epoch)
    orders: list[str] = []
    for i, answer in enumerate(answers):
        found = trader.call("GET", f"/v1/orders?idempotency_key=flight-{i}").body
        assert found["status"] == "NEW"
        by_id = trader.call("GET", f"/v1/orders/{answer.body['order_id']}").body
        assert by_id["order_id"] == found["order_id"]
        orders.append(found["order_id"])
    assert len(set(orders)) == count
    book = venue.call("GET", "/v1/markets/ETH-USDT/book").body
    assert book["bids"] == [["1000.00", "20.0000", count]]


@pytest.fixture
def restarted(venue: Venue, trader: Trader) -> Venue:
    """The venue after the gateway, too, was killed and came back."""
    trader.place(idempotency_key="before", client_order_id="kept")
    restart_gateway(venue)
    return venue


def test_a_gateway_that_was_killed_answers_from_the_rows(restarted: Venue, trader: Trader) -> None:
    found = trader.call("GET", "/v1/orders?client_order_id=kept").body
    assert found["status"] == "NEW"
    again = trader.place(idempotency_key="before", client_order_id="kept")
    assert again.headers["idempotent-replayed"] == "true"
    assert again.body["order_id"] == found["order_id"]
    assert trader.call("GET", f"/v1/orders/{found['order_id']}").body["price"] == "1000.00"
    assert restarted.call("GET", "/v1/markets/ETH-USDT/book").body["bids"] == [["1000.00", "1.0000", 1]]
    assert trader.call("DELETE", f"/v1/orders/{found['order_id']}").body["status"] == "CANCELED"


def test_trading_goes_on_while_the_database_is_down_and_the_rows_catch_up(
    venue: Venue, trader: Trader
) -> None:
    pid = venue.kill("postgres")
    placed = trader.place(client_order_id="meanwhile")
    assert placed.status == 201
    assert trader.call("GET", f"/v1/orders/{placed.body['order_id']}").status == 200
    venue.wait_for(
        "PostgreSQL is back", lambda: venue.status()["processes"]["postgres"]["pid"] not in (None, pid)
    )
    venue.wait_for(
        "the rows caught up",
        lambda: trader.call("GET", "/v1/orders?client_order_id=meanwhile").status == 200,
    )


def test_with_engine_and_database_down_nothing_is_accepted(venue: Venue, trader: Trader) -> None:
    epoch = venue.epoch()
    venue.kill("postgres")
    venue.kill("engine")
    venue.wait_for("both are missed", lambda: venue.call("GET", "/health/ready").status == 503)
    answer = trader.place(idempotency_key="nobody")
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "unavailable", "1")
    venue.wait_open(after_epoch=epoch)
    assert trader.call("GET", "/v1/orders?idempotency_key=nobody").code == "never_seen"
