"""A real Runtime API for tests of lambda mode: it starts a process as AWS Lambda does, and invokes the function in it.

The process may be anything that speaks the Runtime API: an artifact of ``serverfull build``, ``serverfull lambda``, or
a bootstrap in another language::

    with NativeLambda(["./bootstrap"], timeout=3) as native:
        answer = native.invoke({"name": "Ada"})
        assert answer.json() == "Hello Ada!"

As on AWS one process runs one invocation at a time and stays warm for the next; one that overruns the timeout is
killed, one that ends is replaced at the next invocation. Everything here is blocking and made for tests. The HTTP
server has a thread for each connection; one lock guards what they share.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serverfull.domain.limits import RESPONSE_PAYLOAD_BYTES
from serverfull.testing.process import _Lines, plain_environment

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_BASE = "/2018-06-01/runtime"
_DONE = re.compile(rf"{_BASE}/invocation/([^/]+)/(response|error)")
_WAIT_FOR_START = 30.0
_LONGEST_HEADER = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class NativeAnswer:
    """How an invocation ended.

    :param payload: the result, or the error document.
    :param function_error: None, or ``Unhandled``.
    :param content_type: as the runtime sent it; of errors ``application/json``.
    :param cold: the process was started for this invocation.
    :param request_id: as the context shows it.
    """

    payload: bytes
    function_error: str | None
    content_type: str
    cold: bool
    request_id: str

    def json(self) -> Any:
        """Decode the payload as JSON."""
        return json.loads(self.payload)


@dataclass(slots=True)
class _Call:
    request_id: str
    payload: bytes
    deadline: float
    headers: Mapping[str, str]
    delivered: bool = False
    done: tuple[str, bytes, str] | None = None


class RuntimeApi:
    """The HTTP endpoint by itself; `NativeLambda` is what tests use. One runtime at a time.

    :param address: ``host:port``, the value of ``AWS_LAMBDA_RUNTIME_API``.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._call: _Call | None = None
        self._closed = False
        self._runtime = 0
        self.idle = False
        self.init_error: bytes | None = None
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.api = self
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def new_runtime(self) -> None:
        """Forget the runtime before: a new process is about to be started, and the old one gets nothing any more."""
        with self._changed:
            self._runtime += 1
            self.idle, self.init_error = False, None
            self._changed.notify_all()

    def put(self, call: _Call) -> None:
        """Hand the runtime an invocation."""
        with self._changed:
            self._call = call
            self._changed.notify_all()

    def withdraw(self) -> None:
        """Forget the invocation; an answer to it that comes later is refused."""
        with self._changed:
            self._call = None

    def wait(self, ready: Any, until: float) -> bool:
        """Wait until a condition on this object holds, looking again at least every 20 ms; False: it was too late.

        :param until: in seconds of `time.monotonic`.
        """
        with self._changed:
            while not ready():
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(0.02, left))  # the end of a process notifies nobody
            return True

    def next(self) -> _Call | None:
        """Wait for the next invocation, for the runtime; None: there is none to come."""
        with self._changed:
            runtime = self._runtime
            self.idle = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed or runtime != self._runtime or self._waits())
            if self._closed or runtime != self._runtime or self._call is None:
                return None
            self._call.delivered, self.idle = True, False
            return self._call

    def _waits(self) -> bool:
        return self._call is not None and not self._call.delivered

    def finish(self, request_id: str, kind: str, body: bytes, content_type: str) -> bool:
        """Take an answer of the runtime; False: nobody waits for it."""
        with self._changed:
            call = self._call
            if call is None or call.request_id != request_id or call.done is not None:
                return False
            call.done = kind, body, content_type
            self._changed.notify_all()
            return True

    def fail_init(self, body: bytes) -> None:
        """Take the runtime's word that it cannot start."""
        with self._changed:
            self.init_error = body
            self._changed.notify_all()

    def close(self) -> None:
        """Stop serving. Closing twice is fine."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    api: RuntimeApi

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a runtime that was killed leaves its connection broken."""


