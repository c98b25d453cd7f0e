"""Operations that are refused by their name, driven with boto3."""

from __future__ import annotations

import re

import pytest
from botocore.exceptions import ClientError

import serverfull.api.protocol as driver
from serverfull.api.model import compile_operations, read_model
from serverfull.management.durable import OPERATIONS, DurableExecutions

EXECUTION = (
    "arn:aws:lambda:eu-west-1:123456789012:function:orders:1/durable-execution/order-1/"
    "01234567-89ab-cdef-0123-456789abcdef"
)
CALLBACK = {"CallbackId": "Y2FsbGJhY2s="}
MEMBERS = {
    "CheckpointDurableExecution": {"DurableExecutionArn": EXECUTION, "CheckpointToken": "dG9rZW4="},
    "GetDurableExecutionState": {"DurableExecutionArn": EXECUTION, "CheckpointToken": "dG9rZW4="},
    "ListDurableExecutionsByFunction": {"FunctionName": "orders"},
    "SendDurableExecutionCallbackFailure": CALLBACK,
    "SendDurableExecutionCallbackHeartbeat": CALLBACK,
    "SendDurableExecutionCallbackSuccess": CALLBACK,
}


def in_python(operation):
    return re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_durable_operation_is_refused_by_its_name(control_plane, operation):
    control_plane.serve(DurableExecutions().operations())
    client = control_plane.client(retries={"total_max_attempts": 1})
    call = getattr(client, in_python(operation))
    with pytest.raises(ClientError) as caught:
        call(**MEMBERS.get(operation, {"DurableExecutionArn": EXECUTION}))
    error = caught.value.response
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert error["Error"]["Code"] == "NotImplementedException"
    assert error["Error"]["Message"] == (
        f"The operation {operation} is not supported by this host. "
        "Durable executions are not available in this version of serverfull."
    )


def test_an_operation_of_a_newer_model_is_refused_by_its_name(control_plane, monkeypatch):
    model = read_model()
    model["operations"]["TeleportFunction"] = {
        "name": "TeleportFunction",
        "http": {"method": "POST", "requestUri": "/2031-01-01/functions/{FunctionName}/teleport"},
        "input": {"shape": "TeleportFunctionRequest"},
    }
    model["shapes"]["TeleportFunctionRequest"] = {
        "type": "structure",
        "required": ["FunctionName"],
        "members": {"FunctionName": {"shape": "FunctionName", "location": "uri", "locationName": "FunctionName"}},
    }
    monkeypatch.setattr(driver, "installed_operations", lambda: compile_operations(model))
    status, headers, body = post(control_plane.url, "/2031-01-01/functions/orders/teleport")
    assert status == 501
    assert headers["x-amzn-ErrorType"] == "NotImplementedException"
    assert "The operation TeleportFunction is not supported by this host." in body


def post(url, path):
    import http.client
    from urllib.parse import urlsplit

    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    try:
        connection.request("POST", path, body=b"{}", headers={"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()
    finally:
        connection.close()
