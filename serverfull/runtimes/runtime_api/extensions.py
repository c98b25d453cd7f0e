"""The Lambda Extensions API (2020-01-01) of one sandbox: which extensions it has, and what each of them waits for.

External extensions are programs that a launcher starts before the runtime; it says so by `Extensions.expect`. Internal
ones are part of the runtime's process, and come by registering under a name that nobody has. What they ask comes with
the requests that `RuntimeApi`, or a `Door` beside it, passes on to `Extensions.serve`. The sandbox tells them of
invocations and of its end, and waits until they are done.

States are those of AWS's Runtime Interface Emulator. One thing differs: an extension whose connection broke while it
waited may ask again.

Everything here runs on the host's loop.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from serverfull.runtimes.runtime_api import extension_messages as messages
from serverfull.runtimes.runtime_api.extension_messages import (
    EXIT_ERROR,
    INIT_ERROR,
    INVOKE,
    NEXT,
    REGISTER,
    SHUTDOWN,
)

if TYPE_CHECKING:
    from serverfull.runtimes.runtime_api.connection import Connection
    from serverfull.runtimes.runtime_api.extension_messages import Api
    from serverfull.runtimes.runtime_api.http import Request
    from serverfull.runtimes.runtime_api.messages import Work

MOST_EXTENSIONS = 10
"""Extensions of a function, internal ones too."""

TOO_MANY = f"Extension limit ({MOST_EXTENSIONS}) reached"
"""What is said where there are more."""

ENDING = 1.0
"""Seconds that an external extension has to end after it has reported an error, until the environment ends without."""

# The states of an extension, by the names that AWS's messages give them.
STARTED = "Started"
REGISTERED = "Registered"
READY = "Ready"
RUNNING = "Running"
INIT_FAILED = "InitError"
EXIT_FAILED = "ExitError"
LAUNCH_FAILED = "LaunchError"


class ExtensionFailed(Exception):
    """An extension has failed, and the environment with it.

    :param error_type: as AWS names it, such as ``Extension.Crash``.
    :param why: as AWS words it, such as ``exit status 1``.
    """

    def __init__(self, error_type: str, why: str) -> None:
        super().__init__(error_type, why)
        self.error_type = error_type
        self.why = why


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionFacts:
    """What extensions are told of their function."""

    name: str
    version: str
    handler: str
    account: str


class Subscriptions(Protocol):
    """Takes the subscriptions of extensions to telemetry."""

    def subscribe(self, name: str, api: Api, body: bytes) -> tuple[int, bytes]:
        """Take a subscription, or refuse it; gives the status and the body of the answer.

        :param name: of the extension.
        :param api: by which it is asked for.
        """


@dataclass(slots=True, eq=False)
class Extension:
    """One extension.

    :param external: it is a process of its own.
    :ivar events: that it is registered for.
    :ivar waits: the connection by which it has asked for its next event.
    :ivar pending: an event that is for it, and that it has not asked for yet.
    """

    name: str
    external: bool
    identifier: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: str = STARTED
    events: Sequence[str] = ()
    error_type: str = ""
    waits: Connection | None = None
    pending: bytes | None = None
    ended: bool = False


class Extensions:
    """The extensions of one sandbox.

    :param facts: of its function.
    :param write: gets what an external extension writes to its log, by its name.
    :ivar deadline: seconds of the monotonic clock until which external ones must have registered.
    :ivar subscriptions: takes those to telemetry; None: there are none.
    :ivar on_failure: called once, when an extension has failed and the sandbox is of no use any more.
    """

    def __init__(self, facts: FunctionFacts, write: Callable[[str, str], object], deadline: float) -> None:
        self._facts = facts
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._ending = False
        self._changes: list[asyncio.Future[None]] = []
        self._failed: ExtensionFailed | None = None
        self.all: list[Extension] = []
        self.deadline = deadline
        self.subscriptions: Subscriptions | None = None
        self.on_failure: Callable[[ExtensionFailed], object] | None = None
        self._routes: dict[str, Callable[[Connection, Request], None]] = {
            REGISTER: self._register,
            NEXT: self._next,
            INIT_ERROR: partial(self._take_error, of_init=True),
            EXIT_ERROR: partial(self._take_error, of_init=False),
            **{path: self._subscribe for method, path in messages.ROUTES if method == "PUT"},
        }

    # ------------------------------------------------------------------------------------------- what a launcher calls

    def expect(self, name: str) -> Callable[[str], object]:
        """Say that an external extension is about to be started; gives what takes its output.

        :raises ExtensionFailed: there are too many.
        """
        self.all.append(extension := Extension(name, external=True))
        if len(self.all) > MOST_EXTENSIONS:
            self._launch_failed(extension, "TooManyExtensions", TOO_MANY)
        return partial(self._write, name)

    def unstartable(self, name: str, why: str) -> None:
        """Say that an external extension cannot be executed.

        :param why: as the system words it.
        :raises ExtensionFailed: always.
        """
        denied = "permission denied" in why
        self._launch_failed(self._named(name), "PermissionDenied" if denied else "UnknownError", why)

    def has_registered(self, name: str) -> bool:
        """Whether an external extension has."""
        return self._named(name).state != STARTED

    async def registered(self) -> None:
        """Wait until all external extensions have registered: the runtime is started after that.

        :raises ExtensionFailed: one has failed.
        :raises TimeoutError: one has not registered by the deadline.
        """
        async with asyncio.timeout(max(0.0, self.deadline - time.monotonic())):
            await self._until(lambda: all(extension.state != STARTED for extension in self.all if extension.external))

    async def failing(self, seconds: float) -> None:
        """Give one so long to fail, where something has gone wrong that may be its doing.

        :raises ExtensionFailed: one has failed.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._until(lambda: False)

    def ended(self, name: str, why: str) -> None:
        """Say that the process of an external extension has ended.

        :param why: as AWS words it; empty for status 0.
        """
        extension = self._named(name)
        extension.ended = True
        if self._ending:
            self._changed()
        else:
            self._fail(_type_of(extension), why or "exit code 0")

    # ------------------------------------------------------------------------------------------- what the sandbox calls

    @property
    def external(self) -> bool:
        """Whether there are extensions with processes of their own."""
        return any(extension.external for extension in self.all)

    @property
    def busy(self) -> bool:
        """Whether one is not done with the event that it was given last."""
        return any(extension.state == RUNNING for extension in self.all)

    async def ready(self) -> None:
        """Take no more of them, and wait until all have asked for their first event.

        :raises ExtensionFailed: one has failed.
        """
        self._open = False
        await self._until(lambda: all(extension.state in {READY, RUNNING} for extension in self.all))

    def invoke(self, work: Work) -> None:
        """Tell of an invocation."""
        told = [extension for extension in self.all if INVOKE in extension.events]
        if told:
            self._send(messages.invocation_event(work), told)

    async def settled(self) -> None:
        """Wait until all are done with the invocation.

        :raises ExtensionFailed: one has failed.
        """
        await self._until(lambda: not self.busy)

    async def shut_down(self, reason: str, deadline_ms: int) -> None:
        """Tell those that want to know it of the end, and wait until they have ended, without a deadline of its own.

        :param reason: ``spindown``, ``timeout`` or ``failure``.
        :param deadline_ms: when they will be killed, in milliseconds since the epoch.
        """
        self.expect_ends()
        told = [extension for extension in self.all if SHUTDOWN in extension.events and not extension.ended]
        self._send(messages.shutdown_event(reason, deadline_ms), told)
        self._failed = None
        await self._until(lambda: all(extension.ended for extension in told))

    def expect_ends(self) -> None:
        """Say that it is no failure from now on when one ends."""
        self._ending, self._open = True, False

    def lost(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        for extension in self.all:
            if extension.waits is connection:
                extension.waits = None

    # -------------------------------------------------------------------------------------------------------- requests

    def serve(self, connection: Connection, request: Request) -> None:
        """Answer a request to one of the `ROUTES`, now or when there is an event."""
        self._routes[request.path](connection, request)

    def _register(self, connection: Connection, request: Request) -> None:
        name = request.fields.get("lambda-extension-name", "")
        if not name:
            messages.refuse(connection, "Extension.InvalidExtensionName", "Empty extension name")
            return
        try:
            events = messages.read_events(request.body)
        except ValueError as wrong:
            messages.refuse(connection, "InvalidRequestFormat", str(wrong))
            return
        extension = next((known for known in self.all if known.name == name), None)
        external = extension is not None and extension.external
        for event in events:
            if event not in ((INVOKE, SHUTDOWN) if external else (INVOKE,)):
                messages.refuse_event(connection, event, external=external)
                return
        if extension is None:
            extension = self._new_internal(connection, name)
            if extension is None:
                return
        elif not external:
            text = "Extension with this name already registered"
            messages.refuse(connection, "Extension.InvalidExtensionState", text)
            return
        if extension.state != STARTED:
            messages.refuse_transition(connection, extension.state, REGISTERED, extension.name)
            return
        extension.state, extension.events = REGISTERED, events
        messages.introduce(connection, request, self._facts, extension.identifier)
        self._changed()

    def _new_internal(self, connection: Connection, name: str) -> Extension | None:
        """Make an internal extension; the request is answered where that may not be."""
        if not self._open:
            messages.refuse(connection, "Extension.RegistrationClosed", "Extension registration closed already")
        elif len(self.all) >= MOST_EXTENSIONS:
            messages.refuse(connection, "Extension.TooManyExtensions", TOO_MANY)
        else:
            self.all.append(extension := Extension(name, external=False))
            return extension
        return None

    def _next(self, connection: Connection, request: Request) -> None:
        extension = self._identified(connection, request)
        if extension is None:
            return
        again = extension.state == READY and extension.waits is None  # its connection has broken
        if extension.state not in {REGISTERED, RUNNING} and not again:
            messages.refuse_transition(connection, extension.state, READY, extension.identifier)
            return
        extension.state, extension.waits = READY, connection
        event, extension.pending = extension.pending, None
        if event is not None:
            _deliver(extension, event)
        self._changed()

    def _take_error(self, connection: Connection, request: Request, *, of_init: bool) -> None:
        extension = self._identified(connection, request)
        if extension is None:
            return
        state = INIT_FAILED if of_init else EXIT_FAILED
        error_type = messages.read_error_type(connection, request)
        if not error_type:
            return
        if extension.state == state:
            messages.accept(connection)  # the first one counts
        elif extension.state not in ({REGISTERED} if of_init else {REGISTERED, READY, RUNNING}):
            messages.refuse_transition(connection, extension.state, state, extension.identifier)
        else:
            extension.state, extension.error_type = state, error_type
            messages.accept(connection)
            # It is to end now. AWS reports how.
            wait = ENDING if extension.external and not self._ending else 0.0
            self._loop.call_later(wait, self._fail, _type_of(extension), error_type)

    def _subscribe(self, connection: Connection, request: Request) -> None:
        extension = self._identified(connection, request)
        if extension is None:
            return
        if self.subscriptions is None:
            messages.refuse_telemetry(connection, request.path)
            return
        connection.answer(*self.subscriptions.subscribe(extension.name, messages.api_of(request.path), request.body))

    def _identified(self, connection: Connection, request: Request) -> Extension | None:
        """Find who asks; the request is answered where that is nobody."""
        known = messages.read_identifier(connection, request)
        if known is None:
            return None
        for extension in self.all:
            if extension.identifier == known and extension.state != STARTED:
                return extension
        messages.refuse(connection, "Extension.UnknownExtensionIdentifier", f"Unknown extension {known}")
        return None

    # ----------------------------------------------------------------------------------------------------------- inside

    def _named(self, name: str) -> Extension:
        return next(extension for extension in self.all if extension.name == name)

    def _send(self, event: bytes, to: Sequence[Extension]) -> None:
        for extension in to:
            if extension.state == READY and extension.waits is not None:
                _deliver(extension, event)
            else:
                extension.pending = event
                if extension.state == READY:
                    extension.state = RUNNING

    async def _until(self, reached: Callable[[], bool]) -> None:
        while True:
            if self._failed is not None:
                raise self._failed.with_traceback(None)
            if reached():
                return
            change = self._loop.create_future()
            self._changes.append(change)
            await change

    def _changed(self) -> None:
        for change in self._changes:
            if not change.done():
                change.set_result(None)
        self._changes.clear()

    def _launch_failed(self, extension: Extension, error_type: str, why: str) -> None:
        extension.state, extension.error_type = LAUNCH_FAILED, error_type
        self._fail("Extension.LaunchError", why)
        raise ExtensionFailed("Extension.LaunchError", why)

    def _fail(self, error_type: str, why: str) -> None:
        if self._failed is not None or self._ending:
            return
        self._failed = ExtensionFailed(error_type, why)
        self._changed()
        if self.on_failure is not None:
            self.on_failure(self._failed)


def _type_of(extension: Extension) -> str:
    """Give AWS's name for what happens when an extension ends."""
    return f"Extension.{extension.state}" if extension.state in {INIT_FAILED, EXIT_FAILED} else "Extension.Crash"


def _deliver(extension: Extension, event: bytes) -> None:
    connection, extension.waits = extension.waits, None
    assert connection is not None
    extension.state = RUNNING
    messages.deliver(connection, event, extension.identifier)
