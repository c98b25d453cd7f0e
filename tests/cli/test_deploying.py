"""``serverfull deploy``, ``list``, ``get`` and ``delete`` against a real host."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serverfull.cli import packaging
from serverfull.testing.process import HostProcess

Run = Callable[..., Any]

CODE = """
import os

def handler(event, context):
    return [os.environ.get("AA"), context.function_version]
"""


@pytest.fixture(scope="module")
def host() -> Iterator[HostProcess]:
    with HostProcess.start(None, "--state", "memory") as started:
        yield started


@pytest.fixture
def call(run: Run, host: HostProcess) -> Run:
    def call(*arguments: str, code: int = 0, **variables: str) -> str:
        done = run(*arguments, SERVERFULL_ENDPOINT=host.url, **variables)
        assert done.returncode == code, done
        return str(done.stderr if code else done.stdout)

    return call


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder with a function in it; its name belongs to the test alone."""
    made = tmp_path / re.sub(r"\W", "", request.node.name)[-60:]
    made.mkdir()
    (made / "lambda_function.py").write_text(CODE)
    return made


def shown(call: Run, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(call("get", name, "--output", "json"))
    return found


def test_a_folder_becomes_a_function_that_runs_at_once(call: Run, folder: Path) -> None:
    name = folder.name
    assert call("deploy", name) == f"{name}: created\n"
    assert json.loads(call("invoke", name)) == [None, "$LATEST"]
    configuration = shown(call, name)["Configuration"]
    assert configuration["Runtime"] == f"python3.{sys.version_info.minor}"
    assert configuration["Role"] == "arn:aws:iam::000000000000:role/serverfull"
    assert configuration["State"] == "Active"


def test_deploying_again_changes_what_is_different_and_nothing_else(call: Run, folder: Path) -> None:
    name = folder.name
    flags = ("--env", "AA=1", "--env", "BB=x=y", "--timeout", "5", "--tag", "team=a")
    assert call("deploy", name, *flags, "--description", "first", "--memory-size", "256") == f"{name}: created\n"
    before = shown(call, name)
    assert before["Tags"] == {"team": "a"}
    assert before["Configuration"]["Environment"]["Variables"] == {"AA": "1", "BB": "x=y"}
    for same in ((), flags):
        assert call("deploy", name, *same) == f"{name}: nothing has changed\n"
    assert shown(call, name)["Configuration"] == before["Configuration"]
    assert call("deploy", name, "--env", "AA=2", "--timeout", "5") == f"{name}: updated Environment\n"
    (folder / "more.py").write_text("")
    assert call("deploy", name) == f"{name}: updated code\n"
    assert call("deploy", name, "--tag", "team=b", "--tag", "x=") == f"{name}: updated tags\n"
    after = shown(call, name)
    assert after["Tags"] == {"team": "b", "x": ""}
    assert after["Configuration"]["Environment"]["Variables"] == {"AA": "2"}
    assert (after["Configuration"]["Description"], after["Configuration"]["MemorySize"]) == ("first", 256)
    assert json.loads(call("invoke", name)) == ["2", "$LATEST"]


def test_an_alias_moves_to_the_version_that_is_published(call: Run, folder: Path) -> None:
    name = folder.name
    said = f"{name}: created, published version 1, live is version 1\n"
    assert call("deploy", name, "--alias", "live") == said
    assert call("deploy", name, "--alias", "live") == f"{name}: nothing has changed\n"
    assert call("deploy", name, "--publish") == f"{name}: nothing has changed\n"
    said = f"{name}: updated Environment, published version 2\n"
    assert call("deploy", name, "--publish", "--env", "AA=2") == said
    assert json.loads(call("invoke", f"{name}:live")) == [None, "1"]
    assert call("deploy", name, "--alias", "live") == f"{name}: live is version 2\n"
    assert json.loads(call("invoke", f"{name}:live")) == ["2", "2"]


def test_a_handler_that_has_gone_is_looked_for_again(call: Run, folder: Path) -> None:
    name = folder.name
    call("deploy", name)
    (folder / "lambda_function.py").rename(folder / "app.py")
    assert call("deploy", name) == f"{name}: updated code, updated Handler\n"
    assert json.loads(call("invoke", name)) == [None, "$LATEST"]
    (folder / "other.py").write_text(CODE)
    assert call("deploy", name) == f"{name}: updated code\n"
    assert shown(call, name)["Configuration"]["Handler"] == "app.handler"


def test_json_says_what_was_done_and_what_is_there(call: Run, folder: Path) -> None:
    document = json.loads(call("deploy", folder.name, "--publish", "--output", "json"))
    assert document["Done"] == ["created", "published version 1"]
    assert document["Version"] == "1"
    assert document["Configuration"]["FunctionName"] == folder.name


def test_functions_are_deployed_to_the_region_that_is_named(call: Run, folder: Path) -> None:
    name = folder.name
    call("deploy", name, "--region", "eu-west-1")
    assert "Function not found" in call("get", name, code=1)
    there = json.loads(call("get", name, "--output", "json", AWS_REGION="eu-west-1"))
    assert there["Configuration"]["FunctionArn"] == f"arn:aws:lambda:eu-west-1:000000000000:function:{name}"
    assert call("deploy", name, "--region", "eu-west-1") == f"{name}: nothing has changed\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--name", "no name"), 2, "'no name' is no name of a function"),
        (("--env", "A"), 2, "'A' is not written KEY=VALUE"),
        (("--runtime", "nodejs22.x"), 2, "--handler is needed with --runtime nodejs22.x"),
        (("--timeout", "0"), 2, "0 is not in the range x>=1"),
        (("--env", "AWS_REGION=x"), 1, "Error: InvalidParameterValueException: "),
        (("--runtime", "python3.99"), 1, "Error: "),
        (("--alias", "1"), 1, "Error: "),
    ],
)
def test_what_cannot_be_deployed_is_said(
    call: Run, folder: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    said = call("deploy", folder.name, *([] if "--name" in arguments else ["--name", "refused"]), *arguments, code=code)
    assert message in said
    assert "Traceback" not in said
    if code == 1:
        assert said.count("\n") == 1


def test_a_package_that_is_too_large_is_refused_before_anything_is_sent(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaging, "ZIPPED_PACKAGE_BYTES", 100)
    done = run("deploy", folder.name, "--endpoint", "http://127.0.0.1:1")
    assert (done.returncode, done.stderr) == (1, "Error: the package is larger than a host takes: 0 MB zipped\n")


def test_code_that_the_host_cannot_unpack_is_the_callers_error(call: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.zip").write_bytes(b"PK no zip")
    said = call("deploy", "broken.zip", "--handler", "a.b", code=1)
    assert said.startswith("Error: InvalidParameterValueException: Could not unzip uploaded file.")


def test_a_host_that_takes_no_deployments_says_why(run: Run, folder: Path) -> None:
    (folder / "app.py").write_text("functions = {'own': print}\n")
    with HostProcess.start("app.py", "--workers", "2", cwd=folder) as host:
        done = run("deploy", folder.name, "--endpoint", host.url)
        assert done.returncode == 1
        assert "share no state. Serve with one worker." in done.stderr
        done = run("logs", "own", "--endpoint", host.url)
        assert (done.returncode, "it has several workers" in done.stderr) == (1, True)


def test_an_operators_own_function_is_not_written_over(run: Run, folder: Path) -> None:
    (folder / "app.py").write_text("functions = {'own': print}\n")
    with HostProcess.start("app.py", cwd=folder) as host:
        done = run("deploy", folder.name, "--name", "own", "--endpoint", host.url)
        assert done.returncode == 1
        assert done.stderr.startswith("Error: ")
        assert run("invoke", "own", "--endpoint", host.url).returncode == 0


def test_get_shows_a_function_and_only_the_names_of_its_variables(call: Run, folder: Path) -> None:
    call("deploy", folder.name, "--env", "SECRET=hidden", "--tag", "a=b", "--alias", "live")
    text = call("get", f"{folder.name}:live")
    rows = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in text.splitlines())
    assert (rows["name"], rows["version"], rows["state"]) == (folder.name, "1", "Active")
    assert rows["source"] == "S3"
    assert (rows["variables"], rows["tags"], rows["handler"]) == ("SECRET", "a=b", "lambda_function.handler")
    assert "hidden" not in text
    assert f"\n{folder.name}  python3" in call("list")


def test_delete_takes_a_version_or_all_and_asks_before(call: Run, folder: Path) -> None:
    name = folder.name
    call("deploy", name, "--publish")
    assert f"say --yes to delete {name}: there is no terminal" in call("delete", name, code=2)
    assert call("delete", f"{name}:1", "--yes") == f"{name}:1: deleted\n"
    assert call("invoke", name)
    assert json.loads(call("delete", name, "--yes", "--output", "json")) == {"Deleted": name}
    assert "Function not found" in call("delete", name, "--yes", code=1)


def on_terminal(arguments: list[str], folder: Path, environ: dict[str, str], typed: bytes = b"") -> tuple[int, str]:
    """Run a command whose streams are a terminal; gives its exit code and what it showed."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "serverfull", *arguments]
    with subprocess.Popen(command, cwd=folder, env=environ, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        os.write(master, typed)
        shown = b""
        while True:
            try:
                piece = os.read(master, 4096)
            except OSError:  # so ends a terminal whose last program has gone
                break
            if not piece:
                break
            shown += piece
        code = process.wait(timeout=30)
    os.close(master)
    return code, shown.decode()


def test_on_a_terminal_the_upload_is_shown_and_a_deletion_confirmed(
    call: Run, host: HostProcess, folder: Path, environ: dict[str, str]
) -> None:
    variables = {**environ, "SERVERFULL_ENDPOINT": host.url, "TERM": "xterm"}
    code, text = on_terminal(["deploy", "."], folder, variables)
    assert code == 0
    assert re.search(r"Uploading.*100%", text, re.DOTALL)
    assert f"{folder.name}: created" in text
    code, text = on_terminal(["delete", folder.name], folder, variables, typed=b"n\n")
    assert (code, f"Delete {folder.name} at" in text, "nothing was deleted" in text) == (1, True, True)
    assert call("invoke", folder.name)
    code, text = on_terminal(["delete", folder.name], folder, variables, typed=b"y\n")
    assert (code, f"{folder.name}: deleted" in text) == (0, True)


@pytest.fixture
def deaf() -> Iterator[tuple[str, threading.Event]]:
    """A host that has no function yet and reads only the beginning of what it is sent: its URL, and when that is."""
    sent = threading.Event()
    ended = threading.Event()
    error = b'{"Message": "Function not found"}'
    head = b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nx-amzn-errortype: ResourceNotFoundException\r\n"
    not_found = head + b"Content-Length: %d\r\n\r\n%s" % (len(error), error)

    def answer() -> None:
        while not sent.is_set():
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(30)
                if connection.recv(100).startswith(b"GET "):
                    connection.sendall(not_found)
                else:
                    sent.set()
                    ended.wait(30)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", sent
        ended.set()
        thread.join()


def test_ctrl_c_while_a_package_is_sent_ends_at_once_and_without_a_word(
    deaf: tuple[str, threading.Event], folder: Path, environ: dict[str, str]
) -> None:
    (folder / "noise").write_bytes(os.urandom(20 << 20))
    endpoint, sent = deaf
    command = [
        sys.executable,
        "-m",
        "serverfull",
        "deploy",
        ".",
        "--runtime",
        "python3.12",
        "--role",
        "arn:aws:iam::1:x",
    ]
    with subprocess.Popen(
        [*command, "--endpoint", endpoint], cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert sent.wait(30)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err.strip()) == (130, b"", b"")
