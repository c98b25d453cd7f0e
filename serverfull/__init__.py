"""Run AWS Lambda functions on your own machines, behind the Lambda API.

The public face. Every name is imported when it is first used, so that ``import serverfull`` costs nothing.

    from serverfull import Function, serve

    def hello(event, context):
        return "Hello!"

    serve({"hello": hello})
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serverfull.application import create_app
    from serverfull.config import Settings
    from serverfull.domain.functions import Function
    from serverfull.errors import NotFoundError, ServerfullError
    from serverfull.fetchers.answers import MockAnswers, RandomAnswers, StaticAnswers, ZeroAnswers
    from serverfull.fetchers.chain import ChainFetcher
    from serverfull.fetchers.directory import DirectoryFetcher
    from serverfull.fetchers.docker import DockerFetcher
    from serverfull.fetchers.mocking import MockingFetcher
    from serverfull.fetchers.observing import ObservingFetcher
    from serverfull.fetchers.s3 import S3Fetcher
    from serverfull.fetchers.static import StaticFetcher
    from serverfull.interfaces import Fetcher
    from serverfull.lambda_mode.starting import start_lambda, start_lambda_mock
    from serverfull.observability.handles import logger, metrics
    from serverfull.runtimes.context import LambdaContext
    from serverfull.serving import serve, serve_mock
    from serverfull.storage.buckets import S3Bucket
    from serverfull.storage.s3 import S3Endpoint

__all__ = [
    "ChainFetcher",
    "DirectoryFetcher",
    "DockerFetcher",
    "Fetcher",
    "Function",
    "LambdaContext",
    "MockAnswers",
    "MockingFetcher",
    "NotFoundError",
    "ObservingFetcher",
    "RandomAnswers",
    "S3Bucket",
    "S3Endpoint",
    "S3Fetcher",
    "ServerfullError",
    "Settings",
    "StaticAnswers",
    "StaticFetcher",
    "ZeroAnswers",
    "create_app",
    "logger",
    "metrics",
    "serve",
    "serve_mock",
    "start_lambda",
    "start_lambda_mock",
]

__version__ = "0.1.0"

_HOMES = {
    "ChainFetcher": "serverfull.fetchers.chain",
    "DirectoryFetcher": "serverfull.fetchers.directory",
    "DockerFetcher": "serverfull.fetchers.docker",
    "Fetcher": "serverfull.interfaces",
    "Function": "serverfull.domain.functions",
    "LambdaContext": "serverfull.runtimes.context",
    "MockAnswers": "serverfull.fetchers.answers",
    "MockingFetcher": "serverfull.fetchers.mocking",
    "NotFoundError": "serverfull.errors",
    "ObservingFetcher": "serverfull.fetchers.observing",
    "RandomAnswers": "serverfull.fetchers.answers",
    "S3Bucket": "serverfull.storage.buckets",
    "S3Endpoint": "serverfull.storage.s3",
    "S3Fetcher": "serverfull.fetchers.s3",
    "ServerfullError": "serverfull.errors",
    "Settings": "serverfull.config",
    "StaticAnswers": "serverfull.fetchers.answers",
    "StaticFetcher": "serverfull.fetchers.static",
    "ZeroAnswers": "serverfull.fetchers.answers",
    "create_app": "serverfull.application",
    "logger": "serverfull.observability.handles",
    "metrics": "serverfull.observability.handles",
    "serve": "serverfull.serving",
    "serve_mock": "serverfull.serving",
    "start_lambda": "serverfull.lambda_mode.starting",
    "start_lambda_mock": "serverfull.lambda_mode.starting",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'serverfull' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
