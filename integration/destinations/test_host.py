"""What becomes of events on a real host: records and dead letters arrive at services that are not its own."""

from __future__ import annotations

import json
import re
import time
from contextlib import ExitStack

import pytest
from botocore.exceptions import ClientError

from integration.destinations.conftest import ACCOUNT, bus_arn, queue_arn, topic_arn
from serverfull.testing.clients import lambda_client
from serverfull.testing.deployments import deploy
from serverfull.testing.process import HostProcess

CODE = """\
def handler(event, context):
    print("handled", event)
    if isinstance(event, dict) and event.get("fail"):
        raise ValueError("nothing was ordered")
    return {"handled": event}
"""
ARN = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:"
DEADLINE = 40


@pytest.fixture(scope="module")
def start(services):
    """Start a host on a state of its own, or on one that another one has left."""
    with ExitStack() as hosts:

        def start(folder, **variables):
            env = {
                "SERVERFULL_DESTINATIONS__ENDPOINT_URL": services.url,
                "SERVERFULL_EVENTS__BASE_DELAY": "0",
                **variables,
            }
            arguments = ("--state", str(folder), "--execution", "inprocess", "--log-format", "json")
            host = HostProcess.start(None, *arguments, env=env, cwd=folder)
            hosts.callback(host.kill)
            return host, lambda_client(host.url, access_key=ACCOUNT)

        yield start


@pytest.fixture(scope="module")
def serving(start, tmp_path_factory):
    return start(tmp_path_factory.mktemp("host"))


@pytest.fixture
def client(serving):
    return serving[1]


@pytest.fixture
def host(serving):
    return serving[0]


def configure(client, name, success=None, failure=None, retries=0, **more):
    config = {"OnSuccess": success, "OnFailure": failure}
    client.put_function_event_invoke_config(
        FunctionName=name,
        MaximumRetryAttempts=retries,
        DestinationConfig={event: {"Destination": arn} for event, arn in config.items() if arn},
        **more,
    )


def make(client, name, success=None, failure=None, retries=0, **members):
    deploy(client, name, {"app.py": CODE}, **members)
    configure(client, name, success, failure, retries)


def send(client, name, event, **more):
    answer = client.invoke(FunctionName=name, InvocationType="Event", Payload=json.dumps(event), **more)
    assert answer["StatusCode"] == 202
    return answer["ResponseMetadata"]["RequestId"]


def await_figure(host, name, function, least):
    deadline = time.monotonic() + DEADLINE
    while True:
        text = host.request("GET", "/metrics").body.decode()
        found = re.search(rf'^{name}_total\{{function="{function}"\}} (\S+)$', text, re.MULTILINE)
        if found and float(found[1]) >= least:
            return
        assert time.monotonic() < deadline, f"{name} of {function} is {found and found[1]}"
        time.sleep(0.05)


