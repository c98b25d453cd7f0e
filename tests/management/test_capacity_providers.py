"""Capacity providers, driven with boto3."""

from __future__ import annotations

import pytest

from serverfull.domain.capacity import CAPACITY_PROVIDERS
from serverfull.management import capacity_providers
from serverfull.management.capacity_providers import CapacityProviders
from tests.management.answers import refused

ARN = "arn:aws:lambda:eu-west-1:123456789012:capacity-provider:metal"
FUNCTION = "arn:aws:lambda:eu-west-1:123456789012:function:"
MEMBERS = {
    "CapacityProviderName": "metal",
    "VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
    "PermissionsConfig": {"CapacityProviderOperatorRoleArn": "arn:aws:iam::123456789012:role/operator"},
}
POLICIES = [{"PredefinedMetricType": "LambdaCapacityProviderAverageCPUUtilization", "TargetValue": 70.5}]
INVALID = "InvalidParameterValueException"


def on(arn):
    return {"CapacityProviderConfig": {"LambdaManagedInstancesCapacityProviderConfig": {"CapacityProviderArn": arn}}}


@pytest.fixture
def plane(control_plane):
    control_plane.serve(CapacityProviders(control_plane.state).operations())
    return control_plane


@pytest.fixture
def create(client):
    def call(**members):
        return client.create_capacity_provider(**{**MEMBERS, **members})["CapacityProvider"]

    return call


def test_a_provider_gets_the_defaults_of_aws(create, client):
    created = create()
    assert created.pop("LastModified")
    assert created == {
        "CapacityProviderArn": ARN,
        "State": "Pending",
        "VpcConfig": MEMBERS["VpcConfig"],
        "PermissionsConfig": MEMBERS["PermissionsConfig"],
        "InstanceRequirements": {"Architectures": ["x86_64"]},
        "CapacityProviderScalingConfig": {"MaxVCpuCount": 400, "ScalingMode": "Auto"},
    }
    for name in ("metal", ARN):
        response = client.get_capacity_provider(CapacityProviderName=name)
        assert response["ResponseMetadata"]["HTTPStatusCode"] == 200
        read = response["CapacityProvider"]
        del read["LastModified"]
        assert read == {**created, "State": "Active"}


def test_everything_that_a_provider_can_have_is_read_back(create, client, plane):
    members = {
        "InstanceRequirements": {"Architectures": ["arm64"], "AllowedInstanceTypes": ["m7g.large", "c8g.*"]},
        "CapacityProviderScalingConfig": {"MaxVCpuCount": 8, "ScalingMode": "Manual", "ScalingPolicies": POLICIES},
        "KmsKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/1",
        "PropagateTags": {"Mode": "Explicit", "ExplicitTags": {"team": "shop"}},
        "TelemetryConfig": {"LoggingConfig": {"SystemLogLevel": "WARN", "LogGroup": "/metal"}},
    }
    create(**members, Tags={"cost": "7"})
    read = client.get_capacity_provider(CapacityProviderName="metal")["CapacityProvider"]
    assert {name: read[name] for name in members} == members
    assert plane.write(lambda records: records.get(CAPACITY_PROVIDERS, "metal")).tags == {"cost": "7"}


