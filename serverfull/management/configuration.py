"""AWS's FunctionConfiguration: the one place that writes it, for the operator's own functions and for deployed ones.

Pure functions of what they are given; called on the event loop by every operation that answers with a configuration.

AWS: https://docs.aws.amazon.com/lambda/latest/api/API_FunctionConfiguration.html
"""

from __future__ import annotations

import hashlib
import math
import sys
import uuid
from typing import TYPE_CHECKING

from serverfull.domain.checksums import code_sha256
from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.domain.hot_paths import SHA256
from serverfull.domain.json_functions import dumps
from serverfull.domain.limits import DEFAULT_EPHEMERAL_MB
from serverfull.domain.names import function_arn, partition_of
from serverfull.domain.runtimes import architecture, host_runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serverfull.config import FunctionSettings
    from serverfull.domain.deployed import FunctionVersion
    from serverfull.domain.functions import Function
    from serverfull.domain.names import RequestScope
    from serverfull.domain.source_code import SourceCode
    from serverfull.management.operations import Response


_REVISIONS = uuid.UUID("8e1f1f2e-93a5-4e62-9f43-5a7a7b5e6d10")

# What AWS leaves out of ListFunctions and ListVersionsByFunction; their pages say to call GetFunction for these.
_NOT_LISTED = (
    "State",
    "StateReason",
    "StateReasonCode",
    "LastUpdateStatus",
    "LastUpdateStatusReason",
    "LastUpdateStatusReasonCode",
    "RuntimeVersionConfig",
)

# Members that go out as they were given.
_ECHOED = (
    "DeadLetterConfig",
    "KMSKeyArn",
    "Layers",
    "FileSystemConfigs",
    "SigningProfileVersionArn",
    "SigningJobArn",
    "TenancyConfig",
    "CapacityProviderConfig",
    "DurableConfig",
    "RuntimeConfig",
    "AcceleratorConfig",
)


class Configurations:
    """Writes configurations.

    :param settings: what functions have that do not say otherwise.
    :param failure_of: says why the operator's function of a name is Failed; None where it is Active.
    """

    def __init__(self, settings: FunctionSettings, failure_of: Callable[[str], str | None]) -> None:
        self._settings = settings
        self._failure_of = failure_of

    def registered(
        self, name: str, function: Function, source: SourceCode, account: str, region: str, qualifier: str | None
    ) -> Response:
        """Describe a function of the operator's own.

        :param source: where its code lies.
        :param qualifier: qualifies the ARN.
        """
        settings = self._settings
        configuration: Response = {
            "FunctionName": name,
            "FunctionArn": function_arn(name, account, region, qualifier),
            "Role": f"arn:{partition_of(region)}:iam::{account}:role/serverfull",
            "CodeSize": source.size_bytes,
            "Description": function.description,
            "Timeout": math.ceil(function.timeout or settings.timeout),
            "MemorySize": function.memory_size or settings.memory_size,
            "LastModified": f"{source.changed:%Y-%m-%dT%H:%M:%S}.{source.changed.microsecond // 1000:03}+0000",
            "CodeSha256": source.sha256,
            "Version": function.version,
            "TracingConfig": {"Mode": "PassThrough"},
            "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
            "LoggingConfig": _logging_config(
                function.log_group or f"/aws/lambda/{name}", function.log_format, _levels(function)
            ),
            **_program(function),
        }
        if function.environment:
            configuration["Environment"] = {"Variables": dict(function.environment)}
        configuration["RevisionId"] = _revision_of(configuration)
        return configuration | _failure(self._failure_of(name)) | _runtime_version(region, _runtime_told(function))

    def deployed(self, version: FunctionVersion, scope: RequestScope, qualifier: str | None = None) -> Response:
        """Describe a version of a deployed function. Members that it does not have are None or not there.

        :param qualifier: qualifies the ARN.
        """
        settings = version.settings
        configuration: Response = {
            "FunctionName": version.function,
            "FunctionArn": function_arn(version.function, scope.account, scope.region, qualifier),
            "Runtime": version.runtime,
            "Role": version.role,
            "Handler": version.handler,
            "CodeSize": version.code_size,
            "Description": version.description,
            "Timeout": version.timeout,
            "MemorySize": version.memory_size,
            "LastModified": version.last_modified,
            "CodeSha256": _code_sha256(version),
            "Version": version.version,
            "TracingConfig": settings.get("TracingConfig", {"Mode": "PassThrough"}),
            "RevisionId": version.revision_id,
            "PackageType": version.package_type,
            "Architectures": [version.architecture],
            "EphemeralStorage": settings.get("EphemeralStorage", {"Size": DEFAULT_EPHEMERAL_MB}),
            "SnapStart": {
                "ApplyOn": "None",
                **settings.get("SnapStart", {}),
                "OptimizationStatus": version.optimization,
            },
            "LoggingConfig": _logging_config(
                f"/aws/lambda/{version.function}", version.log_format, settings.get("LoggingConfig", {})
            ),
        }
        if version.environment:
            configuration["Environment"] = {"Variables": dict(version.environment)}
        if "VpcConfig" in settings:
            configuration["VpcConfig"] = _VPC | settings["VpcConfig"]
        if "ImageConfig" in settings:
            configuration["ImageConfigResponse"] = {"ImageConfig": settings["ImageConfig"]}
        if version.runtime is not None:
            configuration |= _runtime_version(scope.region, version.runtime)
        configuration |= {member: settings[member] for member in _ECHOED if member in settings}
        return configuration | _state(version)


