"""Runtimes for the conformance suite, and what they run."""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Literal

import pytest

from serverfull.config import LoggingSettings
from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.domain.functions import Handler
from serverfull.interfaces import FunctionIdentity
from serverfull.observability.logger import HostLogger
from serverfull.runtimes.pool import PoolPolicy
from serverfull.runtimes.process.interpreters import Interpreters
from serverfull.runtimes.process.launcher import ProcessLaunchers
from serverfull.runtimes.process.machine import Machine
from serverfull.runtimes.process.means import Level, probe_strict
from serverfull.runtimes.process.recipes import Recipes
from serverfull.runtimes.process.snapshots import ProcessSnapshots, SnapshotPolicy
from serverfull.runtimes.reserve import UNCOUNTED
from serverfull.runtimes.sandboxes.restoring import RestoringRuntime
from serverfull.testing import deeds
from serverfull.testing.runtime_kit import PYTHON, PYTHON_BEFORE_3_12, REGION, ClientManners, Log, RuntimeKit, runs_here

ON_BOTH_LOOPS = "TestPythonInProcesses"

OWN_PYTHON = f"python3.{sys.version_info.minor}"
OF_OWN_PYTHON = PYTHON if sys.version_info >= (3, 12) else PYTHON_BEFORE_3_12


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[..., Any]]:
    """Run on uvloop where it is installed, as hosts do, and what all share on asyncio's own loop too."""
    own = {"asyncio": asyncio.new_event_loop}
    try:
        import uvloop
    except ImportError:
        return own
    return {"uvloop": uvloop.new_event_loop, **(own if ON_BOTH_LOOPS in item.nodeid else {})}


def log_of(identity: FunctionIdentity) -> Log:
    """Give what takes the log of loading code for a snapshot."""
    return Log(identity.log_stream)


def runs_apart(number: int) -> bool:
    """Say whether a process of a namespace runs, by the number of that and its own in there."""
    namespace, pid = number >> 32, number & 0xFFFFFFFF
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "ns" / "pid").stat().st_ino == namespace:
                status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
                if int(status["NSpid"].split()[-1]) == pid:
                    return "Z" not in status["State"]
    return False


@pytest.fixture
def packages(tmp_path: Path) -> Callable[..., Callable[[], tuple[Handler, Path]]]:
    """Make what makes functions of a runtime that do the deeds."""
    numbers = itertools.count(1)

    def of(
        runtime: str = OWN_PYTHON, *, snap_start: bool = False, apart: bool = False
    ) -> Callable[[], tuple[Handler, Path]]:
        kind: Any = next(kind for kind in ("python", "nodejs", "provided") if runtime.startswith(kind))

        def new_function() -> tuple[Handler, Path]:
            root = deeds.write(tmp_path / f"function{next(numbers)}", kind)
            if apart:
                (root / "apart").touch()
            return DeployedHandler(deeds.HANDLER, root, runtime=runtime, region=REGION, snap_start=snap_start), root

        return new_function

    return of


@pytest.fixture(scope="session")
def interpreters() -> Interpreters:
    """Know what programs have told of themselves: each is asked once, not for each of hundreds of runtimes."""
    return Interpreters()


@pytest.fixture
async def process_kit(
    packages: Callable[..., Any], interpreters: Interpreters, tmp_path: Path
) -> AsyncIterator[Callable[..., RuntimeKit]]:
    """Make process runtimes; they end with the test."""
    async with AsyncExitStack() as stack:

        def make(
            runtime: str = OWN_PYTHON,
            manners: ClientManners = OF_OWN_PYTHON,
            client: Literal["own", "awslambdaric"] = "own",
            policy: PoolPolicy = PoolPolicy(),
            level: Level = Level.LIMITS,
            restores: bool = False,
        ) -> RuntimeKit:
            if level is Level.STRICT:
                if why := probe_strict().why:
                    pytest.skip(f"this machine allows no strict sandbox: {why}")
                stack.callback(os.umask, os.umask(0))  # the function is another user, and writes into this folder
                tmp_path.chmod(0o777)
            logger = HostLogger(LoggingSettings(), stream=io.StringIO())
            machine = Machine(level, logger, shared=[tmp_path])
            recipes = Recipes(machine, interpreters, client, logger)
            launchers = ProcessLaunchers(recipes, machine)
            keeping = SnapshotPolicy(idle_timeout=0.0, new_log=log_of, logger=logger, found=lambda *_: None)
            snapshots = ProcessSnapshots(launchers, keeping)
            made = RestoringRuntime(launchers, policy, logger, lambda _name: UNCOUNTED, snapshots)
            stack.push_async_callback(made.aclose)
            return RuntimeKit(
                runtime=made,
                new_function=packages(runtime, snap_start=restores, apart=level is Level.STRICT),
                client=manners,
                close=made.aclose,
                restores=restores,
                runs=runs_apart if level is Level.STRICT else runs_here,
            )

        yield make
