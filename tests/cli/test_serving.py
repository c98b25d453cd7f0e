"""``serverfull serve`` as a process of its own, called by the other commands."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

Run = Callable[..., Any]

APP = """
    import time

    def hello(event, context):
        print("said hello")
        return {"hello": event}

    async def fails(event):
        raise ValueError("no good")

    def custom(event, context):
        return context.client_context.custom

    functions = {"hello": hello, "fails": fails, "custom": custom}
"""


@contextmanager
def serving(folder: Path, environ: dict[str, str], *arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start a host on a free port; gives its URL as the ready line says it, and its process."""
    command = [sys.executable, "-m", "serverfull", "serve", *arguments]
    with subprocess.Popen(
        command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        give_up = threading.Timer(40, process.kill)
        give_up.start()
        try:
            seen = ""
            for line in process.stdout:
                seen += line
                if line.startswith("serverfull ready http"):
                    yield line.split()[2], process
                    break
            else:
                pytest.fail(f"the host did not start: {seen}")
        finally:
            give_up.cancel()
            process.kill()


@pytest.fixture
def app(tmp_path: Path) -> Path:
    path = tmp_path / "app_under_test.py"
    path.write_text(dedent(APP))
    return path


def test_functions_are_served_listed_and_invoked(
    app: Path, tmp_path: Path, environ: dict[str, str], run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(tmp_path, environ, app.name, "--port", "0") as (url, _):
        done = run("invoke", "hello", '{"n": 1}', "--tail", "--endpoint", url)
        assert (done.returncode, json.loads(done.stdout)) == (0, {"hello": {"n": 1}})
        assert "said hello\n" in done.stderr
        assert done.stderr.startswith("START RequestId: ")

        done = run("invoke", "fails", SERVERFULL_ENDPOINT=url)
        assert done.returncode == 4
        assert json.loads(done.stdout)["errorType"] == "ValueError"
        assert done.stderr == "Error: the function failed: ValueError: no good\n"

        done = run("invoke", "nope", SERVERFULL_ENDPOINT=url)
        assert done.returncode == 1
        assert done.stderr.startswith("Error: ResourceNotFoundException: Function not found: ")

        done = run("invoke", "custom", "--client-context", '{"custom": {"a": 1}}', AWS_ENDPOINT_URL=url)
        assert json.loads(done.stdout) == {"a": 1}

        for kind in ("Event", "DryRun"):
            done = run("invoke", "hello", "--type", kind, SERVERFULL_ENDPOINT=url)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

        listed = json.loads(run("list", "--output", "json", SERVERFULL_ENDPOINT=url).stdout)
        assert [function["FunctionName"] for function in listed] == ["custom", "fails", "hello"]


def test_status_and_wait_find_a_host_that_runs(app: Path, tmp_path: Path, environ: dict[str, str], run: Run) -> None:
    with serving(tmp_path, environ, app.name, "--port", "0") as (url, _):
        assert run("wait", "--timeout", "20s", SERVERFULL_ENDPOINT=url).returncode == 0
        done = run("status", SERVERFULL_ENDPOINT=url)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[0].split() == [url, "ready"]


def test_settings_of_the_environment_and_of_a_file_reach_the_host(
    app: Path, tmp_path: Path, environ: dict[str, str], run: Run
) -> None:
    (tmp_path / "serverfull.toml").write_text("[functions]\nmemory_size = 256\n")
    environ = {**environ, "PORT": "0", "SERVERFULL_FUNCTIONS__TIMEOUT": "7s"}
    with serving(tmp_path, environ, f"{app.stem}:hello") as (url, _):
        (function,) = json.loads(run("list", "--output", "json", SERVERFULL_ENDPOINT=url).stdout)
        assert (function["FunctionName"], function["Timeout"], function["MemorySize"]) == ("hello", 7, 256)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_the_host_with_its_exit_code(
    app: Path, tmp_path: Path, environ: dict[str, str], number: signal.Signals, code: int
) -> None:
    with serving(tmp_path, environ, app.name, "--port", "0") as (_, process):
        process.send_signal(number)
        output, _ = process.communicate(timeout=40)
    assert process.returncode == code, output
    assert "Traceback" not in output


def test_a_port_that_is_taken_is_one_line_and_exits_with_3(
    app: Path, tmp_path: Path, environ: dict[str, str], run: Run
) -> None:
    with serving(tmp_path, environ, app.name, "--port", "0") as (url, _):
        port = url.rpartition(":")[2].rstrip("/")
        done = start(tmp_path, environ, app.name, "--port", port)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert f"127.0.0.1:{port}" in line


def start(folder: Path, environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a host that must refuse to start."""
    command = [sys.executable, "-m", "serverfull", "serve", *arguments]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=40)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing_module"], 2, "Error: there is no module 'missing_module'"),
        (["missing.py"], 2, "Error: there is no file missing.py"),
        (["app_under_test:helo"], 2, "Error: module 'app_under_test' has no attribute 'helo'; did you mean 'hello'?"),
        (["app_under_test:time"], 2, "Error: app_under_test:time cannot be served: it is a module"),
        (["app_under_test.py", "--host", "0.0.0.0", "--port", "0"], 2, "Error: refusing to listen on 0.0.0.0"),
    ],
)
def test_a_host_that_cannot_start_says_why_in_one_line(
    app: Path, tmp_path: Path, environ: dict[str, str], arguments: list[str], code: int, message: str
) -> None:
    done = start(tmp_path, environ, *arguments)
    assert done.returncode == code
    (line,) = done.stderr.splitlines()
    assert line.startswith(message)


def test_a_target_that_fails_at_import_shows_the_users_traceback_and_exits_with_3(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    (tmp_path / "broken.py").write_text("def load():\n    return 1 / 0\n\nload()\n")
    done = start(tmp_path, environ, "broken.py")
    assert done.returncode == 3
    lines = done.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert [line.strip() for line in lines if "File " in line] == [
        f'File "{tmp_path}/broken.py", line 4, in <module>',
        f'File "{tmp_path}/broken.py", line 2, in load',
    ]
    assert lines[-1] == "Error: file broken.py failed to import: ZeroDivisionError: division by zero"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_a_host_serves_without_standard_streams(app: Path, environ: dict[str, str], closed: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = f"exec {sys.executable} -m serverfull serve {app.name} --port {port} {closed}"
    with subprocess.Popen(["bash", "-c", command], cwd=app.parent, env=environ) as process:
        try:
            deadline = time.monotonic() + 20
            while not (answer := _invoke_hello(port)):
                assert process.poll() is None
                assert time.monotonic() < deadline
            assert json.loads(answer) == {"hello": 1}
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()


def _invoke_hello(port: int) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", "/2015-03-31/functions/hello/invocations", b"1")
        return connection.getresponse().read()
    except ConnectionRefusedError:
        time.sleep(0.05)
        return b""
    finally:
        connection.close()
