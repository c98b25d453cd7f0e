"""Chooses how a function is run: a decorator of the in-process runtime that sends deployed code to other runtimes.

Code that the operator registered runs in process. Code that arrived over the API runs in processes of its own, unless
the setting ``execution.mode`` or the function's tag ``serverfull:execution`` says ``inprocess``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.interfaces import Environment, Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serverfull.domain.functions import Function
    from serverfull.domain.readiness import Readiness, Unfit
    from serverfull.interfaces import FunctionIdentity

EXECUTION_TAG = "serverfull:execution"
"""The tag of a function that chooses for it."""


NO_CONTAINERS = "and this host makes no containers: deploy a .zip package"
"""Of functions that are images, on hosts without the runtime of containers."""


class ChoosingRuntime(Runtime):
    """Gives each function to the runtime that it is to be run by.

    :param registered: runs what the operator registered.
    :param deployed: makes what runs deployed code, by mode; called when the first function needs it.
    :param mode: of functions that do not choose.
    """

    def __init__(self, registered: Runtime, deployed: Mapping[str, Callable[[], Runtime]], mode: str) -> None:
        self._registered = registered
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
        """Let the runtime get ready that runs deployed functions which do not choose."""
        mode = chosen_mode({}, self._mode)
        if mode in self._deployed:
            self._of(mode).get_ready()

    async def unfit(self, identity: FunctionIdentity) -> Unfit | None:
        """Say why a function cannot run here as it is; one that chooses what this host does not have is among them."""
        try:
            return await self._chosen(identity.function).unfit(identity)
        except TypeError as unfit:
            from serverfull.domain.readiness import Unfit

            return Unfit(str(unfit), "InvalidConfiguration")

    def provision(self, identity: FunctionIdentity, count: int, changed: Callable[[Readiness], None]) -> None:
        """Keep environments of a function ready.

        :raises TypeError: it asks for what this host does not have.
        """
        self._chosen(identity.function).provision(identity, count, changed)

    def _chosen(self, function: Function) -> Runtime:
        if not isinstance(function.handler, DeployedHandler):
            return self._registered
        if function.handler.image_uri:
            return self._of_images(function, function.handler.image_uri)
        mode = chosen_mode(function.tags, self._mode)
        if mode not in self._deployed:
            offered = ", ".join(sorted(self._deployed))
            later = " Containers come with a later version, with Docker." if mode == "docker" else ""
            raise TypeError(
                f"Its tag {EXECUTION_TAG}, or execution.mode, says {mode!r}: this host has {offered}.{later}"
            )
        return self._of(mode)

    def _of_images(self, function: Function, image: str) -> Runtime:
        mode = function.tags.get(EXECUTION_TAG, "auto")
        if mode not in ("auto", "docker"):
            raise TypeError(f"Its tag {EXECUTION_TAG} says {mode!r}, and it is the container image {image}.")
        if "docker" not in self._deployed:
            raise TypeError(f"It is the container image {image}, {NO_CONTAINERS}.")
        return self._of("docker")

    def _of(self, mode: str) -> Runtime:
        if mode not in self._made:
            self._made[mode] = self._deployed[mode]()
        return self._made[mode]


def chosen_mode(tags: Mapping[str, str], default: str) -> str:
    """Say how a deployed function is to be run.

    :param tags: of the function.
    :param default: the setting ``execution.mode``.
    """
    mode = tags.get(EXECUTION_TAG, default)
    return "process" if mode == "auto" else mode
