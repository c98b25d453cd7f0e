"""What is provisioned is looked at after each change, at whatever moment that comes."""

import asyncio
from types import SimpleNamespace

from serverfull.control_plane.warming import Warming
from serverfull.domain.changes import FunctionChanged
from serverfull.domain.readiness import Readiness
from serverfull.domain.records import Partition

HERE = Partition("000000000000", "us-east-1")


async def test_a_change_that_comes_as_the_last_look_ends_is_looked_at_too():
    config = SimpleNamespace(qualifier="1", requested=1)
    records = SimpleNamespace(list=lambda *_: [config], get=lambda *_: None)
    change, looks = FunctionChanged(HERE, "f"), []

    async def read(partition, question):
        return question(records)

    async def function(partition, name, version):
        return name

    def provision(name, function, count, changed):
        looks.append(count)
        if len(looks) == 1:
            asyncio.get_running_loop().call_soon(warming.changed, change)  # before whatever hears of the task's end
        changed(Readiness(count, count))

    fetcher, running = SimpleNamespace(function=function), SimpleNamespace(provision=provision)
    warming = Warming(SimpleNamespace(read=read), fetcher, running, None)
    warming.changed(change)
    async with asyncio.timeout(10):
        while len(looks) < 2:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0)
    await asyncio.gather(*warming._tasks.values())
    assert warming.readiness(HERE, SimpleNamespace(function="f", qualifier="1", requested=1)) == Readiness(1, 1)
    await warming.aclose()
