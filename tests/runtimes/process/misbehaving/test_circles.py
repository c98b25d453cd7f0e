"""Functions that call themselves, and functions that would manage the host."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

CALLING = """
import http.client, json, os
def handler(event, context):
    if event == "be good": return "good"
    if event["left"] == 0: return "the end"
    event["left"] -= 1
    to = event["to"][event["left"] % len(event["to"])]
    status, code, body = {call}(to, json.dumps(event), event.get("type", "RequestResponse"))
    return [status, code, event["left"]] if code else json.loads(body or "null")

def plainly(to, payload, kind):
    line = http.client.HTTPConnection({address!r}, timeout=50)
    headers = {{
        "X-Amz-Invocation-Type": kind,
        "X-Amzn-Trace-Id": os.environ["_X_AMZN_TRACE_ID"],
        "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/{region}/lambda/aws4_request, "
        "SignedHeaders=host, Signature=0",
    }}
    line.request("POST", f"/2015-03-31/functions/{{to}}/invocations", payload, headers)
    answer = line.getresponse()
    return answer.status, answer.headers["X-Amzn-ErrorType"], answer.read()

def with_boto3(to, payload, kind):
    import sys
    sys.path += {path!r}
    import boto3
    from botocore.config import Config
    client = boto3.client(
        "lambda", endpoint_url="http://" + {address!r}, region_name={region!r}, aws_access_key_id="test",
        aws_secret_access_key="test", config=Config(retries={{"total_max_attempts": 1}}),
    )
    try:
        return 200, None, client.invoke(FunctionName=to, Payload=payload, InvocationType=kind)["Payload"].read()
    except client.exceptions.RecursiveInvocationException as refusal:
        return refusal.response["ResponseMetadata"]["HTTPStatusCode"], refusal.response["Error"]["Code"], b""
# {number}
"""

STOPPED = [400, "RecursiveInvocationException"]
SITE_PACKAGES = [entry for entry in sys.path if entry.endswith("site-packages")]


@pytest.fixture
def calling(host: Any) -> Callable[..., Any]:
    """Deploy functions that call others; each from a package of its own, whose folder nobody else writes into."""
    numbers = itertools.count()

    def deploy(call: str = "plainly") -> Any:
        address, region = f"127.0.0.1:{host.process.port}", host.client.meta.region_name
        made = CALLING.format(
            call=call, address=address, region=region, path=SITE_PACKAGES, number=f"{host.deployed} {next(numbers)}"
        )
        return host.deploy(made, Timeout=60, MemorySize=256)

    return deploy


@pytest.mark.parametrize("how", ["plainly", "with_boto3"])
def test_a_function_that_calls_itself_is_stopped_after_sixteen_times(
    host: Any, calling: Callable[..., Any], how: str
) -> None:
    function = calling(how)
    before = host.figure("serverfull_recursive_invocations_dropped_total")
    assert function.call({"left": 40, "to": [function.name]}).result == [*STOPPED, 40 - 16]
    assert host.figure("serverfull_recursive_invocations_dropped_total") == before + 1
    assert function.call({"left": 2, "to": [function.name]}).result == "the end"


def test_functions_that_call_each_other_are_stopped_too(calling: Callable[..., Any]) -> None:
    first, second = calling(), calling()
    *said, left = first.call({"left": 60, "to": [first.name, second.name]}).result
    assert said == STOPPED
    assert 31 <= 60 - left <= 33


def test_a_function_may_be_allowed_to_call_itself(host: Any, calling: Callable[..., Any]) -> None:
    function = calling()
    host.client.put_function_recursion_config(FunctionName=function.name, RecursiveLoop="Allow")
    assert function.call({"left": 20, "to": [function.name]}).result == "the end"
    host.client.put_function_recursion_config(FunctionName=function.name, RecursiveLoop="Terminate")
    assert function.call({"left": 20, "to": [function.name]}).result == [*STOPPED, 4]


def test_events_that_a_function_sends_itself_are_dropped_after_sixteen_times(
    host: Any, calling: Callable[..., Any]
) -> None:
    host.may_say = "event dropped"
    function = calling()
    before = host.figure("serverfull_async_events_dropped_total")
    running = host.figure("serverfull_invocations_total")
    function.call({"left": 40, "to": [function.name], "type": "Event"})
    deadline = time.monotonic() + 30
    while host.figure("serverfull_async_events_dropped_total") == before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert host.figure("serverfull_invocations_total") - running == 16


def test_a_function_has_no_credentials_for_the_hosts_own_api(host: Any) -> None:
    deed = f"""
        import sys
        sys.path += {SITE_PACKAGES!r}
        import boto3, botocore.exceptions
        shown = sorted(name for name in os.environ if name.startswith("AWS_") and ("KEY" in name or "TOKEN" in name))
        client = boto3.client("lambda", endpoint_url={host.process.url!r}, region_name="eu-west-1")
        try:
            client.delete_function(FunctionName="well")
        except botocore.exceptions.NoCredentialsError:
            return ["no credentials", shown]
    """
    environment = {"Variables": {"AWS_EC2_METADATA_DISABLED": "true", "HOME": "/nonexistent"}}
    assert host.doing(deed, Environment=environment, Timeout=30, MemorySize=512).call().result == ["no credentials", []]
    assert host.client.get_function(FunctionName="well")
