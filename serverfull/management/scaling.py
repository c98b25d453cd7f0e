"""How many environments versions on a capacity provider are to have: what is kept of that. Nothing follows it yet.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/lambda-managed-instances-scaling.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serverfull.domain.capacity import FUNCTION_SCALING, FunctionScaling
from serverfull.domain.changes import FunctionChanged
from serverfull.domain.names import function_arn, function_not_found
from serverfull.errors import InvalidParameterValue
from serverfull.management.resolution import check_not_updating

if TYPE_CHECKING:
    from types_boto3_lambda.type_defs import (
        GetFunctionScalingConfigRequestTypeDef,
        PutFunctionScalingConfigRequestTypeDef,
    )

    from serverfull.domain.changes import Changes
    from serverfull.domain.deployed import FunctionVersion
    from serverfull.domain.names import RequestScope
    from serverfull.interfaces import Records, StateStore
    from serverfull.management.operations import Operations, Response
    from serverfull.management.resolution import FunctionResolver


DEFAULT_MAXIMUM = 15_000
"""What a maximum that nobody has set is taken for when it is compared with the minimum: the most that AWS takes."""


class ScalingConfigs:
    """The operations on scaling configurations."""

    def __init__(self, state: StateStore, resolver: FunctionResolver, changes: Changes) -> None:
        self._state = state
        self._resolver = resolver
        self._changes = changes

    def operations(self) -> Operations:
        """Give the methods by the names that the AWS model has for them."""
        return {
            "GetFunctionScalingConfig": self.get,
            "PutFunctionScalingConfig": self.put,
        }

    async def get(self, request: GetFunctionScalingConfigRequestTypeDef, scope: RequestScope) -> Response:
        """Tell what was asked for; nothing is ever said to be applied, because nothing is.

        :raises NotFoundError: there is no such function or version.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetFunctionScalingConfig.html
        """
        reference = self._resolver.reference(request, scope)
        if await self._resolver.registered(reference.name, scope) is not None:  # it has no published versions
            raise function_not_found(reference.name, scope.account, scope.region, reference.qualifier)

        def work(records: Records) -> FunctionScaling | None:
            self._resolver.version(records, reference, scope)
            return records.get(FUNCTION_SCALING, reference.name, str(reference.qualifier))

        config = await self._state.read(scope.partition, work)
        arn = function_arn(reference.name, scope.account, scope.region, reference.qualifier)
        return {"FunctionArn": arn, "RequestedFunctionScalingConfig": config and _described(config)}

    async def put(self, request: PutFunctionScalingConfigRequestTypeDef, scope: RequestScope) -> Response:
        """Ask for a number of environments; a request without a configuration takes what was asked for back.

        :raises NotFoundError: there is no such function or version.
        :raises InvalidParameterValue: it has no capacity provider, or the minimum is over the maximum.
        :raises ResourceConflict: the version is being changed.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_PutFunctionScalingConfig.html
        """
        reference = await self._resolver.writable(request, scope)
        bounds = request.get("FunctionScalingConfig", {})
        config = FunctionScaling(
            function=reference.name,
            qualifier=str(reference.qualifier),
            minimum=bounds.get("MinExecutionEnvironments"),
            maximum=bounds.get("MaxExecutionEnvironments"),
        )
        _check_bounds(config)
        arn = function_arn(reference.name, scope.account, scope.region, reference.qualifier)

        def work(records: Records) -> FunctionVersion:
            version = self._resolver.version(records, reference, scope)
            if not version.settings.get("CapacityProviderConfig"):
                raise InvalidParameterValue(f"{arn} has no capacity provider, and nothing else has a scaling config.")
            check_not_updating(version, arn)
            records.delete(FUNCTION_SCALING, config.function, config.qualifier)
            if bounds:
                records.insert(FUNCTION_SCALING, config)
            return version

        version = await self._state.write(scope.partition, work)
        self._changes.publish(FunctionChanged(scope.partition, reference.name))
        return {"FunctionState": version.state}


def _check_bounds(config: FunctionScaling) -> None:
    least, most = config.minimum or 0, DEFAULT_MAXIMUM if config.maximum is None else config.maximum
    if least > most:
        raise InvalidParameterValue(
            f"MinExecutionEnvironments ({least}) must not be greater than MaxExecutionEnvironments ({most})."
        )


def _described(config: FunctionScaling) -> Response:
    """Write a configuration as AWS's FunctionScalingConfig: the one place that does."""
    return {"MinExecutionEnvironments": config.minimum, "MaxExecutionEnvironments": config.maximum}
