"""Asks the Docker engine, on threads: the ``docker`` package blocks, and the engine may be slow, gone, or hung.

Each question is one call of a function with the engine's client. What the engine itself refuses comes as the
package's `APIError`; that it cannot be asked at all, as `EngineGone`.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_Answer = TypeVar("_Answer")

PATIENCE = 10.0
"""Seconds that the engine may take to answer. Starting a container takes a fifth of one."""

_PING_PATIENCE = 1.0
"""Seconds that an engine which did not answer before may take to say that it does again."""

_THREADS = 16
"""Questions at once. The engine itself starts a few containers at a time."""

_UNIX = "unix://"

EXTRA = "the package docker is not installed: pip install 'serverfull[docker]'"


class EngineGone(Exception):
    """The engine cannot be asked, or does not answer; the message says why and what to do."""


class Engine:
    """A Docker engine on this machine. Made on the loop that asks it.

    :param address: of its Unix socket, such as ``unix:///var/run/docker.sock``.
    :ivar patience: seconds that it may take to answer.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.patience = PATIENCE
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="serverfull-docker")
        self._connecting = threading.Lock()
        self._client: Any = None
        self._silent = False  # did not answer when it was asked last
        self._away: tuple[float, EngineGone] | None = None  # when it was last found out that it is, and how
        self._closed = False

    async def ask(self, question: Callable[[Any], _Answer]) -> _Answer:
        """Ask on a thread. A caller that is cancelled leaves the question to its end.

        :param question: called with the client; it must end by itself.
        :raises EngineGone: the engine does not answer.
        :raises docker.errors.APIError: it refuses.
        """
        if self._closed:
            raise EngineGone("the host is being closed")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, question)

    def _ask(self, question: Callable[[Any], _Answer]) -> _Answer:
        import requests
        from docker.errors import DockerException

        client = self.client()
        try:
            answer = question(client)
        except requests.exceptions.RequestException as error:
            if isinstance(error, DockerException):  # its own refusals are errors of HTTP too
                raise
            self._silent = True
            if isinstance(error, requests.exceptions.Timeout):
                raise EngineGone(f"the Docker engine at {self.address} does not answer") from None
            raise EngineGone(self._unreachable(error)) from None
        self._silent = False
        return answer

    def client(self) -> Any:
        """Give the client; any thread may ask for it. Those who ask while one finds out that it is away hear it too.

        :raises EngineGone: there is no engine.
        """
        asked = time.monotonic()
        self._reach()
        with self._connecting:
            if self._client is not None and not self._silent:
                return self._client
            if self._away is not None and self._away[0] > asked:
                raise EngineGone(*self._away[1].args)
            try:
                if self._client is None:
                    self._client = self.connect(self.patience)
                else:
                    self._ping()
            except EngineGone as error:
                self._away = time.monotonic(), error
                raise
            self._silent = False
            return self._client

    def _reach(self) -> None:
        """See whether anybody listens: the package leaks a socket where nobody does.

        :raises EngineGone: nobody does.
        """
        if not self.address.startswith(_UNIX):
            raise EngineGone(f"docker.engine, {self.address}, is no Unix socket: it has to be on this machine")
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(_PING_PATIENCE)
            try:
                line.connect(self.address.removeprefix(_UNIX))
            except OSError as error:
                raise EngineGone(self._unreachable(error)) from None

    def connect(self, timeout: float) -> Any:
        """Make a client of one's own; call it on a thread.

        :param timeout: seconds without a word from the engine.
        :raises EngineGone: there is no engine.
        """
        self._reach()
        try:
            import docker
        except ImportError:
            raise EngineGone(EXTRA) from None
        make = partial(docker.APIClient, base_url=self.address, timeout=timeout, max_pool_size=_THREADS)
        try:
            with closing(make(version=docker.constants.MINIMUM_DOCKER_API_VERSION)) as asking:
                version = asking.version(api_version=False)["ApiVersion"]
            return make(version=version)
        except (docker.errors.DockerException, OSError, ValueError, LookupError, TypeError) as error:
            raise EngineGone(self._unreachable(error)) from None

    def _ping(self) -> None:
        """Ask one that was silent whether it is back, so that not everybody waits as long for nothing."""
        import requests

        try:
            self._client.get(f"{self._client.base_url}/_ping", timeout=_PING_PATIENCE)
        except requests.exceptions.RequestException as error:
            raise EngineGone(self._unreachable(error)) from None

    def _unreachable(self, error: Exception) -> str:
        return f"the Docker engine at {self.address} cannot be reached ({_innermost(error)}): is it running?"

    def close(self) -> None:
        """Answer no more. Questions under way come to their end. Closing twice is fine."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            with suppress(Exception):
                self._client.close()


def _innermost(error: BaseException) -> str:
    """Say what is at the bottom of an exception that others were wrapped around."""
    seen = error
    for _ in range(16):  # none has more, but for one that is its own cause
        seen = seen.__cause__ or seen.__context__ or seen
    reason = getattr(seen, "strerror", None)
    return (reason or str(seen) or type(seen).__name__).lower()
