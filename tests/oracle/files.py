"""Where recorded flow lies, and small files of the same formats made by hand."""

from pathlib import Path

import pytest
import zstandard

DATA = Path(__file__).parents[3] / "shared" / "data"

# Two sells wait at 101; a buy takes the older and part of the younger, rests at
# 101 for nothing; a sell is made smaller in place (M), one loses its place (M),
# one is reduced (R), and a second buy takes what is left in the new order.
INPUT = """n,t_ns,phase,op,id,side,px,qty
1,0,SNAP,N,11,S,101,5
2,0,CT,N,12,S,101,5
3,0,CT,N,13,B,99,7
4,0,CT,I,14,B,101,8
5,0,CT,N,15,S,101,4
6,0,CT,N,16,S,101,9
7,0,CT,M,15,S,101,3
8,0,CT,R,12,-,0,1
9,0,CT,M,12,S,101,6
10,0,CT,I,17,B,102,14
11,0,CT,C,13,-,0,0
"""
TRADES = """n,buy_id,sell_id,px,qty,aggressor
4,14,11,101,5,B
4,14,12,101,3,B
10,17,15,101,3,B
10,17,16,101,9,B
10,17,12,101,2,B
"""
BOOK = """n,raw_row,askpx1,askq1,bidpx1,bidq1
1,0,101,5,0,0
4,0,101,2,99,7
9,0,101,18,99,7
10,0,101,4,99,7
11,0,101,4,0,0
"""
COUNTS = """n,action,ask_px_00,ask_sz_00,ask_ct_00,bid_px_00,bid_sz_00,bid_ct_00
2,A,101,10,2,0,0,0
8,A,101,13,3,99,7,1
"""


def recorded(name: str) -> Path:
    """A file of recorded flow; the test is skipped where it is absent."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"recorded flow {name} is not at ../shared/data beside the project")
    return path


def write_zst(path: Path, content: str | bytes) -> Path:
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(zstandard.ZstdCompressor().compress(raw))
    return path


def small_input(folder: Path, content: str = INPUT) -> Path:
    return write_zst(folder / "small_input.csv.zst", content)


def small_trades(folder: Path, content: str = TRADES) -> Path:
    return write_zst(folder / "small_trades.csv.zst", content)


def small_book(folder: Path, content: str = BOOK) -> Path:
    return write_zst(folder / "small_check_L1.csv.zst", content)
