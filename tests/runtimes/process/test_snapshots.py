"""Snapshots of functions that run in processes: how long they are kept and waited for, and where there are none."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from serverfull.config import LoggingSettings
from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.domain.functions import Function
from serverfull.domain.invocations import Invocation
from serverfull.domain.readiness import Readiness
from serverfull.errors import SnapStartTimeout
from serverfull.invocation.invoker import identify
from serverfull.observability.logger import HostLogger
from serverfull.runtimes.pool import PoolPolicy
from serverfull.runtimes.process.interpreters import Interpreters
from serverfull.runtimes.process.launcher import ProcessLaunchers
from serverfull.runtimes.process.machine import Machine
from serverfull.runtimes.process.means import Level, probe_strict
from serverfull.runtimes.process.recipes import Recipes
from serverfull.runtimes.process.snapshots import ProcessSnapshots, SnapshotPolicy
from serverfull.runtimes.reserve import UNCOUNTED
from serverfull.runtimes.sandboxes import restoring
from serverfull.runtimes.sandboxes.restoring import RestoringRuntime
from serverfull.testing.runtime_kit import Log, runs_here

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from serverfull.interfaces import FunctionIdentity

DEADLINE = 30.0
"""Seconds until a test gives up waiting."""

RUNTIME = f"python3.{sys.version_info.minor}"

CODE = """
import os
MADE_BY = os.getpid()
def handler(event, context):
    return [MADE_BY, os.getpid(), os.environ.get("AWS_LAMBDA_RUNTIME_API")]
"""

BESIDE = """
import pathlib
pathlib.Path("/tmp/loaded").touch()
def handler(event, context):
    return sorted(path.name for path in pathlib.Path("/tmp").iterdir() if path.name in ("loaded", "agent"))
"""

AGENT = """#!/bin/sh
if [ -e /tmp/loaded ]; then touch /tmp/agent; fi
api="http://$AWS_LAMBDA_RUNTIME_API/2020-01-01/extension"
id=$(curl -s -D - "$api/register" -H "Lambda-Extension-Name: agent" -d '{"events": ["SHUTDOWN"]}' |
    tr -d '\\r' | sed -n 's/^[Ll]ambda-[Ee]xtension-[Ii]dentifier: //p')
