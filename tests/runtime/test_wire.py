"""The wire: what is encoded comes out whatever the cuts, and what is damaged is never taken for a frame."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.runtime.errors import WireError
from api.runtime.wire import (
    BUFFER_BYTES,
    HEADER_BYTES,
    PAYLOAD_IN_MAX,
    PAYLOAD_OUT_MAX,
    Decoder,
    Kind,
    encode,
    encode_answer,
    encode_json,
    records_buffer,
)
from engine import commands as make
from engine.types import EVENT
from persistence.events.arena import Arena


def bytes_of(buffers: list) -> bytes:
    return b"".join(buffers)


def fed(decoder: Decoder, data: bytes, cuts: list[int]) -> list[tuple]:
    """Receive `data` in pieces; what came out, copied."""
    out = []
    position = 0
    for size in [*cuts, len(data)]:
        while size > 0 and position < len(data):
            room = decoder.get_buffer()
            part = data[position : position + min(size, len(room))]
            room[: len(part)] = part
            decoder.received(len(part))
            position += len(part)
            size -= len(part)
            for frame in decoder.frames():
                if frame.kind == Kind.SUBMIT:
                    out.append((frame.correlation, frame.records().copy(), bytes(frame.text())))
                else:
                    out.append((frame.correlation, frame.json()))
    return out


@pytest.mark.parametrize("events", [0, 1, 3, 127, 128, 5000])
@pytest.mark.parametrize("text", [b"", b"12345", b"x" * 40])
@pytest.mark.parametrize("assigned", [False, True])
def test_an_answer_made_from_a_packed_frame_is_two_whole_frames(events, text, assigned) -> None:
    records = np.zeros(events, EVENT)
    records["quantity"] = np.arange(events)
    packed = Arena().pack(4, 11, 13, 99, 7, records, text)
    answer = encode_answer(
        packed.body,
        packed.body_crc,
        assigned=assigned,
        correlation=5,
        epoch=4,
        first_sequence=11,
        last_sequence=13,
        events=packed.count,
        text_bytes=packed.text_bytes,
        time_ns=99,
    )
    decoder = Decoder(PAYLOAD_OUT_MAX)
    stream = bytes_of(answer)
    room = decoder.get_buffer()
    while len(room) < len(stream):
        room[:] = stream[: len(room)]
        decoder.received(len(room))
        stream = stream[len(room) :]
        assert [frame.kind for frame in decoder.frames()] == [Kind.ASSIGNED] * assigned
        room = decoder.get_buffer()
    room[: len(stream)] = stream
    decoder.received(len(stream))
    frames = list(decoder.frames())
    if frames[0].kind == Kind.ASSIGNED:
        first = frames.pop(0)
        assert (first.correlation, first.first_sequence, first.last_sequence, first.count) == (5, 11, 13, 3)
    (got,) = frames
    assert (got.kind, got.epoch, got.first_sequence, got.last_sequence) == (Kind.EVENTS, 4, 11, 13)
    assert (got.time_ns, got.correlation) == (99, 0)
    assert got.records().tobytes() == records.tobytes() == packed.events.tobytes()
    assert bytes(got.text()) == text == packed.text


@settings(max_examples=60, deadline=None, print_blob=True)
@given(
    counts=st.lists(st.integers(1, 300), min_size=1, max_size=8),
    texts=st.lists(st.binary(max_size=70), min_size=8, max_size=8),
    cuts=st.lists(st.integers(1, 5000), max_size=40),
)
def test_frames_come_out_whole_however_the_stream_is_cut(counts, texts, cuts) -> None:
    sent, stream = [], b""
    for number, count in enumerate(counts):
        commands = make.new(account=1, market=1, side=0, price=np.arange(1, count + 1), quantity=number + 1)
        text = texts[number]
        sent.append((number, commands, text))
        stream += bytes_of(
            encode(Kind.SUBMIT, records_buffer(commands), text, correlation=number, count=count)
        )
        stream += bytes_of(encode_json(Kind.QUERY, {"what": "x" * number}, correlation=number))
    received = fed(Decoder(PAYLOAD_IN_MAX), stream, cuts)
    submits = [item for item in received if len(item) == 3]
    assert [item[0] for item in submits] == [item[0] for item in sent]
    for got, want in zip(submits, sent, strict=True):
        assert got[1].tobytes() == want[1].tobytes()
        assert got[2] == want[2]
    assert [item[1]["what"] for item in received if len(item) == 2] == ["x" * n for n in range(len(counts))]


def test_a_frame_larger_than_the_buffer_passes_and_the_buffer_shrinks_again() -> None:
    commands = make.new(account=1, market=1, side=0, price=np.arange(1, 4097), quantity=1)
    big = bytes_of(encode(Kind.SUBMIT, records_buffer(commands), b"t" * 1000, correlation=1, count=4096))
    assert len(big) > BUFFER_BYTES
    decoder = Decoder(PAYLOAD_IN_MAX)
    assert len(fed(decoder, big * 3, [7] * 30)) == 3
    assert len(decoder.get_buffer()) == BUFFER_BYTES


@pytest.mark.parametrize("bit", [0, 37, 64, 100, 140, 300, 380, 8 * (HEADER_BYTES + 100)])
def test_one_flipped_bit_anywhere_is_never_a_frame(bit: int) -> None:
    commands = make.new(account=1, market=1, side=0, price=5, quantity=1)
    stream = bytearray(bytes_of(encode(Kind.SUBMIT, records_buffer(commands), b"abc", count=1)))
    stream[bit // 8] ^= 1 << bit % 8
    try:
        assert fed(Decoder(PAYLOAD_IN_MAX), bytes(stream), []) == []
    except WireError:
        return


@pytest.mark.parametrize(
    "change, message",
    [
        ({"magic": b"HFW2"}, "magic"),
        ({"length": (PAYLOAD_IN_MAX + 8).to_bytes(4, "little")}, "multiple of 8"),
        ({"kind": b"\x63"}, "kind 99"),
        ({"version": b"\x07"}, "version 7"),
        ({"count": (0).to_bytes(4, "little")}, "records"),
        ({"count": (5000).to_bytes(4, "little")}, "records"),
    ],
)
def test_a_header_that_cannot_be_ours_is_refused_before_its_payload_comes(change, message) -> None:
    offsets = {"magic": 0, "kind": 4, "version": 5, "length": 8, "count": 40}
    stream = bytearray(bytes_of(encode(Kind.SUBMIT, bytes(128), count=1))[:HEADER_BYTES])
    for name, value in change.items():
        stream[offsets[name] : offsets[name] + len(value)] = value
    with pytest.raises(WireError, match=message):
        fed(Decoder(PAYLOAD_IN_MAX), bytes(stream), [])


def test_json_that_is_no_object_is_an_error() -> None:
    decoder = Decoder(PAYLOAD_IN_MAX)
    data = bytes_of(encode(Kind.QUERY, b"[1, 2]  "))
    decoder.get_buffer()[: len(data)] = data
    decoder.received(len(data))
    with pytest.raises(WireError, match="not a JSON object"):
        next(decoder.frames()).json()
