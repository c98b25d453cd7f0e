"""The same handlers, run by the official Python runtime client and by our code: the answers must have the same bytes.

The official client runs as a process of its own against a Runtime API server that lives in this file.
"""

from __future__ import annotations

import http.client
import importlib
import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from serverfull.runtimes.marshal import (
    ErrorReport,
    MarshalFault,
    describe_exception,
    encode_result,
    error_log_text,
    exit_fault,
    handler_missing,
    init_fault,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

pytest.importorskip("awslambdaric")

HERE = (str(Path(__file__).parent) + "/",)
DEADLINE = 20.0
FAMILY = "AWS_Lambda_python3.13"

CASES = Path(__file__).with_name("cases.py").read_text()

NAMES = [
    *re.findall(r'^value\("([^"]+)"', CASES, re.MULTILINE),
    *re.findall(r"^@case\ndef (\w+)", CASES, re.MULTILINE),
]


@dataclass
class Answer:
    """What the official client posted."""

    kind: str
    content_type: str
    body: bytes


@dataclass
class RuntimeApi:
    """Hands out events one after the other and keeps what comes back."""

    events: queue.Queue[tuple[str, bytes]] = field(default_factory=queue.Queue)
    answers: queue.Queue[Answer] = field(default_factory=queue.Queue)
    address: str = ""


@contextmanager
def runtime_api() -> Iterator[RuntimeApi]:
    api = RuntimeApi()
    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            while True:
                if closing.is_set():
                    self.close_connection = True
                    return
                with suppress(queue.Empty):
                    request_id, body = api.events.get(timeout=0.05)
                    break
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Lambda-Runtime-Aws-Request-Id", request_id)
            self.send_header("Lambda-Runtime-Deadline-Ms", str(int((time.time() + 60) * 1000)))
            self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:000000000000:function:f")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            body = self._body()
            api.answers.put(Answer(self.path.rsplit("/", 1)[1], self.headers.get("Content-Type", ""), body))
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers["Content-Length"]))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    api.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        # The client puts the whole stack trace of an error into a header as well, and a recursion has a long one.
        with mock.patch.object(http.client, "_MAXLINE", 2**21):
            yield api
    finally:
        closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def official_client(
    api: RuntimeApi, folder: Path, handler: str = "cases.handler", **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    known = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "awslambdaric", handler],
            cwd=folder,
            env={**known, "AWS_LAMBDA_RUNTIME_API": api.address, "AWS_EXECUTION_ENV": FAMILY, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def loaded(folder: Path, module: str) -> ModuleType:
    """Import a module of the folder as if nobody had done so before, and forget it again."""
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop(module, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("handlers")
    (made / "cases.py").write_text(CASES)
    return made


@pytest.fixture(scope="module")
def official(folder: Path) -> dict[str, Answer]:
    """What the official client answers for every case, all in one process."""
    with runtime_api() as api, official_client(api, folder):
        found = {}
        for name in NAMES:
            api.events.put((f"id of {name}".replace(" ", "-"), json.dumps(name).encode()))
            found[name] = api.answers.get(timeout=DEADLINE)
        return found


def ours(module: ModuleType, name: str) -> Answer:
    request_id = f"id of {name}".replace(" ", "-")
    try:
        body, content_type = encode_result(module.handler(name, None))
    except MarshalFault as fault:
        return Answer("error", "application/json", fault.report(request_id).document())
    except Exception as error:
        return Answer("error", "application/json", describe_exception(error, request_id, HERE).document())
    return Answer("response", content_type, body)


def same_depth(body: bytes) -> bytes:
    """How deep a recursion went depends on who called; that it is said, does not."""
    return re.sub(rb"Previous line repeated \d+ more times", b"Previous line repeated N more times", body)


@pytest.mark.parametrize("name", NAMES)
def test_a_handler_is_answered_with_the_bytes_of_the_official_client(
    name: str, folder: Path, official: dict[str, Answer]
) -> None:
    theirs = official[name]
    answer = ours(loaded(folder, "cases"), name)
    assert (answer.kind, answer.content_type) == (theirs.kind, theirs.content_type)
    assert same_depth(answer.body) == same_depth(theirs.body)


ENDS = {
    "SystemExit without a code": "raise SystemExit",
    "exit with 0": "import sys; sys.exit(0)",
    "exit with False": "raise SystemExit(False)",
    "exit with 3": "import sys; sys.exit(3)",
    "exit with -1": "import sys; sys.exit(-1)",
    "exit with 256": "import sys; sys.exit(256)",
    "exit with 2 ** 80": "import sys; sys.exit(2 ** 80)",
    "exit with a text": "import sys; sys.exit('the reason')",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "GeneratorExit": "raise GeneratorExit",
    "own BaseException": "raise type('Own', (BaseException,), {})('gone')",
    "CancelledError": "import asyncio; raise asyncio.CancelledError",
}


@pytest.mark.parametrize("code", ENDS.values(), ids=ENDS.keys())
def test_what_ends_the_process_of_the_official_client_is_reported_as_that_exit(code: str, folder: Path) -> None:
    event = {"code": code}
    with runtime_api() as api, official_client(api, folder) as process:
        api.events.put(("id", json.dumps(event).encode()))
        status = process.wait(DEADLINE)
        assert api.answers.empty()
    with pytest.raises(BaseException) as caught:
        loaded(folder, "cases").handler(event, None)
    expected = (
        f"Runtime exited with error: exit status {status}" if status else "Runtime exited without providing a reason"
    )
    if status < 0:
        expected = "Runtime exited with error: signal: interrupt"
    assert exit_fault(caught.value) == ("Runtime.ExitError", expected)


def test_where_lone_surrogates_end_the_official_client_we_answer(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cases.py").write_text("def handler(event, context):\n    return {'a': '\\ud800'}\n")
    with runtime_api() as api, official_client(api, tmp_path) as process:
        api.events.put(("id", b"{}"))
        assert process.wait(DEADLINE) != 0
        assert api.answers.empty()
    with pytest.raises(MarshalFault) as caught:
        encode_result(loaded(tmp_path, "cases").handler({}, None))
    assert caught.value.error_type == "Runtime.MarshalError"
    assert caught.value.message.startswith("Unable to marshal response: 'utf-8' codec can't encode character")


INITS = {
    "syntax error": "def handler(event, context)\n    pass\n",
    "import error": "import surely_missing_module\n",
    "name that cannot be imported": "from json import surely_missing_name\n",
    "own error": "def boom():\n    raise ValueError('at start')\nboom()\n",
    "handler missing": "def other(event, context):\n    pass\n",
}


@pytest.mark.parametrize("source", INITS.values(), ids=INITS.keys())
def test_a_module_that_cannot_be_loaded_is_described_as_the_official_client_does(source: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(source)
    with runtime_api() as api, official_client(api, tmp_path, "broken.handler"):
        theirs = api.answers.get(timeout=DEADLINE)
    assert theirs.kind == "error"
    try:
        loaded(tmp_path, "broken").handler  # it is missing, or the import fails
    except AttributeError:
        report = handler_missing("handler", "broken")
    except Exception as error:
        report = init_fault(error, "broken", HERE)
    # The official client encodes this document twice: it is a JSON text inside a JSON document.
    assert json.loads(report.document()) == _unwrapped(theirs.body)


def _unwrapped(body: bytes) -> Any:
    document = json.loads(body)
    return json.loads(document) if isinstance(document, str) else document


@pytest.mark.parametrize("log_format", ["Text", "JSON"])
@pytest.mark.parametrize(
    "name", ["plain_exception", "exception_without_message", "with_cause", "set", "unicode_message"]
)
def test_the_log_line_of_an_error_is_that_of_the_official_client(name: str, log_format: Any, folder: Path) -> None:
    with runtime_api() as api, official_client(api, folder, AWS_LAMBDA_LOG_FORMAT=log_format) as process:
        api.events.put((f"id of {name}".replace(" ", "-"), json.dumps(name).encode()))
        api.answers.get(timeout=DEADLINE)
        api.events.put(("last", b'"ends"'))
        process.wait(DEADLINE)
        theirs = (folder / "log").read_bytes().decode()
    document = json.loads(ours(loaded(folder, "cases"), name).body)
    report = ErrorReport(
        document["errorType"], document["errorMessage"], document["requestId"], tuple(document["stackTrace"])
    )
    assert _untimed(error_log_text(report, log_format)) == _untimed(theirs)


def _untimed(line: str) -> str:
    return re.sub(r'"timestamp": "[0-9TZ:-]{20}"', '"timestamp": ""', line)
