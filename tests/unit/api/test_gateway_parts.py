"""Parts of the gateway that need no venue: tables, mirrors, messages of refusals."""

import asyncio
import logging
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import api.gateway
from api.gateway.app import outcome_within, within
from api.gateway.balances import BalanceCache
from api.gateway.batcher import Batcher, Reply
from api.gateway.books import BOOKED, BookMirror
from api.gateway.entry import fault_problem
from api.gateway.errors import CATALOGUE, REASON_CODES, Problem, rejected
from api.gateway.http import ClientLeft, Message, Outcome, read_body
from api.gateway.hub import Hub
from api.gateway.keys import READ, TRADE, Key, Keys
from api.gateway.models import NewOrder, decode_amend, decode_batch, decode_order
from api.gateway.openapi import ENTRY_PATHS, schemas
from api.gateway.orders import (
    ACCEPTED,
    AMENDED,
    CANCELED,
    FILL,
    RESTED,
    SELL,
    TAKER,
    UNBOOKED,
    OrderCache,
    OrderView,
    Row,
    document_as_of,
    view_of_command,
)
from api.gateway.registry import Registry
from api.gateway.validation import Command, new_command, pack
from api.identity import hash_words, new_token, token_hash, words_hash
from api.runtime.errors import LinkDown, RuntimeFault
from api.runtime.link import Answer
from engine.types import COMMAND, EVENT, CommandType, Reason
from persistence.crc32c import crc32c


def registry() -> Registry:
    """BTC/USDT with tick 0.05 and lot 0.001."""
    result = Registry()
    result.add_asset(1, {"symbol": "BTC", "decimals": 8})
    result.add_asset(2, {"symbol": "USDT", "decimals": 6})
    result.add_market(
        1,
        {"symbol": "BTC/USDT", "tick_size": "0.05", "lot_size": "0.001"},
        base=1,
        quote=2,
        tick_atoms=50,
        lot_atoms=100_000,
        maker_fee_ppm=0,
        taker_fee_ppm=0,
    )
    return result


def event(kind: int, **fields: int) -> Row:
    """An EVENT row of market 1."""
    names = ("flags", "reason", "slot", "sequence", "order_id", "account", "market")
    head = [fields.get(name, 1 if name == "market" else 0) for name in names]
    tail = [fields.get(name, 0) for name in ("price", "quantity", "leaves", "amount")]
    return (kind, 1, *head, *tail)  # type: ignore[return-value]


def order(**fields: Any) -> NewOrder:
    return NewOrder(
        **{"idempotency_key": "k", "symbol": "BTC/USDT", "side": "buy", "quantity": "1", **fields}
    )


def problem_of(**fields: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        new_command(registry(), 1, order(**fields), fields.get("idempotency_key", "k"))
    return caught.value


# Errors.


def test_every_reason_of_the_core_has_a_code_and_every_code_a_status() -> None:
    assert set(REASON_CODES) == set(Reason)
    assert set(REASON_CODES.values()) <= set(CATALOGUE)


def test_every_code_that_the_gateway_raises_is_in_the_catalogue() -> None:
    directory = Path(api.gateway.__file__).parent
    pattern = re.compile(r"Problem\(\s*\"([a-z_]+)\"")
    raised = {code for path in directory.glob("*.py") for code in pattern.findall(path.read_text())}
    assert len(raised) > 20
    assert raised <= set(CATALOGUE)


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason != Reason.NONE])
def test_a_rejection_is_a_refusal_with_the_sequence_of_its_command(reason: Reason) -> None:
    problem = rejected(int(reason), 77)
    assert 400 <= problem.status < 600
    assert problem.document()["sequence"] == 77
    assert problem.document()["code"] == REASON_CODES[reason]


