"""Functions in processes of their own: what they answer, what they do wrong, and what is left of them."""

from __future__ import annotations

import asyncio
import io
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serverfull.config import LoggingSettings
from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.domain.functions import Function
from serverfull.domain.invocations import Invocation, Outcome
from serverfull.errors import FunctionNotReady, InvalidRequestContent, TooManyRequests
from serverfull.invocation.invoker import identify
from serverfull.observability.logger import HostLogger
from serverfull.runtimes.deadlines import Deadlines
from serverfull.runtimes.pool import PoolPolicy
from serverfull.runtimes.process.interpreters import Interpreters
from serverfull.runtimes.process.launcher import ProcessLaunchers
from serverfull.runtimes.process.machine import Machine
from serverfull.runtimes.process.means import Level
from serverfull.runtimes.process.recipes import Recipes
from serverfull.runtimes.sandboxes.runtime import SandboxRuntime

if TYPE_CHECKING:
    from serverfull.interfaces import Environment

REQUEST_ID = "11111111-2222-4333-8444-555555555555"

HANDLER = """
import ctypes, os, signal, subprocess, sys, threading, time

calls = 0

def handler(event, context):
    global calls
    calls += 1
    return globals()[event.get("do", "echo")](event)

def echo(event):
    print("call", calls)
    user = os.getuid()  # behind walls it has the process id of the machine in it
    return {"calls": calls, "pid": user - 2_000_000_000 if user > 2_000_000_000 else os.getpid()}

def loop(event):
    while True:
        pass

def sleep_in_c(event):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(3600)

def leave(event):
    os._exit(event["status"])

def die(event):
    os.kill(os.getpid(), event["signal"])
    time.sleep(10)

def crash(event):
    ctypes.string_at(0)

def fail(event):
    raise ValueError("no")

def escape(event):
    raise GeneratorExit

def grow(event):
    held = []
    while True:
        held.append(bytearray(1 << 20))

def child(event):
    left = subprocess.Popen(["sleep", "1000"], start_new_session=True, stdout=subprocess.DEVNULL)
    return left.pid

def scream(event):
    for _ in range(event["mb"]):
        os.write(1, b"x" * (1 << 20))
    return "done"

def binary(event):
    os.write(1, bytes(range(256)) + b"\\n")
    return "done"

def forge(event):
    print("START RequestId: forged Version: 1\\r\\nEND RequestId: forged\\x1b[31m")
    return "done"

def big(event):
    return "x" * event["bytes"]

def descriptors(event):
    return sorted(int(name) for name in os.listdir("/proc/self/fd"))

def environment(event):
    return dict(os.environ)

def background(event):
    def later():
        time.sleep(event["after"])
        print("from the background")
    threading.Thread(target=later).start()
    return "done"

def many(event):
    held = []
    try:
        while True:
            held.append(open("/dev/null"))
    except OSError as error:
        return [len(held), error.errno]

def fill(event):
    with open("/tmp/filled", "wb") as file:
        try:
            while True:
                file.write(bytes(1 << 20))
        except OSError as error:
            return error.errno

def change(event):
    os.environ["CHANGED"] = "yes"
    os.chdir("/")
    os.umask(0)
    sys.modules["json"] = None
    return "done"

def look(event):
    return [os.environ.get("CHANGED"), os.getcwd()]
"""


@dataclass
class Log:
    """What an invocation wrote."""

    parts: list[str] = field(default_factory=list)
    log_stream: str = ""

    def write(self, text: str) -> None:
        self.parts.append(text)

    def initialising(self, how: str, at: float, runtime: str = "") -> None:
        pass

    def initialised(self, seconds: float, status: str, error_type: str = "") -> None:
        pass

    def extension(self, name: str, state: str, events: Sequence[str], error_type: str) -> None:
        pass

    def subscribed(self, api: str, name: str, types: Sequence[str]) -> None:
        pass

    def timed_out(self) -> None:
        pass

    def restoring(self, at: float, runtime: str) -> None:
        pass

    def restored(self, seconds: float, billed: float, status: str, error_type: str = "") -> None:
        pass

    @property
    def text(self) -> str:
        return "".join(self.parts)


