"""A checkpoint gives back what was put in, or refuses; the next older one is there."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.types import SECTIONS
from persistence import checkpoint
from persistence.checkpoint.layout import SUFFIX
from persistence.errors import CorruptionError, FormatError, StorageError
from persistence.storage import Disk
from tests.unit.persistence.support import ControlledDisk

DISK = Disk()


def some_sections(seed: int, count: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    sections = {
        name: np.frombuffer(generator.bytes(dtype.itemsize * (count + i)), dtype)
        if count + i
        else np.empty(0, dtype)
        for i, (name, dtype) in enumerate(SECTIONS.items())
    }
    return sections | {"definitions": np.frombuffer(b'{"markets":[]}', np.uint8)}


def publish(directory, sequence: int, seed: int = 1, count: int = 2) -> str:
    temporary = checkpoint.write_temporary(
        DISK,
        directory,
        sequence=sequence,
        epoch=3,
        time_ns=-5,
        state_hash=bytes(range(32)),
        sections=some_sections(seed, count),
    )
    return checkpoint.publish(DISK, temporary)


@given(st.integers(0, 2**32), st.integers(0, 50), st.integers(0, 2**64 - 1))
@settings(
    print_blob=True,
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_what_was_written_is_loaded(tmp_path_factory, seed, count, sequence):
    path = publish(tmp_path_factory.mktemp("checkpoints"), sequence, seed, count)
    loaded = checkpoint.load(DISK, path)
    assert (loaded.sequence, loaded.epoch, loaded.time_ns, loaded.state_hash) == (
        sequence,
        3,
        -5,
        bytes(range(32)),
    )
    expected = some_sections(seed, count)
    assert list(loaded.sections) == list(expected)
    for name, array in expected.items():
        assert loaded.sections[name].dtype == array.dtype
        assert loaded.sections[name].tobytes() == array.tobytes()


def test_a_flip_of_any_byte_is_refused_and_the_next_older_one_loads(tmp_path):
    publish(tmp_path, 100)
    newest = publish(tmp_path, 200)
    whole = DISK.open(newest)
    content = whole.read_at(0, whole.size())
    whole.close()
    with DISK.open(newest, writable=True) as file:
        for place in range(len(content)):
            file.write_at(place, bytes([content[place] ^ 1 << place % 8]))
            with pytest.raises(CorruptionError, match="older checkpoint") as caught:
                checkpoint.load(DISK, newest)
            assert caught.value.path == newest
            if place % 500 == 0:
                loaded = []
                for path in checkpoint.candidates(DISK, tmp_path):
                    try:
                        loaded.append(checkpoint.load(DISK, path).sequence)
                    except CorruptionError:
                        continue
                assert loaded == [100]
            file.write_at(place, content[place : place + 1])
    assert checkpoint.load(DISK, newest).sequence == 200


@pytest.mark.parametrize("size", [0, 1, 127, 128, 700, -1, +1])
def test_a_file_of_another_length_is_refused(tmp_path, size):
    path = publish(tmp_path, 7)
    with DISK.open(path, writable=True) as file:
        file.truncate(size if size not in (-1, 1) else file.size() + size)
    with pytest.raises(CorruptionError):
        checkpoint.load(DISK, path)


def test_a_checkpoint_under_another_name_is_refused(tmp_path):
    path = publish(tmp_path, 7)
    other = f"{tmp_path}/{8:020d}{SUFFIX}"
    DISK.rename(path, other)
    with pytest.raises(CorruptionError, match="not of its name"):
        checkpoint.load(DISK, other)


def test_records_of_another_layout_are_refused(tmp_path):
    renamed = np.dtype(
        [("x" if n == "account" else n, d) for n, (d, _) in SECTIONS["balances"].fields.items()]
    )
    temporary = checkpoint.write_temporary(
        DISK,
        tmp_path,
        sequence=1,
        epoch=1,
        time_ns=0,
        state_hash=bytes(32),
        sections={"balances": np.zeros(1, renamed)},
    )
    with pytest.raises(CorruptionError, match="balances"):
        checkpoint.load(DISK, checkpoint.publish(DISK, temporary))


def test_what_is_not_published_is_no_candidate_and_can_be_removed(tmp_path):
    publish(tmp_path, 5)
    temporary = checkpoint.write_temporary(
        DISK, tmp_path, sequence=6, epoch=1, time_ns=0, state_hash=bytes(32), sections={}
    )
    assert [checkpoint.load(DISK, p).sequence for p in checkpoint.candidates(DISK, tmp_path)] == [5]
    assert checkpoint.remove_temporaries(DISK, tmp_path) == [temporary]
    assert len(DISK.list(tmp_path)) == 1


def test_the_newest_are_kept(tmp_path):
    for sequence in (9, 100, 11, 1_000_000):
        publish(tmp_path, sequence)
    assert len(checkpoint.retire(DISK, tmp_path, keep=3)) == 1
    kept = [checkpoint.load(DISK, p).sequence for p in checkpoint.candidates(DISK, tmp_path)]
    assert kept == [1_000_000, 100, 11]
    assert checkpoint.retire(DISK, tmp_path) == []
    checkpoint.retire(DISK, tmp_path, keep=0)
    assert len(checkpoint.candidates(DISK, tmp_path)) == 1


def test_a_failed_sync_leaves_no_checkpoint(tmp_path):
    disk = ControlledDisk()
    disk.sync_error = 5
    with pytest.raises(StorageError):
        checkpoint.write_temporary(
            disk, tmp_path, sequence=6, epoch=1, time_ns=0, state_hash=bytes(32), sections=some_sections(1, 1)
        )
    assert disk.syncs == 1
    assert checkpoint.candidates(disk, tmp_path) == []


@pytest.mark.parametrize(
    ("state_hash", "sections"),
    [
        (bytes(31), {}),
        (bytes(32), {"a" * 25: np.zeros(1, np.uint8)}),
        (bytes(32), {"": np.zeros(1, np.uint8)}),
        (bytes(32), {"name": np.zeros(4, np.uint8)[::2]}),
        (bytes(32), {"name": np.zeros((2, 2), np.uint8)}),
    ],
)
def test_what_cannot_be_a_checkpoint_is_refused_before_anything_is_written(tmp_path, state_hash, sections):
    with pytest.raises(FormatError):
        checkpoint.write_temporary(
            DISK, tmp_path, sequence=6, epoch=1, time_ns=0, state_hash=state_hash, sections=sections
        )
    assert DISK.list(tmp_path) == []
