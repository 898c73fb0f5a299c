"""Both implementations are CRC32C, on every length and alignment."""

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persistence.crc32c import IMPLEMENTATION, crc32c, crc32c_table, join


@pytest.mark.parametrize("checksum", [crc32c, crc32c_table])
def test_published_vectors(checksum):
    assert checksum(b"") == 0
    assert checksum(b"123456789") == 0xE3069283
    assert checksum(bytes(32)) == 0x8A9136AA
    assert checksum(b"\xff" * 32) == 0x62A8AB43
    assert checksum(bytes(range(32))) == 0x46DD794E


@pytest.mark.parametrize("checksum", [crc32c, crc32c_table])
@settings(print_blob=True, deadline=None)
@given(data=st.binary(max_size=300), cut=st.integers(0, 300), shift=st.integers(0, 8))
def test_equals_an_independent_implementation_and_continues(checksum, data, cut, shift):
    view = memoryview(b"\0" * shift + data)[shift:]
    assert checksum(view) == google_crc32c.value(data)
    assert checksum(view[cut:], checksum(view[:cut])) == google_crc32c.value(data)


def test_says_which_implementation_runs():
    assert IMPLEMENTATION in ("instruction", "table")


@settings(print_blob=True, deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=300), st.integers(0, 200_000))
def test_two_checksums_join_to_that_of_both_buffers(first, second, zeros):
    second += bytes(zeros)
    assert join(crc32c(first), crc32c(second), len(second)) == crc32c(first + second)
