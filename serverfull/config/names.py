"""What a setting is called in each place: ``group.field``, environment variables, flags, and the names of the ancestor.

The ancestor is serverfull (Go); https://github.com/asecurityteam/runhttp documents its variables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from types import MappingProxyType

from serverfull.config.settings import Settings

PREFIX = "SERVERFULL_"

CONFIG_VARIABLE = f"{PREFIX}CONFIG"
"""Names the settings file; the flag ``--config`` wins over it."""

ADDRESS_VARIABLE = f"{PREFIX}RUNTIME_HTTPSERVER_ADDRESS"
"""The one variable of the ancestor that holds two settings."""

FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "server.host": "--host",
        "server.port": "--port",
        "server.workers": "--workers",
        "server.insecure_no_auth": "--insecure-no-auth",
        "server.admin_address": "--admin-address",
        "server.shutdown_timeout": "--shutdown-timeout",
        "functions.region": "--region",
        "limits.max_concurrency": "--max-concurrency",
        "state.path": "--state",
        "state.code_store": "--code-store",
        "execution.mode": "--execution",
        "mock.enabled": "--mock",
        "mock.answers": "--mock-answers",
        "mock.seed": "--mock-seed",
        "lambda_mode.function": "--function",
        "logging.level": "--log-level",
        "logging.format": "--log-format",
        "client.endpoint": "--endpoint",
        "client.timeout": "--timeout",
    }
)
"""The settings that a command takes as a flag."""

COMMON: Mapping[str, str] = MappingProxyType(
    {
        "PORT": "server.port",
        "AWS_DEFAULT_REGION": "functions.region",
        "AWS_REGION": "functions.region",
        "NO_COLOR": "logging.color",
        "AWS_ENDPOINT_URL": "client.endpoint",
        "AWS_ENDPOINT_URL_LAMBDA": "client.endpoint",
        "DOCKER_HOST": "docker.engine",
        "BUCKET_MARKER_LOCAL": "hot_reload.marker",
        f"{PREFIX}ENDPOINT": "client.endpoint",
        f"{PREFIX}STATE": "state.path",
        f"{PREFIX}LAMBDA_TARGET": "lambda_mode.target",
        f"{PREFIX}LAMBDA_FUNCTION": "lambda_mode.function",
    }
)
"""Variables that other programs read too, or that are shorter than the full name; of two, the later one wins."""

SHORT: Mapping[str, str] = MappingProxyType({f"{PREFIX}DOCKER_IMAGES": "docker.images"})
"""Shorter variables of settings that take more than one value; the full name wins."""

_GO_LOGGER = {"RUNTIME_LOGGING_LEVEL": "level", "RUNTIME_LOGGER_LEVEL": "level", "RUNTIME_LOGGER_OUTPUT": "output"}
_GO_GROUPS = ("stats", "signals", "connstate", "expvar")


def setting_keys() -> Iterator[tuple[str, str]]:
    """Give every setting as its group and its field."""
    for group in fields(Settings):
        for field in fields(group.default_factory):  # type: ignore[arg-type]
            yield group.name, field.name


def secret_keys() -> frozenset[str]:
    """Give the settings, as ``group.field``, whose values are shown to nobody: those that are left out of reprs."""
    return frozenset(
        f"{group.name}.{field.name}"
        for group in fields(Settings)
        for field in fields(group.default_factory)  # type: ignore[arg-type]
        if not field.repr
    )


def variable(group: str, field: str) -> str:
    """Give the environment variable of a setting."""
    return f"{PREFIX}{group}__{field}".upper()


def go_variables() -> dict[str, str]:
    """Give the ancestor's variables that hold one setting each; of two for one setting, the later one wins."""
    names = {PREFIX + name: f"logging.{field}" for name, field in _GO_LOGGER.items()}
    for group, field in setting_keys():
        if group in _GO_GROUPS:
            names[f"{PREFIX}RUNTIME_{group}_{field}".upper()] = f"{group}.{field}"
    return names