curl -s "$api/event/next" -H "Lambda-Extension-Identifier: $id"
"""

SLOW = """
import threading
from snapshot_restore_py import register_after_restore
register_after_restore(threading.Event().wait)
def handler(event, context): pass
"""


class Fleet:
    """Functions with SnapStart, and what runs them.

    :ivar said: what the host logs.
    """

    def __init__(self, folder: Path, level: Level = Level.LIMITS, idle_timeout: float = 0.0) -> None:
        self.said = io.StringIO()
        logger = HostLogger(LoggingSettings(format="json"), stream=self.said)
        self._folder = folder
        folder.chmod(0o755)  # behind walls, the function is another user
        self.machine = machine = Machine(level, logger, shared=[folder])
        launchers = ProcessLaunchers(Recipes(machine, Interpreters(), "own", logger), machine)
        self.found: list[bool] = []
        policy = SnapshotPolicy(
            idle_timeout=idle_timeout,
            new_log=lambda _: Log(""),
            logger=logger,
            found=lambda _, restores: self.found.append(restores),
        )
        snapshots = ProcessSnapshots(launchers, policy)
        # each call has an environment of its own
        pools = PoolPolicy(idle_timeout=0.0)
        self.runtime = RestoringRuntime(launchers, pools, logger, lambda _name: UNCOUNTED, snapshots)

    def function(self, code: str, *layers: Path) -> FunctionIdentity:
        """Make a function."""
        root = self._folder / "code"
        root.mkdir(mode=0o755)
        (root / "app.py").write_text(code)
        handler = DeployedHandler("app.handler", root, runtime=RUNTIME, layers=layers, snap_start=True)
        return identify("f", Function(handler, timeout=10, memory_size=128, version="1"), 3, 128)

    async def call(self, function: FunctionIdentity) -> Any:
        """Run an invocation, and give its result."""
        environment = self.runtime.environment(function)
        invocation = Invocation("id", "f", None, "123456789012", "eu-west-1", b"{}")
        async with asyncio.timeout(DEADLINE):
            outcome = await environment.run(invocation, Log(""))
        assert outcome.function_error is None, outcome.payload
        return json.loads(outcome.payload)


@pytest.fixture
async def fleet_of(tmp_path: Path) -> AsyncIterator[Callable[..., Fleet]]:
    async with AsyncExitStack() as stack:

        def make(**options: Any) -> Fleet:
            fleet = Fleet(tmp_path, **options)
            stack.push_async_callback(fleet.runtime.aclose)
            return fleet

        yield make


async def ended(pid: int) -> None:
    async with asyncio.timeout(DEADLINE):
        while runs_here(pid):  # noqa: ASYNC110 (processes tell only their parents)
            await asyncio.sleep(0.01)


async def test_a_snapshot_that_nobody_needs_ends_and_is_made_again_when_somebody_does(
    fleet_of: Callable[..., Fleet],
) -> None:
    fleet = fleet_of(idle_timeout=0.3)
    function = fleet.function(CODE)
    assert (await fleet.runtime.snapshot(function)).restores
    first, pid, _ = await fleet.call(function)
    assert first != pid
    await ended(first)
    again, pid, _ = await fleet.call(function)
    assert again not in (first, pid)


async def test_what_a_lost_snapshot_held_is_given_back_at_once(fleet_of: Callable[..., Fleet]) -> None:
    fleet = fleet_of()
    function = fleet.function(CODE)
    made_by, pid, _ = await fleet.call(function)
    await ended(pid)
    held = fleet.machine.layers.parent
    os.kill(made_by, signal.SIGKILL)
    async with asyncio.timeout(DEADLINE):
        while list(held.glob("sandbox-*/api")):  # noqa: ASYNC110 (it is given back elsewhere)
            await asyncio.sleep(0.01)
    assert (await fleet.call(function))[0] != made_by


async def test_a_restore_that_takes_too_long_is_given_up(
    fleet_of: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = fleet_of()
    function = fleet.function(SLOW)
    assert (await fleet.runtime.snapshot(function)).restores
    monkeypatch.setattr(restoring, "RESTORE_TIMEOUT", 0.5)
    with pytest.raises(SnapStartTimeout):
        await fleet.call(function)


async def test_each_environment_with_layers_has_an_extensions_api_of_its_own(
    fleet_of: Callable[..., Fleet], tmp_path: Path
) -> None:
    (tmp_path / "layer" / "python").mkdir(parents=True)
    fleet = fleet_of()
    function = fleet.function(CODE, tmp_path / "layer")
    found = [await fleet.call(function) for _ in range(2)]
    assert found[0][0] == found[1][0]
    assert len({address for _, _, address in found}) == 2


async def test_nothing_is_held_less_than_before_for_the_sake_of_a_snapshot(fleet_of: Callable[..., Fleet]) -> None:
    if why := probe_strict().why:
        pytest.skip(f"this machine allows no strict sandbox: {why}")
    fleet = fleet_of(level=Level.STRICT)
    function = fleet.function(CODE)
    assert not (await fleet.runtime.snapshot(function)).restores
    assert "strict" in fleet.said.getvalue()
    made_by, pid, _ = await fleet.call(function)
    assert made_by == pid


async def test_nothing_is_provisioned_for_versions_with_snapstart(fleet_of: Callable[..., Fleet]) -> None:
    fleet, told = fleet_of(), list[Readiness]()
    fleet.runtime.provision(fleet.function(CODE), 1, told.append)
    assert [(each.status, "SnapStart" in str(each.failure)) for each in told] == [("FAILED", True)]


async def test_extensions_join_what_the_copy_sees(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    program = tmp_path / "layer" / "extensions" / "agent"
    program.parent.mkdir(parents=True)
    program.write_text(AGENT)
    program.chmod(0o755)
    fleet = fleet_of()
    function = fleet.function(BESIDE, tmp_path / "layer")
    assert (await fleet.runtime.snapshot(function)).restores
    assert await fleet.call(function) == ["agent", "loaded"]


async def test_there_is_no_snapshot_where_none_could_have_mounts_of_its_own(fleet_of: Callable[..., Fleet]) -> None:
    fleet = fleet_of()
    await fleet.machine.open()
    if os.geteuid() or fleet.machine.means.tmp != "tmpfs":
        pytest.skip("it is for root, where root can make no mounts without a user namespace")
    fleet.machine.means = replace(fleet.machine.means, as_user=True)
    assert not (await fleet.runtime.snapshot(fleet.function(CODE))).restores
    assert "user namespace" in fleet.said.getvalue()
