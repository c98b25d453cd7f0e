"""Runs functions whose code arrived over the API, in the host's own process: a decorator of the in-process runtime.

Their code is loaded by the first invocation, as on AWS: it sees the function's variables, what it prints goes to that
invocation's log, and where it fails that invocation fails, and the next one tries again. From then on the function runs
like one of the operator's own. Nothing isolates the code from the host, so a host does this on loopback alone.
"""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from serverfull.domain.deployed_handler import WRAPPER_VARIABLE, DeployedHandler
from serverfull.domain.functions import Function
from serverfull.domain.readiness import Unfit
from serverfull.errors import FunctionNotReady
from serverfull.interfaces import Environment, Runtime
from serverfull.runtimes.aws_access import AwsAccess
from serverfull.runtimes.error_reports import ErrorReport
from serverfull.runtimes.handlers import bind
from serverfull.runtimes.loading import LoadFault, load_handler
from serverfull.runtimes.namespaces import CodeNamespace
from serverfull.runtimes.search_path import folders_beside

if TYPE_CHECKING:
    from serverfull.domain.functions import Handler
    from serverfull.domain.invocations import Invocation, Outcome
    from serverfull.interfaces import FunctionIdentity, InvocationLog
    from serverfull.runtimes.handlers import BoundHandler
    from serverfull.runtimes.inprocess import InProcessEnvironment, InProcessRuntime

INIT_TIMEOUT = 10.0
"""Seconds that the module's own code may take.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html#runtimes-lifecycle-ib
"""


class DeployedRuntime(Runtime):
    """Makes environments for deployed functions, and leaves all others to the runtime that it decorates.

    :param inner: runs functions in process.
    :param aws: what functions reach AWS with.
    """

    def __init__(self, inner: InProcessRuntime, aws: AwsAccess | None = None) -> None:
        self._inner = inner
        self._aws = aws or AwsAccess()
        self._loaded: WeakKeyDictionary[DeployedHandler, Code] = WeakKeyDictionary()

    def check(self, function: Function) -> None:
        """Look at the operator's own functions; deployed code is looked at when it is loaded."""
        if not isinstance(function.handler, DeployedHandler):
            self._inner.check(function)

    def environment(self, identity: FunctionIdentity) -> Environment:
        """Make the environment of a function.

        :raises TypeError: it cannot run in the host's own process.
        """
        handler = identity.function.handler
        if not isinstance(handler, DeployedHandler):
            return self._inner.environment(identity)
        if (unfit := _unfit(identity.function, handler)) is not None:
            raise TypeError(unfit.reason)
        code = self._loaded.get(handler)
        if code is None:
            python_path = identity.function.environment.get("PYTHONPATH", "")
            code = self._loaded[handler] = Code(handler, identity.name, python_path)
        return DeployedEnvironment(identity, code, self._inner, self._aws)

    async def unfit(self, identity: FunctionIdentity) -> Unfit | None:
        """Say why a function cannot run in the host's own process."""
        handler = identity.function.handler
        return _unfit(identity.function, handler) if isinstance(handler, DeployedHandler) else None


def _unfit(function: Function, handler: DeployedHandler) -> Unfit | None:
    asked = "in the host's own process, which its tag serverfull:execution or the setting execution.mode asks for"
    if handler.runtime and not handler.runtime.startswith("python"):
        return Unfit(f"{handler.runtime} cannot run {asked}. Choose process.")
    if WRAPPER_VARIABLE in function.environment:
        return Unfit(
            f"{WRAPPER_VARIABLE} names what starts a runtime, and none is started {asked}. Choose process.",
            "InvalidConfiguration",
        )
    return None


