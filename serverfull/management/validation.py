"""What AWS refuses in a function's configuration beyond what its model says, in AWS's words where they are known.

Pure functions, called by `serverfull.management.deployments` with whole versions, so that a change is checked together
with what it does not touch.

AWS: https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from serverfull.domain.images import is_image_name
from serverfull.domain.layers import MAX_LAYERS
from serverfull.domain.names import LATEST, FunctionReference, shown
from serverfull.domain.runtimes import REFUSED_RUNTIMES
from serverfull.domain.variables import measured, reserved_among, too_long
from serverfull.errors import InvalidParameterValue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from serverfull.domain.deployed import FunctionVersion
    from serverfull.domain.names import RequestScope

MAX_NAME = 64
"""Characters of a function's bare name."""

# https://docs.aws.amazon.com/lambda/latest/dg/snapstart.html: Java from 11, Python from 3.12, .NET from 8.
_SNAP_START_FROM = {"java": 11, "python3.": 12, "dotnet": 8}


def check_unqualified(reference: FunctionReference) -> None:
    """Refuse a version or an alias where only a whole function will do.

    :raises InvalidParameterValue: the name is qualified.
    """
    if reference.qualifier not in (None, LATEST):
        raise InvalidParameterValue(
            "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. "
            "Please specify either a function name or an unqualified function ARN."
        )


def check_latest(reference: FunctionReference) -> None:
    """Refuse a version or an alias where ``$LATEST`` is changed.

    :raises InvalidParameterValue: the name is qualified with anything else.
    """
    if reference.qualifier not in (None, LATEST):
        raise InvalidParameterValue("Current operation does not support versions other than $LATEST.")


def check_new_name(reference: FunctionReference) -> None:
    """Refuse a name that a new function cannot have.

    :raises InvalidParameterValue: it is qualified or too long.
    """
    check_unqualified(reference)
    if len(reference.name) > MAX_NAME:
        raise InvalidParameterValue(
            f"1 validation error detected: Value '{reference.name}' at 'functionName' failed to satisfy constraint: "
            f"Member must have length less than or equal to {MAX_NAME}"
        )


def check_runtime(runtime: str | None) -> None:
    """Refuse a runtime that AWS takes no more.

    :raises InvalidParameterValue: it is one of those.
    """
    if runtime in REFUSED_RUNTIMES:
        raise InvalidParameterValue(
            f"The runtime parameter of {runtime} is no longer supported for creating or updating AWS Lambda functions. "
            "We recommend you use a supported runtime while creating or updating functions."
        )


def check_configuration(version: FunctionVersion) -> None:
    """Refuse a configuration whose members are wrong, or do not go together.

    :raises InvalidParameterValue: they do not.
    """
    _check_package_type(version)
    _check_environment(version.environment)
    _check_network(version)
    _check_snap_start(version)


def check_image_uri(uri: str) -> None:
    """Refuse what names no container image.

    :raises InvalidParameterValue: it does not.
    """
    if not is_image_name(uri):
        raise InvalidParameterValue(f"Source image {shown(uri)} is not valid. Provide a valid source image.")


def check_layers(arns: Sequence[str], scope: RequestScope) -> None:
    """Refuse a list of layers that no function can have, whether they exist or not.

    :raises InvalidParameterValue: there are too many, two of the same layer, or one of another region.
    """
    if len(arns) > MAX_LAYERS:
        raise InvalidParameterValue(f"Cannot reference more than {MAX_LAYERS} layers.")
    seen: dict[str, str] = {}
    for arn in arns:
        if arn.split(":")[3] not in ("", scope.region):
            raise InvalidParameterValue(
                "Layers are not in the same region as the function. "
                f"Layers are expected to be in region {scope.region}."
            )
        layer = arn.rpartition(":")[0] if ":layer:" in arn else arn
        if layer in seen:
            raise InvalidParameterValue(
                "Two different versions of the same layer are not allowed to be referenced in the same function. "
                f"{seen[layer]} and {arn} are versions of the same layer."
            )
        seen[layer] = arn


def _check_package_type(version: FunctionVersion) -> None:
    if version.package_type == "Image":
        _check_image_config(version.settings.get("ImageConfig", {}))
        if version.handler is not None or version.runtime is not None or "Layers" in version.settings:
            raise InvalidParameterValue(
                "The Runtime, Handler and Layers parameters are not supported for functions created with container "
                "images."
            )
        return
    if not version.handler or not version.runtime:
        raise InvalidParameterValue(
            "Runtime and Handler are mandatory parameters for functions created with deployment packages."
        )
    if "ImageConfig" in version.settings:
        raise InvalidParameterValue("ImageConfig is supported for functions of packageType Image only.")


def _check_image_config(config: Mapping[str, Any]) -> None:
    folder = config.get("WorkingDirectory")
    if folder and not folder.startswith("/"):
        raise InvalidParameterValue(f"The WorkingDirectory {shown(folder)} of ImageConfig is not an absolute path.")
    if any("\0" in word for word in (folder or "", *config.get("EntryPoint", ()), *config.get("Command", ()))):
        raise InvalidParameterValue("ImageConfig has a null character, which no argument and no path can have.")


def _check_environment(variables: Mapping[str, str]) -> None:
    reserved = reserved_among(variables)
    if reserved:
        raise InvalidParameterValue(
            "Lambda was unable to configure your environment variables because the environment variables you have "
            "provided contains reserved keys that are currently not supported for modification. "
            f"Reserved keys used in this request: {', '.join(reserved)}"
        )
    text = measured(variables)
    if too_long(text):
        raise InvalidParameterValue(
            "Lambda was unable to configure your environment variables because the environment variables you have "
            f"provided exceeded the 4KB limit. String measured: {shown(text)}"
        )


def _check_network(version: FunctionVersion) -> None:
    vpc = version.settings.get("VpcConfig", {})
    if bool(vpc.get("SubnetIds")) != bool(vpc.get("SecurityGroupIds")):
        raise InvalidParameterValue("SubnetIds and SecurityIds must coexist or be both empty list.")
    if "FileSystemConfigs" in version.settings and not vpc.get("SubnetIds"):
        raise InvalidParameterValue("FileSystemConfigs need a VpcConfig with subnets and security groups.")


def _check_snap_start(version: FunctionVersion) -> None:
    if version.settings.get("SnapStart", {}).get("ApplyOn") != "PublishedVersions":
        return
    if version.package_type == "Image":
        raise InvalidParameterValue("SnapStart is not supported for functions created with container images.")
    if not _has_snap_start(version.runtime or ""):
        raise InvalidParameterValue(f"{version.runtime} is not supported for SnapStart enabled functions.")
    if version.settings.get("EphemeralStorage", {}).get("Size", 0) > 512:
        raise InvalidParameterValue("SnapStart enabled functions have at most 512 MB of ephemeral storage.")
    if "FileSystemConfigs" in version.settings:
        raise InvalidParameterValue("SnapStart enabled functions cannot have FileSystemConfigs.")


def _has_snap_start(runtime: str) -> bool:
    for family, first in _SNAP_START_FROM.items():
        number = runtime.removeprefix(family).partition(".")[0]
        if runtime.startswith(family) and number.isdecimal():
            return int(number) >= first
    return False
