"""Capacity providers, which on AWS are groups of EC2 instances: what is kept of them. Nothing runs on them here.

A provider is ``Active`` as soon as it is written, which says that functions may name it. As with event source mappings
the answers of the calls that create and delete name the change that was asked for.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/lambda-managed-instances-capacity-providers.html
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from serverfull.domain.capacity import CAPACITY_PROVIDERS, CapacityProvider, capacity_provider_arn
from serverfull.domain.deployed import VERSIONS
from serverfull.domain.names import function_arn, is_partition_of
from serverfull.errors import CapacityProviderLimitExceeded, InvalidParameterValue, ResourceConflict, ResourceNotFound
from serverfull.management.paging import read_page
from serverfull.management.stamps import timestamp
from serverfull.management.tagging import merge_tags

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from types_boto3_lambda.type_defs import (
        CreateCapacityProviderRequestTypeDef,
        DeleteCapacityProviderRequestTypeDef,
        GetCapacityProviderRequestTypeDef,
        ListCapacityProvidersRequestTypeDef,
        ListFunctionVersionsByCapacityProviderRequestTypeDef,
        UpdateCapacityProviderRequestTypeDef,
    )

    from serverfull.domain.deployed import FunctionVersion
    from serverfull.domain.names import RequestScope
    from serverfull.domain.records import KeyPart
    from serverfull.interfaces import Records, StateStore
    from serverfull.management.operations import Operations, Request, Response


MAX_PROVIDERS = 1_000
"""Capacity providers of an account in a region."""

ACTIVE = "Active"
"""The one state that providers here have."""

_DEFAULT_SCALING = {"MaxVCpuCount": 400, "ScalingMode": "Auto"}
_ARN = re.compile(r"arn:([^:]+):lambda:([^:]+):(\d{12}):capacity-provider:(.+)", re.ASCII)
_BATCH = 500


class CapacityProviders:
    """The operations on capacity providers."""

    def __init__(self, state: StateStore) -> None:
        self._state = state

    def operations(self) -> Operations:
        """Give the methods by the names that the AWS model has for them."""
        return {
            "CreateCapacityProvider": self.create,
            "GetCapacityProvider": self.get,
            "UpdateCapacityProvider": self.update,
            "DeleteCapacityProvider": self.delete,
            "ListCapacityProviders": self.list,
            "ListFunctionVersionsByCapacityProvider": self.list_versions,
        }

    async def create(self, request: CreateCapacityProviderRequestTypeDef, scope: RequestScope) -> Response:
        """Create a provider.

        :raises ResourceConflict: there is one of that name.
        :raises CapacityProviderLimitExceeded: the account has as many as it may have.
        :raises InvalidParameterValue: members do not go together.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_CreateCapacityProvider.html
        """
        name = _name_of(request, scope)
        provider = CapacityProvider(
            name=name,
            settings=_new_settings(request),
            tags=merge_tags({}, request.get("Tags", {})),
            last_modified=timestamp(),
        )

        def work(records: Records) -> None:
            if records.get(CAPACITY_PROVIDERS, name) is not None:
                raise ResourceConflict(f"Capacity provider already exists: {_arn(name, scope)}")
            if records.count(CAPACITY_PROVIDERS) >= MAX_PROVIDERS:
                raise CapacityProviderLimitExceeded(
                    f"The account has {MAX_PROVIDERS} capacity providers, and cannot have more."
                )
            records.insert(CAPACITY_PROVIDERS, provider)

        await self._state.write(scope.partition, work)
        return {"CapacityProvider": _described(provider, scope, "Pending")}

    async def get(self, request: GetCapacityProviderRequestTypeDef, scope: RequestScope) -> Response:
        """Give a provider.

        :raises ResourceNotFound: there is none.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetCapacityProvider.html
        """
        provider = await self._state.read(
            scope.partition, lambda records: find_provider(records, request["CapacityProviderName"], scope)
        )
        return {"CapacityProvider": _described(provider, scope)}

    async def update(self, request: UpdateCapacityProviderRequestTypeDef, scope: RequestScope) -> Response:
        """Change how a provider scales, which tags it passes on and what it logs; the rest of it stays for good.

        :raises ResourceNotFound: there is none.
        :raises InvalidParameterValue: members do not go together.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_UpdateCapacityProvider.html
        """

        def work(records: Records) -> CapacityProvider:
            provider = find_provider(records, request["CapacityProviderName"], scope)
            changed = replace(
                provider, settings=_changed_settings(provider.settings, request), last_modified=timestamp()
            )
            records.replace(CAPACITY_PROVIDERS, changed)
            return changed

        return {"CapacityProvider": _described(await self._state.write(scope.partition, work), scope)}

    async def delete(self, request: DeleteCapacityProviderRequestTypeDef, scope: RequestScope) -> Response:
        """Delete a provider that no function uses, and give it as it was.

        :raises ResourceNotFound: there is none.
        :raises ResourceConflict: a function uses it.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_DeleteCapacityProvider.html
        """

        def work(records: Records) -> CapacityProvider:
            provider = find_provider(records, request["CapacityProviderName"], scope)
            arn = _arn(provider.name, scope)
            for version in _users(records, provider.name, None):
                raise ResourceConflict(
                    f"The capacity provider {arn} is in use by {_version_arn(version, scope)}. "
                    "ListFunctionVersionsByCapacityProvider names all that use it."
                )
            records.delete(CAPACITY_PROVIDERS, provider.name)
            return provider

        return {"CapacityProvider": _described(await self._state.write(scope.partition, work), scope, "Deleting")}

    async def list(self, request: ListCapacityProvidersRequestTypeDef, scope: RequestScope) -> Response:
        """List providers by their names: all, or those in a state.

        :raises InvalidParameterValue: the Marker is none that this operation gave.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_ListCapacityProviders.html
        """
        page = read_page(request, str)
        if request.get("State", ACTIVE) != ACTIVE:
            return {"CapacityProviders": []}
        providers = await self._state.read(
            scope.partition, lambda records: records.list(CAPACITY_PROVIDERS, after=page.after, limit=page.limit)
        )
        cut = page.cut(providers, CAPACITY_PROVIDERS.key_of)
        described = [_described(provider, scope) for provider in cut.items]
        return {"CapacityProviders": described, "NextMarker": cut.next_marker}

    async def list_versions(
        self, request: ListFunctionVersionsByCapacityProviderRequestTypeDef, scope: RequestScope
    ) -> Response:
        """List the versions of functions whose configuration names a provider.

        :raises ResourceNotFound: there is no such provider.
        :raises InvalidParameterValue: the Marker is none that this operation gave.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_ListFunctionVersionsByCapacityProvider.html
        """
        page = read_page(request, str, int)
        name = _name_of(request, scope)

        def work(records: Records) -> Sequence[FunctionVersion]:
            find_provider(records, name, scope)
            found = []
            for version in _users(records, name, page.after):
                found.append(version)
                if len(found) == page.limit:
                    break
            return found

        cut = page.cut(await self._state.read(scope.partition, work), VERSIONS.key_of)
        versions = [{"FunctionArn": _version_arn(version, scope), "State": version.state} for version in cut.items]
        return {"CapacityProviderArn": _arn(name, scope), "FunctionVersions": versions, "NextMarker": cut.next_marker}


def _name_of(request: Request, scope: RequestScope) -> str:
    """Read a name that may be an ARN.

    :raises ResourceNotFound: the ARN is of another account, region or partition of AWS.
    """
    given: str = request["CapacityProviderName"]
    match = _ARN.fullmatch(given)
    if match is None:
        return given
    partition, region, account, name = match.groups()
    elsewhere = region != scope.region or (scope.account_known and account != scope.account)
    if elsewhere or not is_partition_of(partition, region):
        raise ResourceNotFound(f"Capacity provider not found: {given}")
    return name


def find_provider(records: Records, name_or_arn: str, scope: RequestScope) -> CapacityProvider:
    """Find a provider.

    :raises ResourceNotFound: there is none, or not in this account and region.
    """
    name = _name_of({"CapacityProviderName": name_or_arn}, scope)
    provider = records.get(CAPACITY_PROVIDERS, name)
    if provider is None:
        raise ResourceNotFound(f"Capacity provider not found: {_arn(name, scope)}")
    return provider


def _users(records: Records, name: str, after: Sequence[KeyPart] | None) -> Iterator[FunctionVersion]:
    """Give the versions that use a provider; they are read a batch at a time."""
    while batch := records.list(VERSIONS, after=after, limit=_BATCH):
        after = VERSIONS.key_of(batch[-1])
        yield from (version for version in batch if _provider_of(version) == name)


def _provider_of(version: FunctionVersion) -> str:
    """Give the name of the provider that a version uses; an ARN may tell an account that nobody has checked."""
    return (provider_arn(version.settings.get("CapacityProviderConfig")) or "").rpartition(":")[2]


def provider_arn(config: Mapping[str, Any] | None) -> str | None:
    """Give the provider that AWS's CapacityProviderConfig names."""
    arn: str | None = (config or {}).get("LambdaManagedInstancesCapacityProviderConfig", {}).get("CapacityProviderArn")
    return arn


