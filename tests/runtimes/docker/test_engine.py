"""Engines that cannot be asked: here a socket that takes every connection and says nothing, as one that hangs does."""

import asyncio

import pytest

from serverfull.runtimes.docker.engine import Engine, EngineGone

pytest.importorskip("docker")


@pytest.fixture
async def hung(tmp_path):
    """A path, and what was asked there so far."""
    asked, lines = [], []

    async def hear(reader, writer):
        lines.append(writer)
        if line := await reader.readline():
            asked.append(line)

    path = tmp_path / "engine"
    server = await asyncio.start_unix_server(hear, path)
    yield path, asked
    server.close()
    for line in lines:
        line.close()


async def test_all_who_wait_for_an_engine_that_hangs_hear_of_it_when_the_first_does(hung):
    path, asked = hung
    engine = Engine(f"unix://{path}")
    engine.patience = 1.0
    questions = [engine.ask(lambda client: client.info()) for _ in range(6)]
    answers = await asyncio.gather(*questions, return_exceptions=True)
    engine.close()
    assert [type(answer) for answer in answers] == [EngineGone] * 6
    assert len({id(answer) for answer in answers}) == 6  # raised on threads of their own
    assert len(asked) == 1


async def test_who_asks_after_an_engine_hung_asks_it_again(hung):
    path, asked = hung
    engine = Engine(f"unix://{path}")
    engine.patience = 0.2
    for _ in range(2):
        with pytest.raises(EngineGone, match="is it running"):
            await engine.ask(lambda client: client.info())
    engine.close()
    assert len(asked) == 2
