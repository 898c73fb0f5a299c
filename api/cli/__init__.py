"""`holdfast`: runs a venue, asks how it is, replays recorded flow, breaks it on purpose.

    holdfast serve --data DIR [--http HOST:PORT] [--admin HOST:PORT] [--dsn DSN] [--demo] [--json]
    holdfast status --data DIR [--json]
    holdfast oracle INPUT ...          recorded flow through the core, compared with the truth
    holdfast flow FILE --url URL ...   recorded flow through the API
    holdfast drill NAME ...            a fault, a recovery, and what was promised

Each command imports what it needs when it runs, so that `status` is quick.
"""

import argparse
import os
import sys
from collections.abc import Sequence

EXIT_USAGE = 2
EXIT_PIPE = 141
"""As the shell reports a program that SIGPIPE ended."""


def _serve(argv: Sequence[str]) -> int:
    from api.cli.serve import main

    return main(argv)


def _status(argv: Sequence[str]) -> int:
    from api.cli.status import main

    return main(argv)


def _oracle(argv: Sequence[str]) -> int:
    from api.flow.oracle import main

    return main(argv)


def _flow(argv: Sequence[str]) -> int:
    from api.flow.http_flow import main

    return main(argv)


def _drill(argv: Sequence[str]) -> int:
    from api import drills

    parser = argparse.ArgumentParser(prog="holdfast drill", description=drills.__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    drills.add_arguments(parser)
    return drills.run(parser.parse_args(list(argv)))


COMMANDS = {
    "serve": (_serve, "run a whole venue"),
    "status": (_status, "processes, epoch, sequence, state and health of a venue"),
    "oracle": (_oracle, "run recorded flow through the core and compare it with the truth"),
    "flow": (_flow, "submit recorded flow through the API and report rate and latency"),
    "drill": (_drill, "break a venue on purpose and check what it promised"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        try:
            code = COMMANDS[arguments[0]][0](arguments[1:])
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader (`head`, say) has seen enough; what is still buffered must not fail at the exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_PIPE
        return code
    width = max(map(len, COMMANDS))
    usage = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
    wanted_help = bool(arguments) and arguments[0] in ("-h", "--help")
    print(
        f"usage: holdfast COMMAND ...\n\n{usage}\n\n`holdfast COMMAND --help` says more.",
        file=sys.stdout if wanted_help else sys.stderr,
    )
    return 0 if wanted_help else EXIT_USAGE