@dataclass
class Fleet:
    """A process runtime, and functions in folders of their own."""

    runtime: SandboxRuntime
    folder: Path
    handlers: list[DeployedHandler] = field(default_factory=list)

    def function(self, code: str = HANDLER, **options: Any) -> Called:
        root = self.folder / f"function{len(self.handlers)}"
        root.mkdir()
        (root / "app.py").write_text(code)
        runtime = options.pop("runtime", "python3.11")
        handler = DeployedHandler(
            "app.handler", root, runtime=runtime, region="eu-west-1", layers=options.pop("layers", ())
        )
        self.handlers.append(handler)
        function = Function(handler, **{"timeout": 5, "memory_size": 128, **options})
        name = f"f{len(self.handlers)}"
        return Called(self.runtime.environment(identify(name, function, 3, 128)), name)


@dataclass
class Called:
    """A function to be invoked."""

    environment: Environment
    name: str
    log: Log = field(default_factory=Log)

    async def outcome(self, log: Log | None = None, **event: Any) -> Outcome:
        self.log = log or Log()
        invocation = Invocation(REQUEST_ID, self.name, None, "123456789012", "eu-west-1", json.dumps(event).encode())
        return await self.environment.run(invocation, self.log)

    async def result(self, **event: Any) -> Any:
        outcome = await self.outcome(**event)
        assert outcome.function_error is None, outcome.payload
        return json.loads(outcome.payload)

    async def error(self, **event: Any) -> tuple[str, str]:
        outcome = await self.outcome(**event)
        assert outcome.function_error == "Unhandled", outcome.payload
        document = json.loads(outcome.payload)
        return document["errorType"], document["errorMessage"]


INTERPRETERS = Interpreters()
"""Asks Python once what it is, not once for each test."""


def runtime_with(policy: PoolPolicy, level: Level = Level.LIMITS, shared: Sequence[Path] = ()) -> SandboxRuntime:
    logger = HostLogger(LoggingSettings(), stream=io.StringIO())
    machine = Machine(level, logger, shared=shared)
    recipes = Recipes(machine, INTERPRETERS, "own", logger)
    return SandboxRuntime(ProcessLaunchers(recipes, machine), policy, logger)


@pytest.fixture
def policy() -> PoolPolicy:
    return PoolPolicy()


@pytest.fixture(params=[Level.LIMITS, Level.STRICT], ids=lambda level: level.value)
async def fleet(request: pytest.FixtureRequest, tmp_path: Path, policy: PoolPolicy) -> AsyncIterator[Fleet]:
    if request.param is Level.STRICT:
        if os.geteuid() != 0:
            pytest.skip("what has a user of its own, and so tells its process id, is made by root alone")
        os.chmod(tmp_path, 0o777)
        os.umask(0)
    runtime = runtime_with(policy, request.param, [tmp_path])
    yield Fleet(runtime, tmp_path)
    await runtime.aclose()
    os.umask(0o022)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while runs(pid):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


def exited(why: str) -> tuple[str, str]:
    return "Runtime.ExitError", f"RequestId: {REQUEST_ID} Error: Runtime exited {why}"


async def test_invocations_run_one_after_the_other_in_one_process(fleet: Fleet) -> None:
    function = fleet.function()
    first, second = await function.result(), await function.result()
    assert (first["calls"], second["calls"], first["pid"]) == (1, 2, second["pid"])
    assert first["pid"] != os.getpid()
    assert function.log.text == "call 2\n"


async def test_the_first_invocation_tells_how_long_the_code_took_to_load(fleet: Fleet) -> None:
    function = fleet.function("import time\ntime.sleep(0.2)\nprint('loaded')\ndef handler(event, context): return 1")
    first, second = await function.outcome(), await function.outcome()
    assert first.init_seconds is not None
    assert first.init_seconds >= 0.2
    assert second.init_seconds is None
    assert first.memory_mb
    assert first.memory_mb >= 5


