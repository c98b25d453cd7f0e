"""Scaling configurations, driven with boto3."""

from __future__ import annotations

import pytest

from serverfull.domain.functions import Function
from serverfull.management.scaling import ScalingConfigs
from tests.management.answers import plain, refused

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:"
PROVIDER = {
    "CapacityProviderConfig": {
        "LambdaManagedInstancesCapacityProviderConfig": {
            "CapacityProviderArn": "arn:aws:lambda:eu-west-1:123456789012:capacity-provider:metal"
        }
    }
}
INVALID = "InvalidParameterValueException"
BOTH = {"MinExecutionEnvironments": 2, "MaxExecutionEnvironments": 5}


@pytest.fixture
def plane(control_plane):
    plane = control_plane
    plane.serve(ScalingConfigs(plane.state, plane.resolver, plane.changes).operations())
    plane.put_function("orders", 1, settings=PROVIDER)
    plane.put_function("plain", 1)
    return plane


def test_what_is_asked_for_is_read_back_and_never_said_to_be_applied(client, plane):
    assert plain(client.get_function_scaling_config(FunctionName="orders", Qualifier="1")) == {
        "FunctionArn": ARN + "orders:1"
    }
    put = client.put_function_scaling_config(FunctionName="orders", Qualifier="1", FunctionScalingConfig=BOTH)
    assert put["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert plain(put) == {"FunctionState": "Active"}
    assert plain(client.get_function_scaling_config(FunctionName="orders", Qualifier="1")) == {
        "FunctionArn": ARN + "orders:1",
        "RequestedFunctionScalingConfig": BOTH,
    }
    assert len(plane.published) == 1


def test_a_request_without_bounds_takes_them_back(client):
    client.put_function_scaling_config(FunctionName="orders", Qualifier="1", FunctionScalingConfig=BOTH)
    client.put_function_scaling_config(
        FunctionName="orders", Qualifier="1", FunctionScalingConfig={"MaxExecutionEnvironments": 0}
    )
    read = client.get_function_scaling_config(FunctionName="orders", Qualifier="1")
    assert read["RequestedFunctionScalingConfig"] == {"MaxExecutionEnvironments": 0}
    client.put_function_scaling_config(FunctionName="orders", Qualifier="1")
    assert "RequestedFunctionScalingConfig" not in client.get_function_scaling_config(
        FunctionName="orders", Qualifier="1"
    )


def test_only_versions_on_a_capacity_provider_scale(client):
    put = client.put_function_scaling_config
    message = refused(put, INVALID, FunctionName="plain", Qualifier="1", FunctionScalingConfig=BOTH)
    assert message.startswith(f"{ARN}plain:1 has no capacity provider")


def test_the_minimum_is_not_over_the_maximum(client):
    bounds = {"MinExecutionEnvironments": 6, "MaxExecutionEnvironments": 5}
    put = client.put_function_scaling_config
    message = refused(put, INVALID, FunctionName="orders", Qualifier="1", FunctionScalingConfig=bounds)
    assert message == "MinExecutionEnvironments (6) must not be greater than MaxExecutionEnvironments (5)."


@pytest.mark.parametrize("qualifier", ["2", "$LATEST.PUBLISHED"])
def test_the_version_has_to_exist(client, qualifier):
    text = f"Function not found: {ARN}orders:{qualifier}"
    for call in (client.get_function_scaling_config, client.put_function_scaling_config):
        assert refused(call, "ResourceNotFoundException", 404, FunctionName="orders", Qualifier=qualifier) == text


@pytest.mark.parametrize(
    ("members", "part"),
    [
        ({"Qualifier": "live"}, "'qualifier'"),
        ({"Qualifier": "$LATEST"}, "'qualifier'"),
        (
            {"Qualifier": "1", "FunctionScalingConfig": {"MaxExecutionEnvironments": 15_001}},
            "'functionScalingConfig.maxExecutionEnvironments'",
        ),
    ],
)
def test_the_constraints_of_the_model_hold(client, members, part):
    put = client.put_function_scaling_config
    assert part in refused(put, "ValidationException", FunctionName="orders", **members)


def test_a_version_that_is_being_made_is_left_alone(client, plane):
    plane.put_function("new", 1, settings=PROVIDER, state="Pending")
    put = client.put_function_scaling_config
    message = refused(
        put, "ResourceConflictException", 409, FunctionName="new", Qualifier="1", FunctionScalingConfig=BOTH
    )
    assert message.endswith("in the following state: Pending")


def test_functions_of_the_operator_have_no_versions(client, plane):
    plane.registered["orders"] = Function(print)
    refused(client.get_function_scaling_config, "ResourceNotFoundException", 404, FunctionName="orders", Qualifier="1")
    put = client.put_function_scaling_config
    assert "static fetcher" in refused(put, "ResourceConflictException", 409, FunctionName="orders", Qualifier="1")