def await_objects(services, bucket):
    deadline = time.monotonic() + DEADLINE
    while not (found := services.objects(bucket)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


@pytest.mark.parametrize(("kind", "arn"), [("queue", queue_arn), ("topic", topic_arn), ("bus", bus_arn)])
def test_records_of_successes_and_failures_arrive(services, client, kind, arn):
    name = f"to-{kind}"
    getattr(services, f"make_{kind}")(name)
    make(client, name, arn(name), arn(name), retries=1)
    ids = {send(client, name, {"item": "tea"}): "Success", send(client, name, {"fail": 1}): "RetriesExhausted"}
    records = [record.get("detail", record) for record in services.records(name, 2)]
    assert {record["requestContext"]["requestId"]: record["requestContext"]["condition"] for record in records} == ids
    by_condition = {record["requestContext"]["condition"]: record for record in records}
    success, failure = by_condition["Success"], by_condition["RetriesExhausted"]
    assert success["requestContext"]["functionArn"] == f"{ARN}{name}:$LATEST"
    assert success["responsePayload"] == {"handled": {"item": "tea"}}
    assert failure["requestContext"]["approximateInvokeCount"] == 2
    assert failure["requestPayload"] == {"fail": 1}
    assert failure["responsePayload"]["errorMessage"] == "nothing was ordered"


def test_a_failure_goes_to_a_bucket_and_to_a_dead_letter_queue_at_once(services, client):
    services.make_bucket("failures")
    services.make_queue("dead")
    make(client, "both", failure="arn:aws:s3:::failures", DeadLetterConfig={"TargetArn": queue_arn("dead")})
    request_id = send(client, "both", {"fail": 1})
    (letter,) = services.received("dead")
    assert json.loads(letter["Body"]) == {"fail": 1}
    attributes = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert attributes == {"RequestID": request_id, "ErrorCode": "200", "ErrorMessage": "nothing was ordered"}
    ((key, body),) = await_objects(services, "failures").items()
    assert key.startswith("aws/lambda/async/both/")
    assert json.loads(body)["requestContext"]["requestId"] == request_id


def test_an_alias_has_destinations_of_its_own_and_versions_the_dead_letter_queue_of_latest(services, client):
    for queue in ("of-alias", "of-latest", "dead-old", "dead-new"):
        services.make_queue(queue)
    make(client, "aliased", queue_arn("of-latest"), DeadLetterConfig={"TargetArn": queue_arn("dead-old")})
    client.publish_version(FunctionName="aliased")
    client.create_alias(FunctionName="aliased", Name="live", FunctionVersion="1")
    configure(client, "aliased", queue_arn("of-alias"), Qualifier="live")
    client.update_function_configuration(FunctionName="aliased", DeadLetterConfig={"TargetArn": queue_arn("dead-new")})
    send(client, "aliased", 1, Qualifier="live")
    (record,) = services.records("of-alias")
    assert record["requestContext"]["functionArn"] == f"{ARN}aliased:live"
    assert record["responseContext"]["executedVersion"] == "1"
    send(client, "aliased", {"fail": 1}, Qualifier="live")
    services.received("dead-new")
    send(client, "aliased", 2)
    assert services.records("of-latest")[0]["requestContext"]["functionArn"] == f"{ARN}aliased:$LATEST"


def test_a_function_of_the_host_gets_the_record_as_an_event(services, client):
    services.make_queue("audited")
    make(client, "audit", queue_arn("audited"))
    make(client, "told", f"{ARN}audit")
    send(client, "told", {"item": "tea"})
    (record,) = services.records("audited")
    assert record["requestPayload"]["responsePayload"] == {"handled": {"item": "tea"}}
    assert record["requestContext"]["functionArn"] == f"{ARN}audit:$LATEST"


def test_functions_that_are_each_others_destinations_stop_after_sixteen_times(services, client, host):
    for name in ("ping", "pong"):  # what they gave back would double each record
        deploy(client, name, {"app.py": "def handler(event, context): pass"})
    for name, other in (("ping", "pong"), ("pong", "ping")):
        configure(client, name, ARN + other, ARN + other)
    send(client, "ping", {})
    await_figure(host, "serverfull_destination_delivery_failures", "pong", 1)
    text = host.request("GET", "/metrics").body.decode()
    assert re.findall(r'^serverfull_invocations_total\{function="(ping|pong)"\} (\S+)$', text, re.MULTILINE) == [
        ("ping", "16.0"),
        ("pong", "16.0"),
    ]
    host.wait_for_stderr("not tried again", 10)


def test_a_target_that_is_missing_gets_its_record_when_it_is_there(services, client, host):
    make(client, "early", queue_arn("late"), DeadLetterConfig={"TargetArn": topic_arn("late")})
    send(client, "early", {"item": "tea"})
    send(client, "early", {"fail": 1})
    await_figure(host, "serverfull_destination_delivery_failures", "early", 1)
    await_figure(host, "serverfull_dead_letter_errors", "early", 1)
    lines = map(json.loads, host.stderr_lines())
    said = next(line for line in lines if line.get("function") == "early" and "target" in line)
    assert (said["target"], said["kind"]) in ((queue_arn("late"), "destination"), (topic_arn("late"), "dead-letter"))
    assert "exist" in said["reason"]
    services.make_topic("late")  # which makes the queue, too, and lets it have what comes to the topic
    bodies = [json.loads(message["Body"]) for message in services.received("late", 2)]
    assert {"fail": 1} in bodies
    assert [body["responsePayload"] for body in bodies if "responsePayload" in body] == [{"handled": {"item": "tea"}}]


def test_a_record_that_can_never_arrive_is_kept_and_delivered_when_the_operator_says_so(services, client, host):
    services.make_queue("narrow")
    url, size = f"{services.url}/{ACCOUNT}/narrow", "MaximumMessageSize"
    services.client("sqs").set_queue_attributes(QueueUrl=url, Attributes={size: "1024"})
    make(client, "wide", queue_arn("narrow"))
    request_id = send(client, "wide", "x" * 2000)
    await_figure(host, "serverfull_destination_delivery_failures", "wide", 1)
    deadline, kept = time.monotonic() + DEADLINE, []
    while not kept:
        assert time.monotonic() < deadline
        kept = host.request("GET", "/_serverfull/events?state=ended&function=wide").json()["Events"]
    assert (kept[0]["RequestId"], kept[0]["Condition"]) == (request_id, "Success")
    assert "Message must be shorter than 1024 bytes" in kept[0]["Reason"]
    services.client("sqs").set_queue_attributes(QueueUrl=url, Attributes={size: "262144"})
    body = json.dumps({"Ids": [kept[0]["Id"]]}).encode()
    assert host.request("POST", "/_serverfull/events/redrive", body).json() == {"Redriven": 1, "Unreached": []}
    assert services.records("narrow")[0]["requestContext"]["requestId"] == request_id


def test_a_queue_that_hangs_holds_up_nobody_and_loses_nothing_when_the_host_is_killed(services, proxy, start, tmp_path):
    """The events have ended, and their records are on their way, when the host dies: the next one delivers them.

    The host has no endpoint for topics, and says which setting that would be.
    """
    services.make_queue("held")
    services.make_bucket("open")
    endpoints = {"ENDPOINTS": f"SQS={proxy.url} S3={services.url}", "ENDPOINT_URL": "", "TIMEOUT": "1"}
    variables = {f"SERVERFULL_DESTINATIONS__{name}": value for name, value in endpoints.items()}
    host, client = start(tmp_path, **variables)
    proxy.hold()
    make(client, "slow", queue_arn("held"), queue_arn("held"))
    make(client, "quick", failure="arn:aws:s3:::open")
    topic = {"TargetArn": topic_arn("any")}
    for refused in (
        lambda: configure(client, "quick", topic_arn("any")),
        lambda: client.update_function_configuration(FunctionName="quick", DeadLetterConfig=topic),
    ):
        with pytest.raises(ClientError, match=r"settings name no endpoint for SNS\. Set destinations\.endpoint_url"):
            refused()
    ids = {send(client, "slow", number) for number in range(10)}
    send(client, "quick", {"fail": 1})
    await_objects(services, "open")
    await_figure(host, "serverfull_destination_delivery_failures", "slow", 1)
    host.kill()
    proxy.release()
    start(tmp_path, **variables)
    found, deadline = set(), time.monotonic() + DEADLINE
    while found < ids:
        assert time.monotonic() < deadline
        found |= {record["requestContext"]["requestId"] for record in services.records("held")}
    assert found == ids
