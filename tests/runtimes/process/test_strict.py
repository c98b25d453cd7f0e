"""The level ``strict``: what is special to processes behind walls. What gets out of them is in tests/escapes."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from serverfull.config import LoggingSettings
from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.domain.functions import Function
from serverfull.domain.invocations import Invocation
from serverfull.errors import InternalFailure
from serverfull.invocation.invoker import identify
from serverfull.observability.logger import HostLogger
from serverfull.runtimes import child
from serverfull.runtimes.pool import PoolPolicy
from serverfull.runtimes.process.interpreters import Interpreters
from serverfull.runtimes.process.launcher import ProcessLaunchers
from serverfull.runtimes.process.machine import Machine
from serverfull.runtimes.process.means import Level, probe_strict
from serverfull.runtimes.process.recipes import Recipes
from serverfull.runtimes.sandboxes.runtime import SandboxRuntime
from serverfull.testing.runtime_kit import Log

pytestmark = pytest.mark.skipif(
    bool(probe_strict().why), reason=f"this machine allows no strict sandbox: {probe_strict().why}"
)

DEADLINE = 20.0

CODE = """
import os, signal, subprocess, sys, time

def handler(event, context):
    return eval(event["say"], globals())

def spawn(*command):
    left = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    left.returncode = 0
    return left.pid

def orphan():
    '''Leave a process behind that has ended, and whose parent has.'''
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        time.sleep(0.05)
        os._exit(0)
    os.wait()

def left(pattern):
    '''Give what of that kind is in this process's memory.'''
    import re
    found = set()
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", buffering=0) as memory:
        for line in maps:
            place, rights = line.split()[:2]
            if rights.startswith("rw"):
                start, end = (int(number, 16) for number in place.split("-"))
                memory.seek(start)
                found.update(match.decode() for match in re.findall(pattern, memory.read(end - start)))
    return sorted(found)

def mounts():
    return [line.split()[4] for line in open("/proc/self/mountinfo")]
"""


class Called:
    """A function in a strict process."""

    def __init__(self, runtime: SandboxRuntime, root: Path, **options: Any) -> None:
        root.mkdir()
        (root / "app.py").write_text(CODE)
        self.root = root
        of_handler = {name: options.pop(name) for name in ("layers", "live", "admit") if name in options}
        handler = DeployedHandler("app.handler", root, runtime="python3.11", region="eu-west-1", **of_handler)
        function = Function(handler, **{"timeout": 20, "memory_size": 128, **options})
        self._function = function
        self._environment = runtime.environment(identify("f", function, 3, 128))

    async def outcome(self, say: str) -> Any:
        event = json.dumps({"say": say}).encode()
        invocation = Invocation("11111111-2222-4333-8444-555555555555", "f", None, "1" * 12, "eu-west-1", event)
        self.log = Log("")
        return await self._environment.run(invocation, self.log)

    async def says(self, say: str) -> Any:
        outcome = await self.outcome(say)
        assert outcome.function_error is None, outcome.payload
        return json.loads(outcome.payload)


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[SandboxRuntime]:
    logger = HostLogger(LoggingSettings(), stream=io.StringIO())
    machine = Machine(Level.STRICT, logger, hidden=[tmp_path / "state"])
    recipes = Recipes(machine, Interpreters(), "own", logger)
    made = SandboxRuntime(ProcessLaunchers(recipes, machine), PoolPolicy(), logger)
    yield made
    await made.aclose()


@pytest.fixture
def called(runtime: SandboxRuntime, tmp_path: Path) -> Callable[..., Called]:
    return lambda name="function", **options: Called(runtime, tmp_path / name, **options)


@pytest.mark.parametrize("swapped", ["above/function", "above"])
async def test_what_is_put_in_the_place_of_a_live_folder_after_it_was_checked_is_not_mounted(
    called: Callable[..., Called], tmp_path: Path, swapped: str
) -> None:
    (tmp_path / "above").mkdir()
    (tmp_path / "secret" / "above" / "function").mkdir(parents=True)
    (tmp_path / "secret" / "above" / "function" / "app.py").write_text("def handler(*_):\n    return 'secret'\n")
    victim, swapping = tmp_path / swapped, False

    def admit() -> list[Any]:
        if swapping and not victim.is_symlink():
            victim.rename(tmp_path / "before")
            victim.symlink_to(tmp_path / "secret" / swapped)
        return []

    function = called("above/function", live=True, admit=admit)
    assert await function.says("1 + 1") == 2
    await function.outcome("os._exit(1)")  # the next call starts another process
    swapping = True
    with pytest.raises(InternalFailure):
        await function.outcome("1 + 1")


def in_namespace_of(function_side: int, marked: str) -> list[int]:
    """Give the processes of this machine that are known by an id inside, and were started with a word."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                numbers = next(
                    line for line in (entry / "status").read_text().splitlines() if line.startswith("NSpid:")
                ).split()[1:]
                if numbers[-1] == str(function_side) and marked in (entry / "cmdline").read_text():
                    found.append(int(entry.name))
            except (OSError, StopIteration):
                continue
    return found


