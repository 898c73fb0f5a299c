"""The embedded server starts, stops, comes back, and never outlives its starter."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from persistence.postgres.embedded import SOCKET_PATH_BYTES_MAX, EmbeddedPostgres, socket_directory_for
from persistence.postgres.errors import AlreadyRunning, EmbeddedError, StartFailed

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> EmbeddedPostgres:
    directory = tmp_path_factory.mktemp("pg")
    return EmbeddedPostgres(directory / "data", directory / "s", settings={"shared_buffers": "16MB"})


async def ask(server: EmbeddedPostgres, query: str) -> str:
    connection = await asyncpg.connect(server.dsn)
    try:
        return str(await connection.fetchval(query))
    finally:
        await connection.close()


async def test_it_is_durable_private_and_not_root(server: EmbeddedPostgres) -> None:
    server.start()
    try:
        for name in ("fsync", "full_page_writes", "synchronous_commit", "data_checksums"):
            assert await ask(server, f"SHOW {name}") == "on"
        assert await ask(server, "SHOW listen_addresses") == ""
        assert server.socket_directory.stat().st_mode & 0o077 == 0
        assert server.directory.stat().st_mode & 0o077 == 0
        with pytest.raises(AlreadyRunning):
            server.start()
        twin = EmbeddedPostgres(server.directory, server.socket_directory)
        with pytest.raises(AlreadyRunning, match=str(server.pid)):
            twin.start(0.05)
    finally:
        server.stop()
    assert server.pid is None


async def test_what_was_committed_survives_a_kill(server: EmbeddedPostgres) -> None:
    server.start()
    try:
        await ask(server, "CREATE TABLE t AS SELECT 42 AS x")
        server.kill()
        server.start()
        assert await ask(server, "SELECT x FROM t") == "42"
    finally:
        server.stop()


def test_it_dies_with_the_process_that_started_it(server: EmbeddedPostgres) -> None:
    script = (
        "import sys, time\n"
        "from persistence.postgres.embedded import EmbeddedPostgres\n"
        "server = EmbeddedPostgres(sys.argv[1], sys.argv[2])\n"
        "server.start()\n"
        "print(server.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(server.directory), str(server.socket_directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        starter.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()


def test_a_pid_file_that_names_another_program_does_not_stop_it(server: EmbeddedPostgres) -> None:
    server.prepare()
    (server.directory / "postmaster.pid").write_text(f"{os.getpid()}\n{server.directory}\n")
    server.start()
    server.stop()


async def stuck_backend(server: EmbeddedPostgres) -> int:
    """Pid of a backend that will not notice the death of its server."""
    connection = await asyncpg.connect(server.dsn)
    pid = connection.get_server_pid()
    os.kill(pid, signal.SIGSTOP)
    connection.terminate()
    return int(pid)


def test_a_stuck_backend_of_a_killed_server_does_not_keep_the_next_one_out(
    server: EmbeddedPostgres,
) -> None:
    server.start()
    try:
        backend = asyncio.run(stuck_backend(server))
        # Somebody who looks around in the directory is not one of the server's own.
        with subprocess.Popen(["sleep", "60"], cwd=server.directory) as visitor:
            server.kill()
            twin = EmbeddedPostgres(server.directory, server.socket_directory)
            twin.clear_stale(time.monotonic() + 10)
            assert not Path(f"/proc/{backend}/cwd").exists()
            assert visitor.poll() is None
            visitor.kill()
        server.start(10)
        assert asyncio.run(ask(server, "SELECT 1")) == "1"
    finally:
        server.stop()


async def test_a_server_that_is_stopped_does_not_answer(server: EmbeddedPostgres) -> None:
    assert not server.answers(0.1)
    server.start()
    try:
        assert server.answers(10)
        os.kill(server.pid or 0, signal.SIGSTOP)
        assert not server.answers(0.2)
        os.kill(server.pid or 0, signal.SIGCONT)
        assert server.answers(10)
    finally:
        server.stop()


def test_an_initdb_that_was_cut_short_is_begun_anew(server: EmbeddedPostgres) -> None:
    fresh = server.directory.with_name(server.directory.name + ".new")
    fresh.mkdir(parents=True)
    (fresh / "PG_VERSION").write_text("18\n")
    server.start()
    server.stop()
    assert not fresh.exists()


def test_a_directory_that_is_not_a_database_is_left_alone(server: EmbeddedPostgres) -> None:
    server.directory.mkdir()
    (server.directory / "thesis.txt").write_text("x")
    with pytest.raises(EmbeddedError, match="not empty"):
        server.start()
    assert (server.directory / "thesis.txt").exists()


def test_its_last_words_are_in_the_error(server: EmbeddedPostgres) -> None:
    server.prepare()
    (server.directory / "postgresql.conf").write_text("nonsense = 1\n")
    with pytest.raises(StartFailed, match="nonsense"):
        server.start()


def test_it_is_not_tied_to_a_thread_by_accident(server: EmbeddedPostgres) -> None:
    caught: list[BaseException] = []

    def start() -> None:
        try:
            server.start()
        except EmbeddedError as error:
            caught.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert caught and "main thread" in str(caught[0])


def test_a_long_path_gets_a_short_socket_directory() -> None:
    long = Path("/tmp") / ("x" * 120) / "postgres"
    assert len(str(socket_directory_for(long) / ".s.PGSQL.5432")) <= SOCKET_PATH_BYTES_MAX
    assert socket_directory_for(long) == socket_directory_for(long)
    assert socket_directory_for(Path("/d/postgres")) == Path("/d/run")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become someone else")
def test_where_the_kernel_forbids_user_namespaces_it_becomes_nobody_and_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Containers often forbid them; the files change hands, and change back when they are allowed again."""
    honest = EmbeddedPostgres._launched

    def without_namespaces(self: EmbeddedPostgres, *arguments: Any) -> list[str]:
        return ["setuid" if word == "namespace" else word for word in honest(self, *arguments)]

    with tempfile.TemporaryDirectory(prefix="hf-pg-") as name:
        Path(name).chmod(0o755)
        server = EmbeddedPostgres(Path(name) / "data", Path(name) / "s", settings={"shared_buffers": "16MB"})
        with monkeypatch.context() as patch:
            patch.setattr(EmbeddedPostgres, "_launched", without_namespaces)
            server.start()
            assert (server.directory / "PG_VERSION").stat().st_uid == 65534
            server.stop()
        server.start()
        assert (server.directory / "PG_VERSION").stat().st_uid == 0
        server.stop()
