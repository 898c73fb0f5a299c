"""The projector stands still: reads say what is so, or that they cannot, never a false no."""

import contextlib
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.api.venue import Answer, Trader, Venue


def wait_for_rows(venue: Venue) -> None:
    """Until they hold all that is released."""

    def caught_up() -> bool:
        health = venue.call("GET", "/health").body
        return bool(health["components"]["projector"]["sequence"] >= health["sequence"])

    venue.wait_for("the rows caught up", caught_up)


@contextlib.contextmanager
def standing_still(venue: Venue) -> Iterator[None]:
    """Rows as they are now; released commands go on.  After ten seconds the supervisor would step in."""
    pid = venue.pid("projector")
    wait_for_rows(venue)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def restart_gateway(venue: Venue) -> None:
    """A gateway that has seen nothing but the WELCOME."""
    pid = venue.kill("gateway")
    venue.wait_for(
        "another gateway", lambda: venue.status()["processes"]["gateway"]["pid"] not in (None, pid)
    )
    venue.wait_for("it hears the engine", lambda: _opened(venue))


def _opened(venue: Venue) -> bool:
    with contextlib.suppress(OSError):
        return bool(venue.call("GET", "/health").body["components"]["engine"]["connected"])
    return False


def is_honest(answer: Answer) -> bool:
    """503, with when to ask again."""
    return (answer.status, answer.code, answer.headers["retry-after"]) == (503, "unavailable", "1")


def listed(trader: Trader, limit: int) -> list[str]:
    """All open orders by pages."""
    found: list[str] = []
    cursor = ""
    while True:
        page = trader.call("GET", f"/v1/orders?status=open&limit={limit}{cursor}")
        assert page.status == 200, page
        found += [order["order_id"] for order in page.body["orders"]]
        if page.body["next_cursor"] is None:
            return found
        cursor = f"&cursor={page.body['next_cursor']}"


def test_orders_that_no_row_knows_yet_are_found_and_listed_in_full(venue: Venue, trader: Trader) -> None:
    old = [trader.place(client_order_id=f"old-{i}").body["order_id"] for i in range(5)]
    with standing_still(venue):
        fresh = [
            trader.place(client_order_id=f"fresh-{i}", idempotency_key=f"lag-{i}").body["order_id"]
            for i in range(25)
        ]
        trader.call("DELETE", f"/v1/orders/{old[2]}")
        trader.call("DELETE", f"/v1/orders/{fresh[7]}")
        live = [each for each in (fresh[::-1] + old[::-1]) if each not in (old[2], fresh[7])]
        for limit in (10, 7, 1000):
            assert listed(trader, limit) == live
        for path in (f"/v1/orders/{fresh[3]}", "/v1/orders?client_order_id=fresh-3",
                     "/v1/orders?idempotency_key=lag-3"):  # fmt: skip
            found = trader.call("GET", path)
            assert (found.status, found.body["order_id"]) == (200, fresh[3])
        assert trader.call("GET", f"/v1/orders/{old[2]}").body["status"] == "CANCELED"
        # Whether the newest order of a finished one's id is another, only the rows can tell.
        assert is_honest(trader.call("GET", "/v1/orders?client_order_id=fresh-7"))
        assert is_honest(trader.call("GET", "/v1/orders?client_order_id=unheard"))
        assert trader.call("GET", "/v1/orders/999999999-1").code == "order_not_found"
        assert trader.call("GET", "/v1/orders?idempotency_key=unheard").code == "never_seen"
    assert listed(trader, 10) == live


def test_fills_that_the_rows_lack_are_waited_for_and_not_left_out(
    venue: Venue, trader: Trader, other: Trader
) -> None:
    trader.place(side="sell", price="1500", quantity="5")
    for _ in range(3):
        other.place(price="1500")
    page = other.call("GET", "/v1/fills?limit=2").body
    with standing_still(venue):
        taken = other.place(price="1500").body
        assert is_honest(other.call("GET", "/v1/fills"))
        # What is older than the rows cannot change.
        rest = other.call("GET", f"/v1/fills?limit=2&cursor={page['next_cursor']}")
        assert (rest.status, len(rest.body["fills"])) == (200, 1)
    fills = other.call("GET", "/v1/fills").body["fills"]
    assert fills[0]["trade_id"] == taken["fills"][0]["trade_id"]
    assert len(fills) == 4


