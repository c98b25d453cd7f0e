"""Chooses how a function is run: a decorator of the in-process runtime that sends deployed code to other runtimes.

Code that the operator registered runs in process. Code that arrived over the API runs where the setting
``execution.mode`` or the function's tag ``serverfull:execution`` says. By itself it runs in processes of its own, and a
container image in containers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.interfaces import Environment, Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from serverfull.domain.functions import Function
    from serverfull.domain.readiness import Fitness, Readiness, Unfit
    from serverfull.interfaces import FunctionIdentity

EXECUTION_TAG = "serverfull:execution"
"""The tag of a function that chooses for it."""

AUTOMATIC = "auto"
"""The mode of a runtime that finds out itself what runs a function; without one that is a process."""


class _NotHere(TypeError):
    """A function chooses what this host does not have."""


class ChoosingRuntime(Runtime):
    """Gives each function to the runtime that it is to be run by.

    :param registered: runs what the operator registered.
    :param deployed: makes what runs deployed code, by mode; called when the first function needs it.
    :param mode: of functions that do not choose.
    :param waiting: gives the modes whose runtimes have something to do when the host gets ready, whatever functions do.
    """

    def __init__(
        self,
        registered: Runtime,
        deployed: Mapping[str, Callable[[], Runtime]],
        mode: str,
        waiting: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._registered = registered
        self._waiting = waiting
        self._deployed = deployed
        self._mode = mode
        self._made: dict[str, Runtime] = {}

    def check(self, function: Function) -> None:
        """Say what would fail at the first call.

        :raises TypeError: the function cannot be run here.
        """
        self._chosen(function).check(function)

    def environment(self, identity: FunctionIdentity) -> Environment:
        """Make the environment of a function.

        :raises TypeError: it asks for what this host does not have.
        """
        return self._chosen(identity.function).environment(identity)

    def get_ready(self) -> None:
        """Let the runtimes get ready that run deployed functions which do not choose, or have other things to do."""
        usual = "process" if self._mode == "auto" else self._mode
        for mode in {usual, *self._waiting()}:
            if mode in self._deployed:
                self.of(mode).get_ready()

    async def unfit(self, identity: FunctionIdentity) -> Unfit | None:
        """Say why a function cannot run here as it is; one that chooses what this host does not have is among them."""
        try:
            chosen = self._chosen(identity.function)
        except _NotHere as unfit:
            from serverfull.domain.readiness import Unfit

            return Unfit(str(unfit), "InvalidConfiguration")
        return await chosen.unfit(identity)

    def provision(self, identity: FunctionIdentity, count: int, changed: Callable[[Readiness], None]) -> None:
        """Keep environments of a function ready.

        :raises TypeError: it asks for what this host does not have.
        """
        self._chosen(identity.function).provision(identity, count, changed)

    async def snapshot(self, identity: FunctionIdentity) -> Fitness:
        """Take the snapshot of a version; one that is run where there are none is refused."""
        return await self._chosen(identity.function).snapshot(identity)

    def _chosen(self, function: Function) -> Runtime:
        handler = function.handler
        if not isinstance(handler, DeployedHandler):
            return self._registered
        if handler.image_uri:
            return self._of_images(function, handler.image_uri)
        mode = chosen_mode(function.tags, self._mode)
        if AUTOMATIC in self._deployed and function.tags.get(EXECUTION_TAG, self._mode) == AUTOMATIC:
            mode = AUTOMATIC
        if mode not in self._deployed:
            offered = ", ".join(sorted(set(self._deployed) - {AUTOMATIC}))
            raise _NotHere(f"Its tag {EXECUTION_TAG}, or execution.mode, says {mode!r}: this host has {offered}.")
        return self.of(mode)

    def _of_images(self, function: Function, image: str) -> Runtime:
        mode = function.tags.get(EXECUTION_TAG, "auto")
        if mode not in ("auto", "docker"):
            raise _NotHere(f"Its tag {EXECUTION_TAG} says {mode!r}, and it is the container image {image}.")
        return self.of("docker")

    def of(self, mode: str) -> Runtime:
        """Give what runs the functions of a mode that this host has."""
        if mode not in self._made:
            self._made[mode] = self._deployed[mode]()
        return self._made[mode]


def chosen_mode(tags: Mapping[str, str], default: str) -> str:
    """Say how a deployed package is to be run, as far as its interpreter is on this machine.

    :param tags: of the function.
    :param default: the setting ``execution.mode``.
    """
    mode = tags.get(EXECUTION_TAG, default)
    return "process" if mode == "auto" else mode
