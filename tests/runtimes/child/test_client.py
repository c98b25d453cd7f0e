"""The runtime client in a forked child: on old and new interpreters, and what only it does."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CASES = Path(__file__).parent.with_name("cases.py").read_text()


def write(runner: Any, source: str, name: str = "function.py") -> None:
    (runner.folder / name).write_text(source)


async def results(runner: Any, source: str, calls: Any, **more: Any) -> list[Any]:
    """Run the handler of a module, and give what it returned each time."""
    write(runner, source)
    ran = await runner.ours("function.handler", calls, **more)
    assert all(answer is not None and not answer.error for answer in ran.answers), (ran, ran.log)
    return [json.loads(answer.payload) for answer in ran.answers]


EVERYWHERE = """
import decimal, collections, logging, sys
Point = collections.namedtuple("Point", "x y")
def handler(event, context):
    print("printed")
    logging.error("logged")
    if event == "fails":
        raise ValueError("grüß")
    return {"version": list(sys.version_info[:2]), "decimal": decimal.Decimal("1.10"), "point": Point(1, b"2"),
            "event": event, "id": context.aws_request_id}
"""


async def test_functions_run_on_old_and_new_interpreters(runner: Any, call: Any, interpreter: Path) -> None:
    write(runner, EVERYWHERE)
    ran = await runner.ours("function.handler", [call(b'"fails"'), call(b'{"a": 1}')], interpreter=interpreter)
    failed, answered = ran.answers
    error = json.loads(failed.payload)
    assert (error["errorType"], error["errorMessage"]) == ("ValueError", "grüß")
    assert error["stackTrace"][0].startswith(f'  File "{runner.folder}/function.py", line 8, in handler')
    version = [interpreter, "-c", "import sys; print(list(sys.version_info[:2]))"]
    asked = await asyncio.to_thread(subprocess.run, version, capture_output=True)
    assert json.loads(answered.payload) == {
        "version": json.loads(asked.stdout),
        "decimal": 1.1,
        "point": {"x": 1, "y": "2"},
        "event": {"a": 1},
        "id": call().request_id,
    }
    assert ran.log.count("printed") == ran.log.count("logged") == 2


async def test_values_are_written_alike_on_old_and_new_interpreters(runner: Any, call: Any, interpreter: Path) -> None:
    write(runner, CASES, "cases.py")
    names = [
        "unicode",
        "floats",
        "NaN",
        "Decimal",
        "nested bytes",
        "namedtuple",
        "subclasses",
        "keys",
        "IntEnum",
        "set",
    ]
    calls = [
        call(json.dumps(name).encode()) for name in [*names, "circular list", "tuple as key", "exception_group"][:12]
    ]
    theirs = await runner.ours("cases.handler", calls, interpreter=interpreter)
    ours = await runner.ours("cases.handler", calls)
    assert [answer.payload for answer in theirs.answers] == [answer.payload for answer in ours.answers]


ASYNC = """
import asyncio, functools
loops = []
background = []

async def tick():
    while True:
        background.append(1)
        await asyncio.sleep(0)

class Handler:
    async def __call__(self, event, context):
        loops.append(asyncio.get_running_loop())
        if event == "fails":
            await self.fail()
        if not background:
            self.task = asyncio.ensure_future(tick())
        await asyncio.sleep(0.001)
        return [len(set(map(id, loops))), len(background) > 0]

    async def fail(self):
        raise LookupError("in a coroutine")

handler = Handler()
async def plain(event, context):
    return await handler(event, context)
