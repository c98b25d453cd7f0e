"""What event source mappings of each kind of source have, need and refuse.

Pure functions over the members of AWS's EventSourceMappingConfiguration, called by `serverfull.management.mappings`.
The rules are those of the API reference and of the pages on the parameters of each source; texts are AWS's where they
are known.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventsourcemapping.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from serverfull.domain.event_patterns import parse_event_pattern
from serverfull.domain.names import is_partition_of
from serverfull.errors import InvalidParameterValue
from serverfull.management.destinations import check_destinations, destination_of

NO_RECORDS = "No records processed"
"""LastProcessingResult of a source that was never read."""

MAX_FILTERS = 10
"""Filters of one mapping: what AWS raises its default of 5 to."""

_STREAM_MEMBERS = (
    "DestinationConfig",
    "MaximumRecordAgeInSeconds",
    "BisectBatchOnFunctionError",
    "MaximumRetryAttempts",
    "StartingPosition",
    "StartingPositionTimestamp",
)
_SHARD_MEMBERS = ("ParallelizationFactor", "TumblingWindowInSeconds")
_KAFKA_MEMBERS = ("Topics", "SourceAccessConfigurations", "LoggingConfig", "ProvisionedPollerConfig")
_SHARD_DEFAULTS = {
    "BatchSize": 100,
    "MaximumBatchingWindowInSeconds": 0,
    "ParallelizationFactor": 1,
    "MaximumRecordAgeInSeconds": -1,
    "MaximumRetryAttempts": -1,
    "BisectBatchOnFunctionError": False,
    "TumblingWindowInSeconds": 0,
    "FunctionResponseTypes": [],
    "DestinationConfig": {"OnFailure": {}},
}
_QUEUE_DEFAULTS = {"BatchSize": 10, "MaximumBatchingWindowInSeconds": 0, "FunctionResponseTypes": []}
_POSITIONS = ("TRIM_HORIZON", "LATEST", "AT_TIMESTAMP")
_RESET_BY_EMPTY = (
    "FilterCriteria",
    "ScalingConfig",
    "ProvisionedPollerConfig",
    "LoggingConfig",
    "MetricsConfig",
    "KMSKeyArn",
    "SourceAccessConfigurations",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One kind of event source.

    :param arn: what its ARNs look like behind the partition; None where it has none.
    :param members: the members that it has and some other source has not.
    :param defaults: what AWS answers where the caller gave nothing.
    :param required: members that a mapping cannot be without.
    :param positions: where reading may start; empty: the source knows no positions.
    :param max_batch: records of a batch at most.
    :param access: types of SourceAccessConfigurations that it takes; empty: every one.
    :param failures: kinds of destinations for what could not be processed.
    :param reason: its StateTransitionReason after something that a user did.
    """

    arn: re.Pattern[str] | None = None
    members: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=lambda: {"BatchSize": 100})
    required: tuple[str, ...] = ()
    positions: tuple[str, ...] = ()
    max_batch: int = 10_000
    access: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    reason: str = "User action"


def _arn(service: str, resource: str) -> re.Pattern[str]:
    return re.compile(rf"arn:aws[a-zA-Z0-9-]*:{service}:[a-z0-9-]+:\d{{12}}:{resource}", re.ASCII)


