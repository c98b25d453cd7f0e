"""``--workers N`` with real processes: one port, one ready line, limits and figures of one host."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from serverfull.testing.process import HostProcess, _members, plain_environment

pytestmark = pytest.mark.slow

DEADLINE = 30.0

APP = """
import os, time
from serverfull import Function, metrics

def pid(event):
    return os.getpid()

def count(event):
    metrics().count("calls.made", 1)

def held(event):
    '''Run until the file "gate" exists.'''
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(log, b"+%d\\n" % os.getpid())
    while not os.path.exists("gate"):
        time.sleep(0.005)
    os.write(log, b"-%d\\n" % os.getpid())
    os.close(log)
    return os.getpid()

async def blocks_the_loop(event):
    open("log", "a").write("+\\n")
    time.sleep(50)

functions = {
    "pid": pid,
    "blocks_the_loop": Function(blocks_the_loop, timeout=60),
    "count": count,
    "held": Function(held, timeout=60),
    "three": Function(held, timeout=60, max_concurrency=3),
    "one": Function(held, timeout=60, max_concurrency=1),
    "stuck": Function(lambda event: time.sleep(50), timeout=0.1),
}
"""


@pytest.fixture
def workers(serve, tmp_path) -> Callable[..., HostProcess]:
    (tmp_path / "app.py").write_text(APP)

    def start(*args: str, **env: str) -> HostProcess:
        count = () if "--workers" in args else ("--workers", "2")
        return serve("app.py:functions", *count, *args, env=env)

    return start


@pytest.fixture
def pool(tmp_path) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as pool:
        yield pool
        (tmp_path / "gate").touch()  # where a test failed, calls are still held


def until(condition: Callable[[], Any]) -> Any:
    """Wait for something in another process that gives no sign of itself."""
    deadline = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return found


def invoke(host: HostProcess, name: str) -> int | Any:
    """Give the result, or the status where there is none; 0 where the connection broke."""
    try:
        answer = host.invoke(name)
    except (OSError, HTTPException):
        return {"status": 0}
    return answer.json() if answer.status == 200 else {"status": answer.status}


def pids(host: HostProcess, count: int = 2) -> set[int]:
    """Give the workers, as their answers show them."""
    found: set[int] = set()

    def ask() -> bool:
        answer = invoke(host, "pid")
        if isinstance(answer, int):
            found.add(answer)
        return len(found) >= count

    until(ask)
    return found


def figures(host: HostProcess, pattern: str) -> dict[str, float]:
    text = host.request("GET", "/metrics").body.decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines if re.search(pattern, name)}


def figure(host: HostProcess, name: str) -> float:
    return sum(figures(host, re.escape(name)).values())


def log(tmp_path: Path) -> list[str]:
    path = tmp_path / "log"
    return path.read_text().splitlines() if path.exists() else []


def most_at_once(lines: list[str]) -> int:
    running = most = 0
    for line in lines:
        running += 1 if line[0] == "+" else -1
        most = max(most, running)
    return most


def kill_and_wait(host: HostProcess, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    host.wait_for_stderr(f'"pid":{pid}')


def test_all_workers_answer_on_one_port_after_one_ready_line(workers) -> None:
    host = workers("--workers", "3")
    assert host.process.pid not in pids(host, 3)
    assert len([line for line in host.stdout_lines() if line.startswith("serverfull ready")]) == 1
    info = host.request("GET", "/_serverfull/info").json()
    assert info["workers"] == 3
    assert info["pid"] in pids(host, 3)


def test_figures_are_those_of_all_workers_whichever_is_asked(workers) -> None:
    host = workers()
    pids(host)
    calls = figure(host, 'serverfull_invocations_total{function="pid"}')
    assert calls >= 2
    for _ in range(10):
        invoke(host, "count")
    assert [figure(host, "calls_made_total") for _ in range(10)] == [10.0] * 10
    assert [figure(host, 'serverfull_invocations_total{function="pid"}') for _ in range(10)] == [calls] * 10


def test_a_killed_worker_is_replaced_while_the_other_serves_and_no_counter_goes_back(workers, pool, tmp_path) -> None:
    host = workers()
    before = pids(host)
    calls = [pool.submit(invoke, host, "held") for _ in range(8)]
    until(lambda: len(log(tmp_path)) == 8)
    assert figure(host, 'serverfull_concurrent_executions{function="held"}') == 8
    counted = figures(host, "_total|_count|_bucket")
    victim = min(before)
    of_victim = log(tmp_path).count(f"+{victim}")
    kill_and_wait(host, victim)
    assert figure(host, 'serverfull_concurrent_executions{function="held"}') == 8 - of_victim
    survivor = (before - {victim}).pop()
    assert {invoke(host, "pid") for _ in range(10)} == {survivor}
    replacement = until(lambda: set(pids(host)) - before)
    later = figures(host, "_total|_count|_bucket")
    assert [name for name, value in counted.items() if later.get(name, -1.0) < value] == []
    (tmp_path / "gate").touch()
    answers = [call.result(DEADLINE) for call in calls]
    assert sum(answer == {"status": 0} for answer in answers) == of_victim
    until(lambda: figure(host, 'serverfull_concurrent_executions{function="held"}') == 0)
    assert victim not in replacement
    assert host.stop() == 0


def test_a_functions_limit_holds_over_all_workers(workers, pool, tmp_path) -> None:
    host = workers()
    pids(host)
    calls = [pool.submit(host.invoke, "three") for _ in range(40)]
    until(lambda: sum(call.done() for call in calls) == 37)
    assert len(log(tmp_path)) == 3
    (tmp_path / "gate").touch()
    answers = [call.result(DEADLINE) for call in calls]
    assert sorted(answer.status for answer in answers) == [200] * 3 + [429] * 37
    refusal = next(answer for answer in answers if answer.status == 429)
    assert refusal.json()["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert most_at_once(log(tmp_path)) == 3
    assert figure(host, "serverfull_throttles_total") == 37


def test_the_hosts_limit_holds_over_all_workers(workers, pool, tmp_path) -> None:
    host = workers("--max-concurrency", "4")
    pids(host)
    calls = [pool.submit(host.invoke, "held") for _ in range(30)]
    until(lambda: sum(call.done() for call in calls) == 26)
    (tmp_path / "gate").touch()
    assert sorted(call.result(DEADLINE).status for call in calls) == [200] * 4 + [429] * 26
    assert most_at_once(log(tmp_path)) == 4


def test_the_permits_of_a_killed_worker_come_back(workers, pool, tmp_path) -> None:
    host = workers()
    calls = [pool.submit(invoke, host, "one") for _ in range(1)]
    holder = int(until(lambda: log(tmp_path))[0][1:])
    assert invoke(host, "one") == {"status": 429}
    kill_and_wait(host, holder)
    assert calls[0].result(DEADLINE) == {"status": 0}
    (tmp_path / "gate").touch()
    assert until(lambda: isinstance(invoke(host, "one"), int))


def test_an_event_that_waits_in_one_worker_runs_when_another_frees_the_capacity(workers, pool, tmp_path) -> None:
    host = workers()
    both = pids(host)
    call = pool.submit(invoke, host, "one")
    until(lambda: len(log(tmp_path)) == 1)
    for _ in range(20):  # so that some wait in each worker
        assert host.invoke("one", headers={"X-Amz-Invocation-Type": "Event"}).status == 202
    (tmp_path / "gate").touch()
    assert call.result(DEADLINE) in both
    until(lambda: len(log(tmp_path)) == 2 * 21)
    assert most_at_once(log(tmp_path)) == 1
    assert {int(line[1:]) for line in log(tmp_path)} == both


def test_stuck_threads_of_all_workers_make_a_function_fail_in_all_of_them(workers) -> None:
    host = workers(SERVERFULL_LIMITS__MAX_LOST_THREADS="1")
    assert host.invoke("stuck").headers["x-amz-function-error"] == "Unhandled"
    states = [host.request("GET", "/_serverfull/health").json() for _ in range(20)]
    assert all("stuck" in state["failed_functions"] for state in states)
    answers = [host.invoke("stuck") for _ in range(20)]
    assert {answer.headers["x-amzn-errortype"] for answer in answers} == {"ResourceConflictException"}
    assert figure(host, 'serverfull_lost_threads{function="stuck"}') == 1


def test_sigterm_lets_calls_in_all_workers_finish(workers, pool, tmp_path) -> None:
    host = workers()
    calls = [pool.submit(invoke, host, "held") for _ in range(16)]
    until(lambda: len({*log(tmp_path)}) == 2 and len(log(tmp_path)) == 16)
    host.send_signal(signal.SIGTERM)
    until(lambda: sum('"draining"' in line for line in host.stderr_lines()) == 2)
    assert invoke(host, "pid") == {"status": 503}
    (tmp_path / "gate").touch()
    assert {call.result(DEADLINE) for call in calls} == {int(line[1:]) for line in log(tmp_path)}
    assert host.wait() == 0


def test_ctrl_c_reaches_workers_twice_and_counts_once(workers, pool, tmp_path) -> None:
    host = workers()
    call = pool.submit(invoke, host, "held")
    until(lambda: log(tmp_path))
    os.killpg(host.process.pid, signal.SIGINT)  # what a terminal does
    until(lambda: sum('"draining"' in line for line in host.stderr_lines()) == 2)
    (tmp_path / "gate").touch()
    assert isinstance(call.result(DEADLINE), int)
    assert host.wait() == 130
    assert [line for line in host.stderr_lines() if "Traceback" in line or '"error"' in line] == []


def test_a_second_signal_ends_all_workers_at_once(workers, pool, tmp_path) -> None:
    host = workers()
    calls = [pool.submit(invoke, host, "held") for _ in range(4)]
    until(lambda: len(log(tmp_path)) == 4)
    host.send_signal(signal.SIGTERM)
    until(lambda: any('"draining"' in line for line in host.stderr_lines()))
    host.send_signal(signal.SIGTERM)
    assert [call.result(DEADLINE) for call in calls] == [{"status": 0}] * 4
    assert host.wait() == 0


def test_a_worker_that_is_told_to_end_drains_and_is_replaced(workers, pool, tmp_path) -> None:
    host = workers()
    before = pids(host)
    call = pool.submit(invoke, host, "held")
    holder = int(until(lambda: log(tmp_path))[0][1:])
    os.kill(holder, signal.SIGTERM)
    host.wait_for_stderr('"draining"')
    (tmp_path / "gate").touch()
    assert call.result(DEADLINE) == holder
    host.wait_for_stderr(f'"pid":{holder}')
    assert until(lambda: pids(host) - before)


def test_a_worker_whose_loop_is_blocked_is_killed_when_the_time_is_over(workers, pool, tmp_path) -> None:
    host = workers("--shutdown-timeout", "0s")
    call = pool.submit(invoke, host, "blocks_the_loop")
    until(lambda: log(tmp_path))
    host.send_signal(signal.SIGTERM)
    assert host.wait(DEADLINE) == 0
    assert call.result(DEADLINE) == {"status": 0}
    assert host.wait_for_stderr("workers killed")


def test_a_replacement_that_cannot_start_is_tried_again(workers, tmp_path) -> None:
    host = workers()
    before = pids(host)
    (tmp_path / "app.py").write_text("raise RuntimeError('half deployed')\n")
    os.kill(min(before), signal.SIGKILL)
    assert "half deployed" in host.wait_for_stderr('"worker failed"')
    assert {invoke(host, "pid") for _ in range(5)} == {max(before)}
    (tmp_path / "app.py").write_text(APP)
    assert until(lambda: pids(host) - before)
    assert [line for line in host.stderr_lines() if "Traceback" in line] == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
@pytest.mark.parametrize("function", ["held", "blocks_the_loop"])
def test_workers_do_not_outlive_their_parent(workers, pool, tmp_path, number, function) -> None:
    host = workers()
    pool.submit(invoke, host, function)
    until(lambda: log(tmp_path))
    host.send_signal(number)
    assert host.process.wait(DEADLINE) == -number
    until(lambda: not list(_members(host.process.pid)))
    assert until(lambda: is_free(host.port))


def is_free(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


def run(tmp_path: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serverfull", "serve", *args]
    return subprocess.run(
        command, cwd=tmp_path, env=plain_environment(), capture_output=True, text=True, timeout=DEADLINE
    )


@pytest.mark.parametrize("first", ["1", "2"])
@pytest.mark.parametrize("second", ["1", "2"])
def test_a_port_that_is_taken_is_one_clear_line_whoever_shares_it(workers, tmp_path, first, second) -> None:
    host = workers("--workers", first)
    ended = run(tmp_path, "app.py:functions", "--workers", second, "--port", str(host.port))
    assert (ended.returncode, ended.stdout) == (3, "")
    assert re.fullmatch(rf"Error: cannot listen on 127.0.0.1:{host.port}: another process does.*\n", ended.stderr)
    assert host.invoke("pid").status == 200


@pytest.mark.parametrize(
    ("source", "target", "code", "expected"),
    [
        ("def broken(:\n", "bad.py:functions", 3, "SyntaxError"),
        ("raise RuntimeError('at import')\n", "bad.py:functions", 3, "RuntimeError: at import"),
        ("functions = {}\n", "bad.py:other", 2, "other"),
        ("import os; os._exit(7)\n", "bad.py:functions", 3, "ended with status 7 before it was ready"),
        ("import os, signal; os.kill(os.getpid(), 9)\n", "bad.py:functions", 3, "was killed by SIGKILL before"),
        ("functions = {'f': lambda a, b, c: 1}\n", "bad.py:functions", 2, "'f' cannot be served"),
    ],
)
def test_workers_that_cannot_start_say_so_once_and_the_host_ends(tmp_path, source, target, code, expected) -> None:
    (tmp_path / "bad.py").write_text(source)
    ended = run(tmp_path, target, "--workers", "3", "--port", "0")
    assert (ended.returncode, ended.stdout) == (code, "")
    errors = [line for line in ended.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert expected in errors[0]
    assert ended.stderr.count("Traceback") <= 1


CHANGING = """
from serverfull import Fetcher

