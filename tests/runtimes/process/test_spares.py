"""Processes that are made before it is known what for: who gets them, and what becomes of those that nobody gets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serverfull.runtimes.process.machine import Machine
from serverfull.runtimes.process.means import Level, probe_strict
from serverfull.runtimes.process.orders import Order
from serverfull.runtimes.process.spares import KEPT
from serverfull.runtimes.process.zygotes import Waiting, Zygote

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from serverfull.runtimes.process.spares import Spare

DEADLINE = 20.0


class Log:
    """Takes what is logged."""

    def __getattr__(self, level: str) -> Any:
        return lambda event, **fields: None


INTERPRETERS = [
    Path(sys.executable),
    *(path for path in [Path("~/.pyenv/versions/3.8.18/bin/python").expanduser()] if path.exists()),
]


@pytest.fixture(params=INTERPRETERS, ids=lambda path: path.parent.parent.name)
async def zygote(request: pytest.FixtureRequest) -> AsyncIterator[Zygote]:
    made = Zygote(request.param, Log())
    await made.start()
    yield made
    await made.aclose()


@pytest.fixture(params=[Level.LIMITS, Level.NONE, Level.STRICT], ids=lambda level: level.value)
async def machine(request: pytest.FixtureRequest) -> AsyncIterator[Machine]:
    if request.param is Level.STRICT and (why := probe_strict().why):
        pytest.skip(f"this machine allows no strict sandbox: {why}")
    made = Machine(request.param, Log())
    await made.open()
    yield made
    await made.spares.aclose()
    await made.aclose()


async def until(condition: Callable[[], Any]) -> Any:
    """Wait for what has no event to wait for; gives what it gave."""
    async with asyncio.timeout(DEADLINE):
        while not (found := condition()):  # noqa: ASYNC110 - there is none, that is the point
            await asyncio.sleep(0.005)
    return found


def children(pid: int | None) -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid and fields[0] != "Z":
                found.add(int(entry.name))
    return found


async def said(zygote: Zygote, waiting: Waiting | None, code: str, **limits: Any) -> tuple[int, Any]:
    """Run a program; gives its process id, and what it has printed."""
    reader, writer = os.pipe()
    command = [sys.executable, "-c", f"import json, os\nprint(json.dumps({code}))"]
    known = {"PATH": os.environ["PATH"]}
    order = Order(environment=known, cwd=Path("/"), command=command, log=writer, confinement=limits)
    launched = await zygote.launch(order, waiting)
    os.close(writer)
    with os.fdopen(reader) as output:
        text = await asyncio.wait_for(asyncio.to_thread(output.read), DEADLINE)
    assert (await asyncio.wait_for(asyncio.shield(launched.exited), DEADLINE)).status == 0
    return launched.pid, json.loads(text)


async def spare_of(machine: Machine, zygote: Zygote) -> Spare:
    """Take a spare, which is made where there is none."""
    spare = machine.spares.take(zygote)
    await until(lambda: settled(machine))
    return spare or machine.spares.take(zygote)


def settled(machine: Machine) -> bool:
    return not machine.spares._making


async def test_a_launch_takes_the_process_that_waits_for_it(zygote: Zygote) -> None:
    waiting = await zygote.spare([])
    (spare,) = await until(lambda: children(zygote.pid))
    pid, (own, session, descriptors) = await said(
        zygote, waiting, "[os.getpid(), os.getsid(0), sorted(os.listdir('/proc/self/fd'), key=int)[:-1]]"
    )
    assert pid == own == session == spare
    assert descriptors == ["0", "1", "2"]


async def test_a_launch_starts_another_process_where_the_one_that_waited_has_ended(zygote: Zygote) -> None:
    waiting = await zygote.spare([])
    (spare,) = await until(lambda: children(zygote.pid))
    os.kill(spare, signal.SIGKILL)
    await until(lambda: not children(zygote.pid))
    pid, own = await said(zygote, waiting, "os.getpid()")
    assert pid == own != spare


async def test_a_process_that_waited_with_a_zygote_that_has_died_is_gone_with_it(zygote: Zygote) -> None:
    waiting, former = await zygote.spare([]), zygote.pid
    (spare,) = await until(lambda: children(former))
    assert former is not None
    os.kill(former, signal.SIGKILL)
    await until(lambda: not Path(f"/proc/{spare}").exists())
    pid, own = await said(zygote, waiting, "os.getpid()")
    assert pid == own
    assert zygote.pid != former


async def test_a_process_that_waits_is_no_orphan(zygote: Zygote) -> None:
    await zygote.spare([])
    (spare,) = await until(lambda: children(zygote.pid))
    await said(zygote, None, "os.spawnlp(os.P_NOWAIT, 'sleep', 'sleep', '600')")  # is left behind, and hunted
    await until(lambda: children(zygote.pid) == {spare})


async def test_a_process_waits_in_its_group_and_is_launched_there(zygote: Zygote, machine: Machine) -> None:
    spare = await spare_of(machine, zygote)
    if machine.level is Level.NONE:
        assert spare.group is None
        await until(lambda: children(zygote.pid))
        pid, own = await said(zygote, spare.waiting, "os.getpid()")
        assert pid == own
    elif spare.group is None:
        pytest.skip("no group can be made here")
    elif machine.is_strict:
        (member,) = await until(spare.group.members)
        shown = [sys.prefix, sys.base_prefix]
        walls = {"tmp_mb": 1, "opt": None, "visible": shown, "hidden": [], "shared": []}
        pid, (own, parent, home) = await said(
            zygote, spare.waiting, "[os.getpid(), os.getppid(), os.path.exists('/var')]", strict=walls
        )
        assert (pid, own, parent, home) == (
            member,
            2,
            0,
            False,
        )  # the second in its namespace, and its parent is outside
    else:
        (member,) = await until(spare.group.members)
        pid, groups = await said(zygote, spare.waiting, "open('/proc/self/cgroup').read()", groups=["/nowhere"])
        assert pid == member  # and the groups of the order, which it is in already, were not looked for
        assert spare.folder.name in groups
    await asyncio.to_thread(spare.close)


async def test_others_are_made_when_one_is_taken_and_no_more_than_are_kept(zygote: Zygote, machine: Machine) -> None:
    first = await spare_of(machine, zygote)
    second = await spare_of(machine, zygote)
    assert first.folder != second.folder
    await until(lambda: settled(machine))
    each = 2 if machine.is_strict else 1  # one of them is its init
    await until(lambda: len(children(zygote.pid)) == each * (2 + KEPT))
    for spare in (first, second):
        await asyncio.to_thread(spare.close)


async def test_two_hosts_in_one_process_share_no_groups(machine: Machine) -> None:
    """They are named after the process, and the end of one would be that of what the other runs."""
    other = Machine(machine.level, Log())
    await other.open()
    try:
        assert machine.new_folder().name != other.new_folder().name
    finally:
        await other.aclose()


async def test_the_end_of_a_host_leaves_none_of_them(zygote: Zygote, machine: Machine) -> None:
    machine.spares.take(zygote)
    await until(lambda: children(zygote.pid))
    await machine.spares.aclose()
    await zygote.aclose()
    assert machine.spares.take(zygote) is None
    assert settled(machine)
    assert list(machine.layers.parent.iterdir()) == []
    for place in machine.places.values():
        assert not list(place.path.glob(f"*/{machine.layers.parent.name}/*"))


async def test_none_is_made_of_a_zygote_that_ends(zygote: Zygote, machine: Machine) -> None:
    await zygote.aclose()
    machine.spares.take(zygote)
    await until(lambda: settled(machine))
    assert machine.spares.take(zygote) is None
    await until(lambda: settled(machine))
    assert list(machine.layers.parent.iterdir()) == []
