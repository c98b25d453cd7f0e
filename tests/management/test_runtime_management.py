"""Runtime management configurations, driven with boto3."""

from __future__ import annotations

import pytest

from serverfull.domain.functions import Function
from serverfull.management.runtime_management import RuntimeManagementConfigs
from tests.management.answers import plain, refused

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:"
RUNTIME = "arn:aws:lambda:eu-west-1::runtime:8eeff65f6809a3ce81507fe733fe09b835899b99481ba22fd75b5a7338290ec1"
INVALID = "InvalidParameterValueException"


@pytest.fixture
def plane(control_plane):
    plane = control_plane
    plane.serve(RuntimeManagementConfigs(plane.state, plane.resolver, plane.changes).operations())
    plane.put_function("orders", 1)
    plane.put_function("picture", package_type="Image")
    plane.put_alias("orders", "live")
    return plane


def test_every_version_has_a_configuration_of_its_own(client, plane):
    get = client.get_runtime_management_config
    assert plain(get(FunctionName="orders")) == {"UpdateRuntimeOn": "Auto", "FunctionArn": ARN + "orders"}
    put = client.put_runtime_management_config(
        FunctionName="orders", UpdateRuntimeOn="Manual", RuntimeVersionArn=RUNTIME
    )
    assert plain(put) == {
        "UpdateRuntimeOn": "Manual",
        "FunctionArn": ARN + "orders",
        "RuntimeVersionArn": RUNTIME,
    }
    assert plain(get(FunctionName="orders:$LATEST")) == {**plain(put), "FunctionArn": ARN + "orders:$LATEST"}
    assert get(FunctionName="orders", Qualifier="1")["UpdateRuntimeOn"] == "Auto"
    client.put_runtime_management_config(FunctionName="orders", Qualifier="1", UpdateRuntimeOn="FunctionUpdate")
    assert plain(get(FunctionName=ARN + "orders:1")) == {
        "UpdateRuntimeOn": "FunctionUpdate",
        "FunctionArn": ARN + "orders:1",
    }
    client.put_runtime_management_config(FunctionName="orders", UpdateRuntimeOn="Auto")
    assert plain(get(FunctionName="orders")) == {"UpdateRuntimeOn": "Auto", "FunctionArn": ARN + "orders"}
    assert len(plane.published) == 3


def test_manual_needs_a_runtime_version_and_nothing_else_takes_one(client):
    put = client.put_runtime_management_config
    assert "is required" in refused(put, INVALID, FunctionName="orders", UpdateRuntimeOn="Manual")
    for mode in ("Auto", "FunctionUpdate"):
        message = refused(put, INVALID, FunctionName="orders", UpdateRuntimeOn=mode, RuntimeVersionArn=RUNTIME)
        assert message == "RuntimeVersionArn is only for UpdateRuntimeOn Manual."
    refused(put, "ValidationException", FunctionName="orders", UpdateRuntimeOn="Never")
    refused(put, "ValidationException", FunctionName="orders", UpdateRuntimeOn="Manual", RuntimeVersionArn="x")


def test_aliases_and_images_have_none(client):
    put, get = client.put_runtime_management_config, client.get_runtime_management_config
    assert "live is no version" in refused(get, INVALID, FunctionName="orders:live")
    assert "live is no version" in refused(put, INVALID, FunctionName="orders:live", UpdateRuntimeOn="Auto")
    assert "packageType Image" in refused(put, INVALID, FunctionName="picture", UpdateRuntimeOn="Auto")


@pytest.mark.parametrize("name", ["nobody", "orders:2"])
def test_the_version_has_to_exist(client, name):
    put, get = client.put_runtime_management_config, client.get_runtime_management_config
    text = f"Function not found: {ARN}{name}"
    assert refused(get, "ResourceNotFoundException", 404, FunctionName=name) == text
    assert refused(put, "ResourceNotFoundException", 404, FunctionName=name, UpdateRuntimeOn="Auto") == text


def test_a_version_that_is_being_made_is_left_alone(client, plane):
    plane.put_function("new", state="Pending")
    put = client.put_runtime_management_config
    refused(put, "ResourceConflictException", 409, FunctionName="new", UpdateRuntimeOn="Auto")


def test_functions_of_the_operator_have_the_default(client, plane):
    plane.registered["greet"] = Function(print)
    read = client.get_runtime_management_config(FunctionName="greet")
    assert plain(read) == {"UpdateRuntimeOn": "Auto", "FunctionArn": ARN + "greet"}
    refused(client.get_runtime_management_config, "ResourceNotFoundException", 404, FunctionName="greet:1")
    put = client.put_runtime_management_config
    assert "static fetcher" in refused(
        put, "ResourceConflictException", 409, FunctionName="greet", UpdateRuntimeOn="Auto"
    )
