"""Starts lambda mode: loads one function, and hands it to the client that gets invocations from AWS.

`start_lambda` is for programs, ``serverfull lambda`` calls it, and `serverfull.lambda_mode.handler` loads the same way.
The official client takes a handler by its name, ``module.attribute``; ours is a module made for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import importlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from serverfull.config import LambdaModeSettings, Settings
from serverfull.config.native import lambda_environment
from serverfull.domain.functions import Function
from serverfull.errors import ExtraMissing, NotFoundError, RuntimeApiMissing, TargetInvalid
from serverfull.fetchers.static import StaticFetcher
from serverfull.fetchers.targets import load_target
from serverfull.interfaces import Fetcher
from serverfull.lambda_mode.emf import EmfMetrics
from serverfull.lambda_mode.native import NativeFunction, write_to_log
from serverfull.runtimes.capture import threads_inherit
from serverfull.runtimes.environ import add_to_process
from serverfull.runtimes.error_reports import describe_exception

if TYPE_CHECKING:
    from serverfull.domain.functions import Handler
    from serverfull.fetchers.answers import MockAnswers

NativeHandler: TypeAlias = Callable[[Any, Any], Any]
"""Takes the event, decoded from JSON, and AWS's context; gives what the client writes as the result."""

RuntimeClient: TypeAlias = Callable[[NativeHandler], object]
"""Gets invocations and calls a handler for each, until it is stopped; the Go ``LambdaStartFn``."""

_MADE_MODULE = "serverfull_native_function"


def start_lambda(
    fetcher: Fetcher | Mapping[str, Function | Handler],
    name: str,
    settings: Settings | None = None,
    *,
    start: RuntimeClient | None = None,
) -> None:
    """Run one function as a native AWS Lambda; comes back when ``start`` does, which AWS's own client never does.

    The function is fetched once, before the first invocation is asked for.

    :param fetcher: resolves the name; a mapping of names to functions does as well.
    :param name: the function that is run.
    :param settings: of which only ``lambda_mode.metrics_namespace`` counts; None takes what the environment says.
    :param start: gets invocations, and calls the handler that it is given. None: AWS's runtime client
        ``awslambdaric``, which needs the extra ``lambda`` and the variable ``AWS_LAMBDA_RUNTIME_API``.
    :raises NotFoundError: there is no such function; the message names those that there are.
    :raises TargetInvalid: the handler cannot be called with an event and a context.
    :raises ExtraMissing: ``awslambdaric`` is not installed.
    :raises RuntimeApiMissing: this is no Lambda.

    AWS: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
    """
    _start(lambda: native_handler(as_fetcher(fetcher), name, settings.lambda_mode if settings else None), start)


def start_lambda_mock(
    fetcher: Fetcher | Mapping[str, Function | Handler],
    name: str,
    settings: Settings | None = None,
    *,
    answers: MockAnswers | None = None,
    start: RuntimeClient | None = None,
) -> None:
    """Run one function as a native AWS Lambda that answers without running its handler.

    :param answers: what is answered; None takes what ``settings.mock`` says, which is zero values unless changed.

    The rest is as for `start_lambda`.
    """
    from serverfull.fetchers.answers import answers_of
    from serverfull.fetchers.mocking import MockingFetcher

    answers = answers or answers_of((settings or Settings()).mock)
    start_lambda(MockingFetcher(as_fetcher(fetcher), answers), name, settings, start=start)


def start_target(target: str, settings: Settings) -> None:
    """Do what ``serverfull lambda TARGET`` does.

    :raises TargetError: the target cannot be turned into functions.
    :raises StartupError: as for `start_lambda`.
    """

    def load() -> NativeFunction:
        fetcher = load_target(target)
        if settings.mock.enabled:
            from serverfull.fetchers.answers import answers_of
            from serverfull.fetchers.mocking import MockingFetcher

            fetcher = MockingFetcher(fetcher, answers_of(settings.mock))
        return native_handler(fetcher, settings.lambda_mode.function, settings.lambda_mode)

    _start(load, None)


def _start(load: Callable[[], NativeFunction], start: RuntimeClient | None) -> None:
    client = start or official_client()
    try:
        handler = load()
    except Exception as error:
        if start is None:
            _report_init_error(error)
        raise
    with contextlib.closing(handler):
        client(handler)


