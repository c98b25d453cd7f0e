"""Hosts for tests under one face: on a thread of the test's own process, or in a process of their own.

`serverfull.testing.pytest_plugin` makes them, and they are usable without pytest::

    with ThreadHost({"hello": hello}) as host:
        host.client().invoke(FunctionName="hello")
        assert host.calls[0].result == "Hello!"

A `ThreadHost` has the server, the API and the runtime of ``serverfull serve``, on an event loop in a thread; it lacks
signals. It starts within milliseconds, and tests can share objects with its handlers.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from abc import ABC, abstractmethod
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serverfull.config import LoggingSettings, Settings
from serverfull.testing.clients import lambda_client
from serverfull.testing.process import HostProcess
from serverfull.testing.recording import CallRecorder, RecordingRuntime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from serverfull.domain.functions import Function, Handler
    from serverfull.fetchers.answers import MockAnswers
    from serverfull.interfaces import Fetcher
    from serverfull.testing.recording import Call

START_TIMEOUT = 20.0
"""Seconds until a host must be ready."""

_QUIET = Settings(logging=LoggingSettings(functions="NULL"))
_DRAIN = 2.0
_END = 10.0


class TestHost(ABC):
    """A running host.

    :param url: such as ``http://127.0.0.1:43210``.
    """

    __test__ = False  # pytest takes classes with such names for tests

    url: str

    def __init__(self) -> None:
        self._clients: list[Any] = []

    def client(self, **config: Any) -> Any:
        """Make a Lambda client of boto3 for this host; it is closed with the host.

        :param config: see `lambda_client`.
        :raises ImportError: boto3 is not installed.
        """
        made = lambda_client(self.url, **config)
        self._clients.append(made)
        return made

    @property
    @abstractmethod
    def calls(self) -> Sequence[Call]:
        """The calls that reached functions and have ended, in the order in which they ended."""

    @abstractmethod
    def wait_for_calls(self, count: int = 1, timeout: float = 10.0) -> Sequence[Call]:
        """Wait until so many calls have ended, and give all of them: for invocations of type ``Event``.

        :param timeout: seconds.
        :raises AssertionError: there are fewer; the message holds them.
        """

    @abstractmethod
    def stop(self) -> None:
        """End the host. Stopping twice is fine."""

    def close(self) -> None:
        """End the host and its clients. Closing twice is fine."""
        for client in self._clients:
            client.close()
        self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ThreadHost(TestHost):
    """A host on a thread of this process, which listens on a free port of 127.0.0.1.

    :param functions: a fetcher, or a mapping of names to functions.
    :param mock: answers without running handlers: True for zero values, or where the answers come from.
    :param settings: None means all defaults, and that the functions' log is dropped (``LogType="Tail"`` gives it):
        it would come between the lines of pytest. Address and port are chosen here in any case.
    :raises StartupError: the host cannot start.
    :raises TargetError: a function cannot be served.
    """

    def __init__(
        self,
        functions: Fetcher | Mapping[str, Function | Handler],
        *,
        mock: bool | MockAnswers = False,
        settings: Settings | None = None,
    ) -> None:
        super().__init__()
        self._functions = functions
        self._settings, self._answers = _for_tests(settings or _QUIET, mock)
        self._recorder = CallRecorder()
        self._started: Future[str] = Future()
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=self._run, name="serverfull-test-host", daemon=True)
        contextvars.Context().run(self._thread.start)
        self.url = self._started.result(START_TIMEOUT)

    @property
    def calls(self) -> Sequence[Call]:
        """The calls that reached functions and have ended, in the order in which they ended."""
        return self._recorder.calls()

    def wait_for_calls(self, count: int = 1, timeout: float = 10.0) -> Sequence[Call]:
        """Wait until so many calls have ended, and give all of them."""
        return self._recorder.wait(count, timeout)

    def stop(self) -> None:
        """Let calls in flight end for two seconds, then end the host."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_END)
            assert not self._thread.is_alive(), f"the host did not end within {_END:g} s"

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as failure:  # of the start: told to who waits for it
            if self._started.done():
                raise
            self._started.set_exception(failure)

    async def _serve(self) -> None:
        from serverfull.application import HOST, create_app
        from serverfull.serving import listening

        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = create_app(self._functions, self._settings, mock=self._answers)
        app[HOST].invoker.decorate_runtime(lambda runtime: RecordingRuntime(runtime, self._recorder))
        async with listening(app) as url:
            self._started.set_result(url)
            await self._stop.wait()


def _for_tests(settings: Settings, mock: bool | MockAnswers) -> tuple[Settings, MockAnswers | None]:
    server = replace(settings.server, host="127.0.0.1", port=0, shutdown_timeout=_DRAIN)
    settings = replace(settings, server=server)
    if mock is True:
        from serverfull.fetchers.answers import ZeroAnswers

        return settings, ZeroAnswers()
    return settings, mock or None


class ProcessHost(TestHost):
    """A host in a process of its own: ``serverfull serve TARGET`` on a free port.

    :param target: as on the command line.
    :param mock: True for ``--mock``; or ``"random"`` or a path, for ``--mock --mock-answers``.
    :param args: further arguments of the command.
    :param env: further variables.
    :param cwd: its working directory.
    :raises HostDidNotStart: the process ended, or is not ready in time.
    """

    def __init__(
        self,
        target: str,
        *args: str,
        mock: bool | str | Path = False,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        super().__init__()
        answers = () if isinstance(mock, bool) else ("--mock-answers", str(mock))
        flags = ("--mock", *answers) if mock else ()
        self.process = HostProcess.start(target, *flags, *args, env=env, cwd=cwd, timeout=START_TIMEOUT)
        self.url = self.process.url

    @property
    def calls(self) -> Sequence[Call]:
        """Not here: the calls are in another process.

        :raises NotImplementedError: always; the message says what to do.
        """
        raise NotImplementedError(
            "calls are recorded in the test's own process only: serve the functions themselves, not a TARGET"
        )

    def wait_for_calls(self, count: int = 1, timeout: float = 10.0) -> Sequence[Call]:
        """Not here: see `calls`."""
        return self.calls

    def stop(self) -> None:
        """End the process, and fail if it leaves others behind."""
        self.process.stop()
