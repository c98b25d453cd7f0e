"""boto3, the client that most callers use, against a host in a process of its own."""

from __future__ import annotations

import base64
import json
import re
import uuid
import warnings
from typing import Any

import pytest
from botocore.exceptions import ClientError

ACCOUNT = "000000000000"
ARN = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function"


def read(answer: dict[str, Any]) -> Any:
    return json.loads(answer["Payload"].read())


def test_a_synchronous_invocation_gives_the_result(client) -> None:
    answer = client.invoke(FunctionName="echo", Payload=b'{"a": [1, null, "\xc3\xa9"]}')
    assert read(answer) == {"a": [1, None, "é"]}
    assert answer["StatusCode"] == 200
    assert answer["ExecutedVersion"] == "$LATEST"
    assert "FunctionError" not in answer
    assert "LogResult" not in answer


def test_every_answer_has_a_request_id_and_it_is_the_contexts(client) -> None:
    answer = client.invoke(FunctionName="about")
    request_id = answer["ResponseMetadata"]["RequestId"]
    assert uuid.UUID(request_id)
    assert read(answer)["aws_request_id"] == request_id


@pytest.mark.parametrize(
    "name",
    [
        "about",
        "about:$LATEST",
        f"{ACCOUNT}:function:about",
        f"{ACCOUNT}:function:about:$LATEST",
        f"{ARN}:about",
        f"{ARN}:about:$LATEST",
    ],
)
def test_a_function_is_found_by_every_form_of_its_name(client, name: str) -> None:
    about = read(client.invoke(FunctionName=name))
    assert about["function_name"] == "about"
    assert about["function_version"] == "$LATEST"
    assert about["invoked_function_arn"].startswith(f"{ARN}:about")


def test_the_qualifier_latest_is_taken(client) -> None:
    assert client.invoke(FunctionName="hello", Qualifier="$LATEST")["ExecutedVersion"] == "$LATEST"


@pytest.mark.parametrize("qualifier", ["7", "live"])
def test_a_version_or_alias_that_does_not_exist_is_not_found(client, qualifier: str) -> None:
    with pytest.raises(client.exceptions.ResourceNotFoundException) as caught:
        client.invoke(FunctionName="hello", Qualifier=qualifier)
    assert f"function:hello:{qualifier}" in str(caught.value)


def test_the_context_carries_the_functions_configuration(client) -> None:
    about = read(client.invoke(FunctionName="about"))
    assert str(about["memory_limit_in_mb"]) == "256"
    assert 0 < about["remaining"] <= 20_000


def test_the_account_is_the_access_key_and_the_region_the_signatures(host, boto) -> None:
    client = boto(host, access_key="123456789012", region="eu-central-1")
    about = read(client.invoke(FunctionName="about"))
    assert about["invoked_function_arn"] == "arn:aws:lambda:eu-central-1:123456789012:function:about"


def test_the_tail_of_the_log_comes_with_the_answer(client) -> None:
    answer = client.invoke(FunctionName="talk", Payload=b'{"lines": 2}', LogType="Tail")
    request_id = answer["ResponseMetadata"]["RequestId"]
    lines = base64.b64decode(answer["LogResult"]).decode().splitlines()
    assert lines[0] == f"START RequestId: {request_id} Version: $LATEST"
    assert lines[1:3] == ["line 0 of the log", "line 1 of the log"]
    assert lines[3] == f"END RequestId: {request_id}"
    assert re.match(rf"REPORT RequestId: {request_id}\tDuration: [\d.]+ ms\tBilled Duration: \d+ ms", lines[4])


def test_the_tail_is_the_last_four_kilobytes(client) -> None:
    answer = client.invoke(FunctionName="talk", Payload=b'{"lines": 1000}', LogType="Tail")
    tail = base64.b64decode(answer["LogResult"])
    assert len(tail) <= 4096
    assert b"line 999 of the log" in tail
    assert b"line 0 of the log" not in tail


def test_an_exception_is_a_function_error_with_its_type_message_and_trace(client) -> None:
    answer = client.invoke(FunctionName="fail")
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    error = read(answer)
    assert error["errorType"] == "NoSuchOrder"
    assert error["errorMessage"] == "order 42 does not exist"
    assert error["requestId"] == answer["ResponseMetadata"]["RequestId"]
    assert any("raise NoSuchOrder" in frame for frame in error["stackTrace"])


def test_a_timeout_is_a_function_error_in_awss_words(client) -> None:
    answer = client.invoke(FunctionName="slow")
    assert answer["FunctionError"] == "Unhandled"
    error = read(answer)
    assert error["errorType"] == "Sandbox.Timedout"
    request_id = answer["ResponseMetadata"]["RequestId"]
    assert error["errorMessage"] == f"RequestId: {request_id} Error: Task timed out after 0.30 seconds"


def test_a_result_over_the_limit_is_a_function_error(client) -> None:
    answer = client.invoke(FunctionName="big", Payload=b'{"size": 6291600}')
    assert answer["FunctionError"] == "Unhandled"
    assert read(answer)["errorType"] == "Function.ResponseSizeTooLarge"


def test_the_largest_payload_goes_through(client) -> None:
    payload = b'"' + b"x" * (6_291_456 - 2) + b'"'
    assert len(client.invoke(FunctionName="echo", Payload=payload)["Payload"].read()) == 6_291_456


def test_a_payload_over_six_megabytes_is_refused_with_a_typed_exception(client) -> None:
    with pytest.raises(client.exceptions.RequestTooLargeException) as caught:
        client.invoke(FunctionName="echo", Payload=b'"' + b"x" * 6_291_455 + b'"')
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413