async def until(condition: Callable[[], Any]) -> Any:
    async with asyncio.timeout(DEADLINE):
        while not (found := condition()):  # noqa: ASYNC110 (the kernel tells nobody)
            await asyncio.sleep(0.005)
    return found


async def test_it_sees_its_init_and_itself_and_no_other_process(called: Callable[..., Called]) -> None:
    assert await called().says("sorted(name for name in os.listdir('/proc') if name.isdigit())") == ["1", "2"]


async def test_what_it_sees_of_the_machine_is_programs_its_code_and_its_tmp(called: Callable[..., Called]) -> None:
    function = called()
    outside = set(await function.says("os.listdir('/')")) - {"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"}
    known = {sys.prefix.split("/")[1], sys.base_prefix.split("/")[1], str(Path(child.__file__)).split("/")[1]} - {"tmp"}
    assert outside - known - {"nix", "gnu"} == {"dev", "etc", "proc", "tmp"}
    assert await function.says("os.listdir(os.environ['LAMBDA_TASK_ROOT'])") == ["app.py"]


async def test_its_machine_has_another_name_and_one_user(called: Callable[..., Called]) -> None:
    name, user = await called().says(
        "[__import__('socket').gethostname(), __import__('pwd').getpwuid(os.getuid()).pw_name]"
    )
    assert (name, user) == ("localhost", "function")


