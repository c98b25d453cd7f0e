"""Aliases: names for versions of functions, and for shares of the calls that go to another version."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from serverfull.domain.changes import FunctionChanged
from serverfull.domain.deployed import ALIASES, Alias
from serverfull.domain.kinds import KINDS
from serverfull.domain.names import LATEST, FunctionReference, function_arn
from serverfull.errors import InvalidParameterValue, NotFoundError, ResourceConflict
from serverfull.management.paging import read_page
from serverfull.management.stamps import check_revision, new_revision
from serverfull.management.validation import check_unqualified

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from types_boto3_lambda.type_defs import (
        AliasConfigurationTypeDef,
        CreateAliasRequestTypeDef,
        DeleteAliasRequestTypeDef,
        GetAliasRequestTypeDef,
        ListAliasesRequestTypeDef,
        UpdateAliasRequestTypeDef,
    )

    from serverfull.domain.changes import Changes
    from serverfull.domain.names import RequestScope
    from serverfull.interfaces import Records, StateStore
    from serverfull.management.operations import Operations, Request, Response
    from serverfull.management.resolution import FunctionResolver


class Aliases:
    """The operations on aliases."""

    def __init__(self, state: StateStore, resolver: FunctionResolver, changes: Changes) -> None:
        self._state = state
        self._resolver = resolver
        self._changes = changes

    def operations(self) -> Operations:
        """Give the methods by the names that the AWS model has for them."""
        return {
            "CreateAlias": self.create_alias,
            "GetAlias": self.get_alias,
            "UpdateAlias": self.update_alias,
            "DeleteAlias": self.delete_alias,
            "ListAliases": self.list_aliases,
        }

    async def create_alias(self, request: CreateAliasRequestTypeDef, scope: RequestScope) -> AliasConfigurationTypeDef:
        """Name a version of a function.

        :raises NotFoundError: there is no such function or version.
        :raises ResourceConflict: it has such an alias already.
        :raises InvalidParameterValue: the weights are such that no call could be routed by them.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_CreateAlias.html
        """
        reference = await self._writable(request, scope)
        alias = Alias(
            function=reference.name,
            name=request["Name"],
            version=request["FunctionVersion"],
            description=request.get("Description", ""),
            weights=_weights(request.get("RoutingConfig", {})),
            revision_id=new_revision(),
        )

        def work(records: Records) -> None:
            self._check(records, alias, scope)
            if records.get(ALIASES, alias.function, alias.name) is not None:
                raise ResourceConflict(f"Alias already exists: {_arn(alias, scope)}")
            records.insert(ALIASES, alias)

        await self._state.write(scope.partition, work)
        self._changes.publish(FunctionChanged(scope.partition, alias.function))
        return _response(alias, scope)

    async def get_alias(self, request: GetAliasRequestTypeDef, scope: RequestScope) -> AliasConfigurationTypeDef:
        """Give an alias.

        :raises NotFoundError: there is none of that name.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetAlias.html
        """
        reference = self._resolver.reference(request, scope)
        own = await self._resolver.published(reference.name, scope)
        if own is not None:
            if request["Name"] not in own.aliases:
                raise _not_found(reference.name, request["Name"], scope)
            return _response(own.aliases[request["Name"]], scope)
        alias = await self._state.read(
            scope.partition, lambda records: self._find(records, reference.name, request["Name"], scope)
        )
        return _response(alias, scope)

    async def update_alias(self, request: UpdateAliasRequestTypeDef, scope: RequestScope) -> AliasConfigurationTypeDef:
        """Point an alias at another version, or route its calls in another way; what is not given stays.

        :raises NotFoundError: there is no such alias or version.
        :raises PreconditionFailed: RevisionId is not that of the alias.
        :raises InvalidParameterValue: as for `create_alias`.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_UpdateAlias.html
        """
        reference = await self._writable(request, scope)

        def work(records: Records) -> Alias:
            alias = self._find(records, reference.name, request["Name"], scope, "Alias not found")
            check_revision(request.get("RevisionId"), alias.revision_id)
            changed = _changed(alias, request)
            self._check(records, changed, scope)
            records.replace(ALIASES, changed)
            return changed

        alias = await self._state.write(scope.partition, work)
        self._changes.publish(FunctionChanged(scope.partition, alias.function))
        return _response(alias, scope)

    async def delete_alias(self, request: DeleteAliasRequestTypeDef, scope: RequestScope) -> Response:
        """Delete an alias with everything that was set up for it. One that is not there is fine, as on AWS.

        :raises NotFoundError: there is no such function.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_DeleteAlias.html
        """
        reference = await self._writable(request, scope)

        def work(records: Records) -> None:
            self._resolver.function(records, reference, scope)
            if records.delete(ALIASES, reference.name, request["Name"]):
                forget_qualifier(records, reference.name, request["Name"])

        await self._state.write(scope.partition, work)
        self._changes.publish(FunctionChanged(scope.partition, reference.name))
        return {}

    async def list_aliases(self, request: ListAliasesRequestTypeDef, scope: RequestScope) -> Response:
        """List the aliases of a function by name, at most 50 at a time, or those that send calls to a version.

        :raises NotFoundError: there is no such function.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_ListAliases.html
        """
        reference = self._resolver.reference(request, scope)
        page = read_page(request, str, str)
        version = request.get("FunctionVersion")
        own = await self._resolver.published(reference.name, scope)
        if own is not None:
            aliases = list(own.aliases.values())
            if version is not None:
                aliases = list(aliases_of_version(aliases, version))
            behind = [alias for alias in aliases if page.after is None or ALIASES.key_of(alias) > page.after]
            listed = page.cut(behind[: page.limit], ALIASES.key_of)
            return {"Aliases": [_response(alias, scope) for alias in listed.items], "NextMarker": listed.next_marker}

        def work(records: Records) -> Sequence[Alias]:
            self._resolver.function(records, FunctionReference(reference.name), scope)
            if version is None:
                return records.list(ALIASES, reference.name, after=page.after, limit=page.limit)
            return aliases_of_version(records.list(ALIASES, reference.name, after=page.after), version)

        cut = page.cut(await self._state.read(scope.partition, work), ALIASES.key_of)
        return {"Aliases": [_response(alias, scope) for alias in cut.items], "NextMarker": cut.next_marker}

    async def _writable(self, request: Request, scope: RequestScope) -> FunctionReference:
        reference = await self._resolver.writable(request, scope)
        check_unqualified(reference)
        return FunctionReference(reference.name)

    def _find(
        self, records: Records, function: str, name: str, scope: RequestScope, words: str = "Cannot find alias arn"
    ) -> Alias:
        """Find an alias; AWS says in different words to different operations that it is not there."""
        found = records.get(ALIASES, function, name)
        if found is None:
            self._resolver.function(records, FunctionReference(function), scope)
            raise _not_found(function, name, scope, words)
        return found

    def _check(self, records: Records, alias: Alias, scope: RequestScope) -> None:
        """Refuse versions that are not there, and weights that make no sense."""
        self._resolver.version(records, FunctionReference(alias.function, alias.version), scope)
        if len(alias.weights) > 1:
            raise InvalidParameterValue("Number of items in AdditionalVersionWeights cannot be greater than 1")
        for version in alias.weights:
            if version == alias.version:
                raise InvalidParameterValue(
                    f"Invalid function version {version}. "
                    f"Function version {version} is already included in routing configuration."
                )
            if alias.version == LATEST:
                raise InvalidParameterValue("$LATEST is not supported for an alias pointing to more than 1 version")
            self._resolver.version(records, FunctionReference(alias.function, version), scope)


def aliases_of_version(aliases: Sequence[Alias], version: str) -> Sequence[Alias]:
    """Choose the aliases that send calls to a version, all of them or a share."""
    return [alias for alias in aliases if version == alias.version or version in alias.weights]


def forget_qualifier(records: Records, function: str, qualifier: str) -> None:
    """Delete what was set up for a version or an alias that is gone."""
    for kind in KINDS:
        if kind.of_function and kind.key[1:2] == ("qualifier",):
            records.delete(kind, function, qualifier)


def _changed(alias: Alias, request: Request) -> Alias:
    return replace(
        alias,
        version=request.get("FunctionVersion", alias.version),
        description=request.get("Description", alias.description),
        weights=_weights(request["RoutingConfig"]) if "RoutingConfig" in request else alias.weights,
        revision_id=new_revision(),
    )


def _weights(routing: Mapping[str, Any]) -> Mapping[str, float]:
    return dict(routing.get("AdditionalVersionWeights", {}))


def _not_found(function: str, name: str, scope: RequestScope, words: str = "Cannot find alias arn") -> NotFoundError:
    arn = function_arn(function, scope.account, scope.region, name)
    return NotFoundError(arn, f"{words}: {arn}")


def _arn(alias: Alias, scope: RequestScope) -> str:
    return function_arn(alias.function, scope.account, scope.region, alias.name)


def _response(alias: Alias, scope: RequestScope) -> AliasConfigurationTypeDef:
    """Write an alias as AWS's AliasConfiguration: the one place that does."""
    response: AliasConfigurationTypeDef = {
        "AliasArn": _arn(alias, scope),
        "Name": alias.name,
        "FunctionVersion": alias.version,
        "Description": alias.description,
        "RevisionId": alias.revision_id,
    }
    if alias.weights:
        response["RoutingConfig"] = {"AdditionalVersionWeights": dict(alias.weights)}
    return response