# The order matters where ARNs look alike: the first that fits is taken.
SOURCES: Mapping[str, Source] = {
    "sqs-fifo": Source(
        arn=_arn("sqs", r"[a-zA-Z0-9_-]{1,75}\.fifo"),
        members=("ScalingConfig", "FunctionResponseTypes", "ProvisionedPollerConfig"),
        defaults=_QUEUE_DEFAULTS,
        max_batch=10,
        reason="USER_INITIATED",
    ),
    "sqs": Source(
        arn=_arn("sqs", "[a-zA-Z0-9_-]{1,80}"),
        members=("ScalingConfig", "FunctionResponseTypes", "ProvisionedPollerConfig"),
        defaults=_QUEUE_DEFAULTS,
        reason="USER_INITIATED",
    ),
    "kinesis": Source(
        arn=_arn("kinesis", r"stream/[a-zA-Z0-9_.-]{1,128}(/consumer/[a-zA-Z0-9_.-]{1,128}:\d+)?"),
        members=(*_STREAM_MEMBERS, *_SHARD_MEMBERS, "FunctionResponseTypes"),
        defaults=_SHARD_DEFAULTS,
        required=("StartingPosition",),
        positions=_POSITIONS,
        failures=("sqs", "sns", "s3"),
    ),
    "dynamodb": Source(
        arn=_arn("dynamodb", "table/[a-zA-Z0-9_.-]{3,255}/stream/[0-9T:.-]+"),
        members=(*_STREAM_MEMBERS, *_SHARD_MEMBERS, "FunctionResponseTypes"),
        defaults=_SHARD_DEFAULTS,
        required=("StartingPosition",),
        positions=("TRIM_HORIZON", "LATEST"),
        failures=("sqs", "sns", "s3"),
    ),
    "kafka": Source(
        arn=_arn("kafka", "(cluster|vpc-connection)/.+"),
        members=(*_STREAM_MEMBERS, *_KAFKA_MEMBERS, "AmazonManagedKafkaEventSourceConfig", "FunctionResponseTypes"),
        required=("Topics", "StartingPosition"),
        positions=_POSITIONS,
        failures=("sqs", "sns", "s3", "kafka"),
    ),
    "self-managed-kafka": Source(
        members=(
            *(*_STREAM_MEMBERS, *_KAFKA_MEMBERS, "SelfManagedKafkaEventSourceConfig", "FunctionResponseTypes"),
            "SelfManagedEventSource",
        ),
        required=("SourceAccessConfigurations", "Topics", "StartingPosition"),
        positions=_POSITIONS,
        failures=("sqs", "sns", "s3", "kafka"),
    ),
    "mq": Source(
        arn=_arn("mq", "broker:[a-zA-Z0-9_-]{1,50}:b-[a-zA-Z0-9-]+"),
        members=("Queues", "SourceAccessConfigurations"),
        required=("Queues", "SourceAccessConfigurations"),
        access=("BASIC_AUTH", "VIRTUAL_HOST"),
    ),
    "documentdb": Source(
        arn=_arn("rds", "cluster:[a-zA-Z0-9-]{1,63}"),
        members=(
            *("StartingPosition", "StartingPositionTimestamp", "SourceAccessConfigurations"),
            "DocumentDBEventSourceConfig",
        ),
        required=("SourceAccessConfigurations", "DocumentDBEventSourceConfig", "StartingPosition"),
        positions=_POSITIONS,
        access=("BASIC_AUTH",),
    ),
}

_SOME_HAVE = frozenset(member for source in SOURCES.values() for member in source.members)
_KAFKA = ("kafka", "self-managed-kafka")
CONSUMER_CONFIGS = {"kafka": "AmazonManagedKafkaEventSourceConfig", _KAFKA[1]: "SelfManagedKafkaEventSourceConfig"}
"""The members that hold the consumer group of Kafka sources."""


def source_of(request: Mapping[str, Any]) -> str:
    """Tell the kind of source that CreateEventSourceMapping names: a key of `SOURCES`.

    :raises InvalidParameterValue: it names none, two, or one that Lambda does not read.
    """
    arn = request.get("EventSourceArn")
    if "SelfManagedEventSource" in request:
        if arn:
            raise InvalidParameterValue("EventSourceArn and SelfManagedEventSource cannot be given together.")
        return "self-managed-kafka"
    for name, source in SOURCES.items():
        if arn and source.arn is not None and source.arn.fullmatch(arn):
            return name
    raise InvalidParameterValue("Unrecognized event source.")


