"""What the environment of a native Lambda says: AWS's variables, and the settings of lambda mode.

Read once at start. No settings file and no validation library: an artifact holds neither, and a cold start waits for
neither.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import get_type_hints

from serverfull.config import names
from serverfull.config.settings import LambdaModeSettings
from serverfull.config.values import expected, fits
from serverfull.domain.functions import LogFormat
from serverfull.errors import ConfigurationError

RUNTIME_API = "AWS_LAMBDA_RUNTIME_API"


@dataclass(frozen=True, slots=True, kw_only=True)
class LambdaEnvironment:
    """The environment of a native Lambda.

    :param runtime_api: ``host:port`` of the Runtime API; None outside of a Lambda.
    :param function_name: what the function is called on AWS; None outside of a Lambda.
    :param log_format: the Lambda's own setting, which wins over the function's where it says JSON; None: it says none.
    :param settings: what the environment sets of lambda mode; the rest has its default.
    """

    runtime_api: str | None
    function_name: str | None
    log_format: LogFormat | None
    settings: LambdaModeSettings


def lambda_environment(environ: Mapping[str, str] | None = None) -> LambdaEnvironment:
    """Read the environment.

    :param environ: the environment; None is the process's own.
    :raises ConfigurationError: a setting of lambda mode is malformed.
    """
    environ = os.environ if environ is None else environ
    return LambdaEnvironment(
        runtime_api=environ.get(RUNTIME_API) or None,
        function_name=environ.get("AWS_LAMBDA_FUNCTION_NAME") or None,
        log_format="JSON" if environ.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON" else None,
        settings=_settings(environ),
    )


def _settings(environ: Mapping[str, str]) -> LambdaModeSettings:
    kinds = get_type_hints(LambdaModeSettings, include_extras=True)
    values: dict[str, str] = {}
    for field in fields(LambdaModeSettings):
        short = [name for name, key in names.COMMON.items() if key == f"lambda_mode.{field.name}"]
        for name in (*short, names.variable("lambda_mode", field.name)):  # of two, the later one wins
            value = environ.get(name, "").strip()
            if not value:
                continue
            if not fits(kinds[field.name], value):
                raise ConfigurationError(f"environment {name}: {value!r} is not {expected(kinds[field.name])}")
            values[field.name] = value
    return LambdaModeSettings(**values)
