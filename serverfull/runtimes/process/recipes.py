"""Says what the sandboxes of a function are made of: which program, with which client, folders and variables.

Looking for interpreters, starting their zygotes and putting layers together happens once for each, when the first
sandbox that needs it starts, and not on the event loop.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from serverfull.domain.readiness import Unfit
from serverfull.errors import FunctionNotReady
from serverfull.runtimes.process.interpreters import Interpreter, Interpreters, Missing, node_command
from serverfull.runtimes.process.layers import merged
from serverfull.runtimes.process.processes import Recipe
from serverfull.runtimes.process.variables import OPT, function_variables, python_path
from serverfull.runtimes.process.zygotes import Zygote

if TYPE_CHECKING:
    from serverfull.domain.deployed_handler import DeployedHandler
    from serverfull.interfaces import FunctionIdentity
    from serverfull.runtimes.process.machine import Machine

FindRecipe = Callable[[], Awaitable[Recipe]]

OWN_PYTHON = Path(sys.executable)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a function is, without the handler object that its pool must not keep alive."""

    identity: FunctionIdentity
    handler: str
    root: Path
    runtime: str
    layers: Sequence[Path]
    region: str
    ephemeral_mb: int


def _wanted(identity: FunctionIdentity, handler: DeployedHandler) -> _Wanted:
    return _Wanted(
        identity,
        handler.name,
        handler.root,
        handler.runtime,
        handler.layers,
        handler.region,
        handler.ephemeral_mb,
    )


class Recipes:
    """Makes recipes; owns the zygotes. Close it when no sandbox is left.

    :param interpreters: finds what runs a runtime.
    :param client: ``own``, or ``awslambdaric`` for the official runtime clients.
    """

    def __init__(
        self, machine: Machine, interpreters: Interpreters, client: Literal["own", "awslambdaric"], logger: Any
    ) -> None:
        self._machine = machine
        self._interpreters = interpreters
        self._client = client
        self._logger = logger
        self._zygotes: dict[Path, Zygote] = {}

    def of(self, identity: FunctionIdentity, handler: DeployedHandler) -> FindRecipe:
        """Give what finds the recipe of a function; it looks once, and again where that failed."""
        wanted = _wanted(identity, handler)
        return _Once(lambda: self._make(wanted)).get

    async def unfit(self, identity: FunctionIdentity, handler: DeployedHandler) -> Unfit | None:
        """Say why nothing here runs a function; None: something does. Interpreters are looked for on a thread."""
        wanted = _wanted(identity, handler)
        found = await self._interpreters.find_for(identity.name, wanted.runtime, self._logger)
        if isinstance(found, Missing):
            return Unfit(found.reason)
        try:
            self._program(wanted, found, OPT)
        except FunctionNotReady as refusal:
            entry = found.kind == "bootstrap"
            return Unfit(refusal.why, "FunctionError.InvalidEntryPoint" if entry else "InvalidConfiguration")
        return None

    async def aclose(self) -> None:
        """End the zygotes."""
        zygotes, self._zygotes = self._zygotes, {}
        await asyncio.gather(*(zygote.aclose() for zygote in zygotes.values()))

    async def _make(self, wanted: _Wanted) -> Recipe:
        """Make a recipe.

        :raises FunctionNotReady: nothing here runs the function; the message says what to install.
        """
        name = wanted.identity.name
        found = await self._interpreters.find_for(name, wanted.runtime, self._logger)
        if isinstance(found, Missing):
            raise FunctionNotReady(name, "Failed", found.reason)
        layers = None
        if wanted.layers:
            layers = await asyncio.to_thread(merged, wanted.layers, self._machine.layers)
        mounted = self._machine.mounts_opt
        opt = None if mounted else layers
        variables = function_variables(
            wanted.identity,
            handler=wanted.handler,
            runtime="" if self._client == "awslambdaric" and found.kind == "python" else wanted.runtime,
            root=wanted.root,
            opt=opt,
            region=wanted.region,
            log_level=wanted.identity.application_log_level,
        )
        command, client = self._program(wanted, found, opt or OPT)
        return Recipe(
            zygote=self._zygote(found),
            environment=variables,
            root=wanted.root,
            command=command,
            client=client,
            opt=layers if mounted else None,
            visible=[path for path in (layers, found.path) if path is not None],
            ephemeral_mb=wanted.ephemeral_mb,
        )

    def _program(
        self, wanted: _Wanted, found: Interpreter, opt: Path
    ) -> tuple[Sequence[str] | None, dict[str, Any] | None]:
        name = wanted.identity.name
        if found.kind == "python":
            path = python_path(wanted.root, opt, found.series)
            if self._client == "own":
                return None, {"handler": wanted.handler, "root": str(wanted.root), "path": path}
            return [str(found.path), "-c", _OFFICIAL, os.pathsep.join(path), wanted.handler], None
        if found.kind == "node":
            command = node_command(
                found,
                wanted.handler,
                memory_mb=wanted.identity.memory_size,
                client=self._client,
                folders=[wanted.root, *(layer / "nodejs" for layer in wanted.layers)],
                options=wanted.identity.function.environment.get("NODE_OPTIONS", ""),
            )
            if isinstance(command, Missing):
                raise FunctionNotReady(name, "Failed", command.reason)
            return command, None
        return [self._bootstrap(wanted, opt)], None

    def _bootstrap(self, wanted: _Wanted, opt: Path) -> str:
        """Find the executable that a function of an OS-only runtime brings, in its package or in a layer."""
        own = wanted.root / "bootstrap"
        if os.access(own, os.X_OK) and own.is_file():
            return str(own)
        for layer in reversed(wanted.layers):
            if os.access(layer / "bootstrap", os.X_OK):
                return str(opt / "bootstrap")
        said = "is not executable" if own.exists() else "is missing"
        reason = f"{wanted.runtime} needs a file named bootstrap in the package or in a layer, and it {said}"
        raise FunctionNotReady(wanted.identity.name, "Failed", reason)

    def _zygote(self, found: Interpreter) -> Zygote:
        """Give the zygote that starts a program: of the Python that our client is to run in, else of the host's."""
        path = found.path if found.kind == "python" and self._client == "own" and found.path else OWN_PYTHON
        zygote = self._zygotes.get(path)
        if zygote is None:
            zygote = self._zygotes[path] = Zygote(path, self._logger)
        return zygote


_OFFICIAL = (
    "import sys; sys.path[:1] = sys.argv[1].split(':'); sys.argv = ['awslambdaric', sys.argv[2]]; "
    "from awslambdaric.__main__ import main; main(sys.argv)"
)
"""Runs the official client with the function's folders first, as on AWS; ``python -m`` would look nowhere else."""


class _Once:
    """Asks once for all who want it at the same time or later; asks again after a failure."""

    def __init__(self, ask: Callable[[], Awaitable[Recipe]]) -> None:
        self._ask = ask
        self._asking = asyncio.Lock()
        self._recipe: Recipe | None = None

    async def get(self) -> Recipe:
        if self._recipe is None:
            async with self._asking:
                if self._recipe is None:
                    self._recipe = await self._ask()
        return self._recipe