def _program(function: Function) -> Response:
    """Say what runs the operator's own function: the host's Python, or what was fetched from elsewhere asks for."""
    handler = function.handler
    if not isinstance(handler, DeployedHandler):
        return {
            "Runtime": host_runtime(),
            "Handler": function.handler_name,
            "PackageType": "Zip",
            "Architectures": [architecture()],
            "EphemeralStorage": {"Size": DEFAULT_EPHEMERAL_MB},
        }
    program: Response = {"Architectures": [handler.architecture], "EphemeralStorage": {"Size": handler.ephemeral_mb}}
    if not handler.image_uri:
        return {"Runtime": handler.runtime, "Handler": handler.name, "PackageType": "Zip", **program}
    config = handler.image_config
    said = {"EntryPoint": config.entry_point, "Command": config.command, "WorkingDirectory": config.working_directory}
    if any(said.values()):
        program["ImageConfigResponse"] = {"ImageConfig": {name: value for name, value in said.items() if value}}
    return {"PackageType": "Image", **program}


def _runtime_told(function: Function) -> str:
    """Give what the version of a runtime depends on beside the host's own Python."""
    return function.handler.runtime if isinstance(function.handler, DeployedHandler) else ""


_VPC = {"SubnetIds": [], "SecurityGroupIds": [], "VpcId": "", "Ipv6AllowedForDualStack": False}


def listed(configuration: Response) -> Response:
    """Leave out what lists of functions and versions do not show."""
    return {member: value for member, value in configuration.items() if member not in _NOT_LISTED}


def default_levels(log_format: str) -> Mapping[str, str]:
    """Give the log levels of functions that set none: there are levels only where logs are JSON."""
    return {"ApplicationLogLevel": "INFO", "SystemLogLevel": "INFO"} if log_format == "JSON" else {}


def _levels(function: Function) -> Mapping[str, str]:
    given = {"ApplicationLogLevel": function.application_log_level, "SystemLogLevel": function.system_log_level}
    return {**default_levels(function.log_format), **{name: level for name, level in given.items() if level}}


def resolved_image(version: FunctionVersion) -> str | None:
    """Give the image that a version is, with its digest, as far as that is known."""
    return version.resolved_image or (version.image_uri if "@sha256:" in (version.image_uri or "") else None)


def _code_sha256(version: FunctionVersion) -> str | None:
    if version.is_hot:
        return SHA256
    if version.image_uri is not None:
        image = resolved_image(version)
        return image and image.rpartition("@sha256:")[2]
    return code_sha256(version.code_sha256) if version.code_sha256 else None


def _logging_config(log_group: str, log_format: str, given: Mapping[str, str]) -> Response:
    return {"LogFormat": log_format, "LogGroup": log_group, **given}


def _failure(failure: str | None) -> Response:
    state: Response = {"LastUpdateStatus": "Successful", "State": "Active"}
    if failure is not None:
        state |= {"State": "Failed", "StateReason": failure, "StateReasonCode": "FunctionError"}
    return state


def _state(version: FunctionVersion) -> Response:
    state: Response = {
        "State": version.state,
        "StateReason": version.state_reason,
        "StateReasonCode": version.state_reason_code,
    }
    if version.state != "Pending":  # as on AWS: nothing was updated yet
        state |= {
            "LastUpdateStatus": version.last_update_status,
            "LastUpdateStatusReason": version.last_update_status_reason,
            "LastUpdateStatusReasonCode": version.last_update_status_reason_code,
        }
    return state


def _runtime_version(region: str, runtime: str) -> Response:
    # AWS's ids are hashes of the runtime's image. Ours is one of the interpreter, and so changes when it is updated.
    identity = hashlib.sha256(f"{runtime}{sys.implementation.name} {sys.version}".encode()).hexdigest()
    arn = f"arn:{partition_of(region)}:lambda:{region}::runtime:{identity}"
    return {"RuntimeVersionConfig": {"RuntimeVersionArn": arn}}


def _revision_of(configuration: Response) -> str:
    """Derive an id that is the same as long as code and configuration are, over restarts and on every host."""
    content = {key: value for key, value in configuration.items() if key not in ("FunctionArn", "LastModified", "Role")}
    return str(uuid.uuid5(_REVISIONS, dumps(content, sort_keys=True)))
