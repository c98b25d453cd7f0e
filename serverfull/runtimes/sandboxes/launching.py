"""The seam between sandboxes and what they are made of: a launcher starts an instance, which speaks the Runtime API.

A process and a container differ only in what is here. `LaunchedSandbox` gives an instance invocations, keeps its
deadlines and says how its ends are answered; `SandboxRuntime` has a pool of sandboxes for each function.

Everything here is called on the host's loop.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import signal
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Callable, Mapping

    from serverfull.domain.deployed_handler import DeployedHandler
    from serverfull.domain.readiness import Unfit
    from serverfull.interfaces import FunctionIdentity
    from serverfull.runtimes.runtime_api.api import RuntimeApi
    from serverfull.runtimes.runtime_api.extensions import Extensions


class Gone(Exception):
    """The instance has ended.

    :param why: as AWS words it, such as ``exit status 1`` or ``signal: killed``; empty for status 0.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    @classmethod
    def with_code(cls, code: int) -> Gone:
        """Word it as AWS does.

        :param code: of the exit; that of a signal is negative.
        """
        if code >= 0:
            return cls(f"exit status {code}" if code else "")
        name = (signal.strsignal(-code) or f"signal {-code}").lower()
        return cls(f"signal: {name}")


class Unstartable(Exception):
    """The program that the function brings cannot be executed; the message says why."""


class Instance(Protocol):
    """The code of one function, started, with a Runtime API of its own. Of no use once it has ended.

    Its launcher calls `RuntimeApi.end` when it has ended by itself: with `Gone`, or with `Unstartable` where that
    is because its program could not be executed.

    :ivar api: what it asks for invocations.
    :ivar alive: whether it runs.
    """

    api: RuntimeApi
    alive: bool

    def when_ended(self, call: Callable[[], None]) -> None:
        """Have this called, once, when its runtime has ended."""

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the runtime and what it has started, and to none of its extensions."""

    async def connect(self, port: int) -> tuple[StreamReader, StreamWriter]:
        """Connect to what listens on a port of its loopback.

        :raises OSError: nothing of this very instance does.
        """

    def watch(self) -> None:
        """Look after what the kernel does not limit by itself, while it is busy."""

    def unwatch(self) -> None:
        """It is not busy any more."""

    def drain(self) -> None:
        """Take what it has written to its log until now."""

    def most_memory_mb(self) -> int:
        """Give the most megabytes that it has used so far.

        :raises OSError: that is not known.
        """

    def freeze(self) -> bool:
        """Stop it, with all that it has started; says whether that was done."""

    def thaw(self) -> None:
        """Let it go on."""

    def kill(self) -> None:
        """Kill it and everything that it has started, and do not wait for it."""

    async def aclose(self) -> None:
        """Kill it, wait until it is gone, and give back what it held. Closing twice is fine."""


class Launcher(Protocol):
    """Starts the instances of one function."""

    async def prepare(self) -> None:
        """Get what all instances need; what takes long is done once.

        :raises FunctionNotReady: nothing here runs the function.
        """

    async def launch(
        self, variables: Mapping[str, str], write: Callable[[str], object], extensions: Extensions
    ) -> Instance:
        """Start an instance. What fails on the way leaves nothing behind, and neither does being cancelled.

        The programs in ``/opt/extensions`` are started first, each as a process of the instance, as `Extensions`
        describes; the runtime is started when they have registered.

        :param variables: of the environment, beside those that all instances of the function have.
        :param write: gets what its runtime writes to its log.
        :param extensions: hears of its extensions, and answers what is asked by the Extensions API.
        :raises Unstartable: its program cannot be executed.
        :raises ExtensionFailed: one of its extensions has failed.
        :raises TimeoutError: one of its extensions has not registered in time.
        :raises InternalFailure: it cannot be started for a reason that is the host's.
        """


class Launchers(Protocol):
    """Makes the launchers of functions, and owns what they share."""

    async def open(self) -> None:
        """Look what this machine can do, and remove what a killed host has left. Opening twice is fine."""

    def of(self, identity: FunctionIdentity, handler: DeployedHandler) -> Launcher:
        """Make the launcher of a function. It must not keep the handler alive."""

    async def unfit(self, identity: FunctionIdentity, handler: DeployedHandler) -> Unfit | None:
        """Say why nothing here runs a function; None: something does."""

    async def aclose(self) -> None:
        """Give back what the launchers shared. Closing twice is fine."""
