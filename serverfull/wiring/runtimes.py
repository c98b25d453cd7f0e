"""What runs deployed functions: in the host's own process, in processes, in containers. Each is made when needed."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AsyncExitStack

    from serverfull.config import Settings
    from serverfull.interfaces import FunctionIdentity, InvocationLog, Runtime
    from serverfull.observability.metrics import Metrics
    from serverfull.runtimes.aws_access import AwsAccess
    from serverfull.runtimes.docker.names import Names
    from serverfull.runtimes.inprocess import InProcessRuntime
    from serverfull.runtimes.sandboxes.launching import Launchers
    from serverfull.runtimes.sandboxes.runtime import SandboxRuntime


class DeployedRuntimes:
    """Makes what runs deployed functions.

    :param host_runtime: runs what is registered, in the host's own process.
    :param aws: what functions reach AWS with.
    :param new_log: gives what takes the log of a function while there is no invocation.
    :param optimized: hears whether the environments of a version are copies of a snapshot, and why not.
    :param stack: ends what was made.
    :ivar names: answers containers that ask for the host by a name; None: none does.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        logger: Any,
        host_runtime: InProcessRuntime,
        aws: AwsAccess,
        new_log: Callable[[FunctionIdentity], InvocationLog],
        optimized: Callable[[FunctionIdentity, bool], object],
        stack: AsyncExitStack,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._logger = logger
        self._host_runtime = host_runtime
        self._aws = aws
        self._new_log = new_log
        self._optimized = optimized
        self._stack = stack
        self.names: Names | None = None

    def in_host(self) -> Runtime:
        """Make what runs deployed functions in the host's own process."""
        from serverfull.runtimes.deployed import DeployedRuntime

        return DeployedRuntime(self._host_runtime, self._aws)

    def in_processes(self) -> Runtime:
        """Make what runs functions in processes of their own; most hosts of registered functions never need it."""
        from serverfull.runtimes.process.interpreters import Interpreters
        from serverfull.runtimes.process.launcher import ProcessLaunchers
        from serverfull.runtimes.process.machine import Machine
        from serverfull.runtimes.process.means import Level
        from serverfull.runtimes.process.recipes import Recipes
        from serverfull.runtimes.process.snapshots import ProcessSnapshots, SnapshotPolicy
        from serverfull.runtimes.sandboxes.restoring import RestoringRuntime

        settings = self._settings.execution
        machine = Machine(Level.of(settings.sandbox), self._logger, hidden=self._own_folders())
        recipes = Recipes(machine, Interpreters(settings.other_python), settings.client, self._logger, self._aws)
        launchers = ProcessLaunchers(recipes, machine)
        kept = SnapshotPolicy(
            idle_timeout=settings.snapshot_idle_timeout,
            new_log=self._new_log,
            logger=self._logger,
            found=self._optimized,
        )
        make = partial(RestoringRuntime, snapshots=ProcessSnapshots(launchers, kept))
        return self._sandboxes(launchers, make)

    def in_containers(self) -> Runtime:
        """Make what runs functions in containers."""
        from serverfull.runtimes.docker.launcher import make_launchers
        from serverfull.runtimes.sandboxes.runtime import SandboxRuntime

        return self._sandboxes(make_launchers(self._settings, self._aws, self._logger, self.names), SandboxRuntime)

    def automatic(self, of: Callable[[str], Runtime]) -> Runtime:
        """Make what runs functions in containers where their interpreter is not here.

        :param of: gives the runtime of a mode.
        """
        from serverfull.runtimes.docker.automatic import AutomaticRuntime
        from serverfull.runtimes.docker.images import parsed
        from serverfull.runtimes.process.interpreters import Interpreters

        runtime = AutomaticRuntime(of, parsed(self._settings.docker.images), Interpreters("error"))
        self._stack.push_async_callback(runtime.aclose)
        return runtime

    def _sandboxes(self, launchers: Launchers, make: Callable[..., SandboxRuntime]) -> Runtime:
        from serverfull.runtimes.pool import PoolPolicy

        settings = self._settings.execution
        policy = PoolPolicy(
            idle_timeout=0.0 if settings.ephemeral else settings.idle_timeout,
            most=settings.max_environments,
            uses=settings.recycle_after,
            memory_mb=settings.recycle_mb,
        )
        runtime = make(launchers, policy, self._logger, self._metrics.function)
        self._stack.push_async_callback(runtime.aclose)
        return runtime

    def _own_folders(self) -> list[Path]:
        """Give the folders that hold what is not for functions, whatever else is in those around them."""
        settings = self._settings
        kept = [settings.state.path, settings.events.path, settings.logging.files, tempfile.gettempdir()]
        return [Path(folder).absolute() for folder in kept if folder not in ("", "memory")]
