"""What the reader makes of a log: whole, torn, corrupted, halted."""

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persistence.crc32c import crc32c
from persistence.errors import CorruptionError, FormatError
from persistence.log import LogWriter, frame, scan, sync_all
from persistence.log.segment import SEGMENT_HEADER_BYTES
from persistence.storage import Disk
from persistence.text import read_text
from tests.unit.persistence.support import (
    SEGMENT_BYTES,
    ControlledDisk,
    only_segment,
    sequences,
    stamped,
    text_of,
    write_log,
)

DISK = Disk()


def frame_places(path) -> list[tuple[int, int]]:
    """(offset, length) of each frame of a segment, read from the bytes and not by the reader."""
    data, offset, places = path.read_bytes(), SEGMENT_HEADER_BYTES, []
    while data[offset : offset + 4] == b"HFL1":
        length = struct.unpack_from("<I", data, offset + 8)[0]
        places.append((offset, length))
        offset += length
    return places


@given(
    st.lists(
        st.tuples(st.integers(1, 40), st.binary(max_size=80), st.integers(-(2**63), 2**63 - 1)),
        min_size=1,
        max_size=12,
    )
)
@settings(
    print_blob=True,
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_what_was_appended_is_read_back(tmp_path_factory, batches):
    directory = tmp_path_factory.mktemp("log")
    writer = LogWriter(DISK, directory, epoch=7, next_sequence=1, end=None, segment_bytes=SEGMENT_BYTES)
    sequence, expected = 1, []
    for count, text, time_ns in batches:
        commands = stamped(sequence, count)
        area = text_of((count - 1, 2, text))
        writer.append(commands, area, time_ns)
        expected.append((7, sequence, count, time_ns, commands.tobytes(), area))
        sequence += count
    writer.close()
    found = scan(DISK, directory)
    assert found.torn is None
    assert found.last_sequence == sequence - 1
    assert found.end.time_ns == batches[-1][2]
    assert [
        (f.epoch, f.first_sequence, f.count, f.time_ns, f.commands.tobytes(), f.text) for f in found.frames()
    ] == expected


def test_an_empty_directory_is_an_empty_log(tmp_path):
    found = scan(DISK, tmp_path)
    assert (found.end, found.torn, list(found.frames()), found.last_sequence) == (None, None, [], 0)


def test_reading_from_a_sequence_trims_the_frame_that_contains_it(tmp_path):
    writer = LogWriter(DISK, tmp_path, epoch=1, next_sequence=1, end=None, segment_bytes=SEGMENT_BYTES)
    writer.append(stamped(1, 10), text_of((3, 1, b"four"), (4, 1, b"five"), (9, 1, b"ten")), 5)
    writer.close()
    (part,) = scan(DISK, tmp_path).frames(5)
    assert (part.first_sequence, part.count, part.last_sequence) == (5, 6, 10)
    assert part.commands["sequence"].tolist() == [5, 6, 7, 8, 9, 10]
    assert list(read_text(part.text)) == [(0, 1, b"five"), (5, 1, b"ten")]


@pytest.mark.parametrize("from_sequence", [1, 100, 150, 300, 500])
def test_reading_from_a_sequence_skips_earlier_segments(tmp_path, from_sequence):
    write_log(tmp_path, [50] * 10)
    assert len(list(tmp_path.glob("*.log"))) > 3
    found = scan(DISK, tmp_path, from_sequence)
    assert sequences(found, from_sequence) == list(range(from_sequence, 501))
    assert sequences(scan(DISK, tmp_path), from_sequence) == list(range(from_sequence, 501))
    assert found.end == scan(DISK, tmp_path).end


def test_a_tail_cut_at_every_byte_loses_no_whole_frame(tmp_path):
    write_log(tmp_path, [1, 2, 1, 3])
    path = only_segment(tmp_path)
    whole = path.read_bytes()
    places = frame_places(path)
    assert len(places) == 4
    begin, end = places[2][0], places[3][0] + places[3][1]
    for cut in range(begin, end + 1):
        path.write_bytes(whole[:cut].ljust(len(whole), b"\0"))
        found = scan(DISK, tmp_path)
        # Zeros at a frame's own end may already be what was cut: such a frame is whole.
        kept = [(o, n) for o, n in places if not any(whole[max(cut, o) : o + n])]
        behind = kept[-1][0] + kept[-1][1]
        assert found.segments[0].frames == len(kept)
        assert found.end.offset == behind
        left = len(whole[behind:cut].rstrip(b"\0"))
        assert (found.torn.bytes if found.torn else 0) == found.end.torn_bytes == left
        assert sequences(found) == list(range(1, sum([1, 2, 1, 3][: len(kept)]) + 1))


def test_every_flipped_bit_before_the_last_frame_is_corruption_and_in_it_never_accepted(tmp_path):
    write_log(tmp_path, [1, 2, 1])
    path = only_segment(tmp_path)
    whole = bytearray(path.read_bytes())
    last_offset, last_length = frame_places(path)[-1]
    flipped = 0
    with DISK.open(path, writable=True) as file:
        for place in [*range(256), *range(SEGMENT_HEADER_BYTES, last_offset + last_length)]:
            for bit in range(8):
                file.write_at(place, bytes([whole[place] ^ 1 << bit]))
                flipped += 1
                try:
                    found = scan(DISK, tmp_path)
                except CorruptionError as error:
                    assert error.path == str(path)
                    assert str(path) in str(error) and error.remedy in str(error)
                else:
                    assert place >= last_offset, f"bit {bit} of byte {place} went unnoticed"
                    assert found.torn is not None and found.torn.offset == last_offset
                    assert found.last_sequence == 3
            file.write_at(place, whole[place : place + 1])
    assert flipped > 5000
    assert scan(DISK, tmp_path).last_sequence == 4


def test_a_flipped_bit_behind_the_end_is_not_taken_for_a_clean_end(tmp_path):
    write_log(tmp_path, [1])
    path = only_segment(tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    found = scan(DISK, tmp_path)
    assert found.torn is not None
    assert found.torn.offset + found.torn.bytes == SEGMENT_BYTES


@pytest.mark.parametrize("gap", ["removed", "swapped", "repeated"])
def test_a_removed_swapped_or_repeated_frame_is_corruption(tmp_path, gap):
    write_log(tmp_path, [1, 1, 1, 1])
    path = only_segment(tmp_path)
    data = bytearray(path.read_bytes())
    (_, n), (b, m), (c, _), (d, k) = frame_places(path)
    assert n == m
    second, third, rest = bytes(data[b:c]), bytes(data[c:d]), bytes(data[d : d + k])
    changed = {
        "removed": third + rest,
        "swapped": third + second + rest,
        "repeated": second + second + third + rest,
    }[gap]
    data[b:] = changed.ljust(len(data) - b, b"\0")
    path.write_bytes(data)
    with pytest.raises(CorruptionError, match="does not follow") as caught:
        scan(DISK, tmp_path)
    assert caught.value.offset == (c if gap == "repeated" else b)


def test_an_edited_frame_with_a_right_checksum_breaks_the_chain(tmp_path):
    write_log(tmp_path, [1, 1, 1])
    path = only_segment(tmp_path)
    data = bytearray(path.read_bytes())
    offset, length = frame_places(path)[1]
    data[offset + 128 + 56] ^= 1
    data[offset + 12 : offset + 16] = bytes(4)
    data[offset + 12 : offset + 16] = crc32c(data[offset : offset + length]).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(CorruptionError, match="does not follow") as caught:
        scan(DISK, tmp_path)
    assert caught.value.sequence == 3


def test_a_frame_of_a_recycled_block_is_foreign(tmp_path):
    """Bytes of an older segment, at the same place, with a right checksum and the right sequence."""
    write_log(tmp_path, [1, 1])
    path = only_segment(tmp_path)
    data = bytearray(path.read_bytes())
    offset, _ = frame_places(path)[-1]
    crc = struct.unpack_from("<I", data, offset + 12)[0]
    buffer = frame.FrameBuffer(4096)
    buffer.follow(crc)
    recycled = 99
    buffer.add(frame.COMMANDS, 1, 3, stamped(3, 1), b"", 5, recycled)
    foreign = bytes(buffer.view())
    end = offset + frame_places(path)[-1][1]
    data[end : end + len(foreign)] = foreign
    path.write_bytes(data)
    found = scan(DISK, tmp_path)
    assert sequences(found) == [1, 2]
    assert found.torn is not None and found.torn.offset == end


def test_corruption_in_an_older_segment_is_never_a_torn_tail(tmp_path):
    write_log(tmp_path, [50] * 6)
    first = sorted(tmp_path.glob("*.log"))[0]
    data = bytearray(first.read_bytes())
    offset, _ = frame_places(first)[-1]
    data[offset + 20] ^= 1
    first.write_bytes(data)
    with pytest.raises(CorruptionError, match="successor"):
        scan(DISK, tmp_path)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_missing_or_renamed_or_shortened_segment_is_noticed(tmp_path, victim):
    write_log(tmp_path, [50] * 6)
    paths = sorted(tmp_path.glob("*.log"))
    assert len(paths) >= 3
    content = paths[victim].read_bytes()
    if victim:
        paths[victim].unlink()
        with pytest.raises(CorruptionError, match="missing"):
            scan(DISK, tmp_path)
    paths[victim].write_bytes(content[:-32])
    with pytest.raises(CorruptionError, match="its header says"):
        scan(DISK, tmp_path)
    paths[victim].write_bytes(content[:100])
    with pytest.raises(CorruptionError, match="shorter than its header"):
        scan(DISK, tmp_path)
    paths[victim].write_bytes(paths[2].read_bytes())
    with pytest.raises(CorruptionError, match="name says"):
        scan(DISK, tmp_path)


def test_a_halt_voids_its_command_and_all_later_ones_before_it(tmp_path):
    write_log(tmp_path, [5, 5])
    writer = LogWriter(
        DISK, tmp_path, epoch=2, next_sequence=11, end=scan(DISK, tmp_path).end, segment_bytes=SEGMENT_BYTES
    )
    writer.append(stamped(11, 5), text_of((0, 1, b"kept"), (2, 1, b"void")), 1)
    writer.append(stamped(16, 5), b"", 2)
    writer.halt(13, b'{"asset":1}')
    writer.close()
    found = scan(DISK, tmp_path)
    assert [(h.sequence, h.epoch, h.reason) for h in found.halts] == [(13, 2, b'{"asset":1}')]
    assert found.last_sequence == 12
    assert sequences(found) == list(range(1, 13))
    assert [list(read_text(f.text)) for f in found.frames(11)] == [[(0, 1, b"kept")]]

    # The next epoch uses the voided sequences again.
    write_log(tmp_path, [4], epoch=3)
    found = scan(DISK, tmp_path)
    assert sequences(found) == list(range(1, 17))
    assert [f.epoch for f in found.frames(13)] == [3]


def test_a_halt_may_void_more_than_a_segment_and_its_names_be_used_again(tmp_path):
    write_log(tmp_path, [50] * 6)
    end = scan(DISK, tmp_path).end
    before = sorted(path.name for path in tmp_path.glob("*.log"))
    writer = LogWriter(DISK, tmp_path, epoch=2, next_sequence=301, end=end, segment_bytes=SEGMENT_BYTES)
    writer.halt(40, b"{}")
    writer.close()
    assert sequences(scan(DISK, tmp_path)) == list(range(1, 40))
    # The voided segments began at 51, 101, 151, …; with frames of these sizes new ones do, too.
    write_log(tmp_path, [61, 50, 50, 39], epoch=3)
    after = sorted(path.name for path in tmp_path.glob("*.log"))
    assert set(before) < set(after)
    assert any(name.endswith(".3.log") for name in after), after
    found = scan(DISK, tmp_path)
    assert sequences(found) == list(range(1, 240))
    assert sequences(found, 150) == sequences(scan(DISK, tmp_path, 150), 150) == list(range(150, 240))
    assert [f.epoch for f in found.frames(40)] == [3, 3, 3, 3]


def test_an_epoch_that_falls_is_corruption(tmp_path):
    write_log(tmp_path, [1], epoch=5)
    path = only_segment(tmp_path)
    data = bytearray(path.read_bytes())
    offset, length = frame_places(path)[-1]
    buffer = frame.FrameBuffer(4096)
    buffer.follow(struct.unpack_from("<I", data, offset + 12)[0])
    buffer.add(frame.COMMANDS, 4, 2, stamped(2, 1), b"", 5, 1)
    data[offset + length : offset + length + buffer.size] = buffer.view()
    path.write_bytes(data)
    with pytest.raises(CorruptionError, match="does not follow"):
        scan(DISK, tmp_path)


def test_sync_all_syncs_every_segment(tmp_path):
    write_log(tmp_path, [50] * 6)
    disk = ControlledDisk()
    count = sync_all(disk, tmp_path)
    assert count == disk.syncs == len(list(tmp_path.glob("*.log"))) > 2


@pytest.mark.parametrize(
    "commands",
    [stamped(2, 1), stamped(1, 65537), np.zeros(0, stamped(1, 1).dtype), stamped(1, 3)[::2]],
    ids=["wrong stamp", "too many", "none", "not contiguous"],
)
def test_what_is_no_frame_is_refused_and_leaves_the_log_as_it_was(tmp_path, commands):
    writer = LogWriter(DISK, tmp_path, epoch=1, next_sequence=1, end=None, segment_bytes=32 << 20)
    with pytest.raises((FormatError, ValueError)):
        writer.append(commands, b"", 1)
    writer.append(stamped(1, 1), b"", 1)
    writer.close()
    assert sequences(scan(DISK, tmp_path)) == [1]


def test_a_frame_larger_than_a_segment_is_refused(tmp_path):
    writer = LogWriter(DISK, tmp_path, epoch=1, next_sequence=1, end=None, segment_bytes=8192)
    with pytest.raises(FormatError, match="does not fit"):
        writer.append(stamped(1, 31), b"", 1)
    writer.append(stamped(1, 30), b"", 1)
    writer.close()
    assert scan(DISK, tmp_path).last_sequence == 30
