"""`python -m bench [core durable gateway recovery] [--json FILE]`: figures beside their baselines."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from bench import core, durable, gateway, recovery
from bench.measure import HEADER, Figure, environment, keep

SUITES: dict[str, Callable[[], list[Figure]]] = {
    "core": core.run,
    "durable": durable.run,
    "gateway": gateway.run,
    "recovery": recovery.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}; default: all")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.suites if name not in SUITES]:
        parser.error(f"no suite {unknown[0]!r}; there are {', '.join(SUITES)}")
    where = environment()
    print(
        f"{where['processor']}, {where['cores']} cores, Python {where['python']}, commit {where['commit']}\n"
    )
    print(HEADER)
    figures: list[Figure] = []
    for name in arguments.suites or SUITES:
        for figure in SUITES[name]():
            print(figure.line(), flush=True)
            figures.append(figure)
    if arguments.json:
        keep(figures, arguments.json)


if __name__ == "__main__":
    main()