def as_fetcher(functions: Fetcher | Mapping[str, Function | Handler]) -> Fetcher:
    """Give a fetcher for what users hand in."""
    return functions if isinstance(functions, Fetcher) else StaticFetcher(functions)


def native_handler(fetcher: Fetcher, name: str, settings: LambdaModeSettings | None = None) -> NativeFunction:
    """Load a function and make the handler that a runtime client calls.

    :param name: empty takes the only function that there is.
    :param settings: None takes what the environment says.
    :raises NotFoundError: there is no such function; the message names those that there are.
    :raises TargetInvalid: the handler cannot be called with an event and a context.
    """
    environment = lambda_environment()
    settings = settings or environment.settings
    name, function = asyncio.run(fetch(fetcher, name))
    called = environment.function_name or name
    metrics = EmfMetrics(settings.metrics_namespace, called, write_to_log)
    try:
        handler = NativeFunction(function, called, metrics, environment.log_format or function.log_format)
    except TypeError as unfit:
        raise TargetInvalid(f"function {name!r} cannot be run: {unfit}") from None
    add_to_process(function.environment)
    return handler


async def fetch(fetcher: Fetcher, name: str) -> tuple[str, Function]:
    """Give a function with its name.

    :param name: empty takes the only function that there is.
    :raises NotFoundError: there is no such function; the message names those that there are.
    """
    if not name:
        known = await fetcher.list()
        if len(known) != 1:
            raise NotFoundError("", f"name the function to run: {_choices(known)}")
        (name,) = known
    try:
        return name, await fetcher.fetch(name)
    except NotFoundError:
        known = await fetcher.list()
        raise NotFoundError(name, f"there is no function {name!r}: {_choices(known)}") from None


def _choices(known: Mapping[str, Function]) -> str:
    return f"there are {', '.join(sorted(known))}" if known else "there are none"


# -------------------------------------------------------------------------------------------------- the official client


def official_client() -> RuntimeClient:
    """Give what runs a handler by AWS's runtime client, when everything that it needs is there.

    :raises ExtraMissing: ``awslambdaric`` is not installed.
    :raises RuntimeApiMissing: this is no Lambda.
    """
    main = official_main()

    def start(handler: NativeHandler) -> None:
        module = ModuleType(_MADE_MODULE, "The handler that AWS's runtime client asks for by name.")
        vars(module)["handler"] = handler
        sys.modules[_MADE_MODULE] = module
        threads_inherit()
        try:
            main(["awslambdaric", f"{_MADE_MODULE}.handler"])
        finally:
            del sys.modules[_MADE_MODULE]

    return start


def official_main() -> Callable[[list[str]], object]:
    """Give the command line of AWS's runtime client, ``python -m awslambdaric``, when it can be run.

    :raises ExtraMissing: ``awslambdaric`` is not installed.
    :raises RuntimeApiMissing: this is no Lambda.
    """
    if lambda_environment().runtime_api is None:
        raise RuntimeApiMissing(
            "AWS_LAMBDA_RUNTIME_API is not set: lambda mode gets its invocations from there, and AWS Lambda sets it. "
            "To try a function here, serve it with `serverfull serve`, or run this command under "
            "serverfull.testing.runtime_api or AWS's runtime interface emulator (aws-lambda-rie)."
        )
    try:
        main: Callable[[list[str]], object] = importlib.import_module("awslambdaric.__main__").main
    except ImportError:
        raise ExtraMissing("lambda mode", "AWS's runtime client awslambdaric", "lambda") from None
    return main


def _report_init_error(error: Exception) -> None:
    """Tell AWS why the function could not be loaded, as its client does where it loads a handler itself.

    AWS: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html#runtimes-api-initerror
    """
    cause = error.__cause__
    report = describe_exception(cause if isinstance(cause, Exception) else error, "")
    headers = {"Content-Type": "application/json", "Lambda-Runtime-Function-Error-Type": report.error_type}
    connection = http.client.HTTPConnection(lambda_environment().runtime_api or "", timeout=5)
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
        connection.request("POST", "/2018-06-01/runtime/init/error", report.document(), headers)
        connection.getresponse().read()
