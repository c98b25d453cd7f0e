"""Event source mappings: what is kept of them. Nothing polls their sources yet.

A mapping is ``Enabled`` or ``Disabled`` as soon as it is written, because nothing has to be started; the answers of the
calls that change one name the change that was asked for, as AWS's do, and LastProcessingResult says that no record was
processed. A mapping that is in the middle of a change refuses others.

As on AWS a mapping outlives its function. All reading and writing runs in transactions on the store's thread.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventsourcemapping.html
"""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from serverfull.domain.mappings import EVENT_SOURCE_MAPPINGS, EventSourceMapping, mapping_arn, mapping_target
from serverfull.domain.names import LATEST, function_arn
from serverfull.errors import InvalidParameterValue, ResourceConflict, ResourceInUse, ResourceNotFound
from serverfull.management.event_sources import (
    CONSUMER_CONFIGS,
    NO_RECORDS,
    SOURCES,
    bootstrap_servers,
    check_place,
    check_start,
    configured,
    source_of,
)
from serverfull.management.paging import read_page
from serverfull.management.resolution import exists
from serverfull.management.tagging import merge_tags

if TYPE_CHECKING:
    from collections.abc import Mapping

    from types_boto3_lambda.type_defs import (
        CreateEventSourceMappingRequestTypeDef,
        DeleteEventSourceMappingRequestTypeDef,
        GetEventSourceMappingRequestTypeDef,
        ListEventSourceMappingsRequestTypeDef,
        UpdateEventSourceMappingRequestTypeDef,
    )

    from serverfull.domain.names import FunctionReference, RequestScope
    from serverfull.interfaces import Records, StateStore
    from serverfull.management.operations import Operations, Request, Response
    from serverfull.management.resolution import FunctionResolver


PAGE_SIZE = 100
"""Mappings in an answer at most, as in AWS."""

_NOT_SETTINGS = ("FunctionName", "EventSourceArn", "Enabled", "Tags", "UUID")
_SETTLED = ("Enabled", "Disabled")