class Mine(Fetcher):
    async def fetch(self, name, qualifier=None): ...
    async def list(self): return {}

functions = Mine()
"""


def test_functions_that_may_change_are_refused(tmp_path) -> None:
    (tmp_path / "app.py").write_text(CHANGING)
    ended = run(tmp_path, "app.py:functions", "--workers", "2", "--port", "0")
    assert ended.returncode == 2
    assert re.fullmatch(r"Error: server\.workers.*Mine.*known at start.*\n", ended.stderr)


def test_a_limit_that_cannot_be_divided_is_refused(tmp_path) -> None:
    (tmp_path / "serverfull.toml").write_text("[limits]\nevent_backlog = 1\n")
    (tmp_path / "app.py").write_text(APP)
    ended = run(tmp_path, "app.py:functions", "--workers", "2", "--port", "0")
    assert ended.returncode == 2
    assert re.fullmatch(r"Error: limits\.event_backlog is 1 and server\.workers is 2.*\n", ended.stderr)


PROGRAM = """
import os, sys
from dataclasses import replace
from serverfull import Settings, create_app, serve

settings = Settings()
settings = replace(settings, server=replace(settings.server, port=0, workers=2))
functions = {"pid": lambda event: os.getpid()}
if sys.argv[1] == "application":
    serve(create_app(functions, settings))
status = serve(functions, settings)
print("program goes on", os.getpid(), flush=True)
raise SystemExit(status)
"""


def program(tmp_path: Path, *args: str) -> list[str]:
    (tmp_path / "program.py").write_text(PROGRAM)
    return [sys.executable, str(tmp_path / "program.py"), *args]


def test_a_program_can_serve_with_workers_and_goes_on_alone(tmp_path) -> None:
    host = HostProcess(program(tmp_path, "functions"), plain_environment(), tmp_path)
    try:
        host._wait_until_ready(DEADLINE)
        pids(host)
    finally:
        code = host.stop()
    assert code == 0
    assert [line for line in host.stdout_lines() if line.startswith("program")] == [
        f"program goes on {host.process.pid}"
    ]


def test_an_application_is_refused_because_it_lives_in_one_process(tmp_path) -> None:
    ended = subprocess.run(
        program(tmp_path, "application"), env=plain_environment(), capture_output=True, text=True, timeout=DEADLINE
    )
    assert "ConfigurationError: server.workers is more than 1, but an application" in ended.stderr