def test_creation_answers_202_and_takes_an_arn_as_name(client):
    created = client.create_capacity_provider(**{**MEMBERS, "CapacityProviderName": ARN})
    assert created["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert created["CapacityProvider"]["CapacityProviderArn"] == ARN


def test_a_second_provider_of_a_name_is_refused(create):
    create()
    assert refused(create, "ResourceConflictException", 409) == f"Capacity provider already exists: {ARN}"


def test_an_account_has_only_so_many(create, monkeypatch):
    monkeypatch.setattr(capacity_providers, "MAX_PROVIDERS", 1)
    create()
    refused(create, "CapacityProviderLimitExceededException", CapacityProviderName="other")


@pytest.mark.parametrize(
    ("members", "text"),
    [
        (
            {"InstanceRequirements": {"AllowedInstanceTypes": ["a"], "ExcludedInstanceTypes": ["b"]}},
            "AllowedInstanceTypes and ExcludedInstanceTypes cannot be given together.",
        ),
        (
            {"CapacityProviderScalingConfig": {"ScalingMode": "Manual"}},
            "ScalingPolicies are required where ScalingMode is Manual.",
        ),
        ({"CapacityProviderScalingConfig": {"ScalingPolicies": POLICIES}}, "only for ScalingMode Manual."),
        ({"PropagateTags": {"Mode": "Explicit"}}, "ExplicitTags are required"),
        ({"PropagateTags": {"Mode": "None", "ExplicitTags": {"a": "b"}}}, "ExplicitTags are only for"),
        ({"Tags": {"aws:x": "y"}}, "aws: prefixed tag key names"),
    ],
)
def test_members_that_do_not_go_together_are_refused(create, client, members, text):
    assert text in refused(create, INVALID, **members)
    create()
    if not {"InstanceRequirements", "Tags"} & set(members):
        update = client.update_capacity_provider
        assert text in refused(update, INVALID, CapacityProviderName="metal", **members)


@pytest.mark.parametrize(
    "members",
    [
        {"CapacityProviderName": "a b"},
        {"VpcConfig": {"SubnetIds": [], "SecurityGroupIds": []}},
        {"CapacityProviderScalingConfig": {"MaxVCpuCount": 1}},
        {"InstanceRequirements": {"Architectures": ["sparc"]}},
    ],
)
def test_the_constraints_of_the_model_hold(create, members):
    refused(create, "ValidationException", **members)


def test_an_update_changes_what_it_mentions(create, client):
    create(TelemetryConfig={"LoggingConfig": {"LogGroup": "/metal"}})

    def update(**members):
        return client.update_capacity_provider(CapacityProviderName=ARN, **members)["CapacityProvider"]

    manual = update(CapacityProviderScalingConfig={"ScalingMode": "Manual", "ScalingPolicies": POLICIES})
    expected = {"MaxVCpuCount": 400, "ScalingMode": "Manual", "ScalingPolicies": POLICIES}
    assert manual["CapacityProviderScalingConfig"] == expected
    assert manual["TelemetryConfig"] == {"LoggingConfig": {"LogGroup": "/metal"}}
    assert update(PropagateTags={"Mode": "None"})["CapacityProviderScalingConfig"] == expected
    automatic = update(CapacityProviderScalingConfig={"ScalingMode": "Auto", "MaxVCpuCount": 2})
    assert automatic["CapacityProviderScalingConfig"] == {"MaxVCpuCount": 2, "ScalingMode": "Auto"}
    read = client.get_capacity_provider(CapacityProviderName="metal")["CapacityProvider"]
    assert read == automatic


def test_what_does_not_exist_is_not_found(create, client, plane):
    create()
    calls = (
        client.get_capacity_provider,
        client.update_capacity_provider,
        client.delete_capacity_provider,
        client.list_function_versions_by_capacity_provider,
    )
    for call in calls:
        message = refused(call, "ResourceNotFoundException", 404, CapacityProviderName="other")
        assert message == f"Capacity provider not found: {ARN.replace('metal', 'other')}"
        for far in (ARN.replace("eu-west-1", "us-east-1"), ARN.replace("arn:aws:", "arn:aws-us-gov:")):
            assert far in refused(call, "ResourceNotFoundException", 404, CapacityProviderName=far)
    refused(plane.client(region="us-east-1").get_capacity_provider, "ResourceNotFoundException", 404, **name("metal"))


def name(text):
    return {"CapacityProviderName": text}


def test_a_deleted_provider_is_gone(create, client):
    created = create()
    deleted = client.delete_capacity_provider(CapacityProviderName="metal")
    assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert deleted["CapacityProvider"] == {**created, "State": "Deleting"}
    refused(client.get_capacity_provider, "ResourceNotFoundException", 404, CapacityProviderName="metal")


def test_a_provider_in_use_stays_and_its_users_are_listed_in_pages(create, client, plane, monkeypatch):
    monkeypatch.setattr(capacity_providers, "_BATCH", 2)
    create()
    create(CapacityProviderName="other")
    plane.put_function("a", 1, 2, settings=on(ARN))
    plane.put_function("b", 1, settings=on(ARN.replace("metal", "other")))
    plane.put_function("c", 1, settings=on(ARN), state="Inactive")
    plane.put_function("d")
    message = refused(client.delete_capacity_provider, "ResourceConflictException", 409, CapacityProviderName="metal")
    assert f"is in use by {FUNCTION}a:$LATEST" in message
    listed, marker = [], {}
    while True:
        page = client.list_function_versions_by_capacity_provider(CapacityProviderName="metal", MaxItems=2, **marker)
        assert page["CapacityProviderArn"] == ARN
        listed += [(one["FunctionArn"].removeprefix(FUNCTION), one["State"]) for one in page["FunctionVersions"]]
        if "NextMarker" not in page:
            break
        marker = {"Marker": page["NextMarker"]}
    assert listed == [
        ("a:$LATEST", "Active"),
        ("a:1", "Active"),
        ("a:2", "Active"),
        ("c:$LATEST", "Inactive"),
        ("c:1", "Inactive"),
    ]
    refused(client.list_function_versions_by_capacity_provider, INVALID, CapacityProviderName="metal", Marker="x")


def test_providers_are_listed_by_state_in_pages(create, client):
    for one in ("c", "a", "b"):
        create(CapacityProviderName=one)
    page = client.list_capacity_providers(MaxItems=2, State="Active")
    rest = client.list_capacity_providers(Marker=page["NextMarker"])
    listed = page["CapacityProviders"] + rest["CapacityProviders"]
    assert [one["CapacityProviderArn"].rpartition(":")[2] for one in listed] == ["a", "b", "c"]
    assert "NextMarker" not in rest
    assert client.list_capacity_providers(State="Failed")["CapacityProviders"] == []
    refused(client.list_capacity_providers, INVALID, Marker="x")


def test_a_function_names_a_provider_that_is_there(create, deploying):
    client = deploying.plane.client(parameter_validation=False)
    missing = ARN.replace("metal", "none")
    for arn in (ARN, ARN.replace("eu-west-1", "us-east-1"), ARN.replace("arn:aws:", "arn:aws-cn:")):
        message = refused(client.create_function, "ResourceNotFoundException", 404, **deploying.request(**on(arn)))
        assert message == f"Capacity provider not found: {arn}"
    create()
    deploying.create(client, **on(ARN))
    update = client.update_function_configuration
    message = refused(update, "ResourceNotFoundException", 404, FunctionName="hello", **on(missing))
    assert message == f"Capacity provider not found: {missing}"
    update(FunctionName="hello", **on(ARN))
    deploying.settle()
    refused(client.delete_capacity_provider, "ResourceConflictException", 409, CapacityProviderName="metal")


def test_a_function_without_a_provider_never_gets_one(create, deploying):
    client = deploying.plane.client()
    create()
    deploying.create(client)
    message = refused(client.update_function_configuration, INVALID, FunctionName="hello", **on(ARN))
    assert "CapacityProviderConfig" in message
    assert "CapacityProviderConfig" not in client.get_function_configuration(FunctionName="hello")


def test_a_provider_is_in_use_whatever_account_the_arn_of_the_function_tells(deploying, plane):
    client = plane.client(account="AKIAIOSFODNN7EXAMPLE", region="eu-west-1")
    client.create_capacity_provider(**MEMBERS)
    deploying.create(client, **on(ARN.replace("123456789012", "999999999999")))
    refused(client.delete_capacity_provider, "ResourceConflictException", 409, CapacityProviderName="metal")
