"""What happens to ``Event`` invocations that fail: the configurations of functions, versions and aliases.

The queue of events follows them. All reading and writing runs in transactions on the store's thread.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-configuring.html
"""

from __future__ import annotations

import re
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from serverfull.domain.changes import FunctionChanged
from serverfull.domain.deployed import FUNCTIONS
from serverfull.domain.destinations import target_kind
from serverfull.domain.invoke_configs import EVENT_INVOKE_CONFIGS, EventInvokeConfig
from serverfull.domain.names import LATEST, function_arn
from serverfull.errors import InvalidParameterValue, ResourceNotFound
from serverfull.management.destinations import check_destinations, check_reachable, destination_of
from serverfull.management.paging import read_page
from serverfull.management.resolution import exists

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from types_boto3_lambda.type_defs import (
        DeleteFunctionEventInvokeConfigRequestTypeDef,
        GetFunctionEventInvokeConfigRequestTypeDef,
        ListFunctionEventInvokeConfigsRequestTypeDef,
        PutFunctionEventInvokeConfigRequestTypeDef,
        UpdateFunctionEventInvokeConfigRequestTypeDef,
    )

    from serverfull.domain.changes import Changes
    from serverfull.domain.names import FunctionReference, RequestScope
    from serverfull.interfaces import Records, StateStore
    from serverfull.management.operations import Operations, Request, Response
    from serverfull.management.resolution import FunctionResolver


_SUCCESS_KINDS = ("sqs", "sns", "lambda", "events")
_FAILURE_KINDS = (*_SUCCESS_KINDS, "s3")
_SETTINGS = ("MaximumRetryAttempts", "MaximumEventAgeInSeconds", "DestinationConfig")
_FUNCTION = re.compile(r"arn:[^:]+:lambda:([^:]+):([^:]+):function:([^:]+)(?::.*)?")


class EventInvokeConfigs:
    """The operations on event invoke configurations.

    :param reachable: the services, as ARNs call them, that the host can send records to.
    """

    def __init__(
        self, state: StateStore, resolver: FunctionResolver, changes: Changes, reachable: Collection[str]
    ) -> None:
        self._state = state
        self._resolver = resolver
        self._changes = changes
        self._reachable = reachable

    def operations(self) -> Operations:
        """Give the methods by the names that the AWS model has for them."""
        return {
            "PutFunctionEventInvokeConfig": self.put,
            "UpdateFunctionEventInvokeConfig": self.update,
            "GetFunctionEventInvokeConfig": self.get,
            "DeleteFunctionEventInvokeConfig": self.delete,
            "ListFunctionEventInvokeConfigs": self.list,
        }

    async def put(self, request: PutFunctionEventInvokeConfigRequestTypeDef, scope: RequestScope) -> Response:
        """Set the configuration of a function, a version or an alias; what the request leaves out is AWS's default.

        :raises ResourceNotFound: there is no such function, version or alias.
        :raises InvalidParameterValue: the request sets nothing, or a destination is none that AWS takes.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_PutFunctionEventInvokeConfig.html
        """
        return await self._set(request, scope, keep=False)

    async def update(self, request: UpdateFunctionEventInvokeConfigRequestTypeDef, scope: RequestScope) -> Response:
        """Change a configuration; what the request leaves out stays.

        :raises ResourceNotFound: there is no such function, version or alias, or it has no configuration.
        :raises InvalidParameterValue: the request sets nothing, or a destination is none that AWS takes.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_UpdateFunctionEventInvokeConfig.html
        """
        return await self._set(request, scope, keep=True)

    async def get(self, request: GetFunctionEventInvokeConfigRequestTypeDef, scope: RequestScope) -> Response:
        """Give a configuration.

        :raises ResourceNotFound: there is none.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetFunctionEventInvokeConfig.html
        """
        reference = self._resolver.reference(request, scope)
        config = await self._state.read(scope.partition, lambda records: _find(records, reference, scope))
        return _described(config, scope)

    async def delete(self, request: DeleteFunctionEventInvokeConfigRequestTypeDef, scope: RequestScope) -> Response:
        """Delete a configuration; AWS's defaults hold again.

        :raises ResourceNotFound: there is none.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_DeleteFunctionEventInvokeConfig.html
        """
        reference = await self._resolver.writable(request, scope)

        def work(records: Records) -> None:
            config = _find(records, reference, scope)
            records.delete(EVENT_INVOKE_CONFIGS, config.function, config.qualifier)

        await self._state.write(scope.partition, work)
        self._changes.publish(FunctionChanged(scope.partition, reference.name))
        return {}

    async def list(self, request: ListFunctionEventInvokeConfigsRequestTypeDef, scope: RequestScope) -> Response:
        """List the configurations of a function, of its versions and of its aliases.

        :raises ResourceNotFound: there is no such function.
        :raises InvalidParameterValue: the Marker is none that this operation gave.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_ListFunctionEventInvokeConfigs.html
        """
        reference = self._resolver.reference(request, scope)
        page = read_page(request, str, str)
        if await self._resolver.registered(reference.name, scope) is not None:
            return {"FunctionEventInvokeConfigs": []}

        def work(records: Records) -> Sequence[EventInvokeConfig]:
            _check_exists(records, reference._replace(qualifier=None))
            return records.list(EVENT_INVOKE_CONFIGS, reference.name, after=page.after, limit=page.limit)

        cut = page.cut(await self._state.read(scope.partition, work), EVENT_INVOKE_CONFIGS.key_of)
        configs = [_described(config, scope) for config in cut.items]
        return {"FunctionEventInvokeConfigs": configs, "NextMarker": cut.next_marker}

    async def _set(self, request: Request, scope: RequestScope, *, keep: bool) -> Response:
        """Write a configuration.

        :param keep: whether there must be one, of which stays what the request leaves out.
        """
        reference = await self._resolver.writable(request, scope)
        if not any(member in request for member in _SETTINGS):
            raise InvalidParameterValue("You must specify at least one of error handling or destination setting.")
        destinations = request.get("DestinationConfig")
        check_destinations(destinations, _SUCCESS_KINDS, _FAILURE_KINDS)
        check_reachable(destinations, self._reachable)
        targets = await self._target_functions(reference, destinations, scope)

        def work(records: Records) -> EventInvokeConfig:
            _check_exists(records, reference)
            held = _find(records, reference, scope) if keep else None
            for arn, name in targets.items():
                if records.get(FUNCTIONS, name) is None:
                    raise InvalidParameterValue(f"The destination ARN {arn} is invalid.")
            config = _changed(held or _empty(reference), request)
            records.delete(EVENT_INVOKE_CONFIGS, config.function, config.qualifier)
            records.insert(EVENT_INVOKE_CONFIGS, config)
            return config

        config = await self._state.write(scope.partition, work)
        self._changes.publish(FunctionChanged(scope.partition, reference.name))
        return _described(config, scope)

    async def _target_functions(
        self, reference: FunctionReference, destinations: Mapping[str, Any] | None, scope: RequestScope
    ) -> dict[str, str]:
        """Give the destinations of this account and region that are functions which have to be deployed."""
        targets = {}
        for event in ("OnSuccess", "OnFailure"):
            arn = destination_of(destinations, event) or ""
            match = _FUNCTION.fullmatch(arn) if target_kind(arn) == "lambda" else None
            if match is None or match[1] != scope.region or (scope.account_known and match[2] != scope.account):
                continue
            if match[3] == reference.name:
                raise InvalidParameterValue("You can't specify the function as a destination for itself.")
            if await self._resolver.registered(match[3], scope) is None:
                targets[arn] = match[3]
        return targets


