"""The modes of a host: what resolves functions in each of them, what runs them, and what callers reach.

A mode is a set of decorators and of second implementations. Nothing else in a host asks which one it is in.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, NamedTuple

from multidict import istr

from serverfull.errors import ConfigurationError, ExtraMissing
from serverfull.invocation.requests import InvocationReader
from serverfull.runtimes.choosing import AUTOMATIC, ChoosingRuntime

if TYPE_CHECKING:
    from serverfull.api.invocations import Invocations
    from serverfull.config import Settings
    from serverfull.fetchers.answers import MockAnswers
    from serverfull.interfaces import Fetcher, Runtime
    from serverfull.invocation.invoker import Invoker
    from serverfull.observability.metrics import Metrics
    from serverfull.runtimes.inprocess import InProcessRuntime
    from serverfull.wiring.runtimes import DeployedRuntimes


class Mode(NamedTuple):
    """What differs between the modes of a host: which decorators stand around what serves.

    :param fetcher: gives the functions that are invoked.
    :param runtime: runs them.
    :param reader: reads the invocations.
    :param front: gives what callers' invocations go to, for what runs them.
    :param answers: where the answers come from in mock mode; None: the handlers run.
    """

    fetcher: Fetcher
    runtime: Runtime
    reader: InvocationReader
    front: Callable[[Invoker], Invocations]
    answers: MockAnswers | None = None


def serve_mode(
    settings: Settings, registered: Fetcher, host_runtime: InProcessRuntime, runtimes: DeployedRuntimes
) -> Mode:
    """Run what is registered and what is deployed.

    :raises ConfigurationError: the settings contradict each other.
    :raises ExtraMissing: what containers are made with is not installed.
    """
    deployed: dict[str, Callable[[], Runtime]] = {"process": runtimes.in_processes, "docker": runtimes.in_containers}
    if settings.execution.mode == "docker" and importlib.util.find_spec("docker") is None:
        raise ExtraMissing("execution.mode", "docker", "docker")
    if settings.docker.images:
        deployed[AUTOMATIC] = lambda: runtimes.automatic(runtime.of)
    if settings.execution.sandbox == "strict":
        if settings.execution.mode == "inprocess":
            raise ConfigurationError(
                "execution.mode is 'inprocess' and execution.sandbox is 'strict': nothing holds deployed code in the "
                "host's own process. Choose one of them."
            )
    elif settings.server.on_loopback:
        deployed["inprocess"] = runtimes.in_host
    elif settings.execution.mode == "inprocess":
        raise ConfigurationError(
            f"execution.mode is 'inprocess' and the host listens on {settings.server.host}: deployed code may run in "
            "the host's own process on loopback alone, because nothing holds it there and nothing authenticates "
            "callers."
        )
    runtime = ChoosingRuntime(host_runtime, deployed, settings.execution.mode, _waiting)
    return Mode(registered, runtime, InvocationReader(*_place(settings), istr), lambda invoker: invoker)


def mock_mode(
    settings: Settings,
    registered: Fetcher,
    host_runtime: InProcessRuntime,
    metrics: Metrics,
    answers: MockAnswers | None,
) -> Mode:
    """Answer without running anything.

    :param answers: None: the settings say where they come from.
    :raises ConfigurationError: those cannot be used.
    """
    from serverfull.fetchers.answers import answers_of
    from serverfull.fetchers.mocking import MockingFetcher
    from serverfull.invocation.simulation import MockInvocationReader, SimulatingInvoker, SimulatingRuntime

    answers = answers or answers_of(settings.mock)
    fetcher = MockingFetcher(registered, answers)
    return Mode(
        fetcher=fetcher,
        runtime=SimulatingRuntime(host_runtime),
        reader=MockInvocationReader(*_place(settings), istr),
        front=lambda invoker: SimulatingInvoker(invoker, fetcher, metrics),
        answers=answers,
    )


def refusal(settings: Settings, *, shared: bool = False) -> str | None:
    """Say why nothing can be deployed on a host; None where it can.

    :param shared: other processes serve the same functions.
    :raises ConfigurationError: the settings say where to keep what nobody can deploy.
    """
    if settings.mock.enabled:
        reason = "it is in mock mode, where no code runs."
    elif shared or settings.server.workers > 1:
        reason = "its worker processes share no state. Serve with one worker."
    elif not settings.server.on_loopback:
        held = (
            "Walls hold deployed code and not those who may change or delete it."
            if settings.execution.sandbox == "strict"
            else "Deployed code runs in processes of its own, with limits of memory, files and processes, and with the "
            "rights of the host's user: that is no wall against code of strangers."
        )
        reason = (
            f"it listens on {settings.server.host}, and nothing authenticates its callers. {held} So a host takes "
            "deployments on loopback alone."
        )
    else:
        return None
    if settings.state.path:
        raise ConfigurationError(f"state.path is {settings.state.path!r}, but this host takes no deployments: {reason}")
    return reason


def _waiting() -> Collection[str]:
    """Give the modes whose runtimes find work on the machine, of hosts that are gone."""
    from serverfull.runtimes.docker.site import has_left_something

    return ("docker",) if has_left_something() else ()


def _place(settings: Settings) -> tuple[str, str]:
    """Give account and region of requests that name none."""
    return settings.functions.account, settings.functions.region