partial = functools.partial(plain)
"""


@pytest.mark.parametrize("name", ["handler", "plain", "partial"])
async def test_async_handlers_share_one_loop_for_the_life_of_the_process(
    name: str, runner: Any, call: Any, interpreter: Path
) -> None:
    write(runner, ASYNC)
    calls = [call(), call(), call(b'"fails"')]
    ran = await runner.ours(f"function.{name}", calls, interpreter=interpreter)
    assert [json.loads(answer.payload) for answer in ran.answers[:2]] == [[1, True], [1, True]]
    error = json.loads(ran.answers[2].payload)
    assert error["errorType"] == "LookupError"
    # The user's frames alone: neither ours nor those of the loop.
    assert all(f'"{runner.folder}/function.py"' in entry for entry in error["stackTrace"])


async def test_an_async_handler_that_exits_ends_the_process(runner: Any, call: Any) -> None:
    write(runner, "async def handler(event, context):\n    raise SystemExit(3)\n")
    ran = await runner.ours("function.handler", [call()])
    assert (ran.answers, ran.status) == ([None], 3 << 8)


async def test_a_response_over_the_limit_is_answered_as_aws_does_and_the_process_stays(runner: Any, call: Any) -> None:
    write(runner, "def handler(event, context):\n    return 'x' * event\n")
    limit = 6_291_556 - 2  # the quotation marks
    calls = [call(str(size).encode()) for size in (limit, limit + 1, 3)]
    ran = await runner.ours("function.handler", calls)
    assert [answer.error for answer in ran.answers] == [False, True, False]
    assert json.loads(ran.answers[1].payload) == {
        "errorType": "Function.ResponseSizeTooLarge",
        "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
    }
    assert len(ran.answers[0].payload) == limit + 2


HOSTILE = """
class Evil(Exception):
    def __str__(self):
        raise SystemExit("no text")

class Long(Exception):
    def __str__(self):
        return "ü" * 10_000_000

class Meta(type):
    __name__ = property(lambda self: 1 / 0)

def handler(event, context):
    import sys
    if event == "evil":
        raise Evil
    if event == "long":
        raise Long
    if event == "meta":
        raise Meta("Odd", (Exception,), {})("x")
    if event == "type":
        raise type("A\\r\\nB: c ü", (Exception,), {})("\\ud800")
    if event == "deep":
        sys.setrecursionlimit(20_000)
        handler("deep", context)
    if event == "streams":
        sys.stdout.close()
        sys.stderr = None
        raise ValueError("without streams")
    if event == "surrogates":
        return "\\ud800"
    return event
"""


async def test_hostile_exceptions_and_results_are_answered(runner: Any, call: Any) -> None:
    write(runner, HOSTILE)
    names = ["evil", "long", "meta", "type", "deep", "surrogates", "streams", "fine"]
    ran = await runner.ours("function.handler", [call(json.dumps(name).encode()) for name in names])
    found = dict(zip(names, ran.answers, strict=True))
    errors = {name: json.loads(answer.payload) for name, answer in found.items() if answer.error}
    assert errors["evil"]["errorMessage"] == "<Evil.__str__ failed: SystemExit>"
    assert len(errors["long"]["errorMessage"].encode()) <= 262_144
    assert errors["meta"]["errorType"] == "Odd"
    assert errors["type"]["errorType"] == "A\r\nB: c ü"
    assert errors["deep"]["errorType"] == "RecursionError"
    assert len(found["deep"].payload) < 1_000_000
    assert errors["surrogates"]["errorType"] == "Runtime.MarshalError"
    assert errors["streams"]["errorMessage"] == "without streams"
    assert json.loads(found["fine"].payload) == "fine"


async def test_text_is_in_the_log_at_once_and_all_output_before_the_answer_is_there(runner: Any, call: Any) -> None:
    source = """
import os, sys
def handler(event, context):
    sys.stdout.write("no newline")
    sys.stdout.buffer.write(b"\\xff raw")
    with open("ours.log", "rb") as log:
        return log.read().decode("latin-1")
"""
    before, after = await results(runner, source, [call(), call()])
    assert before == "no newline"
    assert after == "no newline\xff rawno newline"


async def test_a_handler_that_forks_and_returns_twice_answers_once(runner: Any, call: Any) -> None:
    source = """
import os
def handler(event, context):
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
    return event
"""
    assert await results(runner, source, [call(b"1"), call(b"2")]) == [1, 2]


PLACE = """
import os, sys, resource, signal, threading, multiprocessing, time
def fds():
    found = []
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        try:
            found.append(os.readlink("/proc/self/fd/" + name))
        except OSError:  # that of the folder itself
            pass
    return found

def double(x):
    return 2 * x

def handler(event, context):
    if event == "pool":
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.map(double, [1, 2])
    return {
        "fds": fds(),
        "environ": dict(os.environ),
        "getenv": os.popen("echo $ONLY").read(),
        "cwd": os.getcwd(),
        "argv": sys.argv,
        "path": sys.path[:2],
        "threads": threading.active_count(),
        "stdin": sys.stdin.read(),
        "pid is session": os.getsid(0) == os.getpid(),
        "ours": [name for name in sys.modules if name.startswith("serverfull")],
        "signals": [signal.getsignal(n) == signal.SIG_DFL for n in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP)],
        "zone": time.tzname[0],
        "encoding": [sys.stdout.encoding, sys.getfilesystemencoding()],
        "bytecode": sys.dont_write_bytecode,
    }
