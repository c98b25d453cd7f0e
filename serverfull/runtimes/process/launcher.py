"""Launches the instances of functions as processes of this machine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from serverfull.runtimes.process.processes import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serverfull.domain.deployed_handler import DeployedHandler
    from serverfull.domain.readiness import Unfit
    from serverfull.interfaces import FunctionIdentity
    from serverfull.runtimes.process.machine import Machine
    from serverfull.runtimes.process.recipes import FindRecipe, Recipes
    from serverfull.runtimes.runtime_api.extensions import Extensions


class ProcessLauncher:
    """Starts the processes of one function.

    :param find_recipe: says what they are made of.
    :param memory_mb: that each of them may have.
    """

    def __init__(self, machine: Machine, find_recipe: FindRecipe, memory_mb: int) -> None:
        self._machine = machine
        self._find_recipe = find_recipe
        self._memory_mb = memory_mb

    async def prepare(self) -> None:
        """Find the interpreter, and put the layers together.

        :raises FunctionNotReady: nothing here runs the function; the message says what to install.
        """
        await self._machine.open()
        await self._find_recipe()

    async def snapshot(self, write: Callable[[str], object], extensions: Extensions) -> Process:
        """Start a process that others can be made of, once it has loaded the function.

        :param extensions: hears of its extensions, which are started before it.
        :raises ExtensionFailed: one of its extensions has failed.
        :raises TimeoutError: one of its extensions has not registered in time.
        :raises InternalFailure: it cannot be started.
        """
        recipe = await self._find_recipe()
        assert recipe.client is not None
        recipe = replace(
            recipe,
            environment={**recipe.environment, "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start"},
            client={**recipe.client, "snapshot": True},
        )
        return await Process.start(recipe, self._memory_mb, self._machine, write, extensions)

    async def copy(
        self, snapshot: Process, variables: Mapping[str, str], write: Callable[[str], object], extensions: Extensions
    ) -> Process:
        """Start a process as the copy of one, with extensions of its own.

        :raises ExtensionFailed: one of its extensions has failed.
        :raises TimeoutError: one of its extensions has not registered in time.
        :raises InternalFailure: it cannot be started.
        """
        recipe = await self._find_recipe()
        return await Process.restore(snapshot, recipe, variables, self._memory_mb, self._machine, write, extensions)

    async def obstacle(self) -> str:
        """Say why no process can be the copy of another; empty: it can, as far as is known before it has begun."""
        recipe = await self._find_recipe()
        if recipe.client is None:
            return "the official runtime client"
        return self._machine.no_copies

    async def launch(
        self, variables: Mapping[str, str], write: Callable[[str], object], extensions: Extensions
    ) -> Process:
        """Start a process, after those of its extensions.

        :raises Unstartable: its program cannot be executed.
        :raises ExtensionFailed: one of its extensions has failed.
        :raises TimeoutError: one of its extensions has not registered in time.
        :raises InternalFailure: it cannot be started for another reason.
        """
        recipe = await self._find_recipe()
        recipe = replace(recipe, environment={**recipe.environment, **variables})
        return await Process.start(recipe, self._memory_mb, self._machine, write, extensions)


class ProcessLaunchers:
    """Makes the launchers of functions that run in processes. Close it when no process is left.

    :param recipes: says what a function's processes are made of.
    :param machine: what the processes share.
    """

    def __init__(self, recipes: Recipes, machine: Machine) -> None:
        self._recipes = recipes
        self._machine = machine

    async def open(self) -> None:
        """Look what the machine can do, and say it in the log."""
        await self._machine.open()

    def of(self, identity: FunctionIdentity, handler: DeployedHandler) -> ProcessLauncher:
        """Make the launcher of a function."""
        return ProcessLauncher(self._machine, self._recipes.of(identity, handler), identity.memory_size)

    async def unfit(self, identity: FunctionIdentity, handler: DeployedHandler) -> Unfit | None:
        """Say which interpreter or program is missing."""
        return await self._recipes.unfit(identity, handler)

    async def aclose(self) -> None:
        """End the spares and the zygotes, and remove the folder of the machine."""
        await self._machine.spares.aclose()
        await self._recipes.aclose()
        await self._machine.aclose()
