"""Recorded order flow through the production `apply`: identical to what the exchange did.

Where the data is absent these skip; `test_oracle.py` holds the oracle itself on
small files made by hand.
"""

import pytest

from api.flow.run import run_oracle
from engine.reference.book import Level
from tests.oracle.files import recorded

REPORT_HASHES = "flash1/report_hashes_seed23.txt"


def test_aapl_has_every_trade_and_every_book_state_of_the_exchange() -> None:
    result = run_oracle(
        recorded("lobster/AAPL_input.csv.zst"),
        recorded("lobster/AAPL_trades.csv.zst"),
        [recorded("lobster/AAPL_check_L1.csv.zst"), recorded("lobster/AAPL_check_L10.csv.zst")],
    )
    assert result.ok, result.text()
    assert [check.compared for check in result.checks[:3]] == [4_000, 22_223, 545]


def test_arl_has_every_trade_and_every_order_count_of_the_exchange() -> None:
    result = run_oracle(
        recorded("nasdaq_arl/ARL_input.csv.zst"),
        recorded("nasdaq_arl/ARL_trades.csv.zst"),
        [recorded("nasdaq_arl/ARL_check_L10.csv.zst")],
    )
    assert result.ok, result.text()
    assert [check.compared for check in result.checks[:2]] == [11, 3_927]


@pytest.mark.parametrize("name", ["normal", "static"])
def test_flash1_gives_the_report_of_160_other_engines(name: str) -> None:
    hashes = recorded(REPORT_HASHES)
    result = run_oracle(recorded(f"flash1/{name}_seed23.parquet"), report_hash=str(hashes))
    assert result.ok, result.text()
    assert result.commands == 1_996_097


@pytest.mark.parametrize(
    ("name", "trades", "volume", "checksum"),
    [("w10k", 429_848, 17_656_800, 0x191846E716569677), ("w1m", 433_134, 17_762_260, 0x3B1539C3A2DD2EDB)],
)
def test_mixed_workload_has_the_trades_of_its_peers(
    name: str, trades: int, volume: int, checksum: int
) -> None:
    result = run_oracle(recorded(f"mixed/{name}.bin.zst"), expected_checksum=checksum)
    assert result.ok, result.text()
    assert (result.trades, result.volume, result.checksum) == (trades, volume, checksum)


@pytest.mark.parametrize("twin", [False, True], ids=["core", "twin"])
def test_34_edge_cases_that_broke_other_engines(twin: bool) -> None:
    result = run_oracle(recorded("flash1/edge_cases.json"), twin=twin)
    assert result.ok, result.text()
    assert len(result.checks) == 34


def test_the_twin_passes_the_first_rows_of_aapl_and_all_of_arl() -> None:
    aapl = run_oracle(
        recorded("lobster/AAPL_input.csv.zst"),
        recorded("lobster/AAPL_trades.csv.zst"),
        [recorded("lobster/AAPL_check_L10.csv.zst")],
        twin=True,
        rows=20_000,
    )
    arl = run_oracle(
        recorded("nasdaq_arl/ARL_input.csv.zst"),
        recorded("nasdaq_arl/ARL_trades.csv.zst"),
        [recorded("nasdaq_arl/ARL_check_L10.csv.zst")],
        twin=True,
    )
    assert aapl.ok, aapl.text()
    assert aapl.checks[0].compared > 500
    assert arl.ok, arl.text()


def test_an_engine_that_is_last_in_first_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    youngest = property(lambda level: next(reversed(level.orders.values())))
    monkeypatch.setattr(Level, "head", youngest)
    result = run_oracle(
        recorded("lobster/AAPL_input.csv.zst"),
        recorded("lobster/AAPL_trades.csv.zst"),
        twin=True,
        rows=20_000,
    )
    assert not result.ok
    assert "expected  n " in result.text()