def test_an_event_payload_over_one_megabyte_is_refused(client) -> None:
    with pytest.raises(client.exceptions.RequestTooLargeException):
        client.invoke(FunctionName="remember", InvocationType="Event", Payload=b'"' + b"x" * 1_048_575 + b'"')


def test_a_payload_that_is_no_json_is_refused_with_a_typed_exception(client) -> None:
    with pytest.raises(client.exceptions.InvalidRequestContentException) as caught:
        client.invoke(FunctionName="echo", Payload=b"{not json")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_an_unknown_invocation_type_is_refused(client) -> None:
    with pytest.raises(ClientError) as caught:
        client.invoke(FunctionName="echo", InvocationType="Sometimes")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert caught.value.response["Error"]["Code"] in ("InvalidParameterValueException", "ValidationException")


def test_an_unknown_function_is_not_found_with_a_typed_exception(client) -> None:
    with pytest.raises(client.exceptions.ResourceNotFoundException) as caught:
        client.invoke(FunctionName="no-such-function")
    response = caught.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 404
    assert response["Error"]["Message"] == f"Function not found: {ARN}:no-such-function"
    assert response["Type"] == "User"
    assert response["ResponseMetadata"]["RequestId"]


def test_a_function_at_its_limit_throttles_with_a_typed_exception(client) -> None:
    with pytest.raises(client.exceptions.TooManyRequestsException) as caught:
        client.invoke(FunctionName="closed")
    response = caught.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 429
    assert response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert int(response["ResponseMetadata"]["HTTPHeaders"]["retry-after"]) >= 1


def test_the_client_context_and_the_tenant_reach_the_function(client) -> None:
    context = base64.b64encode(json.dumps({"client": {"app_title": "shop"}, "custom": {"k": "v"}}).encode()).decode()
    about = read(client.invoke(FunctionName="about", ClientContext=context, TenantId="tenant-1"))
    assert (about["app_title"], about["custom"]) == ("shop", {"k": "v"})
    assert about["tenant_id"] == "tenant-1"


def test_a_client_context_that_cannot_be_decoded_is_refused(client) -> None:
    with pytest.raises(client.exceptions.InvalidRequestContentException):
        client.invoke(FunctionName="about", ClientContext="%%%")


def test_a_dry_run_answers_204_and_runs_nothing(client) -> None:
    wanted = str(uuid.uuid4())
    answer = client.invoke(FunctionName="remember", InvocationType="DryRun", Payload=json.dumps(wanted))
    assert (answer["StatusCode"], answer["Payload"].read()) == (204, b"")
    assert read(client.invoke(FunctionName="recall", Payload=json.dumps({"wanted": wanted, "wait": 0.2}))) is False


def test_an_event_is_accepted_with_202_and_runs(client) -> None:
    wanted = str(uuid.uuid4())
    answer = client.invoke(FunctionName="remember", InvocationType="Event", Payload=json.dumps(wanted))
    assert (answer["StatusCode"], answer["Payload"].read()) == (202, b"")
    assert "FunctionError" not in answer
    assert read(client.invoke(FunctionName="recall", Payload=json.dumps({"wanted": wanted}))) is True


def test_an_event_for_an_unknown_function_is_not_accepted(client) -> None:
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName="no-such-function", InvocationType="Event")


def test_the_older_asynchronous_operation_is_accepted_and_runs(client) -> None:
    wanted = str(uuid.uuid4())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the operation is deprecated, and so may be the method
        answer = client.invoke_async(FunctionName="remember", InvokeArgs=json.dumps(wanted))
    assert answer["Status"] == 202
    assert read(client.invoke(FunctionName="recall", Payload=json.dumps({"wanted": wanted}))) is True


def test_functions_are_listed_page_by_page(client) -> None:
    pages = list(client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 4}))
    assert [len(page["Functions"]) for page in pages] == [4, 4, 3]
    names = [each["FunctionName"] for page in pages for each in page["Functions"]]
    assert sorted(names) == sorted({*names})
    assert {"hello", "about", "my-function"} <= {*names}


def test_a_function_can_be_read_with_its_tags(client) -> None:
    answer = client.get_function(FunctionName="about")
    configuration = answer["Configuration"]
    assert configuration["FunctionName"] == "about"
    assert configuration["FunctionArn"] == f"{ARN}:about"
    assert (configuration["MemorySize"], configuration["Timeout"]) == (256, 20)
    assert configuration["Description"] == "Tells about its context"
    assert (configuration["Version"], configuration["State"]) == ("$LATEST", "Active")
    assert answer["Tags"] == {"team": "a"}


@pytest.mark.parametrize("name", ["about", f"{ARN}:about", f"{ACCOUNT}:function:about"])
def test_a_configuration_is_the_same_by_every_name(client, name: str) -> None:
    answer = client.get_function_configuration(FunctionName=name)
    assert answer["FunctionArn"] == f"{ARN}:about"
    assert answer["Handler"].endswith("about")
    listed = next(each for each in client.list_functions()["Functions"] if each["FunctionName"] == "about")
    assert listed["RevisionId"] == answer["RevisionId"]


def test_the_waiter_for_an_active_function_ends_at_once(client) -> None:
    client.get_waiter("function_active_v2").wait(FunctionName="hello", WaiterConfig={"Delay": 1, "MaxAttempts": 1})


@pytest.mark.parametrize("operation", ["get_function", "get_function_configuration"])
def test_reading_an_unknown_function_is_a_typed_exception(client, operation: str) -> None:
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        getattr(client, operation)(FunctionName="no-such-function")


def test_an_operation_that_is_not_there_yet_says_so_by_name(client) -> None:
    with pytest.raises(ClientError) as caught:
        client.list_durable_executions_by_function(FunctionName="hello")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert "ListDurableExecutionsByFunction" in caught.value.response["Error"]["Message"]
