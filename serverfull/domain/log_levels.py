"""The levels of LoggingConfig: which lines of a function's log are kept. They count only in JSON logs.

Application levels are for what the function writes, system levels for what the host says about it.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

ApplicationLogLevel: TypeAlias = Literal["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"]
SystemLogLevel: TypeAlias = Literal["DEBUG", "INFO", "WARN"]

APPLICATION_LOG_LEVELS: tuple[str, ...] = get_args(ApplicationLogLevel)
SYSTEM_LOG_LEVELS: tuple[str, ...] = get_args(SystemLogLevel)

RANKS: Mapping[str, int] = MappingProxyType(
    {"TRACE": 0, "DEBUG": 10, "INFO": 20, "WARN": 30, "WARNING": 30, "ERROR": 40, "FATAL": 50, "CRITICAL": 50}
)
"""How much a level matters: the numbers of Python's ``logging``, under every name that a line may give."""


def log_variables(log_format: str, level: ApplicationLogLevel | None) -> dict[str, str]:
    """Give the variables by which AWS tells a runtime about its log.

    :param log_format: ``Text`` or ``JSON``.
    :param level: None where the log is text, which has no levels.

    AWS: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime
    """
    said = {"AWS_LAMBDA_LOG_FORMAT": log_format}
    return said if level is None else {**said, "AWS_LAMBDA_LOG_LEVEL": level}
