"""Event invoke configurations, driven with boto3."""

from __future__ import annotations

import pytest

from serverfull.domain.changes import FunctionChanged
from serverfull.domain.functions import Function
from serverfull.domain.records import Partition
from serverfull.management.invoke_configs import EventInvokeConfigs
from tests.management.answers import refused

BASE = "arn:aws:lambda:eu-west-1:123456789012:function:"
ARN = BASE + "orders"
PARTITION = Partition("123456789012", "eu-west-1")
QUEUE = "arn:aws:sqs:eu-west-1:123456789012:failed"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:done"
BUS = "arn:aws:events:eu-west-1:123456789012:event-bus/default"
BUCKET = "arn:aws:s3:::failed-events"
REACHABLE = {"lambda", "sqs", "sns", "events", "s3"}


@pytest.fixture
def plane(control_plane):
    plane = control_plane
    plane.serve(EventInvokeConfigs(plane.state, plane.resolver, plane.changes, REACHABLE).operations())
    plane.put_function("orders", 1)
    plane.put_function("audit")
    plane.put_alias("orders", "live")
    return plane


def settings(response):
    return {name: value for name, value in response.items() if name not in ("ResponseMetadata", "LastModified")}


def to(success=None, failure=None):
    config = {"OnSuccess": success, "OnFailure": failure}
    return {event: {"Destination": arn} for event, arn in config.items() if arn is not None}


def test_a_configuration_is_read_back_as_it_was_put(client, plane):
    put = client.put_function_event_invoke_config(
        FunctionName="orders",
        MaximumRetryAttempts=0,
        MaximumEventAgeInSeconds=3600,
        DestinationConfig=to(TOPIC, QUEUE),
    )
    assert settings(put) == {
        "FunctionArn": f"{ARN}:$LATEST",
        "MaximumRetryAttempts": 0,
        "MaximumEventAgeInSeconds": 3600,
        "DestinationConfig": to(TOPIC, QUEUE),
    }
    assert plane.published == [FunctionChanged(PARTITION, "orders")]
    assert settings(client.get_function_event_invoke_config(FunctionName=ARN)) == settings(put)
    latest = client.get_function_event_invoke_config(FunctionName="orders", Qualifier="$LATEST")
    assert latest["LastModified"] == put["LastModified"]


def test_put_replaces_the_whole_and_update_a_part(client):
    client.put_function_event_invoke_config(
        FunctionName="orders", MaximumRetryAttempts=1, DestinationConfig=to(TOPIC, QUEUE)
    )
    updated = client.update_function_event_invoke_config(FunctionName="orders", MaximumEventAgeInSeconds=60)
    assert (updated["MaximumRetryAttempts"], updated["MaximumEventAgeInSeconds"]) == (1, 60)
    assert updated["DestinationConfig"] == to(TOPIC, QUEUE)
    updated = client.update_function_event_invoke_config(FunctionName="orders", DestinationConfig=to(failure=BUCKET))
    assert updated["DestinationConfig"] == {"OnSuccess": {}, **to(failure=BUCKET)}
    put = client.put_function_event_invoke_config(FunctionName="orders", MaximumEventAgeInSeconds=61)
    assert settings(put) == {
        "FunctionArn": f"{ARN}:$LATEST",
        "MaximumEventAgeInSeconds": 61,
        "DestinationConfig": {"OnSuccess": {}, "OnFailure": {}},
    }


def test_versions_and_aliases_have_configurations_of_their_own(client):
    for attempts, qualifier in enumerate(("$LATEST", "1", "live")):
        client.put_function_event_invoke_config(
            FunctionName="orders", Qualifier=qualifier, MaximumRetryAttempts=attempts
        )
    read = [client.get_function_event_invoke_config(FunctionName=f"orders:{name}") for name in ("$LATEST", "1", "live")]
    assert [config["MaximumRetryAttempts"] for config in read] == [0, 1, 2]
    assert [config["FunctionArn"] for config in read] == [f"{ARN}:$LATEST", f"{ARN}:1", f"{ARN}:live"]