"""


@pytest.mark.parametrize("more", [{}, {"PYTHONHASHSEED": "1"}], ids=["forked", "new interpreter"])
async def test_a_function_finds_its_own_process_and_nothing_of_the_host(
    more: dict[str, str], runner: Any, call: Any, interpreter: Path
) -> None:
    given = {"ONLY": "this", "TZ": "Asia/Tokyo", "PYTHONPATH": "/somewhere", "PYTHONDONTWRITEBYTECODE": "1", **more}
    (seen,) = await results(runner, PLACE, [call()], interpreter=interpreter, **given)
    known = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    expected = {"LANG": "C.UTF-8", "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13", **known, **given}
    seen["environ"].pop("LC_CTYPE", None)  # the interpreter's own doing
    assert seen["environ"] == {**expected, "_X_AMZN_TRACE_ID": call().trace_id}
    assert seen["getenv"] == "this\n"
    assert seen["cwd"] == str(runner.folder)
    assert seen["argv"] == ["bootstrap"]
    assert seen["path"] == [str(runner.folder), "/somewhere"]
    log = str(runner.folder / "ours.log")
    assert seen["fds"][:3] == ["/dev/null", log, log]
    assert [file.partition(":")[0] for file in seen["fds"][3:]] == ["socket"]  # the connection
    assert seen["threads"] == 1
    assert seen["stdin"] == ""
    assert seen["pid is session"]
    assert seen["ours"] == []
    assert seen["signals"] == [True] * 3
    assert seen["zone"] == "JST"
    assert seen["encoding"] == ["utf-8", "utf-8"]
    assert seen["bytecode"]


async def test_functions_may_start_processes_by_multiprocessing(runner: Any, call: Any) -> None:
    assert await results(runner, PLACE, [call(b'"pool"')]) == [[2, 4]]


async def test_a_module_of_the_function_comes_before_one_that_the_zygote_has_loaded(runner: Any, call: Any) -> None:
    write(runner, "answer = 42\n", "uuid.py")
    assert await results(runner, "import uuid\ndef handler(e, c):\n    return uuid.answer\n", [call()]) == [42]


async def test_libraries_are_found_where_the_variable_says(runner: Any, call: Any, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("layer")
    source = folder / "made.c"
    source.write_text("int answer(void) { return 42; }\n")
    try:
        command = ["cc", "-shared", "-fPIC", "-o", folder / "libmade_here.so", source]
        await asyncio.to_thread(subprocess.run, command, check=True)
    except FileNotFoundError:
        pytest.skip("needs a C compiler as cc")
    handler = "import ctypes\ndef handler(e, c):\n    return ctypes.CDLL('libmade_here.so').answer()\n"
    assert await results(runner, handler, [call()], LD_LIBRARY_PATH=f"/nowhere:{folder}") == [42]


async def test_a_package_of_the_function_may_have_the_name_of_ours(runner: Any, call: Any) -> None:
    (runner.folder / "serverfull").mkdir()
    write(runner, "answer = 42\n", "serverfull/__init__.py")
    write(runner, "answer = 43\n", "client.py")
    source = "import client, serverfull\ndef handler(e, c):\n    return serverfull.answer, client.answer\n"
    assert await results(runner, source, [call()]) == [[42, 43]]


@pytest.mark.parametrize("more", [{}, {"PYTHONHASHSEED": "1"}], ids=["forked", "new interpreter"])
async def test_a_function_that_stops_the_client_from_within_ends_its_process_alone(
    more: dict[str, str], runner: Any, call: Any
) -> None:
    source = "import os\ndef handler(e, c):\n    os.closerange(3, 100)\n    return 1\n"
    write(runner, source)
    ran = await runner.ours("function.handler", [call()], **more)
    assert (ran.answers, ran.status) == ([None], 1 << 8)


def test_the_child_runs_on_python_3_8_by_its_grammar() -> None:
    import ast

    import serverfull.runtimes.child as room

    for file in Path(room.__file__).parent.glob("*.py"):
        tree = ast.parse(file.read_text(), feature_version=(3, 8))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                top = name.partition(".")[0]
                assert top in sys.stdlib_module_names or top == "_serverfull_child", (file.name, name)
