"""Which versions of a runtime functions want: what is kept of that. A host has one version of each, and uses it.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-update.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serverfull.domain.capacity import RUNTIME_MANAGEMENT, RuntimeManagement
from serverfull.domain.changes import FunctionChanged
from serverfull.domain.names import LATEST, FunctionReference, function_arn, function_not_found
from serverfull.errors import InvalidParameterValue
from serverfull.management.resolution import check_not_updating, version_number

if TYPE_CHECKING:
    from types_boto3_lambda.type_defs import (
        GetRuntimeManagementConfigRequestTypeDef,
        PutRuntimeManagementConfigRequestTypeDef,
    )

    from serverfull.domain.changes import Changes
    from serverfull.domain.names import RequestScope
    from serverfull.interfaces import Records, StateStore
    from serverfull.management.operations import Operations, Request, Response
    from serverfull.management.resolution import FunctionResolver


class RuntimeManagementConfigs:
    """The operations on runtime management configurations."""

    def __init__(self, state: StateStore, resolver: FunctionResolver, changes: Changes) -> None:
        self._state = state
        self._resolver = resolver
        self._changes = changes

    def operations(self) -> Operations:
        """Give the methods by the names that the AWS model has for them."""
        return {
            "GetRuntimeManagementConfig": self.get,
            "PutRuntimeManagementConfig": self.put,
        }

    async def get(self, request: GetRuntimeManagementConfigRequestTypeDef, scope: RequestScope) -> Response:
        """Tell what a version wants; ``Auto`` where nothing was said.

        :raises NotFoundError: there is no such function or version.
        :raises InvalidParameterValue: the qualifier is an alias.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetRuntimeManagementConfig.html
        """
        reference = self._resolver.reference(request, scope)
        _check_version(reference)
        config = _automatic(reference)
        if await self._resolver.registered(reference.name, scope) is not None:
            if reference.qualifier not in (None, LATEST):
                raise function_not_found(reference.name, scope.account, scope.region, reference.qualifier)
            return _described(config, reference, scope)

        def work(records: Records) -> RuntimeManagement:
            self._resolver.version(records, reference, scope)
            return records.get(RUNTIME_MANAGEMENT, config.function, config.qualifier) or config

        return _described(await self._state.read(scope.partition, work), reference, scope)

    async def put(self, request: PutRuntimeManagementConfigRequestTypeDef, scope: RequestScope) -> Response:
        """Say what a version wants.

        :raises NotFoundError: there is no such function or version.
        :raises InvalidParameterValue: the qualifier is an alias, the function is an image, or ``Manual`` comes without
            a runtime version, or another mode with one.
        :raises ResourceConflict: the version is being changed.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_PutRuntimeManagementConfig.html
        """
        reference = await self._resolver.writable(request, scope)
        _check_version(reference)
        _check_mode(request)
        config = RuntimeManagement(
            function=reference.name,
            qualifier=reference.qualifier or LATEST,
            update_on=request["UpdateRuntimeOn"],
            runtime_version=request.get("RuntimeVersionArn"),
        )
        arn = function_arn(reference.name, scope.account, scope.region, reference.qualifier)

        def work(records: Records) -> None:
            version = self._resolver.version(records, reference, scope)
            if version.package_type == "Image":
                raise InvalidParameterValue("Functions of packageType Image have no runtime management config.")
            check_not_updating(version, arn)
            records.delete(RUNTIME_MANAGEMENT, config.function, config.qualifier)
            records.insert(RUNTIME_MANAGEMENT, config)

        await self._state.write(scope.partition, work)
        self._changes.publish(FunctionChanged(scope.partition, reference.name))
        return _described(config, reference, scope)


def _automatic(reference: FunctionReference) -> RuntimeManagement:
    return RuntimeManagement(function=reference.name, qualifier=reference.qualifier or LATEST, update_on="Auto")


def _check_version(reference: FunctionReference) -> None:
    qualifier = reference.qualifier
    if qualifier not in (None, LATEST) and version_number(str(qualifier)) is None:
        raise InvalidParameterValue(
            f"The Qualifier {qualifier} is no version: runtime management is for $LATEST and published versions."
        )


def _check_mode(request: Request) -> None:
    if request["UpdateRuntimeOn"] == "Manual" and "RuntimeVersionArn" not in request:
        raise InvalidParameterValue("RuntimeVersionArn is required where UpdateRuntimeOn is Manual.")
    if request["UpdateRuntimeOn"] != "Manual" and "RuntimeVersionArn" in request:
        raise InvalidParameterValue("RuntimeVersionArn is only for UpdateRuntimeOn Manual.")


def _described(config: RuntimeManagement, reference: FunctionReference, scope: RequestScope) -> Response:
    """Write a configuration as the two operations answer: the one place that does."""
    return {
        "UpdateRuntimeOn": config.update_on,
        "FunctionArn": function_arn(reference.name, scope.account, scope.region, reference.qualifier),
        "RuntimeVersionArn": config.runtime_version,
    }
