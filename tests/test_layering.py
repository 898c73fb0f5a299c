"""Imports run one way: engine ← persistence ← recovery ← api (STYLE, "Ours").

The core must also stay deterministic (SPEC M10): it may not import what knows
the time, chance, threads, files or the network, `.pyx` included.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ["engine", "persistence", "recovery", "api"]
IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import|c?import\s+([\w., ]+))", re.MULTILINE)
CORE_MAY_IMPORT = {
    "engine", "libc", "cython", "numpy", "cpython", "sortedcontainers",
    # Deterministic parts of the standard library, no clock, chance or device among them.
    "__future__", "bisect", "collections", "dataclasses", "enum", "hashlib", "heapq", "itertools", "struct",
    "typing",
}  # fmt: skip
ENGINE_NAMES_FOR_PERSISTENCE = {"engine.types"}


def imports_of(path: Path) -> set[str]:
    text = re.sub(r'("""|\'\'\').*?\1', "", path.read_text(), flags=re.DOTALL)
    found: set[str] = set()
    package = ".".join(path.relative_to(ROOT).parent.parts)
    for match in IMPORT.finditer(text):
        for name in (match.group(1) or match.group(2)).split(","):
            name = name.split(" as ")[0].strip()
            found.add(f"{package}{name}" if name.startswith(".") else name)
    return found


def sources(package: str) -> list[Path]:
    return sorted(
        path
        for pattern in ("*.py", "*.pyx", "*.pxd", "*.pxi", "*.pyi")
        for path in (ROOT / package).rglob(pattern)
    )


@pytest.mark.parametrize("package", ORDER)
def test_imports_run_one_way(package: str) -> None:
    later = set(ORDER[ORDER.index(package) + 1 :]) | {"tests", "bench"}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(package)
        for name in imports_of(path)
        if name.split(".")[0] in later
    ]
    assert not wrong, wrong


def test_the_core_imports_nothing_that_knows_time_chance_or_the_machine() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources("engine")
        for name in imports_of(path)
        if name.split(".")[0] not in CORE_MAY_IMPORT
    ]
    assert not wrong, wrong


def test_persistence_knows_the_record_layout_only() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources("persistence")
        for name in imports_of(path)
        if name.split(".")[0] == "engine" and name not in ENGINE_NAMES_FOR_PERSISTENCE
    ]
    assert not wrong, wrong


def test_only_storage_opens_files_for_the_log_events_and_checkpoints() -> None:
    door = re.compile(
        r"\bos\.(open|write|pwrite|fsync|fdatasync|rename|replace|unlink|ftruncate)\b|(?<![\w.])open\("
    )
    wrong = [
        f"{path.relative_to(ROOT)}: {match.group(0)}"
        for folder in ("log", "events", "checkpoint")
        for path in sources(f"persistence/{folder}")
        if path.suffix in (".py", ".pyx")
        for match in door.finditer(re.sub(r'("""|\'\'\').*?\1|#.*', "", path.read_text(), flags=re.DOTALL))
    ]
    assert not wrong, wrong


def test_the_check_sees_an_import_that_runs_backwards(tmp_path: Path) -> None:
    module = ROOT / "engine" / "types.py"
    assert "numpy" in imports_of(module)
    assert imports_of(ROOT / "tests" / "test_layering.py") == {"re", "pathlib", "pytest"}