class _Lines64K(io.BufferedReader):
    """Cuts lines that Python's HTTP server finds too long: causes of errors, for X-Ray, take headers of up to 1 MiB."""

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(_LONGEST_HEADER if size else 0)
        return line if size is None or not 0 < size < len(line) else line[: size - 3] + b"\r\n"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = _Lines64K(self.connection.makefile("rb", buffering=0))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_GET(self) -> None:
        """Answer ``/next``."""
        if self.path != f"{_BASE}/invocation/next":
            self._answer(404, b"{}")
            return
        call = self.server.api.next()
        if call is None:
            self.close_connection = True
            return
        # Exactly this content type: with a charset, the Python client gives the handler a text instead of a value.
        self._answer(200, call.payload, call.headers)

    def do_POST(self) -> None:
        """Take a result, an error, or the word that the runtime cannot start."""
        body = self._body()
        if self.path == f"{_BASE}/init/error":
            self.server.api.fail_init(body)
            self._answer(202, b'{"status":"OK"}')
            return
        done = _DONE.fullmatch(self.path)
        if done is not None and done[2] == "response" and len(body) > RESPONSE_PAYLOAD_BYTES:
            self.server.api.finish(done[1], "error", _too_large(), "application/json")
            self._answer(413, b'{"errorType":"RequestEntityTooLarge"}')
            return
        taken = done is not None and self.server.api.finish(
            done[1], done[2], body, self.headers.get("Content-Type") or "application/json"
        )
        self._answer(202 if taken else 400, b'{"status":"OK"}' if taken else b'{"errorType":"InvalidRequestID"}')

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(pieces)

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write no access log."""


class NativeLambda:
    """One function as AWS Lambda runs it. Use it as a context manager; the process is started by the first invocation.

    :param command: what is started; it gets ``AWS_LAMBDA_RUNTIME_API`` and the other variables that AWS sets.
    :param env: variables on top of the machine's own (without those that configure a host or an AWS client).
    :param cwd: its folder, ``/var/task`` on AWS.
    :param timeout: seconds that an invocation may take.
    :param function_name: what the context shows.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 10.0,
        function_name: str = "function",
    ) -> None:
        self.command = [str(part) for part in command]
        self.timeout = timeout
        self.api = RuntimeApi()
        self.init_seconds: list[float] = []
        """How long each start took until the runtime asked for its first invocation."""
        self._cwd = cwd
        self._arn = f"arn:aws:lambda:us-east-1:000000000000:function:{function_name}"
        self._env = {
            **plain_environment(),
            "AWS_LAMBDA_RUNTIME_API": self.api.address,
            "AWS_LAMBDA_FUNCTION_NAME": function_name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function_name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": "stream",
            "AWS_REGION": "us-east-1",
            **(env or {}),
        }
        self._process: subprocess.Popen[str] | None = None
        self._output: list[_Lines] = []

    def invoke(self, event: Any = None, *, timeout: float | None = None, **headers: str) -> NativeAnswer:
        """Invoke the function and wait for its end.

        :param event: bytes go as they are, everything else as JSON.
        :param timeout: seconds, instead of the Lambda's own.
        :param headers: further headers of the invocation, ``Lambda_Runtime_Trace_Id`` for ``Lambda-Runtime-Trace-Id``.
        :raises TimeoutError: the process neither gets ready nor ends within half a minute; it is killed.
        """
        request_id = str(uuid.uuid4())
        cold = self._process is None or self._process.poll() is not None
        if cold and (failure := self._start(request_id)) is not None:
            return NativeAnswer(failure, "Unhandled", "application/json", cold, request_id)
        seconds = self.timeout if timeout is None else timeout
        payload = event if isinstance(event, bytes) else json.dumps({} if event is None else event).encode()
        call = _Call(request_id, payload, time.monotonic() + seconds, self._headers(request_id, seconds, headers))
        self.api.put(call)
        process = self._process
        assert process is not None
        self.api.wait(lambda: call.done is not None or process.poll() is not None, call.deadline)
        self.api.withdraw()
        return self._ended(call, process, seconds, cold)

    def output(self) -> list[str]:
        """Give what all processes so far have written to both streams, in lines."""
        return [line for lines in self._output for line in lines.snapshot()]

    def wait_for_output(self, part: str, timeout: float = 10.0) -> str:
        """Wait until the process of now writes a line that holds ``part``, and give it.

        :raises AssertionError: it does not in time; the message holds what it wrote.
        """
        line = self._output[-1].wait_for(lambda line: part in line, timeout) if self._output else None
        if line is None:
            raise AssertionError(f"{part!r} was not written; there was:\n" + "\n".join(self.output()))
        return line

    def close(self) -> None:
        """End the process and the endpoint. Closing twice is fine."""
        self._kill()
        self.api.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, request_id: str) -> bytes | None:
        """Start the process; give the error document where it cannot be made ready."""
        self._kill()
        self.api.new_runtime()
        began = time.monotonic()
        self._process = process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=self._env,
            cwd=self._cwd,
            start_new_session=True,
        )
        assert process.stdout is not None
        self._output.append(_Lines(process.stdout))
        if not self.api.wait(lambda: self.api.idle or process.poll() is not None, began + _WAIT_FOR_START):
            self._kill()
            raise TimeoutError(f"{self.command} is not ready; it wrote:\n" + "\n".join(self.output()))
        if self.api.idle:
            self.init_seconds.append(time.monotonic() - began)
            return None
        self._output[-1].join(5)
        return self.api.init_error or _exited(request_id, process.returncode)

    def _ended(self, call: _Call, process: subprocess.Popen[str], seconds: float, cold: bool) -> NativeAnswer:
        if call.done is not None:
            kind, body, content_type = call.done
            error = None if kind == "response" else "Unhandled"
            return NativeAnswer(body, error, content_type, cold, call.request_id)
        if process.poll() is not None:
            body = _exited(call.request_id, process.returncode)
        else:
            self._kill()
            text = f"RequestId: {call.request_id} Error: Task timed out after {seconds:.2f} seconds"
            body = json.dumps({"errorType": "Sandbox.Timedout", "errorMessage": text}).encode()
        return NativeAnswer(body, "Unhandled", "application/json", cold, call.request_id)

    def _headers(self, request_id: str, seconds: float, more: Mapping[str, str]) -> dict[str, str]:
        return {
            "Lambda-Runtime-Aws-Request-Id": request_id,
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + seconds) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": self._arn,
            **{name.replace("_", "-"): value for name, value in more.items()},
        }

    def _kill(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._output[-1].join(5)
        self._process = None


def _too_large() -> bytes:
    text = f"Response payload size exceeded maximum allowed payload size ({RESPONSE_PAYLOAD_BYTES} bytes)."
    return json.dumps({"errorType": "Function.ResponseSizeTooLarge", "errorMessage": text}).encode()


def _exited(request_id: str, status: int) -> bytes:
    reason = f"signal: {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    text = f"RequestId: {request_id} Error: Runtime exited with error: {reason}"
    if status == 0:
        text = f"RequestId: {request_id} Error: Runtime exited without providing a reason"
    return json.dumps({"errorType": "Runtime.ExitError", "errorMessage": text}).encode()
