"""Functions that start processes and threads which outlive the call, or try to."""

from __future__ import annotations

import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serverfull.testing.clients import lambda_client
from serverfull.testing.process import HostProcess

LEVELS = ["limits", "none"]

TIMED_OUT = ("Sandbox.Timedout", "Task timed out after 1.00 seconds")

FAMILIES = {
    "a child": "os.fork()",
    "a grandchild whose parent has ended": """
        if os.fork() == 0:
            if os.fork() != 0: os._exit(0)
    """,
    "a daemon in a session of its own": """
        if os.fork() == 0:
            os.setsid()
            if os.fork() != 0: os._exit(0)
            os.setsid() if os.getpid() != os.getsid(0) else None
            for number in range(3): os.close(number)
    """,
    "one that has forgotten whose it is": """
        import ctypes, resource
        if os.fork() == 0:
            os.setsid()
            resource.setrlimit(10, (0, 0))
            ctypes.CDLL(None).prctl(36, 0); ctypes.CDLL(None).prctl(1, 0)
            if os.fork() != 0: os._exit(0)
    """,
    "children that start others when they are killed": """
        import time
        for _ in range(20):
            if os.fork() == 0:
                while True:
                    if os.fork() != 0: os._exit(0)
                    os.setsid()
                    time.sleep(0.01)
    """,
}


@pytest.mark.parametrize("deed", list(FAMILIES.values()), ids=list(FAMILIES))
def test_what_it_has_started_is_killed_with_it(host: Any, deed: str) -> None:
    endless = """
import signal, time
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}: signal.signal(number, signal.SIG_IGN)
while True: time.sleep(3600)
"""
    function = host.doing(textwrap.dedent(deed) + endless, Timeout=1)
    assert function.is_good()
    assert function.call().failure == TIMED_OUT


def test_a_daemon_that_is_left_behind_stands_still_between_calls_and_is_gone_with_the_process(host: Any) -> None:
    deed = """
        import time
        if event == "look": return open(os.environ["LAMBDA_TASK_ROOT"] + "/beats").read()
        if os.fork() == 0:
            if os.fork() != 0: os._exit(0)
            while True:
                open(os.environ["LAMBDA_TASK_ROOT"] + "/beats", "a").write("x")
                time.sleep(0.01)
        os.wait()
        time.sleep(0.1)
    """
    function = host.doing(deed)
    function.call()
    beats = next(host.folder.rglob("beats"))
    deadline = time.monotonic() + 30
    before, now = -1, len(beats.read_text())
    while before != now:  # until it stands still
        assert time.monotonic() < deadline
        time.sleep(0.3)
        before, now = now, len(beats.read_text())
    assert now > 0
    assert len(function.call("look").result) >= now


def test_a_daemon_in_a_session_of_its_own_is_gone_with_the_process(host: Any) -> None:
    deed = """
        if os.fork() == 0:
            os.setsid()
            if os.fork() != 0: os._exit(0)
            while True: pass
        os.wait()
        if event == "exit": os._exit(0)
    """
    function = host.doing(deed)
    before = len(host.family())
    function.call()
    assert len(host.family()) > before
    assert function.call("exit").error


def test_of_code_that_forks_while_it_is_loaded_one_process_takes_calls(host: Any) -> None:
    code = """
import os
loader, child = os.getpid(), os.fork()
if child: os.waitpid(child, 0)  # it ends where it would ask for a call
def handler(event, context):
    return "good" if os.getpid() == loader else "another"
"""
    function = host.deploy(code)
    assert [function.call().result for _ in range(3)] == ["good"] * 3


def test_what_a_thread_writes_later_belongs_to_no_other_caller(host: Any) -> None:
    deed = """
        import threading, time
        if event == "start":
            def work():
                print("from the thread", flush=True)
                started.set()
                while True:
                    time.sleep(0.001)
                    print("from the thread", flush=True)
            started = threading.Event()
            threading.Thread(target=work, daemon=True).start()
            started.wait()
            return
        time.sleep(0.2)
        print("from the second call")
    """
    function = host.doing(deed)
    first = function.call("start")
    second = function.call("second")
    for reply in (first, second):
        host.process.wait_for_stdout(f"END RequestId: {reply.request_id}")
        lines = [text for kind, text in host.log_of(reply.request_id) if kind == "platform"]
        assert [line.split()[0] for line in lines] == ["START", "END"]
    assert "from the second call" in second.log
    assert "from the second call" not in "".join(text for _, text in host.log_of(first.request_id))


def test_what_has_got_away_from_everybody_ends_with_a_host_that_is_killed(tmp_path: Path, running: Any) -> None:
    """The host is one of its own."""
    with HostProcess.start(None, "--state", str(tmp_path / "state"), cwd=tmp_path) as process:
        other = replace(running, process=process, client=lambda_client(process.url), deployed=[])
        deed = """
            import ctypes, resource
            if os.fork() == 0:
                os.setsid()
                resource.setrlimit(10, (0, 0))
                ctypes.CDLL(None).prctl(36, 0); ctypes.CDLL(None).prctl(1, 0)
                if os.fork() != 0: os._exit(0)
                while True: pass
            os.wait()
        """
        function = other.doing(deed)
        function.call()
        function.client.close()
        family = set(other.family())
        assert len(family) >= 3
        process.process.kill()
        process.wait()
        deadline = time.monotonic() + 30
        while family & {int(path.name) for path in Path("/proc").glob("[0-9]*") if runs(path)}:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def runs(path: Path) -> bool:
    try:
        return (path / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
