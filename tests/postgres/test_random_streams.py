"""Whatever the engine says, in whatever batches, over whatever crashes: the rows are the engine's state."""

import asyncio
import os
import random
from dataclasses import replace

import pytest

from persistence.postgres.embedded import EmbeddedPostgres
from persistence.postgres.pool import Pool
from persistence.postgres.projector import Projector
from persistence.postgres.reconcile import reconcile
from tests.postgres.venue import Frame, Venue
from tests.property.streams import Stream

COMMANDS = 1500


@pytest.fixture
def seed() -> int:
    value = int(os.environ.get("HOLDFAST_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"rerun: HOLDFAST_SEED={value} pytest tests/postgres/test_random_streams.py")
    return value


def record(rng: random.Random, commands: int) -> Venue:
    """A random stream in frames of random sizes."""
    venue, stream = Venue(), Stream(rng)
    venue.apply(stream.setup())
    done = 0
    while done < commands:
        pieces: list[Frame] = []
        for _ in range(rng.choice((1, 1, 2, 5, 40))):
            command = stream.next()
            piece = venue.apply(command)
            stream.hear(command[0], piece.events)
            pieces.append(piece)
            done += 1
        del venue.frames[-len(pieces) :]
        venue.frames.append(join(pieces))
    return venue


def join(pieces: list[Frame]) -> Frame:
    import numpy as np

    return replace(
        pieces[0],
        epoch=pieces[-1].epoch,
        last_sequence=pieces[-1].last_sequence,
        events=np.concatenate([piece.events for piece in pieces]),
    )


async def test_rows_equal_the_engine_after_random_batches_and_restarts(pool: Pool, seed: int) -> None:
    rng = random.Random(seed)
    venue = record(rng, COMMANDS)
    projector, at = Projector(pool), 0
    while at < len(venue.frames):
        if rng.random() < 0.2:
            # A restarted projector is given frames again from some way back.
            projector, at = Projector(pool), max(0, at - rng.randrange(10))
        size = rng.choice((1, 2, 10, 100))
        await projector.apply(venue.frames[at : at + size])
        at += size
    assert await reconcile(pool, venue.engine.dump()) == []


async def test_rows_equal_the_engine_after_kills_of_postgres_and_projector(
    postgres: EmbeddedPostgres, dsn: str, seed: int
) -> None:
    """SIGKILL to the server while a batch is on its way; the cancelled task is the projector's own death."""
    rng = random.Random(seed)
    venue = record(rng, COMMANDS)
    kills = 0
    while kills < 6:
        async with Pool(dsn, minimum=0) as pool:
            task = asyncio.create_task(feed(Projector(pool), venue, rng))
            await asyncio.sleep(rng.random() * 0.05)
            in_flight = not task.done()
            if rng.random() < 0.7:
                postgres.kill()
                task.cancel()
                postgres.start()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            kills += in_flight
            if not in_flight:
                task.result()
                break
    async with Pool(dsn, minimum=0) as pool:
        await feed(Projector(pool), venue, rng)
        assert await reconcile(pool, venue.engine.dump()) == []
    assert kills, "nothing was in flight at any kill"


async def test_a_projector_rides_out_a_restart_of_postgres(
    postgres: EmbeddedPostgres, dsn: str, seed: int
) -> None:
    rng = random.Random(seed)
    venue = record(rng, COMMANDS)
    async with Pool(dsn, minimum=0) as pool:
        task = asyncio.create_task(feed(Projector(pool), venue, rng))
        for _ in range(3):
            await asyncio.sleep(rng.random() * 0.05)
            postgres.kill()
            postgres.start()
        await task
        assert await reconcile(pool, venue.engine.dump()) == []


async def feed(projector: Projector, venue: Venue, rng: random.Random) -> None:
    """From the committed cursor to the end, a few frames at a time."""
    sequence = (await projector.cursor()).sequence
    frames = [frame for frame in venue.frames if frame.last_sequence > sequence]
    while frames:
        size = rng.randrange(1, 12)
        await projector.apply(frames[:size])
        del frames[:size]