async def test_it_has_no_capability_and_no_group_and_can_gain_none(called: Callable[..., Called]) -> None:
    status = await called().says("open('/proc/self/status').read()")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert {fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    if os.geteuid() == 0:
        assert fields["Groups"].strip() == ""
        assert "0" not in fields["Uid"].split()


async def test_its_files_in_proc_are_its_own(called: Callable[..., Called]) -> None:
    function = called(environment={"TABLE": "orders"})
    assert "AWS" not in await function.says("open('/proc/self/environ').read()")  # of the zygote, and nothing of it
    assert (await function.outcome("open('/dev/stdout', 'w').write('by name')")).function_error is None
    assert "by name" in function.log.text


async def test_orphans_are_reaped(called: Callable[..., Called]) -> None:
    function = called()
    await function.says("orphan()")
    async with asyncio.timeout(DEADLINE):
        while await function.says("sorted(name for name in os.listdir('/proc') if name.isdigit())") != ["1", "2"]:
            pass


async def test_its_loopback_is_its_own_and_works(called: Callable[..., Called]) -> None:
    said = await called().says(
        "[(s := __import__('socket').create_server(('127.0.0.1', 0))),"
        " __import__('socket').create_connection(s.getsockname(), 2)][1].getpeername()[0]"
    )
    assert said == "127.0.0.1"


async def test_two_functions_have_users_networks_and_tmps_of_their_own(called: Callable[..., Called]) -> None:
    first, second = called("first"), called("second")
    say = "[os.stat('/proc/self/ns/' + name).st_ino for name in ('net', 'pid', 'mnt', 'ipc', 'uts', 'cgroup')]"
    both = [await function.says(say) for function in (first, second)]
    assert not set(both[0]) & set(both[1])
    assert not {os.stat(f"/proc/self/ns/{name}").st_ino for name in ("net", "pid", "mnt", "ipc", "uts")} & set(both[0])
    await first.says("open('/tmp/left', 'w').close()")
    assert await second.says("os.path.exists('/tmp/left')") is False
    if os.geteuid() == 0:
        assert await first.says("os.getuid()") != await second.says("os.getuid()")


async def test_nothing_of_a_function_is_left_where_the_processes_of_others_come_from(
    called: Callable[..., Called],
) -> None:
    """They are copies of one process, and so of its memory: what that has read of an order, all others could find."""
    secrets = {f"SECRET_{number}": f"kept-by-{os.urandom(8).hex()}" for number in range(60)}
    say = "left(b'kept-by-[0-9a-f]{16}')"
    mine = f"kept-by-{'0' * 16}"
    assert await called("first", environment=secrets).says("os.environ['SECRET_0']") == secrets["SECRET_0"]
    assert await called("second", environment={"SECRET": mine}).says(say) == [mine]


async def test_layers_are_at_opt(called: Callable[..., Called], tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    (layer / "python").mkdir(parents=True)
    (layer / "python" / "layered.py").write_text("word = 'from a layer'\n")
    assert await called(layers=[layer]).says("__import__('layered').word") == "from a layer"


async def test_what_is_left_behind_is_gone_with_the_process(called: Callable[..., Called]) -> None:
    function = called()
    left = await function.says("spawn('sleep', '7461')")
    (outside,) = await until(lambda: in_namespace_of(left, "7461"))
    await function.outcome("os._exit(0)")
    await until(lambda: not Path(f"/proc/{outside}").exists())


async def test_nothing_lives_on_when_the_zygote_is_killed(
    called: Callable[..., Called], runtime: SandboxRuntime
) -> None:
    function = called()
    left = await function.says("spawn('sleep', '7462')")
    (outside,) = await until(lambda: in_namespace_of(left, "7462"))
    recipes: Any = runtime._launchers
    (zygote,) = recipes._recipes._zygotes.values()
    namespace = os.stat(f"/proc/{outside}/ns/pid").st_ino
    os.kill(zygote.pid, signal.SIGKILL)
    await until(lambda: not sees(namespace))
    assert await function.says("1") == 1


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def sees(namespace: int) -> list[int]:
    """Give the processes in a namespace of processes."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "ns" / "pid").stat().st_ino == namespace:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


async def test_nothing_is_left_when_the_runtime_has_ended(runtime: SandboxRuntime, tmp_path: Path) -> None:
    before = mounts()
    function = Called(runtime, tmp_path / "function")
    namespace = await function.says("os.stat('/proc/self/ns/pid').st_ino")
    assert sees(namespace)
    await runtime.aclose()
    assert not sees(namespace)
    assert mounts() == before


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    made = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made], check=True)
    (made / "state").mkdir()
    (made / "state" / "secret").write_text("of the host")
    return made


async def test_folders_that_are_hidden_are_empty_and_the_functions_own_in_them_is_there(venv: Path) -> None:
    """As where the state, with the packages in it, lies in a folder that the interpreter is in."""
    state = venv / "state"
    logger = HostLogger(LoggingSettings(), stream=io.StringIO())
    machine = Machine(Level.STRICT, logger, hidden=[state])
    await machine.open()
    recipes = Recipes(machine, Interpreters(), "own", logger)
    recipes._zygote = lambda _found: zygote_of(recipes, venv / "bin" / "python", logger)  # type: ignore[method-assign]
    runtime = SandboxRuntime(ProcessLaunchers(recipes, machine), PoolPolicy(), logger)
    try:
        function = Called(runtime, state / "function")
        assert await function.says(f"os.listdir({str(state)!r})") == ["function"]
        assert await function.says(f"os.path.exists({str(venv / 'bin')!r})") is True
    finally:
        await runtime.aclose()


def zygote_of(recipes: Recipes, python: Path, logger: Any) -> Any:
    from serverfull.runtimes.process.zygotes import Zygote

    return recipes._zygotes.setdefault(python, Zygote(python, logger))


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have zygotes whose filter of system calls the kernel does not take."""
    seccomp = Path(next(iter(child.__path__))) / "seccomp.py"
    broken = tmp_path / "child"
    subprocess.run(["cp", "-r", seccomp.parent, broken], check=True)
    (broken / "seccomp.py").write_text(seccomp.read_text() + "\nHERE = HERE[:-8]  # no way through it ends\n")
    monkeypatch.setattr("serverfull.runtimes.process.zygotes.PROGRAM", broken / "__main__.py")


@pytest.mark.usefixtures("broken")
async def test_a_step_that_fails_starts_no_process(runtime: SandboxRuntime, tmp_path: Path) -> None:
    """A process without the walls that it was promised is worse than one that did not start."""
    with pytest.raises(InternalFailure):
        await Called(runtime, tmp_path / "function").says("1")