def test_a_deleted_configuration_is_gone(client):
    client.put_function_event_invoke_config(FunctionName="orders", MaximumRetryAttempts=0)
    deleted = client.delete_function_event_invoke_config(FunctionName="orders")
    assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 204
    text = f"The function {ARN}:$LATEST doesn't have an EventInvokeConfig"
    for call in (client.get_function_event_invoke_config, client.delete_function_event_invoke_config):
        assert refused(call, "ResourceNotFoundException", 404, FunctionName="orders") == text
    update = client.update_function_event_invoke_config
    assert refused(update, "ResourceNotFoundException", 404, FunctionName="orders", MaximumRetryAttempts=0) == text


def test_configurations_are_listed_in_pages(client):
    assert client.list_function_event_invoke_configs(FunctionName="orders")["FunctionEventInvokeConfigs"] == []
    for qualifier in ("live", "$LATEST", "1"):
        client.put_function_event_invoke_config(FunctionName="orders", Qualifier=qualifier, MaximumRetryAttempts=0)
    client.put_function_event_invoke_config(FunctionName="audit", MaximumRetryAttempts=0)
    page = client.list_function_event_invoke_configs(FunctionName="orders", MaxItems=2)
    rest = client.list_function_event_invoke_configs(FunctionName="orders", Marker=page["NextMarker"])
    listed = page["FunctionEventInvokeConfigs"] + rest["FunctionEventInvokeConfigs"]
    assert [config["FunctionArn"] for config in listed] == [f"{ARN}:$LATEST", f"{ARN}:1", f"{ARN}:live"]
    assert "NextMarker" not in rest
    assert refused(
        client.list_function_event_invoke_configs, "InvalidParameterValueException", FunctionName="orders", Marker="x"
    )


@pytest.mark.parametrize("operation", ["put_function_event_invoke_config", "update_function_event_invoke_config"])
def test_a_request_that_sets_nothing_is_refused(client, operation):
    message = refused(getattr(client, operation), "InvalidParameterValueException", FunctionName="orders")
    assert message == "You must specify at least one of error handling or destination setting."


@pytest.mark.parametrize("members", [{"FunctionName": "nobody"}, {"FunctionName": "orders", "Qualifier": "2"}])
def test_what_does_not_exist_has_no_configuration(client, members):
    put = client.put_function_event_invoke_config
    text = "The function doesn't exist."
    assert refused(put, "ResourceNotFoundException", 404, **members, MaximumRetryAttempts=0) == text
    assert refused(put, "ResourceNotFoundException", 404, FunctionName="orders:nobody", MaximumRetryAttempts=0) == text
    assert refused(client.list_function_event_invoke_configs, "ResourceNotFoundException", 404, FunctionName="nobody")
    assert "doesn't have an EventInvokeConfig" in refused(
        client.get_function_event_invoke_config, "ResourceNotFoundException", 404, **members
    )


@pytest.mark.parametrize(
    ("members", "member"),
    [
        ({"MaximumRetryAttempts": 3}, "maximumRetryAttempts"),
        ({"MaximumEventAgeInSeconds": 59}, "maximumEventAgeInSeconds"),
        ({"MaximumEventAgeInSeconds": 21_601}, "maximumEventAgeInSeconds"),
        ({"DestinationConfig": to(failure="not an arn")}, "destinationConfig.onFailure.destination"),
    ],
)
def test_the_constraints_of_the_model_hold(client, members, member):
    put = client.put_function_event_invoke_config
    assert f"at '{member}' failed to satisfy" in refused(put, "ValidationException", FunctionName="orders", **members)


@pytest.mark.parametrize("arn", [QUEUE, TOPIC, BUS, BASE + "audit", BASE + "audit:live"])
def test_every_kind_of_destination_is_taken(client, arn):
    put = client.put_function_event_invoke_config(FunctionName="orders", DestinationConfig=to(arn, arn))
    assert put["DestinationConfig"] == to(arn, arn)


