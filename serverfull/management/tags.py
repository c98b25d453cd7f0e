"""Tags of functions, event source mappings, code signing configurations and capacity providers.

Everything that touches state runs in transactions on the store's thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from serverfull.domain.capacity import CAPACITY_PROVIDERS
from serverfull.domain.changes import FunctionChanged
from serverfull.domain.code_signing import CODE_SIGNING_CONFIGS
from serverfull.domain.deployed import FUNCTIONS, LATEST_NUMBER, VERSIONS
from serverfull.domain.mappings import EVENT_SOURCE_MAPPINGS
from serverfull.domain.names import is_partition_of
from serverfull.domain.records import Kind, Partition
from serverfull.errors import InvalidParameterValue, ResourceNotFound
from serverfull.management.code_signing import find_config
from serverfull.management.stamps import new_revision
from serverfull.management.tagging import merge_tags

if TYPE_CHECKING:
    from collections.abc import Callable

    from types_boto3_lambda.type_defs import (
        ListTagsRequestTypeDef,
        TagResourceRequestTypeDef,
        UntagResourceRequestTypeDef,
    )

    from serverfull.domain.changes import Changes
    from serverfull.domain.names import FunctionReference, RequestScope
    from serverfull.interfaces import Records, StateStore
    from serverfull.management.operations import Operations, Response
    from serverfull.management.resolution import FunctionResolver

    Change = Callable[[Mapping[str, str]], dict[str, str]]


_CODE_SIGNING = "code-signing-config"

# What ARNs call the resources, but for functions. The key of the record is what follows in the ARN.
_KINDS: Mapping[str, Kind[Any]] = MappingProxyType(
    {
        _CODE_SIGNING: CODE_SIGNING_CONFIGS,
        "event-source-mapping": EVENT_SOURCE_MAPPINGS,
        "capacity-provider": CAPACITY_PROVIDERS,
    }
)


class Tags:
    """The operations on tags.

    :param state: where resources are kept, with their tags.
    """

    def __init__(self, state: StateStore, resolver: FunctionResolver, changes: Changes) -> None:
        self._state = state
        self._resolver = resolver
        self._changes = changes

    def operations(self) -> Operations:
        """Give the methods by the names that the AWS model has for them."""
        return {
            "TagResource": self.tag_resource,
            "UntagResource": self.untag_resource,
            "ListTags": self.list_tags,
        }

    async def tag_resource(self, request: TagResourceRequestTypeDef, scope: RequestScope) -> Response:
        """Add tags, and replace the values of those that are there.

        :raises NotFoundError: there is no such function.
        :raises ResourceNotFound: there is no such resource of another kind.
        :raises InvalidParameterValue: there are no tags, or too many, or the ARN is that of a version or alias.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_TagResource.html
        """
        if not request["Tags"]:
            raise InvalidParameterValue("An error occurred and the request cannot be processed.")
        return await self._change(request["Resource"], scope, lambda held: merge_tags(held, request["Tags"]))

    async def untag_resource(self, request: UntagResourceRequestTypeDef, scope: RequestScope) -> Response:
        """Remove tags; that they are not there is fine.

        :raises NotFoundError: there is no such function.
        :raises ResourceNotFound: there is no such resource of another kind.
        :raises InvalidParameterValue: the ARN is that of a version or alias.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_UntagResource.html
        """
        gone = set(request["TagKeys"])
        return await self._change(
            request["Resource"], scope, lambda held: {key: value for key, value in held.items() if key not in gone}
        )

    async def list_tags(self, request: ListTagsRequestTypeDef, scope: RequestScope) -> Response:
        """List the tags of a resource.

        :raises NotFoundError: there is no such function.
        :raises ResourceNotFound: there is no such resource of another kind.
        :raises InvalidParameterValue: the ARN is that of a version or alias.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_ListTags.html
        """
        arn = request["Resource"]
        if not _is_function(arn):
            found = await self._state.read(scope.partition, lambda records: self._find(records, arn, scope.partition))
            return {"Tags": dict(found.tags)}
        reference = self._function(arn, scope)
        registered = await self._resolver.registered(reference.name, scope)
        if registered is not None:
            return {"Tags": dict(registered.tags)}
        function = await self._state.read(
            scope.partition, lambda records: self._resolver.function(records, reference, scope)
        )
        return {"Tags": dict(function.tags)}

    async def _change(self, arn: str, scope: RequestScope, change: Change) -> Response:
        if _is_function(arn):
            reference = self._function(arn, scope)
            await self._resolver.writable({"FunctionName": arn}, scope)
            await self._state.write(
                scope.partition, lambda records: self._change_function(records, reference, scope, change)
            )
            self._changes.publish(FunctionChanged(scope.partition, reference.name))
        else:
            await self._state.write(scope.partition, lambda records: self._change_other(records, arn, scope, change))
        return {}

    def _change_function(
        self, records: Records, reference: FunctionReference, scope: RequestScope, change: Change
    ) -> None:
        function = self._resolver.function(records, reference, scope)
        tags = change(function.tags)
        if tags == function.tags:
            return
        records.replace(FUNCTIONS, replace(function, tags=tags))
        latest = records.get(VERSIONS, function.name, LATEST_NUMBER)
        if latest is not None:
            records.replace(VERSIONS, replace(latest, revision_id=new_revision()))

    def _change_other(self, records: Records, arn: str, scope: RequestScope, change: Change) -> None:
        found = self._find(records, arn, scope.partition)
        records.replace(_KINDS[_kind_of(arn)], replace(found, tags=change(found.tags)))

    def _function(self, arn: str, scope: RequestScope) -> FunctionReference:
        reference = self._resolver.reference({"FunctionName": arn}, scope)
        if reference.qualifier is not None:
            raise InvalidParameterValue(
                "Tags on function aliases and versions are not supported. Please specify a function ARN."
            )
        return reference

    def _find(self, records: Records, arn: str, partition: Partition) -> Any:
        _, aws, _, region, account, kind, key = arn.split(":", 6)
        found = None
        if kind == _CODE_SIGNING:
            return find_config(records, arn, partition)
        if kind in _KINDS and Partition(account, region) == partition and is_partition_of(aws, region):
            found = records.get(_KINDS[kind], key)
        if found is None:
            raise ResourceNotFound("The resource you requested does not exist.")
        return found


def _kind_of(arn: str) -> str:
    return arn.split(":")[5]


def _is_function(arn: str) -> bool:
    return _kind_of(arn) == "function"
