"""What `serverfull.testing.runtime_suite` has to know of a runtime, and how it calls the functions that run there."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serverfull.domain.functions import Function, Handler
from serverfull.domain.invocations import Invocation, Outcome
from serverfull.interfaces import FunctionIdentity, Runtime
from serverfull.invocation.invoker import identify

ACCOUNT = "123456789012"
REGION = "eu-west-1"
"""Where the suite calls functions."""

DEADLINE = 45.0
"""Seconds until a test gives up waiting. Nothing takes that long."""

_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientManners:
    """What the runtime client of a language does in its own way, on AWS as here.

    :param write: gives the bytes of a result.
    :param unwritable: the ``errorType`` where a result cannot be written.
    :param trace: the member of an error document that has the stack trace.
    :param tells_request_id: error documents have a ``requestId``.
    :param logs_errors: what a handler raises is written to its log too.
    """

    write: Callable[[Any], bytes]
    unwritable: str = "Runtime.MarshalError"
    trace: str = "stackTrace"
    tells_request_id: bool = True
    logs_errors: bool = True


def _compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


PYTHON = ClientManners(write=lambda value: json.dumps(value, ensure_ascii=False).encode())
"""Python 3.12 or later."""

PYTHON_BEFORE_3_12 = ClientManners(write=lambda value: json.dumps(value).encode())
"""Escapes what is not ASCII."""

NODE = ClientManners(write=_compact, unwritable="Runtime.JSONStringifyError", trace="trace", tells_request_id=False)
"""Node.js 24 or later."""

NODE_BEFORE_24 = ClientManners(write=_compact, unwritable="Error", trace="trace", tells_request_id=False)

BOOTSTRAP = ClientManners(write=PYTHON.write, logs_errors=False)
"""The deeds' own bootstrap."""


