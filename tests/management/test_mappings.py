"""Event source mappings, driven with boto3."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from serverfull.domain.deployed import FUNCTIONS
from serverfull.domain.functions import Function
from serverfull.domain.mappings import EVENT_SOURCE_MAPPINGS
from serverfull.management.mappings import EventSourceMappings
from tests.management.answers import refused

HERE = "eu-west-1:123456789012:"
ARN = f"arn:aws:lambda:{HERE}function:orders"
QUEUE = f"arn:aws:sqs:{HERE}jobs"
FIFO = f"arn:aws:sqs:{HERE}jobs.fifo"
STREAM = f"arn:aws:kinesis:{HERE}stream/clicks"
TABLE = f"arn:aws:dynamodb:{HERE}table/carts/stream/2026-01-01T00:00:00.000"
MSK = f"arn:aws:kafka:{HERE}cluster/shop/6cc0432b-8618-4f44-bccc-e1fbd8fb7c4d-2"
BROKER = f"arn:aws:mq:{HERE}broker:shop:b-1234a5b6-78cd-901e-2fgh-3i45j6k178l9"
DOCUMENTS = f"arn:aws:rds:{HERE}cluster:shop"
SECRET = f"arn:aws:secretsmanager:{HERE}secret:shop"
FAILED = f"arn:aws:sqs:{HERE}failed"
BASIC_AUTH = [{"Type": "BASIC_AUTH", "URI": SECRET}]
KAFKA = {"EventSourceArn": MSK, "Topics": ["orders"], "StartingPosition": "LATEST"}
SELF_MANAGED = {
    "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["a.example.com:9092", "b.example.com:9092"]}},
    "SourceAccessConfigurations": BASIC_AUTH,
    "Topics": ["orders"],
    "StartingPosition": "TRIM_HORIZON",
}
MQ = {"EventSourceArn": BROKER, "Queues": ["orders"], "SourceAccessConfigurations": BASIC_AUTH}
DOCUMENTDB = {
    "EventSourceArn": DOCUMENTS,
    "StartingPosition": "LATEST",
    "SourceAccessConfigurations": BASIC_AUTH,
    "DocumentDBEventSourceConfig": {"DatabaseName": "shop"},
}
SOURCES = {
    "sqs": {"EventSourceArn": QUEUE},
    "fifo": {"EventSourceArn": FIFO},
    "kinesis": {"EventSourceArn": STREAM, "StartingPosition": "LATEST"},
    "dynamodb": {"EventSourceArn": TABLE, "StartingPosition": "TRIM_HORIZON"},
    "kafka": KAFKA,
    "self-managed": SELF_MANAGED,
    "mq": MQ,
    "documentdb": DOCUMENTDB,
}
INVALID = "InvalidParameterValueException"
UNSUPPORTED = "Unsupported {} parameter for given event source mapping type."


@pytest.fixture
def plane(control_plane):
    plane = control_plane
    plane.serve(EventSourceMappings(plane.state, plane.resolver).operations())
    plane.put_function("orders", 1)
    plane.put_function("audit")
    plane.put_alias("orders", "live")
    return plane


@pytest.fixture
def create(client):
    def call(source="sqs", **members):
        members = {"FunctionName": "orders", **SOURCES[source], **members}
        return client.create_event_source_mapping(**{name: value for name, value in members.items() if value != "none"})

    return call


def settings(response):
    left_out = ("ResponseMetadata", "LastModified", "UUID", "EventSourceMappingArn")
    return {name: value for name, value in response.items() if name not in left_out}


def test_a_queue_gets_the_defaults_of_aws(create, client):
    created = create()
    assert created["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert settings(created) == {
        "BatchSize": 10,
        "MaximumBatchingWindowInSeconds": 0,
        "EventSourceArn": QUEUE,
        "FunctionArn": ARN,
        "State": "Creating",
        "StateTransitionReason": "USER_INITIATED",
        "FunctionResponseTypes": [],
    }
    assert created["EventSourceMappingArn"] == f"arn:aws:lambda:{HERE}event-source-mapping:{created['UUID']}"
    assert abs(created["LastModified"] - datetime.now(UTC)) < timedelta(minutes=5)
    read = client.get_event_source_mapping(UUID=created["UUID"])
    assert settings(read) == {**settings(created), "State": "Enabled"}
    assert read["LastModified"] == created["LastModified"]


@pytest.mark.parametrize("source", ["kinesis", "dynamodb"])
def test_a_stream_gets_the_defaults_of_aws(create, source):
    assert settings(create(source)) == {
        **SOURCES[source],
        "BatchSize": 100,
        "MaximumBatchingWindowInSeconds": 0,
        "ParallelizationFactor": 1,
        "FunctionArn": ARN,
        "LastProcessingResult": "No records processed",
        "State": "Creating",
        "StateTransitionReason": "User action",
        "DestinationConfig": {"OnFailure": {}},
        "MaximumRecordAgeInSeconds": -1,
        "BisectBatchOnFunctionError": False,
        "MaximumRetryAttempts": -1,
        "TumblingWindowInSeconds": 0,
        "FunctionResponseTypes": [],
    }


@pytest.mark.parametrize(
    ("source", "config"),
    [
        ("kafka", "AmazonManagedKafkaEventSourceConfig"),
        ("self-managed", "SelfManagedKafkaEventSourceConfig"),
        ("mq", None),
        ("documentdb", None),
    ],
)
def test_every_other_source_is_taken(create, source, config):
    created = create(source)
    expected = {
        **SOURCES[source],
        "BatchSize": 100,
        "FunctionArn": ARN,
        "State": "Creating",
        "StateTransitionReason": "User action",
        "LastProcessingResult": "No records processed",
    }
    if config is not None:
        expected[config] = {"ConsumerGroupId": created["UUID"]}
    assert settings(created) == expected


def test_everything_that_a_queue_can_have_is_read_back(create, client):
    members = {
        "Enabled": False,
        "BatchSize": 500,
        "MaximumBatchingWindowInSeconds": 5,
        "FilterCriteria": {"Filters": [{"Pattern": json.dumps({"body": {"kind": ["order"]}})}]},
        "ScalingConfig": {"MaximumConcurrency": 2},
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "KMSKeyArn": f"arn:aws:kms:{HERE}key/1",
        "MetricsConfig": {"Metrics": ["EventCount"]},
        "Tags": {"team": "shop"},
    }
    read = client.get_event_source_mapping(UUID=create(**members)["UUID"])
    assert read["State"] == "Disabled"
    echoed = {name: value for name, value in members.items() if name not in ("Enabled", "Tags")}
    assert {name: read[name] for name in echoed} == echoed


def test_everything_that_a_stream_can_have_is_read_back(create, client):
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
    members = {
        "StartingPosition": "AT_TIMESTAMP",
        "StartingPositionTimestamp": moment,
        "DestinationConfig": {"OnFailure": {"Destination": FAILED}},
        "ParallelizationFactor": 10,
        "MaximumRecordAgeInSeconds": 60,
        "BisectBatchOnFunctionError": True,
        "MaximumRetryAttempts": 0,
        "TumblingWindowInSeconds": 900,
    }
    read = client.get_event_source_mapping(UUID=create("kinesis", **members)["UUID"])
    assert {name: read[name] for name in members} == members


def test_tags_are_kept_with_the_mapping(create, plane):
    created = create(Tags={"team": "shop"})
    kept = plane.write(lambda records: records.get(EVENT_SOURCE_MAPPINGS, created["UUID"]))
    assert kept.tags == {"team": "shop"}
    message = refused(create, INVALID, EventSourceArn=QUEUE + "2", Tags={"aws:team": "shop"})
    assert message.startswith("aws: prefixed tag key names")


@pytest.mark.parametrize("name", ["orders:live", ARN + ":live", "orders:1", "orders:$LATEST"])
def test_versions_and_aliases_can_be_fed(create, name):
    assert create(FunctionName=name)["FunctionArn"] == f"{ARN}:{name.rpartition(':')[2]}"


@pytest.mark.parametrize("name", ["nobody", "orders:2", "orders:nobody", "nobody:$LATEST"])
def test_the_function_has_to_exist(create, client, name):
    assert refused(create, INVALID, FunctionName=name) == "Function does not exist"
    update = client.update_event_source_mapping
    assert refused(update, INVALID, UUID=create()["UUID"], FunctionName=name) == "Function does not exist"


def test_functions_of_the_operator_can_be_fed(create, plane):
    plane.registered["greet"] = Function(print)
    assert create(FunctionName="greet")["FunctionArn"].endswith(":function:greet")
    assert refused(create, INVALID, FunctionName="greet:1") == "Function does not exist"


def test_a_mapping_outlives_its_function(create, client, plane):
    created = create()
    plane.write(lambda records: records.delete(FUNCTIONS, "orders"))
    assert client.get_event_source_mapping(UUID=created["UUID"])["FunctionArn"] == ARN
    client.delete_event_source_mapping(UUID=created["UUID"])


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("sqs", f'An event source mapping with SQS arn (" {QUEUE} ") and function (" orders ") already exists. '),
        ("kinesis", f'The event source arn (" {STREAM} ") and function (" orders ") provided mapping already exists. '),
        (
            "kafka",
            (
                f'An event source mapping with event source ("{MSK}"), function ("{ARN}"), topics ("orders") '
                "already exists. "
            ),
        ),
        (
            "self-managed",
            (
                'An event source mapping with event source ("a.example.com:9092,b.example.com:9092"), '
                f'function ("{ARN}"), topics ("orders") already exists. '
            ),
        ),
        ("mq", f'The event source arn (" {BROKER} ") and function (" orders ") provided mapping already exists. '),
    ],
)
def test_a_second_mapping_is_refused_in_the_words_of_aws(create, source, text):
    first = create(source)
    message = refused(create, "ResourceConflictException", 409, source=source)
    assert message == f"{text}Please update or delete the existing mapping with UUID {first['UUID']}"


def test_the_same_source_may_feed_other_functions_and_qualifiers(create):
    for name in ("orders", "orders:live", "orders:1", "audit"):
        create(FunctionName=name)
    create("kafka")
    create("kafka", Topics=["payments"])
    create("self-managed")
    servers = {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["c.example.com:9092"]}}
    create("self-managed", SelfManagedEventSource=servers)
    servers["Endpoints"]["KAFKA_BOOTSTRAP_SERVERS"].append("a.example.com:9092")
    refused(create, "ResourceConflictException", 409, source="self-managed", SelfManagedEventSource=servers)


def test_moving_a_mapping_to_a_function_that_has_one_is_refused(create, client):
    create(FunctionName="audit")
    mapping = create()["UUID"]
    refused(client.update_event_source_mapping, "ResourceConflictException", 409, UUID=mapping, FunctionName="audit")
    moved = client.update_event_source_mapping(UUID=mapping, FunctionName="orders:live")
    assert moved["FunctionArn"] == f"{ARN}:live"
    assert client.update_event_source_mapping(UUID=mapping, FunctionName="orders:live")["FunctionArn"] == f"{ARN}:live"


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"EventSourceArn": "none"}, "Unrecognized event source."),
        ({"EventSourceArn": "arn:aws:s3:::bucket"}, "Unrecognized event source."),
        ({"EventSourceArn": f"arn:aws:dynamodb:{HERE}table/carts"}, "Unrecognized event source."),
        ({"EventSourceArn": "arn:aws:sqs:eu-west-1::jobs"}, "Unrecognized event source."),
        (
            {**SELF_MANAGED, "EventSourceArn": MSK},
            "EventSourceArn and SelfManagedEventSource cannot be given together.",
        ),
        ({"StartingPosition": "LATEST"}, "StartingPosition is not valid for SQS event sources."),
        (
            {"BatchSize": 11},
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10",
        ),
        (
            {"ScalingConfig": {"MaximumConcurrency": 2}, "ProvisionedPollerConfig": {"MinimumPollers": 2}},
            "ScalingConfig and ProvisionedPollerConfig cannot be used together.",
        ),
        ({"ProvisionedPollerConfig": {"PollerGroupName": "all"}}, UNSUPPORTED.format("PollerGroupName")),
        ({"MetricsConfig": {"Metrics": ["KafkaMetrics"]}}, "The only metric of this event source is EventCount."),
    ],
)
def test_what_a_queue_does_not_take_is_refused(create, members, text):
    assert refused(create, INVALID, **members) == text


@pytest.mark.parametrize(
    "members",
    [
        {"ParallelizationFactor": 2},
        {"TumblingWindowInSeconds": 1},
        {"BisectBatchOnFunctionError": True},
        {"MaximumRetryAttempts": 1},
        {"MaximumRecordAgeInSeconds": 60},
        {"DestinationConfig": {"OnFailure": {"Destination": FAILED}}},
        {"Topics": ["orders"]},
        {"Queues": ["orders"]},
        {"SourceAccessConfigurations": BASIC_AUTH},
        {"LoggingConfig": {"SystemLogLevel": "INFO"}},
        {"StartingPositionTimestamp": datetime(2026, 1, 1, tzinfo=UTC)},
        {"DocumentDBEventSourceConfig": {"DatabaseName": "shop"}},
        {"SelfManagedKafkaEventSourceConfig": {"ConsumerGroupId": "shop"}},
    ],
    ids=lambda members: next(iter(members)),
)
def test_members_of_other_sources_are_refused(create, client, members):
    [member] = members
    assert refused(create, INVALID, **members) == UNSUPPORTED.format(member)
    if member not in ("Topics", "Queues", "StartingPositionTimestamp"):
        update = client.update_event_source_mapping
        assert refused(update, INVALID, UUID=create()["UUID"], **members) == UNSUPPORTED.format(member)


@pytest.mark.parametrize("source", ["kinesis", "dynamodb", "kafka", "self-managed", "mq", "documentdb"])
def test_only_queues_have_a_scaling_config(create, source):
    message = refused(create, INVALID, source=source, ScalingConfig={"MaximumConcurrency": 5})
    assert message == UNSUPPORTED.format("ScalingConfig")


@pytest.mark.parametrize(
    ("members", "member"),
    [
        ({"ScalingConfig": {"MaximumConcurrency": 1}}, "scalingConfig.maximumConcurrency"),
        ({"ScalingConfig": {"MaximumConcurrency": 1001}}, "scalingConfig.maximumConcurrency"),
        ({"BatchSize": 0}, "batchSize"),
        ({"BatchSize": 10_001}, "batchSize"),
        ({"MaximumBatchingWindowInSeconds": 301}, "maximumBatchingWindowInSeconds"),
        ({"EventSourceArn": "queue"}, "eventSourceArn"),
    ],
)
def test_the_constraints_of_the_model_hold(create, members, member):
    assert f"at '{member}' failed to satisfy" in refused(create, "ValidationException", **members)


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"BatchSize": 11}, "BatchSize 11 exceeds the maximum of 10."),
        ({"MaximumBatchingWindowInSeconds": 1}, "Batching window is not supported for FIFO queues"),
    ],
)
def test_queues_that_keep_an_order_have_limits_of_their_own(create, members, text):
    assert refused(create, INVALID, source="fifo", **members) == text


@pytest.mark.parametrize("source", ["kinesis", "dynamodb", "kafka", "self-managed", "documentdb"])
def test_streams_need_a_starting_position(create, source):
    assert refused(create, INVALID, source=source, StartingPosition="none") == (
        "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: "
        "Member must not be null."
    )
    refused(create, "ValidationException", source=source, StartingPosition="MIDDLE")


def test_a_position_in_time_needs_a_time_and_a_source_that_has_it(create):
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    at = {"StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": moment}
    assert refused(create, INVALID, source="kinesis", StartingPosition="AT_TIMESTAMP") == "Need to specify a timestamp"
    assert refused(create, INVALID, source="dynamodb", **at) == f"Unsupported starting position for arn type: {TABLE}"
    text = "Timestamp only valid with StartingPosition AT_TIMESTAMP"
    assert refused(create, INVALID, source="kinesis", StartingPositionTimestamp=moment) == text
    at["StartingPositionTimestamp"] = datetime(1969, 12, 31, tzinfo=UTC)
    assert "can not be converted to a Timestamp" in refused(create, INVALID, source="kinesis", **at)
    at["StartingPositionTimestamp"] = datetime.now(UTC) + timedelta(hours=1)
    assert refused(create, INVALID, source="kinesis", **at) == "StartingPositionTimestamp cannot be in the future."


@pytest.mark.parametrize(
    ("source", "members", "text"),
    [
        (
            "kinesis",
            {"MaximumRecordAgeInSeconds": 59},
            "MaximumRecordAgeInSeconds is -1, or from 60 to 604800.",
        ),
        (
            "kinesis",
            {"DestinationConfig": {"OnSuccess": {"Destination": FAILED}}},
            UNSUPPORTED.format("DestinationConfig"),
        ),
        (
            "kinesis",
            {"DestinationConfig": {"OnFailure": {"Destination": "kafka://failed"}}},
            (
                "The provided destination config DestinationConfig(onSuccess=null, "
                "onFailure=OnFailure(destination=kafka://failed)) is invalid."
            ),
        ),
        ("kafka", {"Topics": "none"}, "Required 'topics' parameter is missing."),
        ("mq", {"Queues": "none"}, "Required 'queues' parameter is missing."),
        (
            "self-managed",
            {"SourceAccessConfigurations": "none"},
            "Required 'sourceAccessConfigurations' parameter is missing.",
        ),
        (
            "self-managed",
            {"SelfManagedEventSource": {}},
            "Required 'selfManagedEventSource.endpoints' parameter is missing.",
        ),
        ("documentdb", {"DocumentDBEventSourceConfig": {"CollectionName": "x"}}, "Required 'databaseName'"),
        ("mq", {"SourceAccessConfigurations": [{"Type": "IAM_AUTH", "URI": SECRET}]}, "source access type IAM_AUTH"),
        ("mq", {"SourceAccessConfigurations": [{"Type": "VIRTUAL_HOST", "URI": "/"}]}, "need a BASIC_AUTH"),
        ("mq", {"SourceAccessConfigurations": [{"Type": "BASIC_AUTH"}]}, "'sourceAccessConfigurations.URI'"),
        ("sqs", {"EventSourceArn": QUEUE.replace("eu-west-1", "us-east-1")}, "is not in the region of the function"),
        ("fifo", {"EventSourceArn": FIFO.replace("eu-west-1", "us-east-1")}, "is not in the region of the function"),
        ("sqs", {"EventSourceArn": QUEUE.replace("arn:aws:", "arn:aws-cn:")}, "Unrecognized event source."),
        ("kinesis", {"EventSourceArn": STREAM.replace("arn:aws:", "arn:aws-us-gov:")}, "Unrecognized event source."),
        ("kafka", {"SourceAccessConfigurations": [{"Type": "VIRTUAL_HOST", "URI": "/"}]}, "access type VIRTUAL_HOST"),
        ("kafka", {"ProvisionedPollerConfig": {"MinimumPollers": 5, "MaximumPollers": 4}}, "they are 5 and 4"),
        ("sqs", {"ProvisionedPollerConfig": {"MinimumPollers": 1}}, "at least 2"),
    ],
)
def test_other_rules_of_sources_hold(create, source, members, text):
    assert text in refused(create, INVALID, source=source, **members)


@pytest.mark.parametrize(
    "pattern", ["", "text", '"text"', "{}", '{"body": "order"}', '{"body": []}', '{"body": [{"like": "x"}]}']
)
def test_filters_that_are_no_patterns_are_refused(create, client, pattern):
    criteria = {"Filters": [{"Pattern": '{"body": ["x"]}'}, {"Pattern": pattern}]}
    assert refused(create, INVALID, FilterCriteria=criteria) == "Invalid filter pattern definition."
    update = client.update_event_source_mapping
    assert refused(update, INVALID, UUID=create()["UUID"], FilterCriteria=criteria) == (
        "Invalid filter pattern definition."
    )
    many = {"Filters": [{"Pattern": '{"body": ["x"]}'}] * 11}
    assert "11 filters" in refused(create, INVALID, EventSourceArn=QUEUE + "2", FilterCriteria=many)


def test_an_update_changes_what_it_mentions(create, client):
    created = create(BatchSize=5, ScalingConfig={"MaximumConcurrency": 7})
    updated = client.update_event_source_mapping(UUID=created["UUID"], BatchSize=6)
    assert updated["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert settings(updated) == {**settings(created), "BatchSize": 6, "State": "Updating"}
    assert updated["LastModified"] >= created["LastModified"]
    assert settings(client.get_event_source_mapping(UUID=created["UUID"])) == {**settings(updated), "State": "Enabled"}


def test_a_mapping_is_disabled_and_enabled(create, client):
    mapping = create()["UUID"]

    def switch(enabled):
        answered = client.update_event_source_mapping(UUID=mapping, Enabled=enabled)["State"]
        return answered, client.get_event_source_mapping(UUID=mapping)["State"]

    assert switch(False) == ("Disabling", "Disabled")
    assert client.update_event_source_mapping(UUID=mapping, BatchSize=1)["State"] == "Updating"
    assert client.get_event_source_mapping(UUID=mapping)["State"] == "Disabled"
    assert switch(True) == ("Enabling", "Enabled")
    assert switch(True) == ("Updating", "Enabled")


def test_empty_structures_take_settings_away(create, client):
    members = {
        "ScalingConfig": {"MaximumConcurrency": 2},
        "FilterCriteria": {"Filters": [{"Pattern": '{"body": ["x"]}'}]},
        "MetricsConfig": {"Metrics": ["EventCount"]},
        "KMSKeyArn": f"arn:aws:kms:{HERE}key/1",
    }
    mapping = create(**members)["UUID"]
    empty = {"ScalingConfig": {}, "FilterCriteria": {}, "MetricsConfig": {"Metrics": []}, "KMSKeyArn": ""}
    updated = client.update_event_source_mapping(UUID=mapping, **empty)
    assert not set(members) & set(updated)
    assert not set(members) & set(client.get_event_source_mapping(UUID=mapping))
    stream = create("kinesis", DestinationConfig={"OnFailure": {"Destination": FAILED}})["UUID"]
    updated = client.update_event_source_mapping(UUID=stream, DestinationConfig={})
    assert updated["DestinationConfig"] == {"OnFailure": {}}


def test_an_update_is_checked_together_with_what_stays(create, client):
    mapping = create(BatchSize=100, MaximumBatchingWindowInSeconds=1)["UUID"]
    message = refused(
        client.update_event_source_mapping, INVALID, UUID=mapping, MaximumBatchingWindowInSeconds=0, Enabled=False
    )
    assert message.startswith("Maximum batch window in seconds must be greater than 0")
    read = client.get_event_source_mapping(UUID=mapping)
    assert (read["MaximumBatchingWindowInSeconds"], read["State"]) == (1, "Enabled")


def test_a_consumer_group_stays(create, client):
    config = "AmazonManagedKafkaEventSourceConfig"
    mapping = create("kafka", **{config: {"ConsumerGroupId": "shop"}})["UUID"]
    message = refused(client.update_event_source_mapping, INVALID, UUID=mapping, **{config: {"ConsumerGroupId": "x"}})
    assert "ConsumerGroupId" in message
    updated = client.update_event_source_mapping(UUID=mapping, **{config: {}})
    assert updated[config] == {"ConsumerGroupId": "shop"}
    assert updated["Topics"] == ["orders"]


def test_a_deleted_mapping_is_gone(create, client):
    created = create()
    deleted = client.delete_event_source_mapping(UUID=created["UUID"])
    assert settings(deleted) == {**settings(created), "State": "Deleting"}
    for call in (client.get_event_source_mapping, client.delete_event_source_mapping):
        assert refused(call, "ResourceNotFoundException", 404, UUID=created["UUID"]) == (
            "The resource you requested does not exist."
        )
    refused(client.update_event_source_mapping, "ResourceNotFoundException", 404, UUID=created["UUID"], BatchSize=1)
    create()


@pytest.mark.parametrize("state", ["Creating", "Enabling", "Disabling", "Updating", "Deleting"])
def test_a_mapping_that_is_changing_refuses_changes(create, client, plane, state):
    mapping = create()["UUID"]
    plane.write(
        lambda records: records.replace(
            EVENT_SOURCE_MAPPINGS, replace(records.get(EVENT_SOURCE_MAPPINGS, mapping), state=state)
        )
    )
    in_use = "ResourceInUseException"
    assert refused(client.update_event_source_mapping, in_use, UUID=mapping, BatchSize=1) == (
        "Cannot update the event source mapping because it is in use."
    )
    assert refused(client.delete_event_source_mapping, in_use, UUID=mapping) == (
        "Cannot delete the event source mapping because it is in use."
    )
    assert client.get_event_source_mapping(UUID=mapping)["State"] == state


def test_mappings_are_listed_by_source_and_function_in_pages(create, client):
    made = {
        (name, source): create(source, FunctionName=name)["UUID"]
        for name in ("orders", "orders:live", "audit")
        for source in ("sqs", "kinesis")
    }

    def listed(**members):
        return {one["UUID"] for one in client.list_event_source_mappings(**members)["EventSourceMappings"]}

    assert listed() == set(made.values())
    assert listed(EventSourceArn=QUEUE) == {made[name, "sqs"] for name in ("orders", "orders:live", "audit")}
    assert listed(FunctionName=ARN) == {made["orders", "sqs"], made["orders", "kinesis"]}
    assert listed(FunctionName="orders:live", EventSourceArn=STREAM) == {made["orders:live", "kinesis"]}
    assert listed(FunctionName="nobody") == set()
    page = client.list_event_source_mappings(EventSourceArn=QUEUE, MaxItems=2)
    rest = client.list_event_source_mappings(EventSourceArn=QUEUE, Marker=page["NextMarker"])
    together = [one["UUID"] for one in page["EventSourceMappings"] + rest["EventSourceMappings"]]
    assert (len(together), set(together)) == (3, listed(EventSourceArn=QUEUE))
    assert "NextMarker" not in rest
    assert "Marker" in refused(client.list_event_source_mappings, INVALID, Marker="x")


def test_mappings_of_another_region_are_not_seen(create, plane):
    mapping = create()["UUID"]
    other = plane.client(region="us-east-1")
    assert other.list_event_source_mappings()["EventSourceMappings"] == []
    refused(other.get_event_source_mapping, "ResourceNotFoundException", 404, UUID=mapping)
