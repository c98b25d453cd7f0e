"""From the members of a request to a version of a function: what CreateFunction and UpdateFunctionConfiguration share.

`configured` puts the members that a request has on a version; what of it AWS would not accept is refused by
`serverfull.management.validation`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from serverfull.errors import InvalidParameterValue
from serverfull.management.configuration import default_levels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serverfull.domain.deployed import FunctionVersion

_FIELDS = {
    "Role": "role",
    "Handler": "handler",
    "Runtime": "runtime",
    "Description": "description",
    "Timeout": "timeout",
    "MemorySize": "memory_size",
}

# Kept as they are given. An empty one takes away what there was.
_KEPT = (
    "KMSKeyArn",
    "DeadLetterConfig",
    "TracingConfig",
    "VpcConfig",
    "FileSystemConfigs",
    "ImageConfig",
    "EphemeralStorage",
    "SnapStart",
    "TenancyConfig",
    "CapacityProviderConfig",
    "DurableConfig",
    "RuntimeConfig",
    "AcceleratorConfig",
)

LOG_LEVELS = ("ApplicationLogLevel", "SystemLogLevel")


def configured(version: FunctionVersion, request: Mapping[str, Any]) -> FunctionVersion:
    """Give a version with the configuration of a request; what the request does not mention stays.

    Layers are not among it, because what they are has to be looked up.

    :raises InvalidParameterValue: log levels are given for logs that are not JSON.
    """
    changed: dict[str, Any] = {field: request[member] for member, field in _FIELDS.items() if member in request}
    settings = {**version.settings, **{member: request[member] for member in _KEPT if member in request}}
    if "Environment" in request:
        changed["environment"] = dict(request["Environment"].get("Variables", {}))
    if "Architectures" in request:
        changed["architecture"] = request["Architectures"][0]
    if "LoggingConfig" in request:
        log_format = changed["log_format"] = request["LoggingConfig"].get("LogFormat", version.log_format)
        settings["LoggingConfig"] = _logging(log_format, version, request["LoggingConfig"])
    changed["settings"] = {member: value for member, value in settings.items() if not _is_empty(value)}
    return replace(version, **changed)


def _logging(log_format: str, version: FunctionVersion, given: Mapping[str, str]) -> Mapping[str, str]:
    """Give levels and group; the format itself is a field of its own."""
    kept = {**default_levels(log_format), **version.settings.get("LoggingConfig", {}), **given}
    dropped = {"LogFormat"}
    if log_format != "JSON":
        if any(level in given for level in LOG_LEVELS):
            raise InvalidParameterValue(
                "ApplicationLogLevel and SystemLogLevel can only be set for functions configured to use JSON log "
                "format."
            )
        dropped.update(LOG_LEVELS)
    return {member: value for member, value in kept.items() if member not in dropped}


def _is_empty(value: Any) -> bool:
    """Tell whether nothing is left of a member; DeadLetterConfig is taken away by an empty ARN."""
    return not value or value == {"TargetArn": ""}
