"""Runs the attempts to escape at each level of sandboxes, and under Landlock alone; prints the page of what came of it.

``python -m tests.escapes.levels > docs/escapes.md`` is how that page is made: as root, on a machine with everything, a
Docker engine too.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from serverfull.config import DockerSettings, LoggingSettings, Settings
from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.domain.functions import Function
from serverfull.domain.invocations import Invocation
from serverfull.invocation.invoker import identify
from serverfull.observability.logger import HostLogger
from serverfull.runtimes import child
from serverfull.runtimes.aws_access import AwsAccess
from serverfull.runtimes.pool import PoolPolicy
from serverfull.runtimes.process.interpreters import Interpreters
from serverfull.runtimes.process.launcher import ProcessLaunchers
from serverfull.runtimes.process.machine import Machine
from serverfull.runtimes.process.means import Level
from serverfull.runtimes.process.recipes import Recipes
from serverfull.runtimes.sandboxes.runtime import SandboxRuntime
from serverfull.testing.escapes import HANDLER, attempts, baits, write
from serverfull.testing.runtime_kit import Log

Results = Mapping[str, tuple[bool, str]]
"""Of each attempt, whether it got through, and what it got or why it did not."""

LANDLOCK, CONTAINER = "Landlock alone", "container"
COLUMNS = ("none", "limits", "strict", CONTAINER, LANDLOCK)

PAGE = Path(__file__).parents[2] / "docs" / "escapes.md"

THROUGH, STOPPED, NOBODY = "gets through", "stopped", "refused to all"

# The rights on files of the level ``strict``, and nothing else of it: programs can be read, /tmp be used.
_LANDLOCK_ALONE = """
import ctypes, os, runpy, sys
folder, child, own, bait = sys.argv[1:]
sys.path.insert(0, child)
package = type(sys)("around"); package.__path__ = [child]; sys.modules["around"] = package
from around import confine, landlock
confine.control(confine.SET_NO_NEW_PRIVILEGES, 1, "no new privileges")
programs = dict.fromkeys(("/usr", "/etc", "/lib", "/proc", sys.prefix, sys.base_prefix, folder, child), landlock.READ)
landlock.restrict({**programs, "/dev": landlock.USE_DEVICES, own: landlock.everything()})
os.environ["TMPDIR"] = own
sys.argv[:] = ["probes", bait]
sys.path.insert(0, folder)
os.chdir(folder)
runpy.run_module("probes", run_name="__main__")
"""


async def at_level(level: Level, folder: Path, bait: Mapping[str, Any]) -> Results:
    """Have a function make all attempts.

    :param folder: where its package is put; not there yet.
    """
    logger = HostLogger(LoggingSettings(), stream=io.StringIO())
    machine = Machine(level, logger)
    launchers = ProcessLaunchers(Recipes(machine, Interpreters(), "own", logger), machine)
    return await within(SandboxRuntime(launchers, PoolPolicy(), logger), folder, bait)


async def in_container(engine: Any, folder: Path, bait: Mapping[str, Any]) -> Results:
    """Have a function in a container make all of them.

    :param engine: of `integration.engines`.
    """
    from serverfull.runtimes.docker.launcher import make_launchers

    logger = HostLogger(LoggingSettings(), stream=io.StringIO())
    docker = DockerSettings(engine=engine.url, images=(f"python3.11={engine.image}",))
    launchers = make_launchers(Settings(docker=docker), AwsAccess(), logger)
    return await within(SandboxRuntime(launchers, PoolPolicy(), logger), folder, bait)


async def within(runtime: SandboxRuntime, folder: Path, bait: Mapping[str, Any]) -> Results:
    """Have a function of a runtime make all of them; the runtime ends with that."""
    try:
        handler = DeployedHandler(
            HANDLER, await asyncio.to_thread(write, folder), runtime="python3.11", region="eu-west-1"
        )
        identity = identify("probes", Function(handler, timeout=120, memory_size=512), 3, 128)
        event = json.dumps({"bait": bait}).encode()
        invocation = Invocation("11111111-2222-4333-8444-555555555555", "probes", None, "1" * 12, "eu-west-1", event)
        outcome = await runtime.environment(identity).run(invocation, Log(""))
    finally:
        await runtime.aclose()
    assert outcome.function_error is None, outcome.payload
    return {name: (through, what) for name, (through, what) in json.loads(outcome.payload).items()}


def under_landlock(folder: Path, bait: Mapping[str, Any]) -> Results:
    """Make them all in a process that Landlock alone keeps from files.

    :param folder: where the attempts and the process's own files are put; not there yet.
    """
    write(folder)
    (folder / "own").mkdir()
    path = next(iter(child.__path__))
    done = subprocess.run(
        [sys.executable, "-I", "-c", _LANDLOCK_ALONE, folder, path, folder / "own", json.dumps(bait)],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return {name: (through, what) for name, (through, what) in json.loads(done.stdout).items()}


def words(results: Mapping[str, Results]) -> dict[str, list[str]]:
    """Say of each attempt what came of it in each column."""
    said = {}
    for attempt in attempts():
        through = {column: results[column][attempt.name][0] for column in COLUMNS}
        stopped = STOPPED if any(through.values()) else NOBODY
        said[attempt.name] = [THROUGH if through[column] else stopped for column in COLUMNS]
    return said


def promised() -> dict[str, list[str]]:
    """Give what the page says of each attempt, in each column."""
    rows = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    by_words = {row[0].strip(): [word.strip() for word in row[1:]] for row in rows}
    return {attempt.name: by_words[attempt.tries] for attempt in attempts()}


def broken(column: str, results: Results) -> dict[str, str]:
    """Give what has got through although the page says that it is stopped there, with what it got.

    What was refused to all when the page was written is no promise: another machine's kernel may give it.
    """
    at = COLUMNS.index(column)
    kept = {name for name, said in promised().items() if said[at] == STOPPED}
    return {name: what for name, (through, what) in results.items() if through and name in kept}


def page(results: Mapping[str, Results]) -> str:
    """Write the page."""
    lines = [_HEAD.format(count=len(attempts())), f"| | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    said = words(results)
    group = ""
    for attempt in attempts():
        if attempt.group != group:
            group = attempt.group
            lines.append(f"| **{group}** |" + " |" * len(COLUMNS))
        lines.append(f"| {attempt.tries} | {' | '.join(said[attempt.name])} |")
    stopped = {column: sum(row[at] != THROUGH for row in said.values()) for at, column in enumerate(COLUMNS)}
    lines.append(f"| **stopped, of {len(said)}** | {' | '.join(str(stopped[column]) for column in COLUMNS)} |")
    return "\n".join([*lines, _FOOT])


_HEAD = """\
# Attempts to escape

