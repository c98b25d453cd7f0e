"""The handler of a Lambda-managed Python runtime: set Handler to ``serverfull.lambda_mode.handler.handler``.

Importing this module loads the function, as importing the module of a handler does on AWS. Which function that is says
the environment (``SERVERFULL_LAMBDA_TARGET`` and ``SERVERFULL_LAMBDA_FUNCTION``), else the artifact that it is in.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from serverfull.config.native import lambda_environment
from serverfull.errors import ConfigurationError, TargetImportFailed
from serverfull.fetchers.targets import load_target
from serverfull.interfaces import Fetcher
from serverfull.lambda_mode.names import ARTIFACT_MODULE
from serverfull.lambda_mode.starting import NativeHandler, native_handler
from serverfull.runtimes.capture import threads_inherit


@dataclass(frozen=True, slots=True)
class Artifact:
    """What an artifact runs.

    :param target: ``module:attribute``.
    :param function: the name of the function.
    :param mock: answers come from the function's types, and its handler never runs.
    """

    target: str
    function: str
    mock: bool = False


def load() -> NativeHandler:
    """Load the function that this Lambda runs.

    :raises ConfigurationError: neither the environment nor an artifact names it.
    :raises TargetError: the target cannot be turned into functions. What its module raises is raised as it is.
    :raises NotFoundError: it has no such function.
    """
    settings = lambda_environment().settings
    built = _artifact()
    if settings.target:
        artifact = Artifact(settings.target, settings.function)
    elif built is None:
        raise ConfigurationError(
            "nothing to run: set SERVERFULL_LAMBDA_TARGET (and SERVERFULL_LAMBDA_FUNCTION), or make the artifact with "
            "`serverfull build`"
        )
    else:
        artifact = Artifact(built.target, settings.function or built.function, built.mock)
    return native_handler(_fetcher(artifact, in_folder=bool(settings.target)), artifact.function)


def _artifact() -> Artifact | None:
    try:
        module = importlib.import_module(ARTIFACT_MODULE)
    except ModuleNotFoundError:
        return None
    return Artifact(module.TARGET, module.FUNCTION, module.MOCK)


def _fetcher(artifact: Artifact, *, in_folder: bool) -> Fetcher:
    try:
        fetcher = load_target(artifact.target, in_folder=in_folder)
    except TargetImportFailed as failed:
        if failed.__cause__ is not None:
            raise failed.__cause__ from None
        raise
    if not artifact.mock:
        return fetcher
    from serverfull.fetchers.mocking import MockingFetcher  # late: a cold start waits for what is imported

    return MockingFetcher(fetcher)


threads_inherit()
handler = load()
"""What the runtime client calls."""
