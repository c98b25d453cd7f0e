"""Says what the sandboxes of a function are made of: which program, with which client, folders and variables.

Looking for interpreters, starting their zygotes and putting layers together happens once for each, when the first
sandbox that needs it starts, and not on the event loop.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import finalize

from serverfull.domain.deployed_handler import WRAPPER_VARIABLE
from serverfull.domain.readiness import Unfit
from serverfull.errors import FunctionNotReady
from serverfull.runtimes.aws_access import AwsAccess
from serverfull.runtimes.process.interpreters import Missing
from serverfull.runtimes.process.programs import find_program
from serverfull.runtimes.process.zygotes import Zygote
from serverfull.runtimes.sandboxes.layers import copied, extension_programs, linked, merged
from serverfull.runtimes.sandboxes.leftovers import remove_tree
from serverfull.runtimes.sandboxes.profiles import Profiles
from serverfull.runtimes.sandboxes.variables import OPT, function_variables
from serverfull.runtimes.sandboxes.wanted import Unrunnable, chosen_client, wanted

if TYPE_CHECKING:
    from serverfull.domain.deployed_handler import DeployedHandler
    from serverfull.interfaces import FunctionIdentity
    from serverfull.runtimes.process.interpreters import Interpreter, Interpreters
    from serverfull.runtimes.process.machine import Machine
    from serverfull.runtimes.process.programs import Program
    from serverfull.runtimes.sandboxes.wanted import Client, Wanted

OWN_PYTHON = Path(sys.executable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What the sandboxes of a function are made of.

    :param zygote: starts the processes.
    :param environment: all variables but those of a single sandbox.
    :param root: the folder of the unpacked package: where the process starts.
    :param command: what is executed; None: our own runtime client, in the zygote's warm copy.
    :param client: what our own client is told.
    :param opt: the folder that the process sees as ``/opt``, if there are layers.
    :param interpreter: what of the machine runs it, and has to be there; None: it brings what is executed.
    :param visible: what it needs although it may lie below the machine's ``/tmp``, beside its package.
    :param live: whether ``root`` is a folder of somebody's, who may put something else in its place.
    :param ephemeral_mb: megabytes of ``/tmp``.
    :param extensions: the programs of its external extensions, as its processes see them.
    :param extensible: whether it may have extensions, internal ones too, beside a client that they cannot reach.
    """

    zygote: Zygote
    environment: Mapping[str, str]
    root: Path
    command: Sequence[str] | None = None
    client: Mapping[str, Any] | None = None
    opt: Path | None = None
    interpreter: Path | None = None
    visible: Sequence[Path] = ()
    live: bool = False
    ephemeral_mb: int = 512
    extensions: Sequence[Path] = ()
    extensible: bool = False

    @property
    def usable(self) -> bool:
        """Whether the machine still has what it says."""
        return self.interpreter is None or self.interpreter.exists()


FindRecipe = Callable[[], Awaitable[Recipe]]