async def test_what_is_printed_while_the_code_is_loaded_belongs_to_the_first_invocation(fleet: Fleet) -> None:
    function = fleet.function("print('loaded')\ndef handler(event, context): return 1")
    await function.outcome()
    assert function.log.text == "loaded\n"
    await function.outcome()
    assert function.log.text == ""


async def test_invocations_at_the_same_time_have_processes_of_their_own(fleet: Fleet) -> None:
    function = fleet.function(
        "import os, time\ndef handler(e, c):\n    time.sleep(0.3)\n    return os.getpid(), os.getuid()"
    )
    pids = [
        json.loads(outcome.payload) for outcome in await asyncio.gather(*(function.outcome(Log()) for _ in range(3)))
    ]
    assert len({tuple(pid) for pid in pids}) == 3
    assert await function.result() in pids


async def test_an_event_that_is_no_json_is_refused_before_anything_starts(fleet: Fleet) -> None:
    function = fleet.function("raise SystemExit('started')")
    invocation = Invocation(REQUEST_ID, "f1", None, "123456789012", "eu-west-1", b"{")
    with pytest.raises(InvalidRequestContent):
        await function.environment.run(invocation, Log())


@pytest.mark.parametrize("deed", ["loop", "sleep_in_c"])
async def test_at_the_deadline_the_process_is_killed_and_the_answer_is_that_of_aws(fleet: Fleet, deed: str) -> None:
    function = fleet.function(timeout=1)
    pid = (await function.result())["pid"]
    began = time.monotonic()
    assert await function.error(do=deed) == (
        "Sandbox.Timedout",
        f"RequestId: {REQUEST_ID} Error: Task timed out after 1.00 seconds",
    )
    assert time.monotonic() - began < 2
    assert await gone(pid)
    assert (await function.result())["calls"] == 1


@pytest.mark.parametrize(
    ("event", "why"),
    [
        ({"do": "leave", "status": 0}, "without providing a reason"),
        ({"do": "leave", "status": 7}, "with error: exit status 7"),
        ({"do": "die", "signal": 6}, "with error: signal: aborted"),
        ({"do": "die", "signal": 9}, "with error: signal: killed"),
        ({"do": "crash"}, "with error: signal: segmentation fault"),
        ({"do": "escape"}, "with error: exit status 1"),
        ({"do": "grow"}, "with error: signal: killed"),
    ],
)
async def test_a_process_that_ends_ends_its_invocation_alone(fleet: Fleet, event: dict[str, Any], why: str) -> None:
    function = fleet.function(timeout=20)
    before = await function.result()
    assert await function.error(**event) == exited(why)
    after = await function.result()
    assert (after["calls"], after["pid"] != before["pid"]) == (1, True)


async def test_an_exception_leaves_the_process_as_it_is(fleet: Fleet) -> None:
    function = fleet.function()
    assert await function.error(do="fail") == ("ValueError", "no")
    assert (await function.result())["calls"] == 2


async def test_a_child_that_left_its_session_is_gone_with_its_sandbox(tmp_path: Path) -> None:
    runtime = runtime_with(PoolPolicy())
    try:
        pid = await Fleet(runtime, tmp_path).function().result(do="child")
        assert runs(pid)
    finally:
        await runtime.aclose()
    assert await gone(pid)


async def test_a_flood_of_output_holds_nobody_up(fleet: Fleet) -> None:
    function = fleet.function(timeout=30)
    assert await function.result(do="scream", mb=64) == "done"
    assert len(function.log.text) == 64 << 20


async def test_bytes_that_are_no_text_become_some(fleet: Fleet) -> None:
    function = fleet.function()
    assert await function.result(do="binary") == "done"
    assert "\ufffd" in function.log.text


