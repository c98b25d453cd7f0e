"""Hosts in processes of their own: how they start, how signals end them, and what cannot keep them from ending."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from serverfull.config import ServerSettings
from serverfull.errors import AddressInUse, UnsafeBind
from serverfull.serving import bind, check_bind, url_of
from serverfull.testing.process import READY_MARK, HostDidNotStart, HostProcess

if TYPE_CHECKING:
    from pathlib import Path

    from serverfull.testing.fixtures import Serve

SLOW = """
import asyncio, os, threading, time
from pathlib import Path
from serverfull import Function

def wait_for(name):
    Path(f"{name}.entered").touch()
    while not Path(name).exists():
        time.sleep(0.01)
    return "finished"

def slow(event):
    return wait_for(event)

async def slow_async(event):
    return await asyncio.to_thread(wait_for, event)

functions = {
    "slow": Function(slow, timeout=60),
    "slow_async": Function(slow_async, timeout=60),
    "quick": lambda: "quick",
}
"""


def wait_for_file(path: Path) -> None:
    done = threading.Event()
    for _ in range(2000):
        if path.exists():
            return
        done.wait(0.01)
    raise AssertionError(f"{path} did not come")


class Call:
    """One invocation in a thread, so that the test can go on meanwhile."""

    def __init__(self, host: HostProcess, name: str, payload: bytes) -> None:
        self.answer: Any = None
        self._thread = threading.Thread(target=self._run, args=(host, name, payload))
        self._thread.start()

    def _run(self, host: HostProcess, name: str, payload: bytes) -> None:
        try:
            self.answer = host.invoke(name, payload)
        except (OSError, http.client.HTTPException) as error:
            self.answer = error

    def result(self) -> Any:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.answer


@pytest.mark.parametrize("function", ["slow", "slow_async"])
def test_sigterm_lets_calls_in_flight_finish_and_refuses_new_ones(serve: Serve, tmp_path: Path, function: str) -> None:
    host = serve(SLOW)
    call = Call(host, function, b'"go"')
    wait_for_file(tmp_path / "go.entered")
    host.send_signal(signal.SIGTERM)
    host.wait_for_stderr("draining")
    refused = host.invoke("quick")
    assert refused.status == 503
    assert refused.headers["retry-after"].isdigit()
    assert refused.headers["connection"] == "close"
    assert refused.headers["x-amzn-errortype"] == "ServiceException"
    (tmp_path / "go").touch()
    answer = call.result()
    assert (answer.status, answer.json()) == (200, "finished")
    assert host.wait() == 0


def test_accepted_events_are_finished_before_the_end(serve: Serve, tmp_path: Path) -> None:
    host = serve(SLOW)
    for number in range(3):
        assert host.invoke("slow", f'"go{number}"'.encode(), {"X-Amz-Invocation-Type": "Event"}).status == 202
    wait_for_file(tmp_path / "go2.entered")
    host.send_signal(signal.SIGTERM)
    host.wait_for_stderr("draining")
    for number in range(3):
        (tmp_path / f"go{number}").touch()
    assert host.wait() == 0
    assert sum("REPORT" in line for line in host.stdout_lines()) == 3
    assert not any("events lost" in line for line in host.stderr_lines())


def test_events_that_do_not_finish_in_time_are_reported_as_lost(serve: Serve, tmp_path: Path) -> None:
    host = serve(SLOW, "--shutdown-timeout", "0.2s")
    assert host.invoke("slow", b'"never"', {"X-Amz-Invocation-Type": "Event"}).status == 202
    wait_for_file(tmp_path / "never.entered")
    host.send_signal(signal.SIGTERM)
    assert host.wait() == 0
    assert any("events lost" in line for line in host.stderr_lines())


def test_calls_that_do_not_finish_in_time_are_cut_off_and_said(serve: Serve, tmp_path: Path) -> None:
    host = serve(SLOW, "--shutdown-timeout", "0.2s")
    calls = [Call(host, function, f'"{function}"'.encode()) for function in ("slow", "slow_async")]
    for function in ("slow", "slow_async"):
        wait_for_file(tmp_path / f"{function}.entered")
    host.send_signal(signal.SIGTERM)
    assert host.wait() == 0
    assert all(isinstance(call.result(), (OSError, http.client.HTTPException)) for call in calls)
    (line,) = (json.loads(line) for line in host.stderr_lines() if "cut off" in line)
    assert (line["level"], line["event"], line["count"]) == ("warning", "calls cut off at shutdown", 2)


def test_sigint_ends_with_130(serve: Serve) -> None:
    assert serve(SLOW).stop(number=signal.SIGINT) == 130


def test_a_second_signal_ends_at_once(serve: Serve, tmp_path: Path) -> None:
    host = serve(SLOW)
    call = Call(host, "slow", b'"never"')
    wait_for_file(tmp_path / "never.entered")
    host.send_signal(signal.SIGTERM)
    host.wait_for_stderr("draining")
    host.send_signal(signal.SIGTERM)
    host.wait_for_stderr("ending at once")
    host.wait(timeout=15)  # the call would take a minute
    assert isinstance(call.result(), (OSError, http.client.HTTPException))


STUBBORN = {
    "thread": "threading.Thread(target=time.sleep, args=(600,)).start()",
    "timer": "threading.Timer(600, print).start()",
    "many": "[threading.Thread(target=time.sleep, args=(600,)).start() for _ in range(40)]",
    "pool": "POOL.submit(time.sleep, 600)",
    "executor": "await asyncio.to_thread(time.sleep, 600)",
    "swallowing": "await swallow()",
    "swallowing_task": "TASKS.append(asyncio.create_task(swallow()))",
    "own_blocking": "time.sleep(600)",
}


@pytest.mark.slow
@pytest.mark.parametrize("how", STUBBORN)
def test_what_a_handler_leaves_behind_does_not_keep_the_process(serve: Serve, how: str) -> None:
    host = serve(f"""
