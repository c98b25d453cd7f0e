"""All runtimes, and all clients that the process runtime runs functions with, against the suite that users have too."""

from __future__ import annotations

import importlib.util
import io
import runpy
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from serverfull.config import LoggingSettings
from serverfull.domain.functions import Handler
from serverfull.domain.runtimes import RUNTIMES
from serverfull.observability.logger import HostLogger
from serverfull.observability.metrics import Metrics
from serverfull.observability.user_metrics import UserMetrics
from serverfull.runtimes.capture import CapturePatch
from serverfull.runtimes.deployed import DeployedRuntime
from serverfull.runtimes.inprocess import InProcessEnvironment, InProcessRuntime
from serverfull.runtimes.process.interpreters import Interpreter, Interpreters
from serverfull.runtimes.process.means import Level
from serverfull.testing.runtime_kit import BOOTSTRAP, NODE, NODE_BEFORE_24, PYTHON, RuntimeKit, deploy
from serverfull.testing.runtime_suite import LoadingSuite, ProcessSuite, RestoringSuite, RuntimeSuite


class RoutingAgain(InProcessRuntime):
    """Routes the streams that pytest has put in place for the test: those of its fixtures were others."""

    _routed = False

    def environment(self, *args: Any, **options: Any) -> InProcessEnvironment:
        if not self._routed:
            self._routed = True
            CapturePatch.uninstall()
            CapturePatch.install()
        return super().environment(*args, **options)


@pytest.fixture
async def in_process() -> AsyncIterator[InProcessRuntime]:
    metrics, logger = Metrics(), HostLogger(LoggingSettings(), stream=io.StringIO())
    async with RoutingAgain(
        metrics=metrics,
        logger=logger,
        user_metrics=UserMetrics(metrics.cells, logger.warning),
        max_lost_threads=100,
        loop_stall=10.0,
    ) as runtime:
        yield runtime


async def nothing_more() -> None:
    """The fixture ends the runtime."""


class TestRegisteredFunctions(RuntimeSuite):
    @pytest.fixture
    def kit(self, in_process: InProcessRuntime, packages: Callable[..., Any]) -> RuntimeKit:
        new_package = packages()

        def new_function() -> tuple[Handler, Path]:
            folder = new_package()[1]
            return runpy.run_path(str(folder / "deeds.py"))["handler"], folder

        return RuntimeKit(runtime=in_process, new_function=new_function, client=PYTHON, close=nothing_more)


class TestDeployedFunctionsInProcess(LoadingSuite):
    @pytest.fixture
    def kit(self, in_process: InProcessRuntime, packages: Callable[..., Any]) -> RuntimeKit:
        runtime = DeployedRuntime(in_process)
        return RuntimeKit(runtime=runtime, new_function=packages(), client=PYTHON, close=nothing_more)


class TestPythonInProcesses(ProcessSuite):
    @pytest.fixture
    def kit(self, process_kit: Callable[..., RuntimeKit]) -> RuntimeKit:
        return process_kit()


class TestPythonThatIsRestored(RestoringSuite):
    @pytest.fixture
    def kit(self, process_kit: Callable[..., RuntimeKit]) -> RuntimeKit:
        return process_kit(restores=True)


class TestTheOfficialPythonClientInProcesses(ProcessSuite):
    @pytest.fixture
    def kit(self, process_kit: Callable[..., RuntimeKit], require: Callable[[str, object, str], None]) -> RuntimeKit:
        require("awslambdaric", importlib.util.find_spec("awslambdaric"), "pip install awslambdaric")
        return process_kit(client="awslambdaric")


class TestPythonInStrictProcesses(ProcessSuite):
    @pytest.fixture
    def kit(self, process_kit: Callable[..., RuntimeKit]) -> RuntimeKit:
        return process_kit(level=Level.STRICT)

    async def test_whether_a_process_behind_walls_runs_is_seen(self, kit: RuntimeKit) -> None:
        """Else those that must have ended would always have."""
        function = deploy(kit)
        assert kit.runs(await function.pid())


@pytest.fixture(scope="session")
def node_runtime(interpreters: Interpreters) -> str:
    """The newest runtime for Node.js that this machine has."""
    names = [name for name in RUNTIMES if name.startswith("nodejs")]
    return next((name for name in reversed(names) if isinstance(interpreters.find(name), Interpreter)), "")


@pytest.mark.real_client
class TestNodeInProcesses(ProcessSuite):
    @pytest.fixture
    def kit(
        self,
        process_kit: Callable[..., RuntimeKit],
        node_runtime: str,
        require: Callable[[str, object, str], None],
    ) -> RuntimeKit:
        require("Node.js", node_runtime, "apt-get install nodejs")
        manners = NODE if node_runtime >= "nodejs24.x" else NODE_BEFORE_24
        return process_kit(node_runtime, manners)


class TestBootstrapsInProcesses(ProcessSuite):
    @pytest.fixture
    def kit(self, process_kit: Callable[..., RuntimeKit]) -> RuntimeKit:
        return process_kit("provided.al2023", BOOTSTRAP)


class TestBootstrapsInStrictProcesses(ProcessSuite):
    @pytest.fixture
    def kit(self, process_kit: Callable[..., RuntimeKit]) -> RuntimeKit:
        return process_kit("provided.al2023", BOOTSTRAP, level=Level.STRICT)