async def test_a_response_over_the_limit_is_refused(fleet: Fleet) -> None:
    function = fleet.function()
    assert len(await function.result(do="big", bytes=6_291_554)) == 6_291_554
    assert (await function.error(do="big", bytes=6_291_555))[0] == "Function.ResponseSizeTooLarge"


async def test_the_process_holds_no_descriptor_but_its_own(fleet: Fleet) -> None:
    held = await fleet.function().result(do="descriptors")
    assert set(held[:3]) == {0, 1, 2}
    assert len(held) <= 5  # its connection, and the folder that is being read


async def test_the_variables_are_those_of_aws_and_of_the_function_and_none_of_the_host(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_HOST", "secret")
    shown = await fleet.function(environment={"TABLE": "orders"}).result(do="environment")
    assert "SECRET_OF_THE_HOST" not in shown
    assert shown["TABLE"] == "orders"
    assert shown["AWS_REGION"] == shown["AWS_DEFAULT_REGION"] == "eu-west-1"
    assert shown["AWS_LAMBDA_FUNCTION_NAME"] == "f1"
    assert shown["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "128"
    assert shown["AWS_LAMBDA_INITIALIZATION_TYPE"] == "on-demand"
    assert shown["AWS_EXECUTION_ENV"] == "AWS_Lambda_python3.11"
    assert shown["_HANDLER"] == "app.handler"
    assert shown["LAMBDA_TASK_ROOT"] == str(fleet.handlers[0].root)


async def test_what_runs_on_after_an_invocation_writes_to_no_other(fleet: Fleet) -> None:
    function = fleet.function()
    first = Log()
    await function.outcome(first, do="background", after=0.05)
    deadline = time.monotonic() + 5
    while not first.text and time.monotonic() < deadline:  # noqa: ASYNC110 (a pipe tells nobody)
        await asyncio.sleep(0.01)
    assert first.text == "from the background\n"


async def test_what_runs_on_is_stopped_between_invocations(fleet: Fleet) -> None:
    function = fleet.function()
    first, second = Log(), Log()
    await function.outcome(first, do="background", after=0.5)
    await asyncio.sleep(1)  # nothing tells that something has not happened
    assert first.text == ""
    await function.outcome(second)
    rest = second.text.replace("from the background", "")  # both print now, and each piece of a print is a write
    assert rest.split() in (["call", "2"], ["call2"])


async def test_a_process_is_stopped_again_each_time_that_it_is_idle(fleet: Fleet) -> None:
    function = fleet.function()
    for _ in range(3):
        pid = (await function.result())["pid"]
        async with asyncio.timeout(20):
            while state_of(pid) != "T":  # noqa: ASYNC110 (the kernel tells nobody)
                await asyncio.sleep(0.01)


async def test_descriptors_are_as_many_as_on_aws(fleet: Fleet) -> None:
    count, errno = await fleet.function().result(do="many")
    assert 1000 <= count <= 1024
    assert errno == 24


async def test_a_full_tmp_is_the_functions_own(fleet: Fleet) -> None:
    first, second = fleet.function(timeout=30, memory_size=1024), fleet.function()
    assert await first.result(do="fill") == 28
    assert (await second.result())["calls"] == 1


async def test_what_a_function_changes_is_seen_in_its_own_process_alone(fleet: Fleet) -> None:
    first, second = fleet.function(), fleet.function()
    await first.result(do="change")
    assert await first.result(do="look") == ["yes", "/"]
    assert await second.result(do="look") == [None, str(fleet.handlers[1].root)]
    assert json.loads("1") == 1


async def test_code_that_cannot_be_loaded_fails_each_invocation_and_is_not_started_over_and_over(fleet: Fleet) -> None:
    function = fleet.function(
        "import os\nos.umask(0)\nopen(os.environ['LAMBDA_TASK_ROOT'] + '/starts', 'a').write('x')\nos._exit(3)"
    )
    for _ in range(20):
        assert await function.error() == exited("with error: exit status 3")
    assert len((fleet.handlers[0].root / "starts").read_text()) <= 3


@pytest.mark.parametrize("policy", [PoolPolicy(idle_timeout=0.2)])
async def test_an_idle_process_ends(fleet: Fleet) -> None:
    assert await gone((await fleet.function().result())["pid"])


@pytest.mark.parametrize("policy", [PoolPolicy(idle_timeout=0)])
async def test_without_idle_time_each_invocation_has_a_new_process(fleet: Fleet) -> None:
    function = fleet.function()
    assert [(await function.result())["calls"] for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("policy", [PoolPolicy(uses=2)])
async def test_a_process_is_replaced_after_so_many_invocations(fleet: Fleet) -> None:
    function = fleet.function()
    assert [(await function.result())["calls"] for _ in range(4)] == [1, 2, 1, 2]


@pytest.mark.parametrize("policy", [PoolPolicy(memory_mb=1)])
async def test_a_process_is_replaced_when_it_has_grown(fleet: Fleet) -> None:
    function = fleet.function()
    assert [(await function.result())["calls"] for _ in range(2)] == [1, 1]


@pytest.mark.parametrize("policy", [PoolPolicy(most=1)])
async def test_more_invocations_than_processes_are_refused(fleet: Fleet) -> None:
    function = fleet.function("import time\ndef handler(e, c): time.sleep(0.5)")
    first = asyncio.ensure_future(function.outcome(Log()))
    await asyncio.sleep(0)
    with pytest.raises(TooManyRequests):
        await function.outcome(Log())
    assert (await first).function_error is None


async def test_a_runtime_that_is_not_here_is_told_with_what_to_install(fleet: Fleet) -> None:
    with pytest.raises(FunctionNotReady, match="java21 needs a container"):
        await fleet.function(runtime="java21").outcome()


async def test_a_process_ends_with_the_handler_that_nobody_holds_any_more(fleet: Fleet) -> None:
    function = fleet.function()
    pid = (await function.result())["pid"]
    del function
    fleet.handlers.clear()
    assert await gone(pid)


async def test_limits_and_tags_may_change_without_new_processes(fleet: Fleet) -> None:
    function = fleet.function()
    pid = (await function.result())["pid"]
    changed = Function(fleet.handlers[0], timeout=5, memory_size=128, max_concurrency=7, tags={"team": "blue"})
    again = Called(fleet.runtime.environment(identify("f1", changed, 3, 128)), "f1")
    assert (await again.result())["pid"] == pid
    more = Called(fleet.runtime.environment(identify("f1", replace(changed, memory_size=256), 3, 128)), "f1")
    assert (await more.result())["pid"] != pid
    assert await gone(pid)


async def test_each_process_has_a_log_stream_of_its_own(fleet: Fleet) -> None:
    function = fleet.function(
        "import os, time\n"
        "def handler(event, context):\n"
        "    time.sleep(0.2)\n"
        "    return [os.environ['AWS_LAMBDA_LOG_STREAM_NAME'], context.log_stream_name]\n"
    )
    streams = []
    for logs in ([Log()], [Log()], [Log(), Log()]):
        outcomes = await asyncio.gather(*(function.outcome(log) for log in logs))
        for log, outcome in zip(logs, outcomes, strict=True):
            assert json.loads(outcome.payload) == [log.log_stream] * 2
        streams += [log.log_stream for log in logs]
    assert streams[0] == streams[1]
    assert len(set(streams[2:])) == 2


async def test_the_deadlines_end_on_the_loop_whose_timer_they_have(fleet: Fleet) -> None:
    ended_on = []

    class Heard(Deadlines):
        def close(self) -> None:
            ended_on.append(threading.current_thread())
            super().close()

    fleet.runtime._deadlines = Heard()
    assert await fleet.function("def handler(event, context):\n    return 1\n").result() == 1
    await fleet.runtime.aclose()
    assert ended_on == [threading.current_thread()]