def test_a_logged_refusal_never_invites_to_try_again_under_its_key() -> None:
    """It is stored: the same key gets it for 24 hours, whatever the market does meanwhile."""
    invites = {reason for reason in Reason if rejected(int(reason), 1).retry}
    assert invites == {Reason.VENUE_DRAINING, Reason.IDEMPOTENCY_QUOTA}
    halted = rejected(int(Reason.MARKET_HALTED), 1)
    assert (halted.status, halted.document()["status"], halted.code) == (409, 409, "market_halted")
    # The same code from a gateway that sent nothing.
    assert (Problem("venue_halted", "x").status, Problem("venue_halted", "x").retry) == (503, True)


# Requests.


@pytest.mark.parametrize(
    ("fields", "code", "field", "limit"),
    [
        ({"price": "-1"}, "negative", "price", "0.05"),
        ({"price": "0"}, "zero", "price", "0.05"),
        ({"price": "1.0000001"}, "too_precise", "price", "6"),
        ({"price": "1.01"}, "wrong_tick", "price", "0.05"),
        ({"price": "1e3"}, "malformed_decimal", "price", None),
        ({"price": "9" * 30}, "overflow", "price", "9223372036854775807"),
        ({"price": "1", "quantity": "-1"}, "negative", "quantity", "0.001"),
        ({"price": "1", "quantity": "0"}, "zero", "quantity", "0.001"),
        ({"price": "1", "quantity": "0.000000001"}, "too_precise", "quantity", "8"),
        ({"price": "1", "quantity": "0.0001"}, "wrong_lot", "quantity", "0.001"),
        ({"price": "1", "quantity": "9" * 30}, "overflow", "quantity", "9223372036854775807"),
        ({"price": "1", "symbol": "NO/SUCH"}, "unknown_symbol", "symbol", None),
        ({}, "missing_field", "price", None),
        ({"type": "market", "post_only": True}, "invalid_flags", "post_only", "limit, GTC"),
        ({"price": "1", "client_order_id": "tab\t"}, "invalid_value", "client_order_id", "ASCII 32-126"),
        ({"price": "1", "idempotency_key": "ключ"}, "invalid_value", "idempotency_key", "ASCII 32-126"),
    ],
)
def test_a_bad_field_is_named_with_its_limit(
    fields: dict[str, Any], code: str, field: str, limit: str | None
) -> None:
    problem = problem_of(**fields)
    assert (problem.code, problem.field, problem.limit) == (code, field, limit)
    assert field in problem.detail


def test_a_packed_command_is_the_record_that_numpy_reads() -> None:
    record = pack(
        CommandType.NEW, side=1, order_type=1, time_in_force=2, flags=1, account=3, market=4, order_id=5,
        slot=6, asset=7, price=-8, quantity=9, client_id=(10, 11), key=(12, 13), body=14, trigger_price=15,
        expire_time_ns=16,
    )  # fmt: skip
    row = np.frombuffer(record, COMMAND)[0]
    wanted = {
        "type": 1, "version": 1, "side": 1, "order_type": 1, "time_in_force": 2, "flags": 1, "account": 3,
        "market": 4, "order_id": 5, "slot": 6, "asset": 7, "price": -8, "quantity": 9, "client_id_lo": 10,
        "client_id_hi": 11, "key_lo": 12, "key_hi": 13, "body": 14, "trigger_price": 15, "expire_time_ns": 16,
    }  # fmt: skip
    assert {name: int(row[name]) for name in wanted} == wanted
    assert not any(int(row[name]) for name in set(COMMAND.names or ()) - set(wanted))


@pytest.mark.parametrize(
    "change", [{"quantity": "2"}, {"price": "2"}, {"side": "sell"}, {"client_order_id": "x"}]
)
def test_another_order_under_the_same_key_has_another_body(change: dict[str, Any]) -> None:
    first = new_command(registry(), 1, order(price="1"), "k")
    second = new_command(registry(), 1, order(**{"price": "1", **change}), "k")
    assert first.body != second.body


def test_the_same_order_in_other_spelling_has_the_same_body() -> None:
    first = new_command(registry(), 1, order(price="1.0", quantity="1"), "k")
    second = new_command(registry(), 1, order(price="1.00", quantity="1.000", symbol="BTC-USDT"), "k")
    assert first.record == second.record


