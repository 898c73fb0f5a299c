"""The oracle itself, on small files made by hand: it agrees, and it can disagree."""

import json
from pathlib import Path

import pytest

from api.flow.generator import synthetic_flow
from api.flow.oracle import main, run_oracle
from tests.oracle.files import BOOK, COUNTS, INPUT, TRADES, small_book, small_input, small_trades, write_zst


@pytest.mark.parametrize("twin", [False, True], ids=["core", "twin"])
def test_all_identical_is_exit_code_0(tmp_path: Path, capsys: pytest.CaptureFixture[str], twin: bool) -> None:
    counts = write_zst(tmp_path / "small_check_L10.csv.zst", COUNTS)
    code = main(
        [str(small_input(tmp_path)), "--trades", str(small_trades(tmp_path))]
        + ["--book", str(small_book(tmp_path)), "--book", str(counts)]
        + ["--twin"] * twin
    )
    text = capsys.readouterr().out
    assert code == 0, text
    assert "identical  trades (5 compared)" in text
    assert "identical  book states of small_check_L1.csv.zst (5 compared)" in text
    assert "identical  book states of small_check_L10.csv.zst (2 compared)" in text
    assert "commands/s in apply alone" in text


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("4,14,11,101,5,B", "4,14,11,101,4,B"),
        ("4,14,11,101,5,B", "4,14,11,102,5,B"),
        ("4,14,12,101,3,B", "4,14,16,101,3,B"),
        ("4,14,12,101,3,B", "4,14,12,101,3,S"),
        ("10,17,12,101,2,B\n", ""),
        ("10,17,12,101,2,B\n", "10,17,12,101,2,B\n11,17,12,101,2,B\n"),
    ],
)
def test_a_tampered_trade_is_shown_with_its_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], was: str, becomes: str
) -> None:
    assert was in TRADES
    trades = small_trades(tmp_path, TRADES.replace(was, becomes))
    code = main([str(small_input(tmp_path)), "--trades", str(trades)])
    text = capsys.readouterr().out
    assert code == 1
    assert "DIFFERENT  trades" in text
    assert "expected" in text and "got" in text and "input around n" in text


@pytest.mark.parametrize(
    ("was", "becomes"), [("9,0,101,18,99,7", "9,0,101,17,99,7"), ("11,0,101,4,0,0", "11,0,101,4,99,7")]
)
def test_a_tampered_book_state_is_shown_with_its_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], was: str, becomes: str
) -> None:
    assert was in BOOK
    book = small_book(tmp_path, BOOK.replace(was, becomes))
    code = main([str(small_input(tmp_path)), "--trades", str(small_trades(tmp_path)), "--book", str(book)])
    text = capsys.readouterr().out
    assert code == 1
    assert "identical  trades" in text
    assert f"after n {was.split(',')[0]}" in text


def test_a_wrong_order_count_is_told(tmp_path: Path) -> None:
    counts = write_zst(tmp_path / "counts.csv.zst", COUNTS.replace("13,3", "13,2"))
    result = run_oracle(small_input(tmp_path), book=[counts])
    assert not result.ok
    assert "orders 2" in result.text() and "orders 3" in result.text()


def test_a_wrong_checksum_is_told(tmp_path: Path) -> None:
    right = run_oracle(small_input(tmp_path), small_trades(tmp_path)).checksum
    assert (
        main(
            [str(small_input(tmp_path)), "--trades", str(small_trades(tmp_path)), "--checksum", f"{right:x}"]
        )
        == 0
    )
    assert main([str(small_input(tmp_path)), "--trades", str(small_trades(tmp_path)), "--checksum", "1"]) == 1


def test_a_report_hash_is_taken_as_digits_or_from_a_file_of_names(tmp_path: Path) -> None:
    path = small_input(tmp_path)
    digest = run_oracle(path, report_hash="0" * 64).report_sha256
    hashes = tmp_path / "hashes.txt"
    hashes.write_text(f"{'1' * 64}  other_reports.txt\n{digest}  small_input_reports.txt\n")
    assert run_oracle(path, report_hash=digest).ok
    assert run_oracle(path, report_hash=str(hashes)).ok
    assert not run_oracle(path, report_hash="0" * 64).ok


def test_an_edge_case_that_differs_is_shown(tmp_path: Path) -> None:
    messages = [[0, 0, 0, 10, 1, 100], [0, 1, 1, 4, 2, 100]]
    reports = ["0,0,0,1,100,10", "0,1,1,2,100,4", "1,1,100,4,1,2"]
    for lines, ok in ((reports, True), (reports[:2], False), ([*reports[:2], "1,1,100,5,1,2"], False)):
        path = tmp_path / "edge_cases.json"
        path.write_text(json.dumps({"cases": {"partial": {"messages": messages, "reports": lines}}}))
        result = run_oracle(path)
        assert result.ok is ok
        assert ok or "line 3" in result.text()


def test_an_order_refused_for_its_fields_is_a_difference(tmp_path: Path) -> None:
    refused = small_input(tmp_path, INPUT + "12,0,CT,N,18,B,0,5\n")
    result = run_oracle(refused, small_trades(tmp_path))
    assert not result.ok
    assert "INVALID_PRICE" in result.text()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (INPUT.replace("1,0,SNAP", "1,0,OA"), "call auction"),
        (INPUT + "12,0,CT,U,0,-,0,0\n", "call auction"),
        (INPUT + "12,0,CT,X,0,-,0,0\n", "unknown op 'X'"),
        (INPUT.replace(",px,", ",price,"), "no column px"),
        (INPUT + "12,0,CT,N,1,B,1.5,1\n", "px"),
        (INPUT + "11,0,CT,N,1,B,1,1\n", "increasing"),
        (INPUT + "12,0,CT,N,-1,B,1,1\n", "order id"),
        ("", "not a CSV table"),
    ],
)
def test_unusable_input_is_exit_code_2_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, says: str
) -> None:
    path = small_input(tmp_path, content)
    assert main([str(path), "--trades", str(small_trades(tmp_path))]) == 2
    assert says in capsys.readouterr().err


def test_files_that_are_not_order_flow_are_exit_code_2(tmp_path: Path) -> None:
    torn = write_zst(tmp_path / "torn_input.csv.zst", INPUT)
    torn.write_bytes(torn.read_bytes()[:-9])
    for name, content in (
        ("torn.parquet", b"PAR1"),
        ("edge_cases.json", b"{}"),
        ("plain.csv.zst", b"n,op"),
        ("notes.txt", b""),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        assert main([str(path), "--trades", str(small_trades(tmp_path))]) == 2, name
    assert main([str(write_zst(tmp_path / "short.bin.zst", b"1234"))]) == 2
    assert main([str(write_zst(tmp_path / "torn.bin.zst", bytes(12) + b"\x01" + bytes(60)))]) == 2
    assert main([str(torn), "--trades", str(small_trades(tmp_path))]) == 2, "a torn frame"
    assert main([str(tmp_path / "absent_input.csv.zst"), "--trades", str(small_trades(tmp_path))]) == 2
    assert main([str(small_input(tmp_path))]) == 2, "nothing to compare with"


def test_synthetic_flow_is_the_same_for_the_same_seed_and_trades() -> None:
    core, twin = (run_oracle(synthetic_flow(3_000, seed=5), twin=twin) for twin in (False, True))
    assert core.ok, core.text()
    assert core.trades > 500
    assert (core.state_hash, core.checksum) == (twin.state_hash, twin.checksum)
    assert run_oracle(synthetic_flow(3_000, seed=6)).checksum != core.checksum
