"""The context has what AWS's has; the official client's own class is the list of what that is."""

from __future__ import annotations

import io
import time
from contextlib import redirect_stdout
from typing import Any

import pytest

from serverfull.domain.functions import Function
from serverfull.domain.invocations import Invocation
from serverfull.interfaces import FunctionIdentity
from serverfull.runtimes.context import LambdaContext

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:hello:7"


def make(seconds: float = 3.0, **fields: Any) -> LambdaContext:
    identity = FunctionIdentity(
        name="hello",
        version="7",
        function=Function(lambda: None),
        timeout=3.0,
        memory_size=512,
        log_format="Text",
        log_group="/aws/lambda/hello",
        log_stream="2026/11/21/[7]abc",
    )
    invocation = Invocation("id-1", "hello", "7", "123456789012", "eu-west-1", b"{}", **fields)
    return LambdaContext(identity, invocation, ARN, time.monotonic() + seconds)


def test_the_context_tells_of_the_function_and_the_invocation() -> None:
    context = make(tenant_id="blue")
    assert context.aws_request_id == "id-1"
    assert context.function_name == "hello"
    assert context.function_version == "7"
    assert context.invoked_function_arn == ARN
    assert context.memory_limit_in_mb == "512"
    assert context.log_group_name == "/aws/lambda/hello"
    assert context.log_stream_name == "2026/11/21/[7]abc"
    assert context.tenant_id == "blue"
    assert context.client_context is None
    assert context.identity.cognito_identity_id is None
    assert context.identity.cognito_identity_pool_id is None


def test_the_context_has_every_public_name_of_the_official_one_and_prints_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = pytest.importorskip("awslambdaric.lambda_context").LambdaContext
    for name, value in {
        "LOG_GROUP_NAME": "/aws/lambda/hello",
        "LOG_STREAM_NAME": "2026/11/21/[7]abc",
        "FUNCTION_NAME": "hello",
        "FUNCTION_MEMORY_SIZE": "512",
        "FUNCTION_VERSION": "7",
    }.items():
        monkeypatch.setenv(f"AWS_LAMBDA_{name}", value)
    client = {
        "client": {"installation_id": "i", "app_title": "t", "app_version_code": "3", "unknown": 1},
        "custom": {"a": 1},
        "env": {"locale": "de"},
        "w3c": {"traceparent": "00-1", "baggage": 5, "other": "x"},
    }
    cognito = {"cognitoIdentityId": "c", "cognitoIdentityPoolId": "p"}
    official = theirs("id-1", {**client}, cognito, int(time.time() * 1000) + 3000, ARN, "blue")
    ours = make(client_context=client, cognito_identity=cognito, tenant_id="blue")
    names = {name for name in dir(official) if not name.startswith("_")}
    assert names == {name for name in dir(ours) if not name.startswith("_")}
    for name in ("aws_request_id", "function_name", "memory_limit_in_mb", "tenant_id", "invoked_function_arn"):
        assert getattr(ours, name) == getattr(official, name)
    assert ours.client_context is not None
    for name in official.client_context.client.__slots__:
        assert getattr(ours.client_context.client, name) == getattr(official.client_context.client, name)
    assert ours.w3c() == official.w3c() == {"traceparent": "00-1"}
    assert ours.client_context.custom == official.client_context.custom
    assert ours.client_context.env == official.client_context.env
    assert repr(ours) == repr(official)


def test_client_context_without_parts_has_them_as_none() -> None:
    context = make(client_context={})
    assert context.client_context is not None
    assert context.client_context.custom is None
    assert context.client_context.env is None
    assert context.client_context.client is None
    assert context.w3c() == {}


@pytest.mark.parametrize("sent", [{"client": "text"}, {"client": []}, {"w3c": "text"}, {"w3c": None}])
def test_odd_parts_of_a_client_context_do_no_harm(sent: dict[str, Any]) -> None:
    context = make(client_context=sent)
    assert context.client_context is not None
    assert context.client_context.client is None
    assert context.w3c() == {}


def test_the_remaining_time_runs_down_to_zero_and_no_further() -> None:
    left = make(seconds=60.0).get_remaining_time_in_millis()
    assert isinstance(left, int)
    assert 50_000 < left <= 60_000
    assert make(seconds=-5.0).get_remaining_time_in_millis() == 0


def test_log_writes_to_the_log_of_the_invocation_without_a_newline() -> None:
    with redirect_stdout(io.StringIO()) as out:
        make().log("text")
        make().log(5)
    assert out.getvalue() == "text5"


def test_libraries_may_set_attributes_and_look_at_them() -> None:
    context: Any = make()
    context.correlation_id = "x"
    context.function_name = "other"
    assert vars(context)["correlation_id"] == "x"
    assert vars(context)["function_name"] == "other"