def _check_exists(records: Records, reference: FunctionReference) -> None:
    if not exists(records, reference):
        raise ResourceNotFound("The function doesn't exist.")


def _find(records: Records, reference: FunctionReference, scope: RequestScope) -> EventInvokeConfig:
    qualifier = reference.qualifier or LATEST
    config = records.get(EVENT_INVOKE_CONFIGS, reference.name, qualifier)
    if config is None:
        arn = function_arn(reference.name, scope.account, scope.region, qualifier)
        raise ResourceNotFound(f"The function {arn} doesn't have an EventInvokeConfig")
    return config


def _empty(reference: FunctionReference) -> EventInvokeConfig:
    return EventInvokeConfig(function=reference.name, qualifier=reference.qualifier or LATEST, last_modified=0.0)


def _changed(config: EventInvokeConfig, request: Request) -> EventInvokeConfig:
    """Give a configuration with the members of a request; a DestinationConfig replaces both destinations."""
    if "DestinationConfig" in request:
        destinations = request["DestinationConfig"]
        config = replace(
            config,
            on_success=destination_of(destinations, "OnSuccess"),
            on_failure=destination_of(destinations, "OnFailure"),
        )
    return replace(
        config,
        maximum_retry_attempts=request.get("MaximumRetryAttempts", config.maximum_retry_attempts),
        maximum_event_age=request.get("MaximumEventAgeInSeconds", config.maximum_event_age),
        last_modified=time.time(),
    )


def _described(config: EventInvokeConfig, scope: RequestScope) -> Response:
    """Write a configuration as AWS's FunctionEventInvokeConfig: the one place that does."""
    return {
        "LastModified": datetime.fromtimestamp(config.last_modified, UTC),
        "FunctionArn": function_arn(config.function, scope.account, scope.region, config.qualifier),
        "MaximumRetryAttempts": config.maximum_retry_attempts,
        "MaximumEventAgeInSeconds": config.maximum_event_age,
        "DestinationConfig": {
            "OnSuccess": {"Destination": config.on_success},
            "OnFailure": {"Destination": config.on_failure},
        },
    }