class EventSourceMappings:
    """The operations on event source mappings."""

    def __init__(self, state: StateStore, resolver: FunctionResolver) -> None:
        self._state = state
        self._resolver = resolver

    def operations(self) -> Operations:
        """Give the methods by the names that the AWS model has for them."""
        return {
            "CreateEventSourceMapping": self.create,
            "GetEventSourceMapping": self.get,
            "UpdateEventSourceMapping": self.update,
            "DeleteEventSourceMapping": self.delete,
            "ListEventSourceMappings": self.list,
        }

    async def create(self, request: CreateEventSourceMappingRequestTypeDef, scope: RequestScope) -> Response:
        """Map a source to a function, one of its versions or one of its aliases.

        :raises InvalidParameterValue: the function does not exist, or the source does not have what is asked for.
        :raises ResourceConflict: there is a mapping of that source to that function already.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_CreateEventSourceMapping.html
        """
        source = source_of(request)
        settings = configured(source, {}, _settings_of(request))
        arn = request.get("EventSourceArn")
        check_place(source, arn, scope.region)
        check_start(source, settings, arn)
        reference = self._resolver.reference(request, scope)
        enabled = request.get("Enabled", True)
        mapping = EventSourceMapping(
            uuid=(new := str(uuid.uuid4())),
            target=mapping_target(reference.name, reference.qualifier),
            source=source,
            event_source_arn=arn,
            enabled=enabled,
            state=_settled(enabled),
            settings=_with_consumer_group(source, settings, new),
            tags=merge_tags({}, request.get("Tags", {})),
            last_modified=time.time(),
        )
        registered = await self._resolver.registered(reference.name, scope) is not None

        def work(records: Records) -> None:
            _check_function(records, reference, registered)
            _check_new(records, mapping, scope)
            records.insert(EVENT_SOURCE_MAPPINGS, mapping)

        await self._state.write(scope.partition, work)
        return _described(mapping, scope, "Creating")

    async def get(self, request: GetEventSourceMappingRequestTypeDef, scope: RequestScope) -> Response:
        """Give a mapping.

        :raises ResourceNotFound: there is none.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetEventSourceMapping.html
        """
        mapping = await self._state.read(scope.partition, lambda records: _find(records, request["UUID"]))
        return _described(mapping, scope)

    async def update(self, request: UpdateEventSourceMappingRequestTypeDef, scope: RequestScope) -> Response:
        """Change a mapping; what the request does not mention stays, and an empty structure is AWS's default again.

        :raises ResourceNotFound: there is none.
        :raises ResourceInUse: it is in the middle of a change.
        :raises InvalidParameterValue: the function does not exist, or the source does not have what is asked for.
        :raises ResourceConflict: there is a mapping of that source to the new function already.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_UpdateEventSourceMapping.html
        """
        reference = self._resolver.reference(request, scope) if "FunctionName" in request else None
        registered = reference is not None and await self._resolver.registered(reference.name, scope) is not None

        def work(records: Records) -> tuple[EventSourceMapping, EventSourceMapping]:
            held = _find_settled(records, request["UUID"], "update")
            changed = _changed(held, request)
            if reference is not None:
                _check_function(records, reference, registered)
                changed = replace(changed, target=mapping_target(reference.name, reference.qualifier))
                _check_new(records, changed, scope)
            records.replace(EVENT_SOURCE_MAPPINGS, changed)
            return held, changed

        held, changed = await self._state.write(scope.partition, work)
        if held.enabled != changed.enabled:
            return _described(changed, scope, "Enabling" if changed.enabled else "Disabling")
        return _described(changed, scope, "Updating")

    async def delete(self, request: DeleteEventSourceMappingRequestTypeDef, scope: RequestScope) -> Response:
        """Delete a mapping and give it as it was.

        :raises ResourceNotFound: there is none.
        :raises ResourceInUse: it is in the middle of a change.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_DeleteEventSourceMapping.html
        """

        def work(records: Records) -> EventSourceMapping:
            mapping = _find_settled(records, request["UUID"], "delete")
            records.delete(EVENT_SOURCE_MAPPINGS, mapping.uuid)
            return mapping

        return _described(await self._state.write(scope.partition, work), scope, "Deleting")

    async def list(self, request: ListEventSourceMappingsRequestTypeDef, scope: RequestScope) -> Response:
        """List mappings by their ids: all, those of a source, of a function, or both.

        A function's name without a qualifier stands for the mappings that have none.

        :raises InvalidParameterValue: the Marker is none that this operation gave.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_ListEventSourceMappings.html
        """
        page = read_page(request, str, size=PAGE_SIZE)
        where = {}
        if "EventSourceArn" in request:
            where["event_source_arn"] = request["EventSourceArn"]
        if "FunctionName" in request:
            reference = self._resolver.reference(request, scope)
            where["target"] = mapping_target(reference.name, reference.qualifier)
        mappings = await self._state.read(
            scope.partition,
            lambda records: records.list(EVENT_SOURCE_MAPPINGS, after=page.after, limit=page.limit, where=where),
        )
        cut = page.cut(mappings, EVENT_SOURCE_MAPPINGS.key_of)
        described = [_described(mapping, scope) for mapping in cut.items]
        return {"EventSourceMappings": described, "NextMarker": cut.next_marker}


def _settings_of(request: Request) -> dict[str, Any]:
    settings = {member: value for member, value in request.items() if member not in _NOT_SETTINGS}
    if "StartingPositionTimestamp" in settings:
        settings["StartingPositionTimestamp"] = settings["StartingPositionTimestamp"].timestamp()
    return settings


def _with_consumer_group(source: str, settings: Mapping[str, Any], group: str) -> Mapping[str, Any]:
    """Give settings in which a Kafka source has a consumer group: AWS calls it like the mapping."""
    member = CONSUMER_CONFIGS.get(source)
    if member is None:
        return settings
    return {**settings, member: {"ConsumerGroupId": group, **settings.get(member, {})}}


