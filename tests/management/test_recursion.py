"""Recursive loop detection, driven with boto3."""

from __future__ import annotations

import pytest

from serverfull.domain.changes import FunctionChanged
from serverfull.domain.functions import Function
from serverfull.domain.records import Partition
from serverfull.management.recursion import RecursionConfigs
from tests.management.answers import refused

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:"
PARTITION = Partition("123456789012", "eu-west-1")


@pytest.fixture
def plane(control_plane):
    plane = control_plane
    plane.serve(RecursionConfigs(plane.state, plane.resolver, plane.changes).operations())
    plane.put_function("orders", 1)
    return plane


def test_circles_are_ended_unless_somebody_allows_them(client, plane):
    assert client.get_function_recursion_config(FunctionName="orders")["RecursiveLoop"] == "Terminate"
    put = client.put_function_recursion_config(FunctionName=ARN + "orders", RecursiveLoop="Allow")
    assert put["RecursiveLoop"] == "Allow"
    assert client.get_function_recursion_config(FunctionName="orders")["RecursiveLoop"] == "Allow"
    assert plane.published == [FunctionChanged(PARTITION, "orders")]
    client.put_function_recursion_config(FunctionName="orders", RecursiveLoop="Terminate")
    assert client.get_function_recursion_config(FunctionName="orders")["RecursiveLoop"] == "Terminate"


def test_the_function_has_to_exist(client):
    for call, members in (
        (client.get_function_recursion_config, {}),
        (client.put_function_recursion_config, {"RecursiveLoop": "Allow"}),
    ):
        message = refused(call, "ResourceNotFoundException", 404, FunctionName="nobody", **members)
        assert message == f"Function not found: {ARN}nobody"


def test_the_constraints_of_the_model_hold(client):
    put = client.put_function_recursion_config
    assert "'recursiveLoop'" in refused(put, "ValidationException", FunctionName="orders", RecursiveLoop="Maybe")
    assert "'functionName'" in refused(put, "ValidationException", FunctionName="orders:1", RecursiveLoop="Allow")
    assert "'recursiveLoop'" in refused(put, "ValidationException", FunctionName="orders")


def test_functions_of_the_operator_have_the_default(client, plane):
    plane.registered["greet"] = Function(print)
    assert client.get_function_recursion_config(FunctionName="greet")["RecursiveLoop"] == "Terminate"
    put = client.put_function_recursion_config
    assert "static fetcher" in refused(
        put, "ResourceConflictException", 409, FunctionName="greet", RecursiveLoop="Allow"
    )