def _new_settings(request: Request) -> dict[str, Any]:
    members = ("VpcConfig", "PermissionsConfig", "KmsKeyArn", "PropagateTags", "TelemetryConfig")
    settings = {member: request[member] for member in members if member in request}
    requirements: dict[str, Any] = {"Architectures": ["x86_64"], **request.get("InstanceRequirements", {})}
    if requirements.get("AllowedInstanceTypes") and requirements.get("ExcludedInstanceTypes"):
        raise InvalidParameterValue("AllowedInstanceTypes and ExcludedInstanceTypes cannot be given together.")
    settings["InstanceRequirements"] = requirements
    settings["CapacityProviderScalingConfig"] = _scaling(_DEFAULT_SCALING, request)
    _check_tags(settings)
    return settings


def _changed_settings(held: Mapping[str, Any], request: Request) -> dict[str, Any]:
    given: dict[str, Any] = {
        member: request[member] for member in ("PropagateTags", "TelemetryConfig") if member in request
    }
    scaling = _scaling(held["CapacityProviderScalingConfig"], request)
    settings = {**held, **given, "CapacityProviderScalingConfig": scaling}
    _check_tags(settings)
    return settings


def _scaling(held: Mapping[str, Any], request: Request) -> Mapping[str, Any]:
    """Give the scaling configuration of a request on top of the one that holds."""
    given = request.get("CapacityProviderScalingConfig", {})
    scaling = {**held, **given}
    if scaling["ScalingMode"] == "Manual":
        if "ScalingPolicies" not in scaling:
            raise InvalidParameterValue("ScalingPolicies are required where ScalingMode is Manual.")
        return scaling
    if "ScalingPolicies" in given:
        raise InvalidParameterValue("ScalingPolicies are only for ScalingMode Manual.")
    return {member: value for member, value in scaling.items() if member != "ScalingPolicies"}


def _check_tags(settings: Mapping[str, Any]) -> None:
    tags = settings.get("PropagateTags", {})
    if tags.get("Mode") == "Explicit" and not tags.get("ExplicitTags"):
        raise InvalidParameterValue("ExplicitTags are required where the Mode of PropagateTags is Explicit.")
    if tags.get("Mode") != "Explicit" and tags.get("ExplicitTags"):
        raise InvalidParameterValue("ExplicitTags are only for the Mode Explicit of PropagateTags.")


def _arn(name: str, scope: RequestScope) -> str:
    return capacity_provider_arn(name, scope.partition)


def _version_arn(version: FunctionVersion, scope: RequestScope) -> str:
    return function_arn(version.function, scope.account, scope.region, version.version)


def _described(provider: CapacityProvider, scope: RequestScope, state: str = ACTIVE) -> Response:
    """Write a provider as AWS's CapacityProvider: the one place that does."""
    return {
        **provider.settings,
        "CapacityProviderArn": _arn(provider.name, scope),
        "State": state,
        "LastModified": provider.last_modified,
    }
