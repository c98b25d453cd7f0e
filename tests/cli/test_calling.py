"""The client commands against a stand-in that records requests and answers as the API does."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from serverfull.domain.names import credential_of

Run = Callable[..., Any]


@dataclass
class Standin:
    endpoint: str = ""
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)

    def answer(self, status: int, body: object = b"", **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers.append((status, {name.replace("_", "-"): value for name, value in headers.items()}, content))


@pytest.fixture
def host() -> Iterator[Standin]:
    standin = Standin()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            standin.requests.append((f"{self.command} {self.path}", headers, body))
            standin.asked.set()
            if not standin.answers:
                standin.held.wait(30)
                return
            status, more, content = standin.answers.pop(0)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **more}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    standin.endpoint = f"http://127.0.0.1:{server.server_port}"
    yield standin
    standin.held.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_invoke_sends_the_payload_and_prints_the_result_as_it_came(run: Run, host: Standin) -> None:
    host.answer(200, b'{"a": \xc3\xa4}')
    done = run("invoke", "hello", '{"n": 1}', SERVERFULL_ENDPOINT=host.endpoint)
    assert (done.returncode, done.stdout, done.stderr) == (0, '{"a": ä}', "")
    ((line, headers, body),) = host.requests
    assert line == "POST /2015-03-31/functions/hello/invocations"
    assert headers["x-amz-invocation-type"] == "RequestResponse"
    assert headers["content-type"] == "application/json"
    assert "x-amz-log-type" not in headers
    assert body == b'{"n": 1}'


def test_invoke_passes_names_qualifier_type_and_client_context_on(run: Run, host: Standin) -> None:
    host.answer(202)
    arn = "arn:aws:lambda:eu-west-1:123456789012:function:hello"
    flags = ["--qualifier", "v 1", "--type", "Event", "--client-context", '{"custom": {"ä": 1}}']
    done = run("invoke", arn, *flags, "--endpoint", f"{host.endpoint}/prefix/")
    assert (done.returncode, done.stdout) == (0, "")
    ((line, headers, body),) = host.requests
    quoted = arn.replace(":", "%3A")
    assert line == f"POST /prefix/2015-03-31/functions/{quoted}/invocations?Qualifier=v%201"
    assert headers["x-amz-invocation-type"] == "Event"
    assert json.loads(base64.b64decode(headers["x-amz-client-context"])) == {"custom": {"ä": 1}}
    assert body == b""


@pytest.mark.parametrize(
    ("variables", "flags", "credential"),
    [
        ({}, [], None),
        ({"AWS_REGION": "eu-west-1"}, [], "serverfull/20150331/eu-west-1/lambda/aws4_request"),
        ({"AWS_REGION": "eu-west-1"}, ["--region", "eu-west-2"], "serverfull/20150331/eu-west-2/lambda/aws4_request"),
        ({"SERVERFULL_FUNCTIONS__ACCOUNT": "1" * 12}, [], f"{'1' * 12}/20150331/us-east-1/lambda/aws4_request"),
    ],
)
def test_account_and_region_are_the_hosts_own_unless_somebody_says_otherwise(
    run: Run, host: Standin, variables: dict[str, str], flags: list[str], credential: str | None
) -> None:
    host.answer(200)
    assert run("invoke", "hello", *flags, SERVERFULL_ENDPOINT=host.endpoint, **variables).returncode == 0
    sent = host.requests[0][1].get("authorization")
    assert credential_of(sent) == credential


def test_the_payload_may_come_from_standard_input_or_a_file(run: Run, host: Standin, tmp_path: Path) -> None:
    (tmp_path / "event.json").write_text('{"from": "file"}')
    host.answer(200)
    host.answer(200)
    run("invoke", "hello", "-", stdin='{"from": "stdin"}', SERVERFULL_ENDPOINT=host.endpoint)
    run("invoke", "hello", "@event.json", SERVERFULL_ENDPOINT=host.endpoint)
    assert [body for _, _, body in host.requests] == [b'{"from": "stdin"}', b'{"from": "file"}']


def test_the_result_may_go_to_a_file(run: Run, host: Standin, tmp_path: Path) -> None:
    host.answer(200, b"\x00\xff")
    done = run("invoke", "hello", "--output", "result.bin", SERVERFULL_ENDPOINT=host.endpoint)
    assert (done.returncode, done.stdout) == (0, "")
    assert (tmp_path / "result.bin").read_bytes() == b"\x00\xff"


def test_the_log_tail_goes_to_standard_error(run: Run, host: Standin) -> None:
    host.answer(200, b"1", X_Amz_Log_Result=base64.b64encode(b"START\nline\nEND\n").decode())
    done = run("invoke", "hello", "--tail", SERVERFULL_ENDPOINT=host.endpoint)
    assert (done.stdout, done.stderr) == ("1", "START\nline\nEND\n")
    assert host.requests[0][1]["x-amz-log-type"] == "Tail"


def test_a_function_that_fails_exits_with_4_and_its_error_document_is_printed(run: Run, host: Standin) -> None:
    host.answer(200, {"errorType": "ValueError", "errorMessage": "no good"}, X_Amz_Function_Error="Unhandled")
    done = run("invoke", "hello", SERVERFULL_ENDPOINT=host.endpoint)
    assert done.returncode == 4
    assert json.loads(done.stdout)["errorType"] == "ValueError"
    assert done.stderr == "Error: the function failed: ValueError: no good\n"


@pytest.mark.parametrize(
    ("status", "body", "headers", "message"),
    [
        (
            404,
            {"Type": "User", "Message": "Function not found: x"},
            {"x_amzn_ErrorType": "ResourceNotFoundException"},
            "ResourceNotFoundException: Function not found: x",
        ),
        (
            429,
            {"message": "Rate Exceeded."},
            {"x_amzn_ErrorType": "TooManyRequestsException:http://internal/"},
            "TooManyRequestsException: Rate Exceeded.",
        ),
        (502, b"<html>bad gateway</html>", {}, "HTTP 502: <html>bad gateway</html>"),
        (500, b"", {}, "HTTP 500: no message"),
    ],
)
def test_an_error_of_the_api_is_one_line_and_exits_with_1(
    run: Run, host: Standin, status: int, body: object, headers: dict[str, str], message: str
) -> None:
    host.answer(status, body, **headers)
    done = run("invoke", "x", SERVERFULL_ENDPOINT=host.endpoint)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"Error: {message}\n")


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.parametrize("command", [["invoke", "x"], ["list"], ["status"], ["get", "x"], ["logs", "x"]])
def test_a_host_that_is_not_there_is_one_line_and_exits_with_1(run: Run, command: list[str]) -> None:
    endpoint = f"http://127.0.0.1:{closed_port()}"
    done = run(*command, AWS_ENDPOINT_URL_LAMBDA=endpoint)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: no host answers at {endpoint}: Connection refused\n"


def test_a_host_that_does_not_answer_is_given_up(run: Run, host: Standin) -> None:
    done = run("invoke", "x", "--timeout", "100ms", "--endpoint", host.endpoint)
    assert (done.returncode, done.stderr) == (1, f"Error: no answer from {host.endpoint} within 0.1 s\n")


def test_something_else_than_a_host_is_told(run: Run, host: Standin) -> None:
    host.answer(200, b"<html>")
    done = run("list", "--endpoint", host.endpoint)
    assert done.returncode == 1
    assert "answers with something else than a host would; is a serverfull host there?" in done.stderr


@pytest.mark.parametrize("command", [["list"], ["get", "hello"], ["logs", "hello"], ["deploy", "app.py"]])
def test_json_of_something_else_than_a_host_is_told_too(
    run: Run, host: Standin, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "app.py").write_text("def handler(event): ...\n")
    host.answer(200, {"hello": "world"})
    done = run(*command, "--endpoint", host.endpoint)
    assert (done.returncode, done.stderr.count("\n"), "is a serverfull host there?" in done.stderr) == (1, 1, True)


@pytest.mark.parametrize(
    "command",
    [
        *(["get", ""], ["logs", " "], ["delete", "", "--yes"], ["invoke", ""]),
        *(["deploy", ".", flag, ""] for flag in ("--name", "--handler", "--runtime", "--alias")),
    ],
)
def test_an_empty_name_is_nobodys(run: Run, command: list[str]) -> None:
    done = run(*command, "--endpoint", "http://127.0.0.1:1")
    assert (done.returncode, "it is empty" in done.stderr) == (2, True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
@pytest.mark.parametrize("command", [["list"], ["invoke", "hello"]])
def test_a_disk_that_is_full_is_one_line_and_exits_with_1(
    host: Standin, environ: dict[str, str], tmp_path: Path, command: list[str]
) -> None:
    for _ in range(2):
        host.answer(200, {"Functions": []})
    program = [sys.executable, "-m", "serverfull", *command, "--endpoint", host.endpoint]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            program, cwd=tmp_path, env=environ, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, check=False
        )
    assert (done.returncode, done.stderr) == (1, "Error: the output cannot be written: No space left on device\n")


def test_list_follows_pages_and_sorts(run: Run, host: Standin) -> None:
    sizes = {"Timeout": 3, "MemorySize": 128}
    first = {"FunctionName": "b", "Runtime": "python3.12", "Handler": "app.b", **sizes, "Description": ""}
    host.answer(200, {"Functions": [first], "NextMarker": "m/1"})
    host.answer(200, {"Functions": [{**first, "FunctionName": "a", "Description": "first of all"}]})
    host.answer(404, {"Message": "an older host"})
    host.answer(200, {"Functions": [first], "NextMarker": None})
    table = run("list", "--endpoint", host.endpoint).stdout.splitlines()
    assert [re.split(r"\s{2,}", line) for line in table] == [
        ["NAME", "RUNTIME", "HANDLER", "TIMEOUT", "MEMORY", "DESCRIPTION"],
        ["a", "python3.12", "app.b", "3", "128", "first of all"],
        ["b", "python3.12", "app.b", "3", "128"],
    ]
    assert [line for line, _, _ in host.requests] == [
        "GET /2015-03-31/functions",
        "GET /2015-03-31/functions?Marker=m%2F1",
        "GET /_serverfull/functions",
    ]
    assert json.loads(run("list", "--endpoint", host.endpoint, "--output", "json").stdout) == [first]


def test_list_shows_where_functions_come_from_and_what_is_not_served(run: Run, host: Standin) -> None:
    shown = {"FunctionName": "b", "Runtime": "python3.12", "Handler": "app.b", "Timeout": 3, "MemorySize": 128}
    host.answer(200, {"Functions": [{**shown, "Description": "shown"}]})
    survey = [
        {"FunctionName": "b", "Source": "static"},
        {"FunctionName": "a", "Source": "directory", "Place": "/srv/one", "Failure": "function.json: it is no JSON"},
        {"FunctionName": "a", "Source": "directory", "Place": "/srv/two", "HiddenBy": "directory /srv/one"},
        {"FunctionName": "b", "Source": "deployed", "HiddenBy": "static"},
    ]
    host.answer(200, {"Functions": survey})
    table = run("list", "--endpoint", host.endpoint).stdout.splitlines()
    assert [re.split(r"\s{2,}", line) for line in table] == [
        ["NAME", "RUNTIME", "HANDLER", "TIMEOUT", "MEMORY", "SOURCE", "DESCRIPTION"],
        ["a", "directory", "Failed: function.json: it is no JSON"],
        ["a", "directory", "hidden by directory /srv/one"],
        ["b", "python3.12", "app.b", "3", "128", "static", "shown"],
        ["b", "deployed", "hidden by static"],
    ]


@pytest.mark.parametrize(("status", "word", "code"), [(200, "ready", 0), (503, "not ready", 1)])
def test_status_says_whether_the_host_is_ready(run: Run, host: Standin, status: int, word: str, code: int) -> None:
    for _ in range(2):
        host.answer(status, {})
        host.answer(200, {"version": "1.2.3", "functions": ["a"], "settings": {"server.port": 1}})
    done = run("status", "--endpoint", host.endpoint)
    assert done.returncode == code
    assert re.split(r"\s{2,}|\n", done.stdout.strip()) == [
        *(host.endpoint, word),
        *("version", "1.2.3"),
        *("functions", '["a"]'),
    ]
    shown = json.loads(run("status", "--endpoint", host.endpoint, "--output", "json").stdout)
    assert (shown["endpoint"], shown["ready"], shown["settings"]) == (host.endpoint, code == 0, {"server.port": 1})


def test_status_of_a_host_on_another_machine_is_whether_it_is_ready(run: Run, host: Standin) -> None:
    host.answer(200, {})
    host.answer(403, {"Message": "for this machine alone"})
    done = run("status", "--endpoint", host.endpoint)
    assert (done.returncode, done.stdout.split()) == (0, [host.endpoint, "ready"])


def test_wait_returns_as_soon_as_the_host_is_ready(run: Run, host: Standin) -> None:
    host.answer(503)
    host.answer(503)
    host.answer(200)
    done = run("wait", "--endpoint", host.endpoint)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [line for line, _, _ in host.requests] == ["GET /_serverfull/ready"] * 3


def test_wait_gives_up_with_the_last_reason(run: Run, host: Standin) -> None:
    for _ in range(100):
        host.answer(503)
    done = run("wait", "--timeout", "200ms", "--endpoint", host.endpoint)
    assert done.returncode == 1
    assert done.stderr == f"Error: {host.endpoint} is not ready after 0.2 s: it answers 503\n"


def test_ctrl_c_exits_with_130_and_no_traceback(host: Standin, environ: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serverfull", "invoke", "slow", "--endpoint", host.endpoint]
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stderr=subprocess.PIPE, text=True) as process:
        assert host.asked.wait(30)
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
