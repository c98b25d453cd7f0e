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
                    give_up.cancel()  # who uses it has deadlines of their own
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


BREAKS_JSON = """
    import json
    import serverfull

    def replace(event):
        json.dumps = json.loads = None

    def use(event):
        serverfull.logger().info("still written", text="a b", beyond_64_bits=2**70)
        serverfull.metrics().count("made.later", 3, flavour="bitter")
        return "fine"

    functions = {"replace": replace, "use": use}
"""


def test_what_the_host_says_of_itself_survives_a_handler_that_replaces_functions_of_the_json_module(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    (tmp_path / "breaks.py").write_text(dedent(BREAKS_JSON))
    with serving(tmp_path, environ, "breaks.py", "--port", "0") as (url, process):
        assert ask(url, "POST", "/2015-03-31/functions/replace/invocations") == (200, None)
        assert ask(url, "POST", "/2015-03-31/functions/use/invocations") == (200, "fine")
        assert ask(url, "GET", "/_serverfull/health")[1]["status"] == "ok"
        assert ask(url, "GET", "/_serverfull/info")[1]["state"] == "serving"
        assert 'made_later_total{flavour="bitter"} 3.0' in ask(url, "GET", "/metrics")[1]
        status, listed = ask(url, "GET", "/2015-03-31/functions/")
        assert (status, [one["FunctionName"] for one in listed["Functions"]]) == (200, ["replace", "use"])
        assert ask(url, "BREW", "/pot")[0] == 400  # of which the host's own log tells
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=40)
    for texts in (("still written", f"{2**70}"), ('"request refused"', '"reason"')):
        assert any(all(text in line for text in texts) for line in output.splitlines()), output
    assert "log_error" not in output


def ask(url: str, method: str, path: str) -> tuple[int, Any]:
    """Make a request; gives status and body, read where it is JSON."""
    connection = http.client.HTTPConnection(url.removeprefix("http://").rstrip("/"), timeout=40)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, json.loads(body) if answer.headers.get_content_subtype() == "json" else body.decode()
    finally:
        connection.close()


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


SIGNALS_ITSELF = """
    import asyncio, atexit, os, time

    class Now:
        def __del__(self, kill=os.kill, pid=os.getpid()):
            kill(pid, NUMBER)

    async def leave(event, context):
        async def outlast():
            try:
                await asyncio.sleep(600)
            finally:
                Now()
        TASKS.append(asyncio.create_task(outlast()))
        await asyncio.sleep(0)

    TASKS = []
    MOMENT, NUMBER = {moment!r}, {number}
    functions = {{"leave": leave}}
    if MOMENT == "import":
        print("imported")
        Now()  # a KeyboardInterrupt in here would print a traceback, and be forgotten
        time.sleep(60)
    if MOMENT == "atexit":
        atexit.register(Now)
    if MOMENT == "interpreter's end":
        LAST = Now()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_while_the_target_is_imported_ends_the_host_without_a_word(
    tmp_path: Path, environ: dict[str, str], number: signal.Signals, code: int
) -> None:
    (tmp_path / "itself.py").write_text(dedent(SIGNALS_ITSELF.format(moment="import", number=int(number))))
    done = start(tmp_path, environ, "itself.py", "--port", "0")
    assert (done.returncode, done.stdout, done.stderr) == (code, "imported\n", "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
@pytest.mark.parametrize("moment", ["end of the loop", "atexit", "interpreter's end"])
def test_a_second_signal_after_the_drain_changes_nothing_about_the_end(
    tmp_path: Path, environ: dict[str, str], moment: str, number: signal.Signals, code: int
) -> None:
    (tmp_path / "itself.py").write_text(dedent(SIGNALS_ITSELF.format(moment=moment, number=int(number))))
    with serving(tmp_path, environ, "itself.py", "--port", "0") as (url, process):
        if moment == "end of the loop":
            assert ask(url, "POST", "/2015-03-31/functions/leave/invocations") == (200, None)
        process.send_signal(number)
        output, _ = process.communicate(timeout=40)
    assert process.returncode == code, output
    assert '"draining"' in output
    assert "Traceback" not in output


def test_another_signal_after_the_drain_does_not_change_the_exit_code(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "itself.py").write_text(dedent(SIGNALS_ITSELF.format(moment="atexit", number=int(signal.SIGINT))))
    with serving(tmp_path, environ, "itself.py", "--port", "0") as (_, process):
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=40)
    assert process.returncode == 0, output


def test_signals_that_the_settings_leave_alone_do_what_they_always_do(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "itself.py").write_text(dedent(SIGNALS_ITSELF.format(moment="import", number=int(signal.SIGTERM))))
    done = start(tmp_path, {**environ, "SERVERFULL_SIGNALS__OS_SIGNALS": "2"}, "itself.py", "--port", "0")
    assert done.returncode == -signal.SIGTERM


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


@pytest.mark.parametrize(
    ("last_line", "code", "message"),
    [
        ("1 / 0", 3, "Error: file threaded.py failed to import: ZeroDivisionError"),
        ("functions = {'f': 5}", 2, "Error: threaded.py cannot be served"),
        ("functions = {'f': lambda a, b, c: 1}", 2, "Error: function 'f' cannot be served"),
    ],
)
def test_a_thread_of_a_target_that_cannot_be_served_does_not_keep_the_process(
    tmp_path: Path, environ: dict[str, str], last_line: str, code: int, message: str
) -> None:
    module = f"import threading\n\nthreading.Thread(target=threading.Event().wait).start()\n{last_line}\n"
    (tmp_path / "threaded.py").write_text(module)
    done = start(tmp_path, environ, "threaded.py", "--port", "0")
    assert done.returncode == code
    assert done.stderr.splitlines()[-1].startswith(message)


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