import asyncio, threading, time
from concurrent.futures import ThreadPoolExecutor
from serverfull import Function
POOL, TASKS = ThreadPoolExecutor(), []

async def swallow():
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass

async def handler(event):
    {STUBBORN[how]}

functions = {{"f": Function(handler, timeout=0.3, loop={"own" if how.startswith("own") else "host"!r})}}
""")
    assert host.invoke("f").status == 200
    assert host.stop(timeout=15) == 0


EXITS = """
import asyncio, sys
from serverfull import Function

async def leave(how):
    if how == "interrupt":
        raise KeyboardInterrupt
    sys.exit(3)

async def handler(event):
    if event == "fine":
        return "fine"
    await asyncio.gather(leave(event), asyncio.sleep(0))

async def fire_and_forget(event):
    asyncio.get_running_loop().call_soon(sys.exit, 4)
    await asyncio.sleep(0.01)
    return "still here"

async def stop_the_loop(event):
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.01)
    return "still here"

functions = {"f": handler, "later": fire_and_forget, "stop": stop_the_loop}
"""


def test_a_handler_that_exits_in_a_task_or_stops_the_loop_does_not_end_the_host(serve: Serve) -> None:
    host = serve(EXITS)
    for _ in range(2):
        assert "exit status 3" in host.invoke("f", b'"exit"').json()["errorMessage"]
        assert "signal: interrupt" in host.invoke("f", b'"interrupt"').json()["errorMessage"]
        assert host.invoke("later").json() == "still here"
        assert host.invoke("stop").json() == "still here"
        assert host.invoke("f", b'"fine"').json() == "fine"
    assert host.stop() == 0


def test_a_taken_port_ends_with_3_and_says_so(serve: Serve, tmp_path: Path) -> None:
    host = serve(SLOW)
    with pytest.raises(HostDidNotStart, match="ended with 3") as caught:
        serve(SLOW, "--port", str(host.port))
    assert f"cannot listen on 127.0.0.1:{host.port}: another process does" in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert host.invoke("quick").json() == "quick"


def test_an_address_that_others_reach_is_refused_with_2(serve: Serve) -> None:
    with pytest.raises(HostDidNotStart, match="ended with 2") as caught:
        serve(SLOW, "--host", "0.0.0.0")
    assert "--insecure-no-auth" in str(caught.value)


def test_the_ready_line_is_written_once_and_names_the_real_port(serve: Serve) -> None:
    host = serve(SLOW)
    assert host.invoke("quick").json() == "quick"
    assert host.stop() == 0
    ready = [line for line in host.stdout_lines() if line.startswith(READY_MARK)]
    assert ready == [f"serverfull ready http://127.0.0.1:{host.port}"]


def test_the_last_lines_of_the_functions_log_are_written_at_the_end(serve: Serve) -> None:
    host = serve(SLOW)
    for _ in range(20):
        host.invoke("quick")
    assert host.stop() == 0
    assert sum("REPORT" in line for line in host.stdout_lines()) == 20


def test_serve_called_by_a_program_serves_and_returns_the_status(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from serverfull import serve, Settings\n"
        "from serverfull.config import ServerSettings\n"
        "status = serve({'hello': lambda: 'Hello!'}, Settings(server=ServerSettings(port=0)))\n"
        "print('status', status, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process, process.stdout as out:
        port = int(out.readline().rpartition(":")[2])
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        link.request("POST", "/2015-03-31/functions/hello/invocations")
        assert link.getresponse().read() == b'"Hello!"'
        link.close()
        process.send_signal(signal.SIGINT)
        assert "status 130" in out.read()
    assert process.returncode == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_addresses_may_be_bound(host: str) -> None:
    assert ServerSettings(host=host).on_loopback
    check_bind(ServerSettings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", "", "127.0.0.1.example.com"])
def test_other_addresses_need_to_be_asked_for(host: str) -> None:
    with pytest.raises(UnsafeBind):
        check_bind(ServerSettings(host=host))
    check_bind(ServerSettings(host=host, insecure_no_auth=True))


def test_a_socket_on_a_taken_port_is_refused_by_name() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(AddressInUse, match="another process"):
            bind(ServerSettings(port=taken.getsockname()[1]))


@pytest.mark.parametrize(("host", "url"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_the_url_is_one_that_can_be_called(host: str, url: str) -> None:
    with bind(ServerSettings(host=host, port=0)) as sock:
        assert url_of(sock) == f"http://{url}:{sock.getsockname()[1]}"


BLOCKED = """
import asyncio
from pathlib import Path

