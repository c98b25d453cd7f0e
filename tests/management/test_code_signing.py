"""Code signing configurations, driven with boto3, and what they make of packages."""

from __future__ import annotations

import pytest

from serverfull.domain.changes import FunctionChanged
from serverfull.domain.code_signing import CodeSigningConfig
from serverfull.domain.deployed import FUNCTIONS, DeployedFunction
from serverfull.domain.functions import Function
from serverfull.domain.layers import LayerVersion
from serverfull.domain.records import Partition
from serverfull.errors import CodeVerificationFailed
from serverfull.management.code_signing import CodeSigning, check_signature, is_signed
from serverfull.testing.deployments import zipped
from tests.management.answers import refused

ACCOUNT = "123456789012"
CONFIG_ARN = f"arn:aws:lambda:eu-west-1:{ACCOUNT}:code-signing-config:"
FUNCTION_ARN = f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:"
PROFILE = f"arn:aws:signer:eu-west-1:{ACCOUNT}:/signing-profiles/shop/abcdefghij"
UNKNOWN = CONFIG_ARN + "csc-" + "0" * 17


@pytest.fixture
def client(control_plane):
    plane = control_plane
    plane.serve(CodeSigning(plane.state, plane.resolver, plane.changes).operations())
    plane.put_function("orders", 1)
    return plane.client(parameter_validation=False)


def create(client, policy=None, **members):
    if policy is not None:
        members["CodeSigningPolicies"] = {"UntrustedArtifactOnDeployment": policy}
    response = client.create_code_signing_config(AllowedPublishers={"SigningProfileVersionArns": [PROFILE]}, **members)
    return response["CodeSigningConfig"]


SIGNED = zipped({"app.py": "", "META_INF/aws_signer_signature_v1.0.SF": ""})
UNSIGNED = zipped({"app.py": "", "META_INF/other.SF": ""})


def test_a_configuration_warns_unless_it_is_told_to_enforce(client):
    config = create(client)
    assert config["CodeSigningConfigId"].startswith("csc-")
    assert len(config["CodeSigningConfigId"]) == 21
    assert config["CodeSigningConfigArn"] == CONFIG_ARN + config["CodeSigningConfigId"]
    assert config["AllowedPublishers"] == {"SigningProfileVersionArns": [PROFILE]}
    assert config["CodeSigningPolicies"] == {"UntrustedArtifactOnDeployment": "Warn"}
    assert config["LastModified"].endswith("+0000")
    assert "Description" not in config
    strict = create(client, "Enforce", Description="ours")
    assert strict["CodeSigningPolicies"] == {"UntrustedArtifactOnDeployment": "Enforce"}
    read = client.get_code_signing_config(CodeSigningConfigArn=strict["CodeSigningConfigArn"])["CodeSigningConfig"]
    assert read == strict
    assert read["Description"] == "ours"


def test_giving_a_function_a_configuration_and_taking_it_away_is_told(control_plane, client):
    client.put_function_code_signing_config(
        FunctionName="orders", CodeSigningConfigArn=create(client)["CodeSigningConfigArn"]
    )
    client.delete_function_code_signing_config(FunctionName="orders")
    assert control_plane.published == [FunctionChanged(Partition(ACCOUNT, "eu-west-1"), "orders")] * 2


def test_an_update_changes_what_it_names_and_keeps_the_rest(client):
    arn = create(client, "Enforce", Description="ours")["CodeSigningConfigArn"]
    other = PROFILE + "k"
    for request, member, value in (
        ({"Description": ""}, "Description", ""),
        (
            {"AllowedPublishers": {"SigningProfileVersionArns": [other]}},
            "AllowedPublishers",
            {"SigningProfileVersionArns": [other]},
        ),
        (
            {"CodeSigningPolicies": {"UntrustedArtifactOnDeployment": "Warn"}},
            "CodeSigningPolicies",
            {"UntrustedArtifactOnDeployment": "Warn"},
        ),
    ):
        before = client.get_code_signing_config(CodeSigningConfigArn=arn)["CodeSigningConfig"]
        after = client.update_code_signing_config(CodeSigningConfigArn=arn, **request)["CodeSigningConfig"]
        assert after[member] == value
        assert {**before, member: value, "LastModified": after["LastModified"]} == after
        assert client.get_code_signing_config(CodeSigningConfigArn=arn)["CodeSigningConfig"] == after