def check_place(name: str, arn: str | None, region: str) -> None:
    """Refuse a source that is where Lambda does not read it: queues are read in the function's own region.

    :param name: the kind of source.
    :param arn: of the source; None where it has none.
    :raises InvalidParameterValue: it is elsewhere, or its ARN has a region that is in another partition of AWS.

    AWS: https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html
    """
    if arn is None:
        return
    _, partition, _, place, _ = arn.split(":", 4)
    if not is_partition_of(partition, place):
        raise InvalidParameterValue("Unrecognized event source.")
    if name.startswith("sqs") and place != region:
        raise InvalidParameterValue(
            f"The queue {arn} is not in the region of the function, {region}, and Lambda reads no queues of others."
        )


def configured(name: str, held: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Give the settings of a mapping after some were set; what the caller does not mention stays.

    :param name: the kind of source.
    :param held: the settings that it has; empty for a new mapping, which gets AWS's defaults.
    :raises InvalidParameterValue: the source does not have a member, or the whole does not fit.
    """
    source = SOURCES[name]
    for member in sorted(_SOME_HAVE.difference(source.members).intersection(given)):
        if given[member] not in ({}, []):
            raise InvalidParameterValue(_unsupported(name, member))
    settings = {**(held or source.defaults), **given}
    if settings.get("DestinationConfig") == {}:
        settings["DestinationConfig"] = {"OnFailure": {}}
    settings = {member: value for member, value in settings.items() if not _resets(member, value)}
    for member in source.required:
        if not settings.get(member):
            raise InvalidParameterValue(_missing(member))
    _check(name, settings)
    return settings


def check_start(name: str, settings: Mapping[str, Any], arn: str | None) -> None:
    """Refuse a place to start reading at that the source has not.

    :raises InvalidParameterValue: it has not.
    """
    position, moment = settings.get("StartingPosition"), settings.get("StartingPositionTimestamp")
    if position is not None and position not in SOURCES[name].positions:
        raise InvalidParameterValue(f"Unsupported starting position for arn type: {arn}")
    if position == "AT_TIMESTAMP" and moment is None:
        raise InvalidParameterValue("Need to specify a timestamp")
    if moment is not None and position != "AT_TIMESTAMP":
        raise InvalidParameterValue("Timestamp only valid with StartingPosition AT_TIMESTAMP")
    if moment is not None and moment < 0:
        raise InvalidParameterValue(
            "Received Exception while reading from provided stream. class java.lang.Long can not be converted to a "
            "Timestamp"
        )
    if moment is not None and moment > datetime.now(UTC).timestamp():
        raise InvalidParameterValue("StartingPositionTimestamp cannot be in the future.")


def _unsupported(name: str, member: str) -> str:
    if member == "StartingPosition" and name.startswith("sqs"):
        return "StartingPosition is not valid for SQS event sources."
    return f"Unsupported {member} parameter for given event source mapping type."


def _missing(member: str) -> str:
    path = member[0].lower() + member[1:]
    if member == "StartingPosition":
        return (
            f"1 validation error detected: Value null at '{path}' failed to satisfy constraint: "
            "Member must not be null."
        )
    return f"Required '{path}' parameter is missing."


def _resets(member: str, value: Any) -> bool:
    if member not in _RESET_BY_EMPTY:
        return False
    return not value or value in ({"Filters": []}, {"Metrics": []})


def _check(name: str, settings: Mapping[str, Any]) -> None:
    _check_batches(name, settings)
    _check_failures(name, settings)
    _check_filters(settings.get("FilterCriteria", {}))
    _check_pollers(name, settings)
    _check_access(name, settings)
    _check_details(name, settings)


def _check_batches(name: str, settings: Mapping[str, Any]) -> None:
    size, window = settings["BatchSize"], settings.get("MaximumBatchingWindowInSeconds", 0)
    if name == "sqs-fifo" and window:
        raise InvalidParameterValue("Batching window is not supported for FIFO queues")
    if size > SOURCES[name].max_batch:
        raise InvalidParameterValue(f"BatchSize {size} exceeds the maximum of {SOURCES[name].max_batch}.")
    if name == "sqs" and size > 10 and not window:
        raise InvalidParameterValue(
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
        )


def _check_failures(name: str, settings: Mapping[str, Any]) -> None:
    if 0 <= settings.get("MaximumRecordAgeInSeconds", -1) < 60:
        raise InvalidParameterValue("MaximumRecordAgeInSeconds is -1, or from 60 to 604800.")
    destinations = settings.get("DestinationConfig")
    if destination_of(destinations, "OnSuccess") is not None:
        raise InvalidParameterValue(_unsupported(name, "DestinationConfig"))
    check_destinations(destinations, (), SOURCES[name].failures)


def _check_filters(criteria: Mapping[str, Any]) -> None:
    filters = criteria.get("Filters", ())
    if len(filters) > MAX_FILTERS:
        raise InvalidParameterValue(f"FilterCriteria has {len(filters)} filters; there may be {MAX_FILTERS}.")
    for one in filters:
        try:
            parse_event_pattern((one or {}).get("Pattern", ""))
        except ValueError:
            raise InvalidParameterValue("Invalid filter pattern definition.") from None


def _check_pollers(name: str, settings: Mapping[str, Any]) -> None:
    config = settings.get("ProvisionedPollerConfig", {})
    if not config:
        return
    if "ScalingConfig" in settings:
        raise InvalidParameterValue("ScalingConfig and ProvisionedPollerConfig cannot be used together.")
    if "PollerGroupName" in config and name not in _KAFKA:
        raise InvalidParameterValue(_unsupported(name, "PollerGroupName"))
    floor, ceiling = (1, 2_000) if name in _KAFKA else (2, 10_000)
    least, most = config.get("MinimumPollers", floor), config.get("MaximumPollers", 200)
    if not floor <= least <= most <= ceiling:
        raise InvalidParameterValue(
            f"MinimumPollers is at least {floor} and not more than MaximumPollers, which is at most {ceiling}; "
            f"they are {least} and {most}."
        )


def _check_access(name: str, settings: Mapping[str, Any]) -> None:
    configurations = settings.get("SourceAccessConfigurations", ())
    types = [access.get("Type") for access in configurations]
    if not all(access.get("URI") for access in configurations):
        raise InvalidParameterValue("Required 'sourceAccessConfigurations.URI' parameter is missing.")
    allowed = SOURCES[name].access
    for kind in types:
        if kind is None or (allowed and kind not in allowed) or (not allowed and kind == "VIRTUAL_HOST"):
            raise InvalidParameterValue(f"The source access type {kind} is not one of this event source.")
    if allowed and "BASIC_AUTH" not in types:
        raise InvalidParameterValue("SourceAccessConfigurations of this event source need a BASIC_AUTH.")


def _check_details(name: str, settings: Mapping[str, Any]) -> None:
    if name == "self-managed-kafka" and not bootstrap_servers(settings):
        raise InvalidParameterValue("Required 'selfManagedEventSource.endpoints' parameter is missing.")
    if name == "documentdb" and not settings["DocumentDBEventSourceConfig"].get("DatabaseName"):
        raise InvalidParameterValue("Required 'databaseName' parameter is missing.")
    if settings.get(CONSUMER_CONFIGS.get(name, ""), {}).get("ConsumptionMode") is not None:
        raise InvalidParameterValue(_unsupported(name, "'ConsumptionMode'"))
    metrics = settings.get("MetricsConfig", {}).get("Metrics", ())
    if name not in _KAFKA and any(metric != "EventCount" for metric in metrics):
        raise InvalidParameterValue("The only metric of this event source is EventCount.")


def bootstrap_servers(settings: Mapping[str, Any]) -> list[str]:
    """Give the addresses of a self-managed Kafka cluster; none for other sources."""
    endpoints = settings.get("SelfManagedEventSource", {}).get("Endpoints", {})
    return list(endpoints.get("KAFKA_BOOTSTRAP_SERVERS", ()))