@pytest.mark.parametrize("body", [b'{"idempotency_key": "k"', b"\xff", b"", b"nul"])
def test_what_is_no_json_is_malformed(body: bytes) -> None:
    with pytest.raises(Problem) as caught:
        decode_order(body)
    assert caught.value.code == "malformed_json"


@pytest.mark.parametrize(
    "body", [b"[" * 60_000, b'{"quantity":' + b"[" * 30_000, b'{"x":' * 10_000 + b"1" + b"}" * 10_000]
)
def test_json_that_is_nested_too_deeply_is_malformed(body: bytes) -> None:
    for decode in (decode_order, decode_batch, decode_amend):
        with pytest.raises(Problem) as caught:
            decode(body)
        assert caught.value.code == "malformed_json"
        assert len(caught.value.detail) < 300


@pytest.mark.parametrize("name", ["a`b`c", "x", "", "y" * 5000, "unknown field `z`"])
def test_an_unknown_field_is_named_as_it_was_sent_up_to_64_characters(name: str) -> None:
    good = {"idempotency_key": "k", "symbol": "A/B", "side": "buy", "quantity": "1"}
    with pytest.raises(Problem) as caught:
        decode_order(msgspec.json.encode({**good, name: 1}))
    assert (caught.value.code, caught.value.field) == ("unknown_field", name[:64])
    assert len(caught.value.body()) < 1000


def test_a_long_value_is_not_sent_back_whole() -> None:
    body = {"idempotency_key": "k", "symbol": "A/B", "side": "x" * 60_000, "quantity": "1"}
    with pytest.raises(Problem) as caught:
        decode_order(msgspec.json.encode(body))
    assert (caught.value.code, caught.value.field) == ("invalid_value", "side")
    assert len(caught.value.body()) < 1000


# Answers.


class Link:
    """An engine that answers a frame when told to."""

    def __init__(self) -> None:
        self.frames: list[asyncio.Future[Answer]] = []

    def submit(self, commands: Any, text: bytes) -> asyncio.Future[Answer]:
        self.frames.append(asyncio.get_running_loop().create_future())
        return self.frames[-1]


def accepted(count: int, first: int = 7) -> Answer:
    events = np.zeros(count, EVENT)
    events["type"] = ACCEPTED
    events["sequence"] = np.arange(first, first + count)
    return Answer(first, count, 1, 5, events, b"")


async def submitted(count: int, failing: int | None = None) -> tuple[Link, Batcher, dict[int, Any]]:
    """That many commands in one frame; the callback of one of them raises."""
    link, answers = Link(), {}
    batcher = Batcher(link)  # type: ignore[arg-type]

    def done(index: int, reply: Reply | RuntimeFault) -> None:
        if index == failing:
            raise TypeError("Integer exceeds 64-bit range")
        answers[index] = reply

    for index in range(count):
        command = Command(pack(CommandType.NEW), (), 1, "k", 0)
        batcher.submit(command, lambda reply, index=index: done(index, reply))  # type: ignore[misc]
    await asyncio.sleep(0)
    return link, batcher, answers


async def test_a_callback_that_fails_costs_nobody_else_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    link, batcher, answers = await submitted(4, failing=1)
    with caplog.at_level(logging.ERROR, "holdfast.batcher"):
        link.frames[0].set_result(accepted(4))
        await asyncio.sleep(0)
    assert {index: reply.sequence for index, reply in answers.items()} == {0: 7, 2: 9, 3: 10}
    assert batcher.in_flight == 0
    assert "64-bit" in caplog.text