def test_an_unknown_configuration_is_told_in_the_words_of_aws(client):
    text = f"The Lambda code signing configuration {UNKNOWN} can not be found."
    for call in (
        client.get_code_signing_config,
        client.update_code_signing_config,
        client.delete_code_signing_config,
        client.list_functions_by_code_signing_config,
    ):
        assert refused(call, "ResourceNotFoundException", 404, CodeSigningConfigArn=UNKNOWN) == text
    assert refused(
        client.put_function_code_signing_config,
        "CodeSigningConfigNotFoundException",
        404,
        CodeSigningConfigArn=UNKNOWN,
        FunctionName="orders",
    ) == (
        "The code signing configuration cannot be found. "
        f"Check that the provided configuration is not deleted: {UNKNOWN}."
    )


def test_a_configuration_of_another_account_or_region_is_not_there(control_plane, client):
    arn = create(client)["CodeSigningConfigArn"]
    for elsewhere in (control_plane.client(account="999999999999"), control_plane.client(region="us-east-1")):
        with pytest.raises(elsewhere.exceptions.ResourceNotFoundException):
            elsewhere.get_code_signing_config(CodeSigningConfigArn=arn)
        assert elsewhere.list_code_signing_configs()["CodeSigningConfigs"] == []
    for other in (arn.replace(ACCOUNT, "999999999999"), arn.replace("eu-west-1", "us-east-1")):
        with pytest.raises(client.exceptions.ResourceNotFoundException):
            client.get_code_signing_config(CodeSigningConfigArn=other)


def test_a_function_gets_keeps_and_loses_a_configuration(client):
    arn = create(client)["CodeSigningConfigArn"]
    without = client.get_function_code_signing_config(FunctionName="orders")
    assert set(without) == {"ResponseMetadata"}
    put = client.put_function_code_signing_config(FunctionName=FUNCTION_ARN + "orders", CodeSigningConfigArn=arn)
    assert (put["CodeSigningConfigArn"], put["FunctionName"]) == (arn, "orders")
    got = client.get_function_code_signing_config(FunctionName="orders")
    assert (got["CodeSigningConfigArn"], got["FunctionName"]) == (arn, "orders")
    assert client.list_functions_by_code_signing_config(CodeSigningConfigArn=arn)["FunctionArns"] == [
        FUNCTION_ARN + "orders"
    ]
    for _ in range(2):
        deleted = client.delete_function_code_signing_config(FunctionName="orders")
        assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert client.list_functions_by_code_signing_config(CodeSigningConfigArn=arn)["FunctionArns"] == []


def test_a_configuration_in_use_is_not_deleted(client):
    arn = create(client)["CodeSigningConfigArn"]
    client.put_function_code_signing_config(FunctionName="orders", CodeSigningConfigArn=arn)
    with pytest.raises(client.exceptions.ResourceConflictException, match="in use by 1 function"):
        client.delete_code_signing_config(CodeSigningConfigArn=arn)
    client.delete_function_code_signing_config(FunctionName="orders")
    assert client.delete_code_signing_config(CodeSigningConfigArn=arn)["ResponseMetadata"]["HTTPStatusCode"] == 204
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_code_signing_config(CodeSigningConfigArn=arn)


def test_functions_that_are_missing_qualified_or_images_are_refused(control_plane, client):
    arn = create(client)["CodeSigningConfigArn"]
    control_plane.put_function("picture", package_type="Image")
    for call, request in (
        (client.put_function_code_signing_config, {"CodeSigningConfigArn": arn}),
        (client.get_function_code_signing_config, {}),
        (client.delete_function_code_signing_config, {}),
    ):
        message = refused(call, "ResourceNotFoundException", 404, FunctionName="nobody", **request)
        assert message == f"Function not found: {FUNCTION_ARN}nobody"
        assert refused(call, "InvalidParameterValueException", 400, FunctionName="orders:1", **request) == (
            "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. "
            "Please specify either a function name or an unqualified function ARN."
        )
        message = refused(call, "InvalidParameterValueException", 400, FunctionName="picture", **request)
        assert message == "Code signing is not supported for functions created with container images."