async def block(event):
    Path("blocked").touch()
    while True:
        pass

functions = {"block": block}
"""


def test_a_second_signal_ends_a_host_whose_loop_a_handler_blocks_for_ever(serve: Serve, tmp_path: Path) -> None:
    host = serve(BLOCKED)
    Call(host, "block", b"{}")
    wait_for_file(tmp_path / "blocked")
    ended = threading.Event()
    for _ in range(100):  # two at once would count as one
        host.send_signal(signal.SIGTERM)
        if host.process.poll() is not None or ended.wait(0.2):
            break
    assert host.wait(30) == 137


def test_a_drain_that_a_blocked_loop_cannot_begin_ends_all_the_same(serve: Serve, tmp_path: Path) -> None:
    host = serve(BLOCKED, env={"SERVERFULL_SERVER__SHUTDOWN_TIMEOUT": "0.2"})
    Call(host, "block", b"{}")
    wait_for_file(tmp_path / "blocked")
    host.send_signal(signal.SIGTERM)
    assert host.wait(30) == 137


def test_a_handler_that_cancels_every_task_does_not_end_the_host(serve: Serve) -> None:
    host = serve(
        "import asyncio\n"
        "async def cancel_all(event):\n"
        "    me = asyncio.current_task()\n"
        "    return sum(task.cancel() for task in asyncio.all_tasks() if task is not me)\n"
        "functions = {'cancel_all': cancel_all, 'hello': lambda event: 'hello'}\n"
    )
    with contextlib.suppress(OSError, http.client.HTTPException):  # its own connection is among what it cancels
        host.invoke("cancel_all", b"{}")
    assert host.invoke("hello", b"{}").body == b'"hello"'
    host.send_signal(signal.SIGTERM)
    assert host.wait(30) == 0


def test_a_standard_output_that_cannot_be_written_does_not_keep_a_host_from_starting(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("functions = {'hello': lambda event: 'hello'}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "serverfull", "serve", "app.py:functions", "--port", str(port)]
    with open("/dev/full", "w") as full:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=full, stderr=subprocess.DEVNULL)
    try:
        waited = threading.Event()
        for _ in range(500):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            assert process.poll() is None
            waited.wait(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