@pytest.mark.parametrize("trouble", ["cancelled", "crashed", "foreign event"])
async def test_each_command_of_a_frame_ends_however_the_frame_ends(
    trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    link, _, answers = await submitted(3)
    if trouble == "cancelled":
        link.frames[0].cancel()
    elif trouble == "crashed":
        link.frames[0].set_exception(ZeroDivisionError())
    else:
        link.frames[0].set_result(accepted(4))
    await asyncio.sleep(0)
    assert len(answers) == 3
    # Nobody is told that nothing was done: it may have been.
    assert {fault_problem(fault).code for fault in answers.values()} == {"outcome_unknown"}


async def test_an_answer_that_does_not_come_is_an_unknown_outcome_and_a_late_one_does_no_harm() -> None:
    kept: list[Any] = []
    outcome = await outcome_within(kept.append, request_s=0.01)
    assert (outcome.status, msgspec.json.decode(outcome.body)["code"]) == (504, "outcome_unknown")
    kept[0](Outcome(201, b"{}"))
    assert (await outcome_within(lambda done: done(Outcome(201, b"{}")), request_s=5)).status == 201


@pytest.mark.parametrize(("method", "code"), [("POST", "outcome_unknown"), ("GET", "unavailable")])
async def test_a_route_that_does_not_answer_is_answered_for(method: str, code: str) -> None:
    async def stuck(*_: Any) -> None:
        await asyncio.sleep(60)

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await within(stuck, 0.01)({"type": "http", "method": method}, None, send)  # type: ignore[arg-type]
    assert msgspec.json.decode(sent[1]["body"])["code"] == code


async def test_half_a_body_is_no_request_even_when_it_is_json() -> None:
    parts: list[Message] = [
        {"type": "http.request", "body": b'{"a": 1}', "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return parts.pop(0)

    with pytest.raises(ClientLeft):
        await read_body({"headers": []}, receive)


def test_only_what_never_left_says_that_nothing_was_done() -> None:
    assert fault_problem(LinkDown("x", sent=False)).code == "unavailable"
    assert fault_problem(LinkDown("x", sent=True)).code == "outcome_unknown"


# Mirrors.


def test_a_market_that_cannot_be_represented_is_quarantined_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its definition is in the log for good: each gateway meets it in each WELCOME and each replay."""
    result = registry()
    numbers = {"tick_atoms": 1, "lot_atoms": 1, "maker_fee_ppm": 0, "taker_fee_ppm": 0}
    result.add_asset(3, {"symbol": "P", "decimals": 18})
    result.add_asset(4, {"symbol": "Q", "decimals": 18})
    sizes = {"tick_size": "1000000000000", "lot_size": "0.000000000000000001"}
    with caplog.at_level(logging.ERROR, "holdfast.registry"):
        result.add_market(2, {"symbol": "P/Q", **sizes}, base=3, quote=4, **numbers)
    assert "quarantined" in caplog.text
    assert "P/Q" not in result.markets_by_symbol
    # An event that names it still finds something to be folded into.
    assert result.markets[2].price_text(7) == "7"
    result.add_market(3, {"symbol": "Q/BTC", "tick_size": "1", "lot_size": "1"}, base=4, quote=1, **numbers)
    assert set(result.markets_by_symbol) == {"BTC/USDT", "Q/BTC"}


def test_a_book_mirror_follows_every_event_that_changes_a_level() -> None:
    book = BookMirror(registry().markets[1])
    for row in (
        event(ACCEPTED, flags=BOOKED, price=100, quantity=10, leaves=10),
        event(RESTED, flags=BOOKED, price=100, quantity=4, leaves=4),
        event(ACCEPTED, flags=BOOKED | SELL, price=102, quantity=7, leaves=7),
        event(FILL, flags=BOOKED, price=100, quantity=3, leaves=7),
        event(AMENDED, flags=BOOKED, price=100, quantity=9, leaves=6, amount=1),
        event(FILL, flags=BOOKED | SELL, price=102, quantity=7, leaves=0),
    ):
        book.fold(row)
    assert book.levels(0, 10) == [("5.00", "0.010", 2)]
    assert book.levels(1, 10) == []
    book.fold(event(CANCELED, flags=BOOKED, price=100, quantity=6))
    book.fold(event(UNBOOKED, flags=BOOKED, price=100, quantity=4))
    assert book.levels(0, 10) == []


def test_the_checksum_is_the_crc_of_the_ten_best_levels_as_printed() -> None:
    book = BookMirror(registry().markets[1])
    book.load([[price, 1, 1] for price in range(20, 0, -1)], [[30, 2, 1]])
    text = "".join(f"{price * 5 / 100:.2f}:0.001;" for price in range(20, 10, -1)) + "1.50:0.002;"
    assert book.checksum() == crc32c(text.encode())


def test_an_order_is_folded_from_its_events_to_its_final_state() -> None:
    market = registry().markets[1]
    view = OrderView(
        event(ACCEPTED, slot=3, sequence=9, order_id=9, account=1, price=100, quantity=10, leaves=10), 5, "c"
    )
    view.fold(
        event(FILL, flags=TAKER, sequence=9, order_id=9, price=99, quantity=4, leaves=6, amount=2), 6, "9-1"
    )
    assert (view.status, view.filled, view.leaves) == ("PARTIALLY_FILLED", 4, 6)
    view.fold(event(CANCELED, reason=int(Reason.USER_REQUESTED), sequence=10, order_id=9, quantity=6), 7)
    document = view.document(market)
    assert document["order_id"] == "9-3"
    assert (document["status"], document["reason"]) == ("CANCELED", "USER_REQUESTED")
    assert (document["filled_quantity"], document["remaining_quantity"]) == ("0.004", "0.000")
    assert document["average_price"] == "4.95"
    assert document["fills"][0]["fee"] == "0.000002"


def test_the_answer_of_an_order_holds_its_own_fills_and_not_its_makers() -> None:
    events = [
        event(ACCEPTED, sequence=9, order_id=9, price=100, quantity=10, leaves=10),
        event(FILL, flags=BOOKED, sequence=9, order_id=4, price=99, quantity=10, leaves=0),
        event(FILL, flags=TAKER, sequence=9, order_id=9, price=99, quantity=10, leaves=0),
    ]
    view = view_of_command(events, 5, None)
    assert view is not None
    assert (view.status, [fill[0] for fill in view.fills]) == ("FILLED", ["9-1"])


def test_an_order_is_taken_back_to_what_it_was_after_an_amend() -> None:
    """When the first answer is not kept any more, the amend's own events tell it."""
    market = registry().markets[1]
    view = OrderView(event(ACCEPTED, sequence=9, order_id=9, price=100, quantity=10, leaves=10), 5, "c")
    fill = event(FILL, sequence=10, order_id=9, price=100, quantity=2, leaves=8)
    amended = event(AMENDED, sequence=11, order_id=9, price=101, quantity=8, leaves=6)
    own = event(FILL, flags=TAKER, sequence=11, order_id=9, price=99, quantity=1, leaves=5)
    for row, trade in ((fill, "10-1"), (amended, ""), (own, "11-1")):
        view.fold(row, 6, trade)
    first = view.document(market)
    view.fold(event(FILL, sequence=12, order_id=9, price=101, quantity=5, leaves=0), 7, "12-1")
    maker = event(FILL, flags=BOOKED, sequence=11, order_id=4, price=99, quantity=1, leaves=0)
    events = [event(UNBOOKED, sequence=11, order_id=9), amended, maker, own]
    assert document_as_of(view.document(market), market, events, 11, 6) == first
    assert first["status"] == "PARTIALLY_FILLED" and first["average_price"] is not None


def test_an_average_price_is_rounded_half_to_even_at_the_quotes_decimals() -> None:
    market = registry().markets[1]
    assert market.average_text(201, 2) == "5.025"
    assert market.average_text(100 * 3 + 1, 3) == "5.016667"


def test_the_order_cache_drops_what_was_touched_least_recently() -> None:
    cache = OrderCache(2)
    for number in (1, 2):
        cache.add(OrderView(event(ACCEPTED, order_id=number, sequence=number), 0, None))
    cache.get(1)
    cache.add(OrderView(event(ACCEPTED, order_id=3, sequence=3), 0, None))
    assert cache.get(2) is None
    assert cache.get(1) is not None


def test_an_event_after_the_question_wins_over_the_answer() -> None:
    cache = BalanceCache()
    cache.watch(1)
    cache.fold(event(10, account=1, market=5, price=70, quantity=0, sequence=12))
    cache.complete(1, 11, [(5, 99, 1), (6, 3, 0)])
    balances = cache.get(1)
    assert balances is not None
    assert {asset: row[:2] for asset, row in balances.items()} == {5: (70, 0), 6: (3, 0)}


def test_a_channel_counts_densely_and_only_for_those_who_listen() -> None:
    class Listener:
        def __init__(self) -> None:
            self.messages: list[Any] = []

        def push(self, message: bytes) -> None:
            self.messages.append(msgspec.json.decode(message))

    hub, listener = Hub(), Listener()
    assert hub.listening("book", 1) is None
    channel = hub.subscribe("book", 1, {"symbol": "A/B"}, listener)
    channel.publish("delta", {})
    channel.publish("delta", {})
    assert [message["sequence"] for message in listener.messages] == [1, 2]
    hub.leave(listener)
    assert hub.listening("book", 1) is None


# Keys.


def keys_with(**fields: Any) -> tuple[Keys, str]:
    token = new_token()
    keys = Keys()
    keys.load([])
    values = {"account": 1, "scopes": READ, "expire_time_ns": 0, "revoked": False, **fields}
    keys.add(Key(token_hash(token), **values))
    return keys, token


def test_a_key_opens_what_its_scopes_say() -> None:
    keys, token = keys_with()
    assert keys.authenticate(f"Bearer {token}".encode(), READ).account == 1
    with pytest.raises(Problem) as caught:
        keys.authenticate(f"Bearer {token}".encode(), TRADE)
    assert caught.value.code == "forbidden"


@pytest.mark.parametrize("fields", [{"revoked": True}, {"expire_time_ns": 1}])
def test_a_revoked_or_expired_key_opens_nothing(fields: dict[str, Any]) -> None:
    keys, token = keys_with(**fields)
    with pytest.raises(Problem) as caught:
        keys.authenticate(f"Bearer {token}".encode(), READ)
    assert caught.value.code == "invalid_key"


@pytest.mark.parametrize(
    ("header", "code"),
    [(None, "missing_key"), (b"", "invalid_key"), (b"Basic x", "invalid_key"), (b"Bearer x", "invalid_key")],
)
def test_without_a_good_header_nothing_opens(header: bytes | None, code: str) -> None:
    with pytest.raises(Problem) as caught:
        keys_with()[0].authenticate(header, READ)
    assert caught.value.code == code


def test_before_the_engine_was_heard_no_key_is_called_unknown() -> None:
    keys, token = Keys(), new_token()
    with pytest.raises(Problem) as caught:
        keys.authenticate(f"Bearer {token}".encode(), READ)
    assert (caught.value.code, caught.value.retry) == ("unavailable", True)
    keys.load([[token_hash(token).hex(), 1, READ, 0, 0]])
    assert keys.authenticate(f"Bearer {token}".encode(), READ).account == 1


def test_a_keys_hash_survives_the_four_signed_words_of_an_event() -> None:
    digest = token_hash("hf_x")
    words = hash_words(digest)
    signed = tuple(word - (1 << 64) if word >> 63 else word for word in words)
    assert words_hash((words[0], *signed[1:])) == digest


# The document.


def test_order_entry_is_described_though_it_bypasses_the_router() -> None:
    place = ENTRY_PATHS["/v1/orders"]["post"]
    name = place["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
    assert set(schemas()[name]["required"]) == {"idempotency_key", "symbol", "side", "quantity"}
    assert {"201", "202", "422", "503"} <= set(place["responses"])
