"""The Lambda Runtime API (2018-06-01) of one sandbox: gives its process invocations, and takes their results.

Each sandbox has a listener of its own: a Unix socket for our own runtime client, a loopback port for clients that know
only host and port. States, statuses and bodies are those of AWS's Runtime Interface Emulator; two things differ:

* a runtime that asks whether it is restored is told so at once, unless it is the one that a snapshot is made of;
* a result that is streamed is collected, and given as a whole.

What extensions ask is answered by the sandbox's `Extensions`, where it has them: a function that our own client runs
has a `Door` for that instead. Without them their API answers 404, and those of logs and telemetry that they are not
supported.

Everything here runs on the host's loop. What a runtime sends is bounded by `connection`.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from pathlib import Path
from socket import socket as Socket  # noqa: N812 - a parameter has its name
from typing import TYPE_CHECKING

from serverfull.domain.limits import RESPONSE_PAYLOAD_BYTES
from serverfull.runtimes.runtime_api.connection import RESPONSE_MODE, STREAMING, Connection, error_document
from serverfull.runtimes.runtime_api.extension_messages import LOGS, ROUTES, TELEMETRY, refuse_telemetry
from serverfull.runtimes.runtime_api.messages import (
    JSON_TYPE,
    Answer,
    Work,
    error_answer,
    invocation_fields,
    platform_answer,
    result_answer,
    start_answer,
)

if TYPE_CHECKING:
    from serverfull.runtimes.runtime_api.extensions import Extensions
    from serverfull.runtimes.runtime_api.http import Request

__all__ = ["Answer", "RuntimeApi", "RuntimeApiClosed", "Work"]

MOST_CONNECTIONS = 64
"""Connections to one sandbox. A runtime has one or two."""

_NEXT = ("GET", "/2018-06-01/runtime/invocation/next")
_OF_PAGES = frozenset({"origin", "sec-fetch-site"})
"""Headers that browsers send for web pages."""

# How our own client goes on behind the path of a result.
_RESULT_HEAD = " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
_ANSWER_PATH = re.compile(r"/2018-06-01/runtime/invocation/([^/]+)/(response|error)")

# The states of a runtime, by the names that AWS's messages give them.
_STARTED = "Started"
_INIT_ERROR = "InitError"
_RESTORING = "Restoring"
_RESTORE_ERROR = "RestoreError"
_READY = "Ready"
_RUNNING = "Running"
_SENT = "RuntimeResponseSentState"


class RuntimeApiClosed(Exception):
    """The Runtime API was closed while somebody waited for the runtime."""


class RuntimeApi:
    """The Runtime API of one sandbox; made by `open`.

    :param limit: bytes of a result, at most.
    :param extensions: who may ask here too; None: extensions are not supported.
    :ivar address: ``127.0.0.1:39121`` or the path of the socket: what ``AWS_LAMBDA_RUNTIME_API`` is set to.
    :ivar hindrance: why a runtime that is to be a snapshot says that it cannot be one; empty: it can.
    :ivar on_abuse: called when something is asked that a faultless client does not ask, so that the function itself
        must have spoken; None: any client may come, and be wrong.
    """

    def __init__(self, limit: int = RESPONSE_PAYLOAD_BYTES, extensions: Extensions | None = None) -> None:
        self.address = ""
        self._limit = limit
        self._extensions = extensions
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.Server | None = None
        self._socket: Path | None = None
        self._peer: str | None = None
        self._connections: set[Connection] = set()
        self._all_gone: asyncio.Future[None] | None = None
        self._state = _STARTED
        self._init_error: Answer | None = None
        self._polls: deque[Connection] = deque()  # that wait for an invocation, the oldest on the left
        self._work: Work | None = None
        self.expected = b""
        self._question: Request | None = None  # for the next invocation, as it was asked last
        self._delivered = False
        self._cut_off = ""  # the id of one whose answer has ended in the middle, with its connection
        self._answered = ""  # the id of the invocation that was answered last
        self._answer: asyncio.Future[Answer] | None = None
        self._starts: list[asyncio.Future[None]] = []
        self._is_snapshot = False
        self._held: list[Connection] | None = None  # those that ask to be restored; None: none is to wait
        self.hindrance = ""
        self._ended: BaseException | None = None
        self.on_abuse: Callable[[], object] | None = None
        self._routes = {
            _NEXT: self._next,
            ("POST", "/2018-06-01/runtime/init/error"): self._fail_init,
            ("GET", "/2018-06-01/runtime/restore/next"): self._restore,
            ("POST", "/2018-06-01/runtime/restore/error"): self._fail_restore,
            ("GET", "/2018-06-01/ping"): self._ping,
            **dict.fromkeys(ROUTES, self._extend),
        }
        self._paths = {path for _, path in self._routes}

    @classmethod
    async def open(
        cls,
        *,
        socket: Path | None = None,
        host: str = "127.0.0.1",
        limit: int = RESPONSE_PAYLOAD_BYTES,
        extensions: Extensions | None = None,
    ) -> RuntimeApi:
        """Listen.

        :param socket: the path of a Unix socket; None: a port of ``host`` that the system chooses.
        :param limit: bytes of a result, at most.
        :param extensions: who may ask here too; None: extensions are not supported.
        :raises OSError: that is not possible.
        """
        api = cls(limit, extensions)
        loop = asyncio.get_running_loop()
        if socket is not None:
            api._server, api._socket = await loop.create_unix_server(api._connected, str(socket)), socket
            api.address = str(socket)
        else:
            api._server = await loop.create_server(api._connected, host, 0)
            port = api._server.sockets[0].getsockname()[1]
            api.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return api

    @classmethod
    def unheard(cls, address: str, extensions: Extensions | None = None) -> RuntimeApi:
        """Make one that nobody can reach before `hear` is called.

        :param address: where it will listen.
        :param extensions: who may ask here too; None: extensions are not supported.
        """
        api = cls(extensions=extensions)
        api.address = address
        return api

    # ---------------------------------------------------------------------------------------------- what the host calls

    async def hear(self, listener: Socket, peer: str) -> None:
        """Take connections, those that wait already too.

        :param listener: listens at the address; closed with this.
        :param peer: the address that they may come from; those from others are closed unread.
        """
        self._peer = peer
        self._server = await self._loop.create_server(self._connected, sock=listener)

    @property
    def begun(self) -> bool:
        """Whether the runtime has asked for an invocation, or said that it cannot."""
        return self._state != _STARTED

    async def initialised(self) -> Answer | None:
        """Wait until the runtime has loaded the function.

        :return: None where it asked for an invocation; what it posted where it could not load the function.
        :raises BaseException: the reason that was given to `end`.
        """
        while self._state in {_STARTED, _RESTORING}:
            self._raise_if_ended()
            start = self._loop.create_future()
            self._starts.append(start)
            await start
        return self._init_error

    def keep_snapshot(self) -> None:
        """Do not answer a runtime that asks to be restored: it stays what others are made of."""
        self._is_snapshot = True

    def restored(self, *, held: bool = False) -> None:
        """Expect a runtime that has asked to be restored elsewhere.

        :param held: it asks here once more, and goes on when `release` is called.
        """
        if held:
            self._held = []
        else:
            self._state = _RESTORING

    def release(self) -> None:
        """Let a runtime go on that is held."""
        held, self._held = self._held or (), None
        for connection in held:
            connection.answer(200, b"", "")

    async def loaded(self) -> Answer | None:
        """Wait until the runtime of a snapshot has loaded the function, and asks to be restored.

        :return: what it posted where it could not; None: it could.
        :raises BaseException: the reason that was given to `end`.
        """
        while self._state == _STARTED:
            self._raise_if_ended()
            start = self._loop.create_future()
            self._starts.append(start)
            await start
        return self._init_error

    def run(self, work: Work) -> asyncio.Future[Answer]:
        """Give an invocation to the runtime; one at a time.

        :return: what it answers, or the reason that was given to `end` or `interrupt`. When that is cancelled, the
            runtime's answer is refused.
        """
        self._delivered = False
        answer: asyncio.Future[Answer] = self._loop.create_future()
        if self._ended is not None:
            answer.set_exception(self._ended.with_traceback(None))
            return answer
        if self._init_error is not None:
            answer.set_result(self._init_error)
            return answer
        if self._answer is not None and not self._answer.done():
            raise RuntimeError("A sandbox runs one invocation at a time.")
        self.expected = f"POST /2018-06-01/runtime/invocation/{work.request_id}/response{_RESULT_HEAD}".encode()
        self._work, self._answer = work, answer
        if self._polls:
            self._deliver(self._polls.popleft(), work)
        return answer

    @property
    def delivered(self) -> bool:
        """Whether the runtime has been given the invocation that `run` was last called with."""
        return self._delivered

    def interrupt(self, why: BaseException) -> None:
        """Give whoever waits for an answer this exception; nothing happens where it is here already."""
        answer = self._answer
        self._forget_work()  # at once: the exception leads to the function's code, and nothing here may lead to it
        if answer is not None and not answer.done():
            answer.set_exception(why)

    def _forget_work(self) -> None:
        self._work = self._answer = None
        self.expected = b""

    def end(self, why: BaseException) -> None:
        """Say that the process is gone: whoever waits now, or will wait, gets this exception, the first one given."""
        if self._ended is None:
            self._ended = why
        self.interrupt(self._ended)
        self._wake_starts()

    async def aclose(self) -> None:
        """Close the listener and all connections. Closing twice is fine."""
        self.end(RuntimeApiClosed("The Runtime API is closed."))
        self.on_abuse = None
        if self._ended is not None:  # the frames that it went through lead to the function's code, which is to end too
            self._ended.__traceback__ = None
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)
        if self._connections:
            self._all_gone = self._loop.create_future()
            for connection in tuple(self._connections):
                connection.abort()
            await self._all_gone

    def _raise_if_ended(self) -> None:
        if self._ended is not None:
            raise self._ended.with_traceback(None)

    def _wake_starts(self) -> None:
        for start in self._starts:
            if not start.done():
                start.set_result(None)
        self._starts.clear()

    # ------------------------------------------------------------------------------------------------------ connections

    def _connected(self) -> Connection:
        connection = Connection(self, self._limit, welcome=len(self._connections) < MOST_CONNECTIONS, peer=self._peer)
        self._connections.add(connection)
        return connection

    def lost(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self._connections.discard(connection)
        unfinished = connection.unfinished
        if unfinished is not None and (matched := _ANSWER_PATH.fullmatch(unfinished.path)) is not None:
            self._cut_off = matched[1]
        if connection in self._polls:
            self._polls.remove(connection)
        if self._extensions is not None:
            self._extensions.lost(connection)
        if not self._connections and self._all_gone is not None and not self._all_gone.done():
            self._all_gone.set_result(None)

    def refused(self) -> None:
        """Tell of a request that was refused, where that is of interest."""
        if self.on_abuse is not None:
            self.on_abuse()

    def serve(self, connection: Connection, request: Request) -> None:
        """Answer a request, or keep it until there is an invocation."""
        if not request.fields.keys().isdisjoint(_OF_PAGES):
            connection.answer(403, error_document("Forbidden", "Web pages may not call the Runtime API."))
            return
        route = self._routes.get((request.method, request.path))
        if route is not None:
            route(connection, request)
        elif (matched := _ANSWER_PATH.fullmatch(request.path)) is not None and request.method == "POST":
            self._take_answer(connection, request, matched[1], matched[2])
        elif matched is not None or request.path in self._paths:
            message = f"{request.path} does not take {request.method}."
            connection.answer(405, error_document("MethodNotAllowed", message))
        else:
            connection.answer(404, error_document("NotFound", f"There is no {request.path} in the Runtime API."))

    def refuse_long(self, connection: Connection, request: Request) -> None:
        """Answer a request whose body is over the limit: as an invocation's answer it is an error of the function."""
        matched = _ANSWER_PATH.fullmatch(request.path)
        if matched is not None and request.method == "POST":
            text = f"Response payload size exceeded maximum allowed payload size ({self._limit} bytes)."
            if not self._may_answer(connection, matched[1], matched[2]):
                return
            self._resolve(platform_answer("Function.ResponseSizeTooLarge", text))
        text = f"Exceeded maximum allowed payload size ({self._limit} bytes)."
        connection.answer(413, error_document("RequestEntityTooLarge", text))

    # ----------------------------------------------------------------------------------------------------- invocations

    def _next(self, connection: Connection, request: Request) -> None:
        state, work = self._state, self._work
        if state in {_INIT_ERROR, _RESTORE_ERROR}:
            self._forbid(connection, _READY)
        elif state == _RUNNING and work is not None and self.on_abuse is not None:
            self._forbid(connection, _READY)  # our own client asks again when it has answered
        elif state == _RUNNING and work is not None and self._cut_off != work.request_id:
            self._deliver(connection, work)  # it asks again, perhaps from a process that takes over from one that died
        else:
            if state == _RUNNING and work is not None:  # what has half an answer must not be run once more
                text = "The response has ended before it was complete."
                self._resolve(platform_answer("Runtime.TruncatedResponse", text))
            if state != _READY:
                self._state = _READY
                self._wake_starts()
            if work is not None and not self._delivered:
                self._deliver(connection, work)
            else:
                self._polls.append(connection)

    def take_turn(self, connection: Connection, question: Request, body: bytes) -> bool:
        """Take a result, and the question for the next invocation as `_next` does."""
        answer = self._answer
        if answer is None or answer.done() or self._state != _RUNNING:
            return False
        if question is not self._question:
            if (question.method, question.path) != _NEXT or not question.fields.keys().isdisjoint(_OF_PAGES):
                return False
            self._question = question
        self._resolve(Answer(body, content_type=JSON_TYPE))
        self._state = _READY
        self._polls.append(connection)
        return True

    def _deliver(self, connection: Connection, work: Work) -> None:
        self._state, self._delivered = _RUNNING, True
        connection.answer(200, work.payload, invocation_fields(work))

    def _take_answer(self, connection: Connection, request: Request, request_id: str, kind: str) -> None:
        if not self._may_answer(connection, request_id, kind):
            return
        mode = request.fields.get(RESPONSE_MODE, STREAMING)
        if kind == "error":
            self._resolve(error_answer(request))
        elif mode == STREAMING:
            self._resolve(result_answer(request))
        else:
            message = "Invalid function response mode"
            self._resolve(platform_answer("Runtime.InvalidResponseModeHeader", message))
            connection.answer(400, error_document("InvalidFunctionResponseMode", message))
            return
        connection.accept()

    def _may_answer(self, connection: Connection, request_id: str, kind: str) -> bool:
        """Say whether that invocation waits for an answer; the request is answered where it does not."""
        waits = self._answer is not None and not self._answer.done()
        current = waits and self._work is not None and self._work.request_id == request_id
        if current and self._state == _RUNNING:
            return True
        if (current and not self._delivered) or (request_id == self._answered and self._state == _SENT):
            self._forbid(connection, "InvocationResponse" if kind == "response" else "InvocationErrorResponse")
        else:
            connection.answer(400, error_document("InvalidRequestID", "Invalid request ID"))
        return False

    def _resolve(self, answer: Answer) -> None:
        work, waiting = self._work, self._answer
        assert work is not None
        self._state, self._answered = _SENT, work.request_id
        self._forget_work()
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    # --------------------------------------------------------------------------------------------- start and restoring

    def _fail_init(self, connection: Connection, request: Request) -> None:
        if self._state in {_STARTED, _RESTORING}:
            self._fail(connection, request, _INIT_ERROR if self._state == _STARTED else _RESTORE_ERROR)
        else:
            self._forbid(connection, _INIT_ERROR)

    def _restore(self, connection: Connection, request: Request) -> None:
        if self._state == _STARTED:
            self._state = _RESTORING
            if self._is_snapshot:
                self.hindrance = request.fields.get("serverfull-hindrance", "")
                self._wake_starts()
            elif self._held is not None:
                self._held.append(connection)
            else:
                connection.answer(200, b"", "")
        else:
            self._forbid(connection, _READY)

    def _fail_restore(self, connection: Connection, request: Request) -> None:
        if self._state == _RESTORING:
            self._fail(connection, request, _RESTORE_ERROR)
        else:
            self._forbid(connection, _RESTORE_ERROR)

    def _fail(self, connection: Connection, request: Request, state: str) -> None:
        self._init_error = start_answer(request)
        self._state = state
        self._wake_starts()
        connection.accept()

    def _forbid(self, connection: Connection, wanted: str) -> None:
        message = (
            f"State transition from {self._state} to {wanted} failed for runtime. "
            "Error: State transition is not allowed"
        )
        connection.answer(403, error_document("InvalidStateTransition", message))

    # ----------------------------------------------------------------------------------------------------- other paths

    def _ping(self, connection: Connection, request: Request) -> None:
        connection.answer(200, b"pong", "Content-Type: text/plain; charset=utf-8\r\n")

    def _extend(self, connection: Connection, request: Request) -> None:
        if self._extensions is not None:
            self._extensions.serve(connection, request)
        elif request.path.startswith((TELEMETRY, LOGS)):
            refuse_telemetry(connection, request.path)
        else:
            connection.answer(404, error_document("Extension.NotSupported", "Extensions are not supported"))