def test_functions_of_the_operator_have_no_configuration_and_take_none(control_plane, client):
    control_plane.registered["static"] = Function(len)
    arn = create(client)["CodeSigningConfigArn"]
    assert set(client.get_function_code_signing_config(FunctionName="static")) == {"ResponseMetadata"}
    with pytest.raises(client.exceptions.ResourceConflictException):
        client.put_function_code_signing_config(FunctionName="static", CodeSigningConfigArn=arn)
    with pytest.raises(client.exceptions.ResourceConflictException):
        client.delete_function_code_signing_config(FunctionName="static")


def test_lists_come_in_pages(control_plane, client):
    arns = sorted(create(client)["CodeSigningConfigArn"] for _ in range(5))
    pages = client.get_paginator("list_code_signing_configs").paginate(PaginationConfig={"PageSize": 2})
    listed = [[config["CodeSigningConfigArn"] for config in page["CodeSigningConfigs"]] for page in pages]
    assert listed == [arns[:2], arns[2:4], arns[4:]]
    for name in "abc":
        control_plane.put_function(name)
        client.put_function_code_signing_config(FunctionName=name, CodeSigningConfigArn=arns[0])
    pages = client.get_paginator("list_functions_by_code_signing_config").paginate(
        CodeSigningConfigArn=arns[0], PaginationConfig={"PageSize": 2}
    )
    assert [page["FunctionArns"] for page in pages] == [[FUNCTION_ARN + "a", FUNCTION_ARN + "b"], [FUNCTION_ARN + "c"]]
    with pytest.raises(client.exceptions.InvalidParameterValueException):
        client.list_code_signing_configs(Marker="x")


def test_tags_are_checked(client):
    with pytest.raises(client.exceptions.InvalidParameterValueException, match="exceeds resource tag limit"):
        create(client, Tags={str(number): "" for number in range(51)})
    assert client.list_code_signing_configs()["CodeSigningConfigs"] == []


def test_the_signature_of_aws_signer_is_found_in_an_archive():
    assert is_signed(SIGNED)
    assert not is_signed(UNSIGNED)
    assert not is_signed(b"no zip at all")


def config_with(policy):
    return CodeSigningConfig(id="csc-" + "1" * 17, publishers=[PROFILE], policy=policy, last_modified="")


def layer(signed):
    return LayerVersion(layer="tools", number=3, code_sha256="", code_size=1, created="", signed=signed)


@pytest.mark.parametrize(
    ("signed", "layers", "why"),
    [
        (False, [], "The package is not signed."),
        (True, [layer(signed=False)], "The layers tools:3 are not signed."),
        (True, [layer(signed=True)], "this host cannot verify such signatures"),
    ],
)
def test_enforcing_refuses_what_warning_lets_through_with_the_same_reason(signed, layers, why):
    warning = check_signature(None, config_with("Warn"), "orders", signed, layers)
    assert why in warning
    with pytest.raises(CodeVerificationFailed) as caught:
        check_signature(None, config_with("Enforce"), "orders", signed, layers)
    assert caught.value.message.startswith(
        "Lambda cannot deploy the function. The function or layer might be signed using a signature that the client "
        "is not configured to accept. Check the provided signature for orders."
    )
    assert why in caught.value.message


def test_a_function_is_checked_by_its_configuration_or_not_at_all(control_plane, client):
    arn = create(client, "Enforce")["CodeSigningConfigArn"]

    def check(records):
        return check_signature(records, records.get(FUNCTIONS, "orders"), "orders", False)

    assert control_plane.write(check) is None
    client.put_function_code_signing_config(FunctionName="orders", CodeSigningConfigArn=arn)
    with pytest.raises(CodeVerificationFailed):
        control_plane.write(check)


def test_nothing_is_trusted_where_the_configuration_is_missing(control_plane):
    lost = DeployedFunction(name="orders", code_signing_config=UNKNOWN)
    with pytest.raises(CodeVerificationFailed, match="missing"):
        control_plane.write(lambda records: check_signature(records, lost, "orders", True))
