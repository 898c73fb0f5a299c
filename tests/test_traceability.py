"""docs/traceability.md lists every clause, and what it names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROW = re.compile(r"^\| ([A-Z]\d+b?) \| (.+) \| (.+) \|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
DRILL = re.compile(r"`drill ([\w-]+)`")
CLAUSES = (
    [f"M{n}" for n in range(1, 12)]
    + ["M4b"]
    + [f"L{n}" for n in range(1, 7)]
    + [f"I{n}" for n in range(1, 10)]
    + [f"D{n}" for n in range(1, 12)]
    + [f"C{n}" for n in range(1, 4)]
    + [f"R{n}" for n in range(1, 8)]
    + [f"F{n}" for n in range(1, 13)]
    + ["F1b"]
    + [f"K{n}" for n in range(1, 6)]
    + [f"A{n}" for n in range(1, 9)]
    + [f"O{n}" for n in range(1, 7)]
    + [f"H{n}" for n in range(1, 6)]
)
OTHERS = ("not yet", "not promised", "alert ")


def rows() -> list[tuple[str, str, str]]:
    return ROW.findall((ROOT / "docs" / "traceability.md").read_text())


def test_every_clause_has_one_row() -> None:
    assert sorted(clause for clause, _, _ in rows()) == sorted(CLAUSES)


def test_every_test_named_exists() -> None:
    missing = []
    for clause, _, held_by in rows():
        for file, name in TEST.findall(held_by):
            path = ROOT / file
            if not path.exists() or (name and not re.search(rf"def {name}\b", path.read_text())):
                missing.append((clause, file, name))
    assert not missing, missing


def test_every_drill_named_exists() -> None:
    from api.drills import DRILLS

    named = {name for _, _, held_by in rows() for name in DRILL.findall(held_by)}
    assert named <= set(DRILLS), named - set(DRILLS)


def test_no_clause_is_left_without_an_answer() -> None:
    empty = [
        clause
        for clause, _, held_by in rows()
        if not TEST.search(held_by)
        and not DRILL.search(held_by)
        and not any(word in held_by for word in OTHERS)
    ]
    assert not empty, empty