def _changed(held: EventSourceMapping, request: Request) -> EventSourceMapping:
    given = _settings_of(request)
    member = CONSUMER_CONFIGS.get(held.source, "")
    if member in given:
        group = held.settings[member]["ConsumerGroupId"]
        given[member] = {"ConsumerGroupId": group, **given[member]}
        if given[member]["ConsumerGroupId"] != group:
            raise InvalidParameterValue("The ConsumerGroupId of an event source mapping cannot be changed.")
    enabled = request.get("Enabled", held.enabled)
    return replace(
        held,
        enabled=enabled,
        state=_settled(enabled),
        settings=configured(held.source, held.settings, given),
        last_modified=time.time(),
    )


def _settled(enabled: bool) -> str:
    return "Enabled" if enabled else "Disabled"


def _find(records: Records, uuid: str) -> EventSourceMapping:
    mapping = records.get(EVENT_SOURCE_MAPPINGS, uuid)
    if mapping is None:
        raise ResourceNotFound("The resource you requested does not exist.")
    return mapping


def _find_settled(records: Records, uuid: str, verb: str) -> EventSourceMapping:
    mapping = _find(records, uuid)
    if mapping.state not in _SETTLED:
        raise ResourceInUse(f"Cannot {verb} the event source mapping because it is in use.")
    return mapping


def _check_function(records: Records, reference: FunctionReference, registered: bool) -> None:
    there = reference.qualifier in (None, LATEST) if registered else exists(records, reference)
    if not there:
        raise InvalidParameterValue("Function does not exist")


def _check_new(records: Records, mapping: EventSourceMapping, scope: RequestScope) -> None:
    """Refuse a second mapping of a source to a function."""
    for other in records.list(EVENT_SOURCE_MAPPINGS, where={"target": mapping.target}):
        if other.uuid != mapping.uuid and _same_source(other, mapping):
            raise ResourceConflict(
                f"{_conflict(mapping, scope)} already exists. "
                f"Please update or delete the existing mapping with UUID {other.uuid}"
            )


def _same_source(one: EventSourceMapping, other: EventSourceMapping) -> bool:
    if one.source != other.source or one.event_source_arn != other.event_source_arn:
        return False
    if one.event_source_arn is None and not _servers(one).intersection(_servers(other)):
        return False
    return all(one.settings.get(member) == other.settings.get(member) for member in ("Topics", "Queues"))


def _servers(mapping: EventSourceMapping) -> set[str]:
    return set(bootstrap_servers(mapping.settings))


def _conflict(mapping: EventSourceMapping, scope: RequestScope) -> str:
    """Name a mapping by its source and its function, as AWS does in three ways."""
    name, arn = mapping.function, mapping.event_source_arn
    if mapping.source.startswith("sqs"):
        return f'An event source mapping with SQS arn (" {arn} ") and function (" {name} ")'
    if "Topics" in mapping.settings:
        sources, topics = arn or ",".join(bootstrap_servers(mapping.settings)), ",".join(mapping.settings["Topics"])
        function = _function_arn(mapping, scope)
        return f'An event source mapping with event source ("{sources}"), function ("{function}"), topics ("{topics}")'
    return f'The event source arn (" {arn} ") and function (" {name} ") provided mapping'


def _function_arn(mapping: EventSourceMapping, scope: RequestScope) -> str:
    name, _, qualifier = mapping.target.partition(":")
    return function_arn(name, scope.account, scope.region, qualifier)


def _described(mapping: EventSourceMapping, scope: RequestScope, state: str | None = None) -> Response:
    """Write a mapping as AWS's EventSourceMappingConfiguration: the one place that does.

    :param state: the change that was asked for; None: the state as it is.
    """
    started = mapping.settings.get("StartingPositionTimestamp")
    return {
        **mapping.settings,
        "StartingPositionTimestamp": None if started is None else datetime.fromtimestamp(started, UTC),
        "UUID": mapping.uuid,
        "EventSourceMappingArn": mapping_arn(mapping.uuid, scope.partition),
        "EventSourceArn": mapping.event_source_arn,
        "FunctionArn": _function_arn(mapping, scope),
        "State": state or mapping.state,
        "StateTransitionReason": SOURCES[mapping.source].reason,
        "LastProcessingResult": None if mapping.source.startswith("sqs") else NO_RECORDS,
        "LastModified": datetime.fromtimestamp(mapping.last_modified, UTC),
    }