class Code:
    """The code of a function as it is loaded; several environments may share it.

    :ivar handler: what is called; None while it is not loaded.
    :ivar bound: the handler as it has been looked at.
    :ivar variables: the environment variables as the code has changed them while it was loaded.
    """

    def __init__(self, declared: DeployedHandler, label: str, python_path: str) -> None:
        self.name, self.root, self._label = declared.name, declared.root, label
        self.admit, self._live, self._virtualenv = declared.admit, declared.live, declared.virtualenv
        self._python_path = python_path
        self.handler: Handler | None = None
        self.bound: BoundHandler | None = None
        self.variables: dict[str, str | None] | None = None
        self.loading = asyncio.Lock()

    def load(self) -> None:
        """Load the handler, in modules of its own, which go when nobody uses it any more. Blocks.

        It is looked at here too, off the event loop: annotations may take pydantic a while.

        :raises LoadFault: it cannot be loaded, or cannot be a handler.
        """
        beside = folders_beside(self.root, self._python_path, virtualenv=self._virtualenv)
        namespace = CodeNamespace(self.root, self._label, beside=beside, live=self._live)
        try:
            handler = load_handler(namespace, self.name)
            self.bound = _bind(handler)
            self.handler = handler
        except BaseException:
            namespace.close()
            raise
        weakref.finalize(self, namespace.close).atexit = False


class DeployedEnvironment(Environment):
    """Loads the code with its first invocation, then runs it in process."""

    def __init__(self, identity: FunctionIdentity, code: Code, runtime: InProcessRuntime, aws: AwsAccess) -> None:
        self._identity = identity
        self._code = code
        self._runtime = runtime
        self._aws = aws
        self._inner: InProcessEnvironment | None = None
        self._loader: InProcessEnvironment | None = None

    async def run(self, invocation: Invocation, log: InvocationLog) -> Outcome:
        """Run one invocation; the first one loads the code before, while others wait.

        :raises FunctionNotReady: the function has become Failed meanwhile, or a folder that it runs from is gone.
        """
        inner = self._inner
        if inner is None:
            async with self._code.loading:
                if self._inner is None:
                    if self.failure is not None:  # each further attempt would lose a thread more
                        raise FunctionNotReady(self._identity.name, "Failed", self.failure)
                    failed = await self._load(invocation, log)
                    if failed is not None:
                        return failed
                inner = self._inner
        assert inner is not None
        return await inner.run(invocation, log)

    @property
    def failure(self) -> str | None:
        """Why the function must not be invoked any more."""
        inner = self._inner or self._loader
        return None if inner is None else inner.failure

    async def aclose(self) -> None:
        """Give back what the environment holds."""
        if self._inner is not None:
            await self._inner.aclose()

    async def _load(self, invocation: Invocation, log: InvocationLog) -> Outcome | None:
        """Load the code as an invocation of the function; gives how that failed, if it did."""
        code = self._code
        if code.handler is None:
            if code.admit is not None:
                await asyncio.to_thread(code.admit)
            loader = self._loader or self._in_process(code.load, timeout=INIT_TIMEOUT)
            self._loader = loader
            outcome = await loader.run(invocation, log)
            if outcome.function_error is not None:
                return outcome
            code.variables = loader.variables
        inner = self._in_process(code.handler, timeout=self._identity.timeout, bound=code.bound)
        if code.variables is not None:
            inner.variables = code.variables
        self._inner, self._loader = inner, None
        return None

    def _in_process(self, handler: Any, timeout: float, bound: BoundHandler | None = None) -> InProcessEnvironment:
        function = replace(self._identity.function, handler=handler)
        made = self._runtime.environment(replace(self._identity, function=function, timeout=timeout), bound)
        own = {"_HANDLER": self._code.name, "LAMBDA_TASK_ROOT": str(self._code.root)}
        made.variables = {**self._aws.of_code_in_process(), **made.variables, **own}
        return made


def _bind(handler: Handler) -> BoundHandler:
    try:
        return bind(Function(handler))
    except TypeError as unfit:
        raise LoadFault(ErrorReport("TypeError", str(unfit), "")) from None
