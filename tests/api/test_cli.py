"""`holdfast serve`, `status` and `flow`, from outside."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from api.cli.serve import postgres_spec
from api.runtime.projector_process import renew_status
from api.runtime.specs import projector_spec
from persistence.postgres.embedded import EmbeddedPostgres
from persistence.storage import Disk
from recovery.supervisor import State, Supervisor
from tests.api.venue import Venue

RUN_S = 120


def holdfast(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    command = [sys.executable, "-m", "api.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=RUN_S)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a short name."""
    path = Path(tempfile.mkdtemp(prefix="hf-cli-"))
    yield path
    shutil.rmtree(path)


def test_status_names_every_process_and_what_the_engine_says(venue: Venue) -> None:
    status = venue.status()
    assert set(status["processes"]) == {"postgres", "engine", "projector", "gateway"}
    assert all(process["pid"] for process in status["processes"].values())
    assert (status["running"], status["state"]) == (True, "OPEN")
    assert 0 < status["durable_sequence"] <= status["sequence"]
    assert status["url"] == venue.url
    assert "engine" in holdfast("status", "--data", str(venue.data)).stdout


def test_a_second_venue_on_the_same_directory_refuses_and_says_why(venue: Venue) -> None:
    second = holdfast("serve", "--data", str(venue.data), "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    assert second.returncode == 73
    assert "another venue runs in this directory" in second.stderr
    assert "epoch" not in second.stderr
    assert f"pid {venue.process.pid}" in second.stderr
    assert venue.call("GET", "/health").status == 200


def test_a_second_venue_with_the_same_addresses_is_told_of_the_venue_not_of_the_addresses(
    venue: Venue,
) -> None:
    address = venue.url.removeprefix("http://")
    second = holdfast("serve", "--data", str(venue.data), "--http", address)
    assert (second.returncode, f"pid {venue.process.pid}" in second.stderr) == (73, True)


@pytest.mark.parametrize("admin", ["127.0.0.1", "0.0.0.0"])
def test_two_listeners_on_one_address_are_refused_at_once(directory: Path, admin: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    listeners = ("--http", f"127.0.0.1:{port}", "--admin", f"{admin}:{port}")
    done = holdfast("serve", "--data", str(directory / "data"), *listeners)
    assert (done.returncode, "address" in done.stderr.lower()) == (2, True)


def test_a_reader_that_has_seen_enough_is_no_error(directory: Path) -> None:
    command = [sys.executable, "-m", "api.cli", "status", "--data", str(directory)]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False, timeout=RUN_S)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_address_in_use_is_said_at_once(venue: Venue, directory: Path) -> None:
    address = venue.url.removeprefix("http://")
    done = holdfast("serve", "--data", str(directory / "data"), "--http", address)
    assert (done.returncode, "cannot listen" in done.stderr) == (2, True)


def test_a_projector_that_cannot_write_its_status_is_still_seen_to_live(directory: Path) -> None:
    (directory / "run").mkdir()
    status = directory / "run" / "projector.json"
    healthy = projector_spec(directory, "").healthy
    assert renew_status(status, {"pid": 1}) == ""
    os.utime(status, (0, 0))
    assert not healthy(1)
    in_the_way = directory / "run" / f"projector.json.{os.getpid()}.tmp"
    in_the_way.symlink_to("/dev/full")
    assert "No space left" in renew_status(status, {"pid": 2})
    assert healthy(1)
    assert json.loads(status.read_bytes()) == {"pid": 1}


async def stop_a_backend(dsn: str) -> None:
    """SIGSTOP: it will not notice the death of its server."""
    connection = await asyncpg.connect(dsn)
    os.kill(connection.get_server_pid(), signal.SIGSTOP)
    connection.terminate()


def test_a_killed_postgres_with_a_stuck_backend_is_back_at_the_first_restart(directory: Path) -> None:
    postgres = EmbeddedPostgres(directory / "postgres")
    with Supervisor([postgres_spec(postgres)], Disk(), directory) as supervisor:
        child = supervisor.children["postgres"]
        asyncio.run(stop_a_backend(postgres.dsn))
        child.kill()
        deadline = time.monotonic() + RUN_S
        while child.restarts == 0 or child.state != State.RUNNING:
            assert time.monotonic() < deadline, child.status()
            child.tend()
            time.sleep(0.01)
        assert child.restarts == 1


def test_a_venue_that_was_stopped_comes_back_with_orders_keys_and_balances(directory: Path) -> None:
    first = Venue(directory / "data")
    trader = first.trader(USDT="1000")
    placed = trader.place(price="100", client_order_id="stays").body
    keys = first.keys
    assert first.stop() == 0
    down = holdfast("status", "--data", str(directory / "data"), "--json")
    assert (down.returncode, json.loads(down.stdout)["running"]) == (3, False)

    second = Venue(directory / "data")
    try:
        assert second.keys == keys
        assert oct((directory / "data" / "demo-keys.json").stat().st_mode & 0o777) == "0o600"
        assert second.epoch() == 2
        trader.venue = second
        assert trader.call("GET", f"/v1/orders/{placed['order_id']}").body == placed
        assert trader.balance("USDT") == ("899.95", "100.05")
    finally:
        assert second.stop() == 0


def test_flow_submits_generated_orders_and_reports_rate_and_latency(venue: Venue) -> None:
    flow = ("flow", "--url", venue.url, "--data", str(venue.data), "--symbol", "ARL/USD", "--json")
    done = holdfast(*flow, "--generate", "--limit", "500")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["requests"] >= 250
    assert report["trades"] > 0
    assert report["accepted"] + report["refused"] == report["requests"]
    assert set(report["refusals"]) <= {"not_live", "order_not_found"}
    assert report["latency_us"]["p50"] > 0


def test_flow_without_a_market_says_so(venue: Venue) -> None:
    flow = ("flow", "--generate", "--url", venue.url, "--data", str(venue.data), "--symbol", "NO/SUCH")
    done = holdfast(*flow)
    assert (done.returncode, "NO/SUCH" in done.stderr) == (2, True)


def test_recorded_flow_goes_through_the_api(venue: Venue) -> None:
    recorded = Path(__file__).parents[3] / "shared" / "data" / "lobster" / "AAPL_input.csv.zst"
    if not recorded.exists():
        pytest.skip("recorded flow is not here")
    flow = ("flow", str(recorded), "--limit", "2000", "--url", venue.url, "--data", str(venue.data), "--json")
    done = holdfast(*flow)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accepted"] > 1000


def test_an_unknown_command_prints_what_there_is() -> None:
    done = holdfast("nonsense")
    assert (done.returncode, "serve" in done.stderr) == (2, True)