def test_a_gateway_without_memory_answers_exactly_or_not_at_all(
    venue: Venue, trader: Trader, other: Trader
) -> None:
    other.place(side="sell", price="1000", quantity="1")
    old = trader.place(price="100").body
    with standing_still(venue):
        fields = {"client_order_id": "mine", "idempotency_key": "known", "quantity": "2", "price": "1000"}
        partly = trader.place(**fields).body
        assert partly["status"] == "PARTIALLY_FILLED"
        quiet = trader.place(price="777", idempotency_key="quiet").body
        moved, gone = (trader.place(price=price).body for price in ("778", "779"))
        other.place(side="sell", price="1000", quantity="0.5")
        trader.call("PATCH", f"/v1/orders/{moved['order_id']}", {"quantity": "0.25"})
        trader.call("DELETE", f"/v1/orders/{gone['order_id']}")
        restart_gateway(venue)
        # Nothing happened to it since it was made: the engine can tell all of it.
        for path in (f"/v1/orders/{quiet['order_id']}", "/v1/orders?idempotency_key=quiet"):
            assert trader.call("GET", path).body == quiet
        # Their fills and times are in rows that are not there yet.
        paths = [f"/v1/orders/{order['order_id']}" for order in (partly, moved, gone)]
        paths += ["/v1/orders?client_order_id=mine", "/v1/orders?client_order_id=unheard"]
        paths += ["/v1/orders?idempotency_key=known", "/v1/orders?status=open", "/v1/fills"]
        paths += ["/v1/markets/ETH-USDT/trades"]
        with ThreadPoolExecutor(len(paths)) as pool:
            answers = pool.map(lambda path: trader.call("GET", path), paths)
            for path, answer in zip(paths, answers, strict=True):
                assert is_honest(answer), (path, answer)
        assert trader.call("GET", "/v1/orders/999999999-1").code == "order_not_found"
        assert other.call("GET", f"/v1/orders/{quiet['order_id']}").code == "order_not_found"
    wait_for_rows(venue)
    assert listed(trader, 2) == [order["order_id"] for order in (moved, quiet, partly, old)]
    after = trader.call("GET", "/v1/orders?client_order_id=mine").body
    assert (after["filled_quantity"], len(after["fills"])) == ("1.5000", 2)
    assert trader.call("GET", f"/v1/orders/{gone['order_id']}").body["status"] == "CANCELED"
    trades = venue.call("GET", "/v1/markets/ETH-USDT/trades?limit=2").body["trades"]
    assert [trade["trade_id"] for trade in trades] == [fill["trade_id"] for fill in after["fills"][::-1]]


def test_trading_does_not_wait_for_rows(venue: Venue, trader: Trader, other: Trader) -> None:
    other.place(side="sell", price="1000", quantity="1")
    old = [trader.place(price=str(100 + i), client_order_id=f"old-{i}").body for i in range(2)]
    with standing_still(venue):
        partly = trader.place(quantity="2", price="1000", client_order_id="mine").body
        quiet = trader.place(price="777").body
        other.place(side="sell", price="1000", quantity="0.5")
        restart_gateway(venue)
        for order in (quiet, old[0]):
            amended = trader.call("PATCH", f"/v1/orders/{order['order_id']}", {"quantity": "0.5"})
            assert (amended.status, amended.body.get("quantity")) == (200, "0.5000"), amended
        amended = trader.call("PATCH", f"/v1/orders/{partly['order_id']}", {"quantity": "1.75"})
        assert (amended.status, amended.body.get("remaining_quantity")) == (200, "0.2500"), amended
        assert (amended.body["status"], amended.body["client_order_id"]) == ("PARTIALLY_FILLED", "mine")
        canceled = {}
        for order in (quiet, partly, *old):
            answer = trader.call("DELETE", f"/v1/orders/{order['order_id']}")
            assert (answer.status, answer.body["status"]) == (200, "CANCELED"), answer
            assert answer.body["remaining_quantity"] == "0.0000"
            canceled[order["order_id"]] = answer.body
    wait_for_rows(venue)
    assert listed(trader, 10) == []
    for order_id, known in canceled.items():
        found = trader.call("GET", f"/v1/orders/{order_id}").body
        # Where something is missing, it says as of when.
        missing = {"average_price", "fills", "as_of"} if "as_of" in known else set()
        assert {n: v for n, v in known.items() if n not in missing} == {
            n: v for n, v in found.items() if n not in missing
        }
    assert [order_id for order_id, known in canceled.items() if "as_of" in known] == [partly["order_id"]]


def test_a_trade_between_two_gateways_is_never_missing_from_the_list(
    venue: Venue, trader: Trader, other: Trader
) -> None:
    trader.place(side="sell", price="1500", quantity="5")
    with standing_still(venue):
        between = other.place(price="1500").body["fills"][0]["trade_id"]
        restart_gateway(venue)
        other.place(price="1500")
        assert is_honest(venue.call("GET", "/v1/markets/ETH-USDT/trades?limit=5"))
    trades = venue.call("GET", "/v1/markets/ETH-USDT/trades?limit=5").body["trades"]
    assert trades[1]["trade_id"] == between


@pytest.mark.parametrize("limit", [4, 10])
def test_pages_over_a_queue_that_is_being_drained_neither_repeat_nor_leave_out(
    venue: Venue, trader: Trader, limit: int
) -> None:
    live = [trader.place(price="900").body["order_id"] for _ in range(3)]
    epoch = venue.epoch()
    venue.kill("engine")
    venue.wait_for(
        "the gateway notices",
        lambda: not venue.call("GET", "/health").body["components"]["engine"]["connected"],
    )
    queued = [trader.place(price="901").body["order_id"] for _ in range(20)]
    first = trader.call("GET", f"/v1/orders?status=open&limit={limit}").body
    assert {order["status"] for order in first["orders"]} == {"PENDING_SUBMISSION"}
    venue.wait_open(after_epoch=epoch)
    # Taken meanwhile, all of them: each keeps its place.
    found = [order["order_id"] for order in first["orders"]]
    cursor = first["next_cursor"]
    while cursor is not None:
        page = trader.call("GET", f"/v1/orders?status=open&limit={limit}&cursor={cursor}").body
        found += [order["order_id"] for order in page["orders"]]
        cursor = page["next_cursor"]
    assert [name.partition("-")[0] for name in found] == [
        name.partition("-")[0] for name in (*queued, *live[::-1])
    ]
