"""Functions whose process ends: the caller is told how, and the next call has a new process."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

ENDS = {
    "os._exit(0)": ("os._exit(0)", "Runtime exited without providing a reason"),
    "sys.exit(0)": ("import sys; sys.exit(0)", "Runtime exited without providing a reason"),
    "sys.exit()": ("raise SystemExit", "Runtime exited without providing a reason"),
    "sys.exit with a text": ("import sys; sys.exit('bye')", "Runtime exited with error: exit status 1"),
    "os._exit(7)": ("os._exit(7)", "Runtime exited with error: exit status 7"),
    "os.abort": ("os.abort()", "Runtime exited with error: signal: aborted"),
    "reading from nowhere": (
        "import ctypes; ctypes.string_at(0)",
        "Runtime exited with error: signal: segmentation fault",
    ),
    "SIGKILL to itself": ("os.kill(os.getpid(), 9); os.read(0, 1)", "Runtime exited with error: signal: killed"),
    "SIGTERM to its group": ("os.killpg(0, 15)\nwhile True: pass", "Runtime exited with error: signal: terminated"),
    "signal.alarm": (
        "import signal, time; signal.alarm(1); time.sleep(60)",
        "Runtime exited with error: signal: alarm clock",
    ),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", "Runtime exited with error: signal: interrupt"),
    "GeneratorExit": ("raise GeneratorExit", "Runtime exited with error: exit status 1"),
    "BaseException": ("raise BaseException('no')", "Runtime exited with error: exit status 1"),
    "another program": ("os.execvp('sh', ['sh', '-c', 'exit 3'])", "Runtime exited with error: exit status 3"),
    "no more stack": (
        """
        import sys, threading
        sys.setrecursionlimit(10 ** 9)
        threading.stack_size(65536)
        class Deep:
            def __repr__(self): return repr(self)
        thread = threading.Thread(target=repr, args=(Deep(),))
        thread.start()
        thread.join()
        """,
        "Runtime exited with error: signal: segmentation fault",
    ),
}


@pytest.mark.parametrize(("deed", "said"), list(ENDS.values()), ids=list(ENDS))
def test_how_a_process_has_ended_is_what_the_caller_is_told(host: Any, deed: str, said: str) -> None:
    function = host.doing(deed)
    assert function.is_good()
    assert function.call().failure == ("Runtime.ExitError", said)
    assert function.is_good()


GROWING = {
    "one process": "held = []\nwhile True: held.append(bytearray(b'x' * (1 << 20)))",
    "its children": """
        import time
        for _ in range(4):
            if os.fork() == 0:
                held = bytearray(b'x' * (60 << 20))
                time.sleep(60)
        time.sleep(60)
    """,
}


@pytest.mark.parametrize("deed", list(GROWING.values()), ids=list(GROWING))
def test_what_takes_more_memory_than_it_may_is_killed_and_what_it_took_is_reported(host: Any, deed: str) -> None:
    function = host.doing(deed, MemorySize=128)
    assert function.is_good()
    reply = function.call()
    assert reply.failure == ("Runtime.ExitError", "Runtime exited with error: signal: killed")
    assert 100 <= reply.max_memory <= 128


def test_code_that_ends_its_process_while_it_is_loaded_is_started_seldom(host: Any) -> None:
    code = "import os\nopen(os.environ['LAMBDA_TASK_ROOT'] + '/starts', 'a').write('x')\nos._exit(1)"
    function = host.deploy(code, good=False)
    for _ in range(20):
        assert function.call().failure == ("Runtime.ExitError", "Runtime exited with error: exit status 1")
    assert sum(len(starts.read_text()) for starts in host.folder.rglob("starts")) in range(1, 4)
    host.update(function, "def handler(event, context): return 'good'")
    assert function.is_good()


def test_code_that_crashes_the_interpreter_while_it_is_loaded_is_told_as_that(host: Any) -> None:
    function = host.deploy("import ctypes\nctypes.string_at(0)", good=False)
    said = "Runtime exited with error: signal: segmentation fault"
    assert function.call().failure == ("Runtime.ExitError", said)


@pytest.mark.slow
def test_code_that_loads_for_longer_than_ten_seconds_is_loaded_again_in_the_time_of_the_call(host: Any) -> None:
    folder = "os.environ['LAMBDA_TASK_ROOT']"
    code = f"""
import os, time
slow = not os.path.exists({folder} + "/been-here")
open({folder} + "/been-here", "w").close()
if slow: time.sleep(60)
def handler(event, context): return "good"
"""
    slow = host.deploy(code, Timeout=30)
    endless = host.deploy("import threading\nthreading.Event().wait()", Timeout=1, good=False)
    with ThreadPoolExecutor() as threads:  # ten seconds each, which are the same
        reply, ended = threads.map(lambda function: function.call(), (slow, endless))
    assert reply.result == "good"
    assert "INIT_REPORT Init Duration: 10" in reply.log
    assert "Status: timeout" in reply.log
    report = reply.log.splitlines()[-1]
    assert "Init Duration" not in report
    assert float(re.findall(r"\tDuration: ([0-9.]+) ms", report)[0]) < 10_000
    assert ended.failure == ("Sandbox.Timedout", "Task timed out after 1.00 seconds")
    assert 1 <= ended.max_memory < 40
    assert 900 <= float(re.findall(r"\tDuration: ([0-9.]+) ms", ended.log)[0]) < 10_000


def test_code_that_takes_too_much_memory_while_it_is_loaded_is_killed(host: Any) -> None:
    function = host.deploy("held = []\nwhile True: held.append(bytearray(b'x' * (1 << 20)))", good=False)
    reply = function.call()
    assert reply.failure == ("Runtime.ExitError", "Runtime exited with error: signal: killed")
    assert 100 <= reply.max_memory <= 128


def test_the_memory_of_what_fails_is_its_own_and_not_the_hosts(host: Any) -> None:
    for function in (
        host.doing("while True: pass", Timeout=1),
        host.doing("os._exit(1)"),
        host.deploy("import os; os._exit(1)", good=False),
        host.deploy("raise ValueError('no')", good=False),
    ):
        for _ in range(3):
            assert 1 <= function.call().max_memory < 40
