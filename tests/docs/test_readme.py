"""The README's examples, run as they stand there against a running venue."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()


def example(name: str) -> str:
    found = re.search(rf"<!-- example: {name} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    if found is None:
        raise AssertionError(f"README has no example {name}")
    return found.group(1)


@pytest.fixture(scope="module")
def venue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    data = tmp_path_factory.mktemp("venue") / "data"
    arguments = ("--data", str(data), "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--demo", "--json")
    with (
        (data.parent / "serve.log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "api.cli", "serve", *arguments], stdout=subprocess.PIPE, stderr=log
        ) as process,
    ):
        try:
            assert process.stdout is not None
            yield orjson.loads(process.stdout.readline())
        finally:
            process.terminate()
            process.wait(60)


def run(command: list[str], text: str, venue: dict[str, object]) -> str:
    keys = venue["keys"]
    assert isinstance(keys, dict)
    text = text.replace("http://127.0.0.1:8400", str(venue["url"]))
    environment = os.environ | {"KEY": keys["alice"]}
    done = subprocess.run(
        command,
        input=text,
        env=environment,
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_curl_example_places_the_seed_order_once(venue: dict[str, object]) -> None:
    first = orjson.loads(run(["bash", "-e"], example("curl"), venue))
    again = orjson.loads(run(["bash", "-e"], example("curl"), venue))
    assert first["quantity"] == "1.0" or float(first["quantity"]) == 1
    assert first["status"] in ("NEW", "PARTIALLY_FILLED", "FILLED")
    assert again["order_id"] == first["order_id"]


def test_the_python_client_example_places_and_cancels_an_order(venue: dict[str, object]) -> None:
    lines = run([sys.executable, "-"], example("client"), venue).splitlines()
    assert lines[0].split()[-1] in ("NEW", "PARTIALLY_FILLED", "FILLED")
    assert "CANCELED" in lines[1] or "FILLED" in lines[1]