class Recipes:
    """Makes recipes; owns the zygotes. Close it when no sandbox is left.

    :param interpreters: finds what runs a runtime.
    :param client: of functions that do not choose: ``own``, or ``awslambdaric`` for the official runtime clients.
    :param aws: what functions reach AWS with.
    """

    def __init__(
        self,
        machine: Machine,
        interpreters: Interpreters,
        client: Client,
        logger: Any,
        aws: AwsAccess | None = None,
    ) -> None:
        self._machine = machine
        self._interpreters = interpreters
        self._client = client
        self._logger = logger
        self._aws = aws or AwsAccess()
        # Only behind walls is a process another user's than the operator's.
        self._profiles = Profiles(self._aws.folder if machine.is_strict else None, lambda: machine.profiles)
        self._zygotes: dict[Path, Zygote] = {}

    def of(self, identity: FunctionIdentity, handler: DeployedHandler) -> FindRecipe:
        """Give what finds the recipe of a function; it looks once, and again where its interpreter is gone.

        Folders that are not the host's own are looked at each time, as somebody may have put something in their place.
        """
        function = wanted(identity, handler)
        own: list[Path] = []
        once = _Once(lambda: self._make(function, own))
        finalize(once, _remove, own).atexit = False  # sandboxes hold it until they end

        async def find() -> Recipe:
            if function.admit is not None:
                await asyncio.to_thread(function.admit)
            recipe = await once.get()
            await self._profiles.refresh()
            return recipe

        return find

    async def unfit(self, identity: FunctionIdentity, handler: DeployedHandler) -> Unfit | None:
        """Say why nothing here runs a function; None: something does. Interpreters are looked for on a thread."""
        try:
            await self._find(wanted(identity, handler), anew=True)
        except Unrunnable as refusal:
            return Unfit(refusal.reason, refusal.code)
        return None

    async def aclose(self) -> None:
        """End the zygotes."""
        zygotes, self._zygotes = self._zygotes, {}
        await asyncio.gather(*(zygote.aclose() for zygote in zygotes.values()))

    async def _make(self, function: Wanted, own: list[Path]) -> Recipe:
        """Make a recipe.

        :param own: gets the folders that are to be removed with it, layers that may change among them.
        :raises FunctionNotReady: nothing here runs the function; the message says what to install.
        """
        layers, mounted = None, self._machine.mounts_opt
        if function.layers:  # mounted ones are read-only, so all functions can have the same
            lay = merged if mounted and function.admit is None else linked if mounted else copied
            layers = await asyncio.to_thread(lay, function.layers, self._machine.layers)
            own += [] if lay is merged else [layers]
        opt = None if mounted else layers
        try:
            found, program = await self._find(function, opt or OPT)
        except Unrunnable as refusal:
            raise FunctionNotReady(function.identity.name, "Failed", refusal.reason) from None
        variables = function_variables(
            function.identity,
            handler=function.handler,
            runtime=function.runtime,
            root=function.root,
            opt=opt,
            region=function.region,
            log_level=function.identity.application_log_level,
            aws=self._aws.of_process(self._profiles.folder),
        )
        if function.snap_start:  # as on AWS: what is in a snapshot is not one environment's
            del variables["AWS_LAMBDA_LOG_GROUP_NAME"]
        seen, profiles = opt or OPT, self._profiles.folder or self._aws.folder
        programs = [] if layers is None else await asyncio.to_thread(extension_programs, layers)
        return Recipe(
            zygote=self._zygote(found if program.client or self._shows_interpreter(found) else None),
            environment=variables,
            root=function.root,
            command=program.command,
            client=program.client,
            opt=layers if mounted else None,
            interpreter=found.path,
            visible=[path for path in (opt, found.path, profiles) if path is not None],
            live=function.live,
            ephemeral_mb=function.ephemeral_mb,
            extensions=[seen / "extensions" / program.name for program in programs],
            extensible=layers is not None or WRAPPER_VARIABLE in variables,
        )

    async def _find(self, function: Wanted, opt: Path = OPT, *, anew: bool = False) -> tuple[Interpreter, Program]:
        """Find what runs a function.

        :param opt: where its process sees its layers.
        :param anew: an interpreter that was not here is looked for again.
        :raises Unrunnable: nothing here does.
        """
        name, runtime = function.identity.name, function.runtime
        found = await self._interpreters.find_for(name, runtime, self._logger, anew=anew)
        if isinstance(found, Missing):
            raise Unrunnable(found.reason, "InvalidRuntime")
        client = chosen_client(function.identity.function.tags, self._client)
        return found, await asyncio.to_thread(find_program, function, found, client, opt)

    def _shows_interpreter(self, found: Interpreter) -> bool:
        """Whether a command is to be started by its own interpreter: behind walls it sees what that needs."""
        return self._machine.is_strict and found.kind == "python"

    def _zygote(self, found: Interpreter | None) -> Zygote:
        """Give the zygote that starts a program.

        :param found: the Python that our client is to run in; None: the program is executed, so any will do.
        """
        path = found.path if found is not None and found.path else OWN_PYTHON
        zygote = self._zygotes.get(path)
        if zygote is None:
            zygote = self._zygotes[path] = Zygote(path, self._logger)
        return zygote


def _remove(folders: Sequence[Path]) -> None:
    for folder in folders:
        remove_tree(folder)


class _Once:
    """Asks once for all who want it at the same time or later; again after a failure, and when it is out of date."""

    def __init__(self, ask: Callable[[], Awaitable[Recipe]]) -> None:
        self._ask = ask
        self._asking = asyncio.Lock()
        self._recipe: Recipe | None = None

    async def get(self) -> Recipe:
        if self._recipe is None or not self._recipe.usable:
            async with self._asking:
                if self._recipe is None or not self._recipe.usable:
                    self._recipe = await self._ask()
        return self._recipe