What code might try to get out of its sandbox, as a function that tries all of it: {count} attempts, each in a process
of its own, at every level of `execution.sandbox` ([How functions run](execution.md#walls)), in a
[container](docker.md) with the settings that containers have unless they are changed, and, to see that the attempts see
a way out, in a process that Landlock alone keeps from files. The host is root here, and its own files, sockets and
processes are the bait.

`gets through`: it got hold of what it tried. `refused to all`: the kernel of this machine lacks it or gives it to
nobody, so that it proves nothing here. A test makes all attempts again, and this page may never promise more than it
sees.
"""

_FOOT = """
`serverfull.testing.escapes` has the function and the baits, to try a host of your own:

```python
from serverfull.testing.escapes import HANDLER, baits, package

with baits() as bait:
    ...  # create a function of package() with the handler HANDLER, and invoke it with {"bait": bait}
```

The bait is on the machine where that runs, which has to be the host's. Where nothing holds the function, attempts do
get through: they take back what they change, but machines that matter are no place for that.
"""


async def everything() -> dict[str, Results]:
    """Make all attempts in all columns."""
    os.umask(0o022)
    with tempfile.TemporaryDirectory() as kept, baits() as bait:
        folder = Path(kept)
        results = {level.value: await at_level(level, folder / level.value, bait) for level in Level}
        results[LANDLOCK] = await asyncio.to_thread(under_landlock, folder / "landlock", bait)
    return results


def with_containers() -> dict[str, Results]:
    """Make all attempts in all columns, that of containers too."""
    from integration import engines

    with ExitStack() as stack:
        url = engines.machine_engine()
        own = None if url else stack.enter_context(engines.OwnEngine())
        engine = stack.enter_context(engines.with_image(url or own.url, own))
        kept = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kept.chmod(0o755)
        with baits() as bait:
            inside = asyncio.run(in_container(engine, kept / "function", bait))
    return {**asyncio.run(everything()), CONTAINER: inside}


if __name__ == "__main__":
    sys.stdout.write(page(with_containers()))