@pytest.mark.parametrize(
    ("config", "shown"),
    [
        (to(BUCKET), f"onSuccess=OnSuccess(destination={BUCKET}), onFailure=null"),
        (to(failure=QUEUE + ".fifo"), f"onSuccess=null, onFailure=OnFailure(destination={QUEUE}.fifo)"),
        (to(failure="kafka://failed"), "onSuccess=null, onFailure=OnFailure(destination=kafka://failed)"),
        (
            to(failure=QUEUE.replace("arn:aws:", "arn:aws-cn:")),
            f"onSuccess=null, onFailure=OnFailure(destination={QUEUE.replace('arn:aws:', 'arn:aws-cn:')})",
        ),
        (
            to(QUEUE, "arn:aws:kinesis:eu-west-1:123456789012:stream/x"),
            (
                f"onSuccess=OnSuccess(destination={QUEUE}), "
                "onFailure=OnFailure(destination=arn:aws:kinesis:eu-west-1:123456789012:stream/x)"
            ),
        ),
        (
            to(failure="arn:aws:sqs:eu-west-1::x"),
            "onSuccess=null, onFailure=OnFailure(destination=arn:aws:sqs:eu-west-1::x)",
        ),
    ],
)
def test_other_destinations_are_refused(client, config, shown):
    put = client.put_function_event_invoke_config
    message = refused(put, "InvalidParameterValueException", FunctionName="orders", DestinationConfig=config)
    assert message == f"The provided destination config DestinationConfig({shown}) is invalid."


def test_a_destination_that_the_host_has_no_endpoint_for_is_refused_with_the_setting(control_plane):
    plane = control_plane
    plane.serve(EventInvokeConfigs(plane.state, plane.resolver, plane.changes, {"lambda", "sqs"}).operations())
    plane.put_function("orders")
    plane.put_function("audit")
    client = plane.client()
    code = "InvalidParameterValueException"
    for operation in (client.put_function_event_invoke_config, client.update_function_event_invoke_config):
        for config, name in ((to(TOPIC, QUEUE), "SNS"), (to(QUEUE, BUCKET), "S3"), (to(failure=BUS), "EventBridge")):
            message = refused(operation, code, FunctionName="orders", DestinationConfig=config)
            assert f"its settings name no endpoint for {name}. Set destinations.endpoint_url" in message
    client.put_function_event_invoke_config(FunctionName="orders", DestinationConfig=to(BASE + "audit", QUEUE))


def test_an_empty_configuration_takes_the_destinations_away(client):
    client.put_function_event_invoke_config(FunctionName="orders", DestinationConfig=to(TOPIC, QUEUE))
    updated = client.update_function_event_invoke_config(FunctionName="orders", DestinationConfig={})
    assert updated["DestinationConfig"] == {"OnSuccess": {}, "OnFailure": {}}


def test_a_function_as_destination_has_to_be_another_one_that_exists(client, plane):
    put = client.put_function_event_invoke_config
    code = "InvalidParameterValueException"
    message = refused(put, code, FunctionName="orders", DestinationConfig=to(ARN))
    assert message == "You can't specify the function as a destination for itself."
    message = refused(put, code, FunctionName="orders", DestinationConfig=to(failure=BASE + "nobody"))
    assert message == f"The destination ARN {BASE}nobody is invalid."
    plane.registered["greet"] = Function(print)
    put(FunctionName="orders", DestinationConfig=to(BASE + "greet", BASE.replace("eu-west-1", "us-east-1") + "far"))


def test_functions_of_the_operator_have_none(client, plane):
    plane.registered["greet"] = Function(print)
    assert client.list_function_event_invoke_configs(FunctionName="greet")["FunctionEventInvokeConfigs"] == []
    assert refused(client.get_function_event_invoke_config, "ResourceNotFoundException", 404, FunctionName="greet")
    put = client.put_function_event_invoke_config
    assert "static fetcher" in refused(
        put, "ResourceConflictException", 409, FunctionName="greet", MaximumRetryAttempts=0
    )