def runs_here(pid: int) -> bool:
    """Say whether a process of this machine runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeKit:
    """A runtime to be tested.

    :param runtime: the runtime, ready to be used on the test's loop.
    :param new_function: gives the handler of a function that does what `serverfull.testing.deeds` says, each time a new
        one that shares nothing with the others; and an empty folder that its code and the tests see under the same path
        and may write to.
    :param client: what is special to the client that runs its code.
    :param close: ends the runtime; closing twice is fine.
    :param restores: whether environments are restored from a snapshot, as AWS's SnapStart has it.
    :param runs: says whether a process runs, by the id that a function knows it by.
    """

    runtime: Runtime
    new_function: Callable[[], tuple[Handler, Path]]
    client: ClientManners
    close: Callable[[], Awaitable[object]]
    restores: bool = False
    runs: Callable[[int], bool] = runs_here

    @property
    def initialization(self) -> str:
        """What functions find in ``AWS_LAMBDA_INITIALIZATION_TYPE``."""
        return "snap-start" if self.restores else "on-demand"

    async def ended(self, pid: int) -> bool:
        """Wait until a process has ended; False where it does not."""
        try:
            async with asyncio.timeout(DEADLINE):
                while self.runs(pid):  # noqa: ASYNC110 (processes tell only their parents)
                    await asyncio.sleep(0.01)
        except TimeoutError:
            return False
        return True


class Log:
    """What an invocation writes."""

    def __init__(self, log_stream: str) -> None:
        self.log_stream = log_stream
        self._parts: list[str] = []

    def write(self, text: str) -> None:
        """Take a part."""
        self._parts.append(text)

    def initialising(self, how: str, at: float, runtime: str = "") -> None:
        """Hear that code is loaded."""

    def initialised(self, seconds: float, status: str, error_type: str = "") -> None:
        """Hear how that has ended."""

    def extension(self, name: str, state: str, events: Sequence[str], error_type: str) -> None:
        """Hear how an extension began."""

    def subscribed(self, api: str, name: str, types: Sequence[str]) -> None:
        """Hear that an extension has subscribed to telemetry."""

    def timed_out(self) -> None:
        """Hear that extensions were not done in time."""

    def restoring(self, at: float, runtime: str) -> None:
        """Hear that the environment is made of a snapshot."""

    def restored(self, seconds: float, billed: float, status: str, error_type: str = "") -> None:
        """Hear how that has ended."""

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self._parts)


@dataclass(frozen=True, slots=True)
class Ran:
    """An invocation that has ended."""

    request_id: str
    outcome: Outcome
    log: Log

    @property
    def result(self) -> Any:
        """What the handler gave."""
        assert self.outcome.function_error is None, self.outcome.payload
        assert self.outcome.status == "success"
        return json.loads(self.outcome.payload)

    @property
    def error(self) -> dict[str, Any]:
        """The error document."""
        assert self.outcome.function_error == "Unhandled", self.outcome.payload
        assert self.outcome.content_type == "application/json"
        document: dict[str, Any] = json.loads(self.outcome.payload)
        return document

    @property
    def reason(self) -> tuple[str, str]:
        """Type and message of the error, without the request id that messages of the service begin with."""
        error = self.error
        return error["errorType"], error["errorMessage"].removeprefix(f"RequestId: {self.request_id} Error: ")


@dataclass(frozen=True, slots=True)
class Deployed:
    """A function that does the deeds, with its environment.

    :param options: of `Function`.
    """

    kit: RuntimeKit
    folder: Path
    identity: FunctionIdentity
    environment: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "environment", self.kit.runtime.environment(self.identity))

    async def run(self, payload: bytes, **sent: Any) -> Ran:
        """Run one invocation.

        :param sent: members of `Invocation`.
        """
        log = Log(self.identity.log_stream)
        request_id = str(uuid.uuid4())
        values = {"qualifier": None, "account": ACCOUNT, "region": REGION, **sent}
        invocation = Invocation(request_id, self.identity.name, payload=payload, **values)
        async with asyncio.timeout(DEADLINE):
            return Ran(request_id, await self.environment.run(invocation, log), log)

    async def do(self, deed: str, **how: Any) -> Ran:
        """Run one invocation that does a deed."""
        return await self.run(json.dumps({"do": deed, **how}).encode())

    async def count(self) -> int:
        """Give the calls of the environment that runs one more."""
        return int((await self.do("count")).result["calls"])

    async def pid(self) -> int:
        """Give the process of the environment that runs one more."""
        return int((await self.do("count")).result["pid"])


def deploy(kit: RuntimeKit, variables: Callable[[Path], dict[str, str]] | None = None, **options: Any) -> Deployed:
    """Make a function.

    :param variables: gives its environment variables, from its folder.
    :param options: of `Function`.
    """
    handler, folder = kit.new_function()
    environment = {} if variables is None else variables(folder)
    function = Function(handler, **{"timeout": 30, "memory_size": 256, "environment": environment, **options})
    return Deployed(kit, folder, identify(f"deeds-{next(_NUMBERS)}", function, 3, 128))


@dataclass(frozen=True, slots=True)
class Meeting:
    """Calls of a function that run, each at the same time as the others, until the test lets them end."""

    place: Path
    calls: list[asyncio.Task[Ran]]

    async def end(self) -> list[Ran]:
        """Let them end, and wait for them."""
        (self.place / "last").touch()
        return await asyncio.gather(*self.calls)


@asynccontextmanager
async def meeting(function: Deployed, *names: str) -> AsyncIterator[Meeting]:
    """Begin calls, one for each name, and wait until all of them run; they are given up with the context."""
    place = function.folder / "meeting"
    place.mkdir()
    deeds = (function.do("meet", folder=str(place), name=name, count=len(names) + 1) for name in names)
    calls = [asyncio.create_task(deed) for deed in deeds]
    try:
        async with asyncio.timeout(DEADLINE):
            while len(list(place.iterdir())) < len(names):  # noqa: ASYNC110 (they run elsewhere)
                await asyncio.sleep(0.01)
        yield Meeting(place, calls)
    finally:
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
