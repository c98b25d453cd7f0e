"""Policies of functions, driven with boto3."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError

from serverfull.domain.changes import FunctionChanged
from serverfull.domain.deployed import ALIASES
from serverfull.domain.functions import Function
from serverfull.domain.records import Partition
from serverfull.management.permissions import Permissions
from tests.management.answers import refused

ACCOUNT = "123456789012"
ARN = f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:orders"
S3 = {"StatementId": "s3", "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com"}
REVISION_TEXT = (
    "The Revision Id provided does not match the latest Revision Id. "
    "Call the GetFunction/GetAlias API to retrieve the latest Revision Id"
)


@pytest.fixture
def plane(control_plane):
    control_plane.serve(Permissions(control_plane.state, control_plane.resolver, control_plane.changes).operations())
    control_plane.put_function("orders", 1)
    control_plane.put_alias("orders", "live")
    return control_plane


def statement_of(client, **members):
    return json.loads(client.add_permission(FunctionName="orders", **(S3 | members))["Statement"])


def policy_of(client, **where):
    return json.loads(client.get_policy(FunctionName="orders", **where)["Policy"])


def document(*statements, **members):
    return {"Version": "2012-10-17", "Id": "mine", "Statement": list(statements), **members}


def allow(**members):
    return {"Effect": "Allow", "Principal": "*", "Action": "lambda:InvokeFunction", "Resource": ARN} | members


def test_every_change_of_a_policy_is_told_because_the_revision_changes_with_it(client, plane):
    client.add_permission(FunctionName="orders", **S3)
    client.remove_permission(FunctionName="orders", StatementId="s3")
    client.put_resource_policy(ResourceArn=ARN, Policy=json.dumps(document(allow())))
    client.delete_resource_policy(ResourceArn=ARN)
    assert plane.published == [FunctionChanged(Partition("123456789012", "eu-west-1"), "orders")] * 4


def test_a_permission_is_a_statement_in_the_shape_of_aws(client):
    response = client.add_permission(FunctionName="orders", **S3)
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert response["Statement"] == (
        '{"Sid":"s3","Effect":"Allow","Principal":{"Service":"s3.amazonaws.com"},'
        f'"Action":"lambda:InvokeFunction","Resource":"{ARN}"}}'
    )
    assert policy_of(client) == {
        "Version": "2012-10-17",
        "Id": "default",
        "Statement": [json.loads(response["Statement"])],
    }


@pytest.mark.parametrize(
    ("members", "condition"),
    [
        ({"SourceArn": "arn:aws:s3:::shop"}, {"ArnLike": {"AWS:SourceArn": "arn:aws:s3:::shop"}}),
        ({"SourceAccount": ACCOUNT}, {"StringEquals": {"AWS:SourceAccount": ACCOUNT}}),
        (
            {"SourceAccount": ACCOUNT, "SourceArn": "arn:aws:s3:::shop"},
            {"StringEquals": {"AWS:SourceAccount": ACCOUNT}, "ArnLike": {"AWS:SourceArn": "arn:aws:s3:::shop"}},
        ),
        (
            {"Principal": "*", "PrincipalOrgID": "o-abcdefghij"},
            {"StringEquals": {"aws:PrincipalOrgID": "o-abcdefghij"}},
        ),
        (
            {"Principal": "alexa-appkit.amazon.com", "EventSourceToken": "amzn1.ask"},
            {"StringEquals": {"lambda:EventSourceToken": "amzn1.ask"}},
        ),
        (
            {"Principal": "*", "Action": "lambda:InvokeFunctionUrl", "FunctionUrlAuthType": "NONE"},
            {"StringEquals": {"lambda:FunctionUrlAuthType": "NONE"}},
        ),
        ({"Principal": "*", "InvokedViaFunctionUrl": True}, {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}),
    ],
)
def test_what_narrows_a_permission_is_its_condition(client, members, condition):
    assert statement_of(client, **members)["Condition"] == condition


@pytest.mark.parametrize(
    ("principal", "written"),
    [
        ("*", "*"),
        ("210987654321", {"AWS": "arn:aws:iam::210987654321:root"}),
        ("arn:aws:iam::210987654321:user/ann", {"AWS": "arn:aws:iam::210987654321:user/ann"}),
        ("arn:aws:sts::210987654321:assumed-role/r/s", {"AWS": "arn:aws:sts::210987654321:assumed-role/r/s"}),
        ("logs.eu-west-1.amazonaws.com", {"Service": "logs.eu-west-1.amazonaws.com"}),
        ("s3.amazonaws.com.cn", {"Service": "s3.amazonaws.com.cn"}),
    ],
)
def test_each_kind_of_principal_is_written_as_aws_does(client, principal, written):
    assert statement_of(client, Principal=principal)["Principal"] == written


@pytest.mark.parametrize(
    "principal", ["somebody", "amazonaws.com", "arn:aws:s3:::shop", "12345", "s3.amazonaws.com.de"]
)
def test_a_principal_that_is_none_is_refused(client, principal):
    message = refused(
        client.add_permission,
        "InvalidParameterValueException",
        FunctionName="orders",
        **S3 | {"Principal": principal},
    )
    assert message == "The provided principal was invalid. Please check the principal and try again."


@pytest.mark.parametrize(
    ("members", "action"),
    [
        ({"FunctionUrlAuthType": "NONE"}, "FunctionUrlAuthType is only supported for lambda:InvokeFunctionUrl action"),
        (
            {"InvokedViaFunctionUrl": True, "Action": "lambda:InvokeFunctionUrl"},
            "InvokedViaFunctionUrl is only supported for lambda:InvokeFunction action",
        ),
    ],
)
def test_conditions_go_with_their_actions_alone(client, members, action):
    message = refused(client.add_permission, "InvalidParameterValueException", FunctionName="orders", **S3 | members)
    assert message == action


def test_function_version_and_alias_have_policies_of_their_own(client):
    statement_of(client)
    assert statement_of(client, Qualifier="1")["Resource"] == f"{ARN}:1"
    assert json.loads(client.add_permission(FunctionName=f"{ARN}:live", **S3)["Statement"])["Resource"] == f"{ARN}:live"
    assert [policy_of(client, **where)["Statement"][0]["Resource"] for where in ({}, {"Qualifier": "live"})] == [
        ARN,
        f"{ARN}:live",
    ]
    client.remove_permission(FunctionName="orders", StatementId="s3", Qualifier="live")
    assert policy_of(client)["Statement"]
    assert policy_of(client, Qualifier="1")["Statement"]


def test_latest_takes_no_policy(client):
    text = "We currently do not support adding policies for $LATEST."
    for request in ({"FunctionName": "orders", "Qualifier": "$LATEST"}, {"FunctionName": "orders:$LATEST"}):
        assert refused(client.add_permission, "InvalidParameterValueException", **request, **S3) == text
    message = refused(
        client.put_resource_policy,
        "InvalidParameterValueException",
        ResourceArn=f"{ARN}:$LATEST",
        Policy=json.dumps(document(allow())),
    )
    assert message == text


def test_a_statement_id_is_given_once_for_a_policy(client):
    statement_of(client)
    assert refused(client.add_permission, "ResourceConflictException", 409, FunctionName="orders", **S3) == (
        "The statement id (s3) provided already exists. "
        "Please provide a new statement id, or remove the existing statement."
    )
    statement_of(client, StatementId="again")
    assert [held["Sid"] for held in policy_of(client)["Statement"]] == ["s3", "again"]


def test_a_policy_goes_with_its_last_statement(client):
    statement_of(client)
    statement_of(client, StatementId="sqs", Principal="sqs.amazonaws.com")
    assert (
        client.remove_permission(FunctionName="orders", StatementId="sqs")["ResponseMetadata"]["HTTPStatusCode"] == 204
    )
    assert [held["Sid"] for held in policy_of(client)["Statement"]] == ["s3"]
    client.remove_permission(FunctionName="orders", StatementId="s3")
    missing = "The resource you requested does not exist."
    assert refused(client.get_policy, "ResourceNotFoundException", 404, FunctionName="orders") == missing
    assert refused(client.get_resource_policy, "ResourceNotFoundException", 404, ResourceArn=ARN) == missing


def test_what_is_not_there_is_told_in_the_words_of_aws(client):
    missing = "ResourceNotFoundException"
    no_policy = "No policy is associated with the given resource."
    nobody = ARN.replace("orders", "nobody")
    for call, text, request in (
        (client.add_permission, f"Function not found: {nobody}", {"FunctionName": "nobody", **S3}),
        (client.add_permission, f"Function not found: {ARN}:7", {"FunctionName": "orders", "Qualifier": "7", **S3}),
        (client.add_permission, f"Cannot find alias arn: {ARN}:beta", {"FunctionName": "orders:beta", **S3}),
        (client.get_policy, f"Function not found: {nobody}", {"FunctionName": "nobody"}),
        (
            client.get_policy,
            "The resource you requested does not exist.",
            {"FunctionName": "orders", "Qualifier": "live"},
        ),
        (client.remove_permission, f"No policy found for: {nobody}", {"FunctionName": "nobody", "StatementId": "s"}),
        (client.remove_permission, no_policy, {"FunctionName": "orders", "StatementId": "s"}),
        (client.remove_permission, no_policy, {"FunctionName": "orders:$LATEST", "StatementId": "s"}),
        (client.delete_resource_policy, no_policy, {"ResourceArn": ARN}),
        (client.get_resource_policy, f"Function not found: {nobody}", {"ResourceArn": nobody}),
        (
            client.get_resource_policy,
            "The resource you requested does not exist.",
            {"ResourceArn": f"arn:aws:lambda:eu-west-1:{ACCOUNT}:runtime/python3.12"},
        ),
    ):
        assert refused(call, missing, 404, **request) == text
    statement_of(client)
    message = refused(client.remove_permission, missing, 404, FunctionName="orders", StatementId="sqs")
    assert message == "Statement sqs is not found in resource policy."


def test_the_revision_of_a_policy_is_that_of_its_function_and_changes_with_it(client):
    statement_of(client)
    first = client.get_policy(FunctionName="orders")["RevisionId"]
    assert client.get_resource_policy(ResourceArn=ARN)["RevisionId"] == first
    statement_of(client, StatementId="more", RevisionId=first)
    second = client.get_policy(FunctionName="orders")["RevisionId"]
    assert second != first
    for call, request in (
        (client.add_permission, S3 | {"StatementId": "third"}),
        (client.remove_permission, {"StatementId": "more"}),
    ):
        message = refused(call, "PreconditionFailedException", 412, FunctionName="orders", RevisionId=first, **request)
        assert message == REVISION_TEXT
    client.remove_permission(FunctionName="orders", StatementId="more", RevisionId=second)
    put = client.put_resource_policy(ResourceArn=ARN, Policy=json.dumps(document(allow())))
    assert client.get_policy(FunctionName="orders")["RevisionId"] == put["RevisionId"]
    with pytest.raises(client.exceptions.PreconditionFailedException):
        client.put_resource_policy(ResourceArn=ARN, Policy=json.dumps(document(allow())), RevisionId=second)
    with pytest.raises(client.exceptions.PreconditionFailedException):
        client.delete_resource_policy(ResourceArn=ARN, RevisionId=second)
    client.delete_resource_policy(ResourceArn=ARN, RevisionId=put["RevisionId"])


def test_the_policy_of_an_alias_renews_the_alias_and_not_its_version(plane, client):
    before = plane.write(lambda records: records.get(ALIASES, "orders", "live").revision_id)
    statement_of(client, Qualifier="live", RevisionId=before)
    after = plane.write(lambda records: records.get(ALIASES, "orders", "live").revision_id)
    assert after != before
    assert client.get_policy(FunctionName="orders:live")["RevisionId"] == after


def test_a_policy_longer_than_twenty_kilobytes_is_refused_and_the_old_one_stays(client):
    for number in range(3):
        statement_of(client, StatementId=f"s{number}", SourceArn="arn:aws:s3:::" + "b" * 6000)
    with pytest.raises(client.exceptions.PolicyLengthExceededException) as caught:
        statement_of(client, StatementId="s3", SourceArn="arn:aws:s3:::" + "b" * 6000)
    assert "The final policy size (" in str(caught.value)
    assert ") is bigger than the limit (20480)." in str(caught.value)
    assert len(policy_of(client)["Statement"]) == 3


def test_a_whole_document_replaces_the_statements_and_takes_more(client):
    statement_of(client)
    mine = document(
        {
            "Sid": "deny",
            "Effect": "Deny",
            "NotPrincipal": {"AWS": ["arn:aws:iam::123456789012:root"]},
            "Action": ["lambda:InvokeFunction", "lambda:Get*"],
            "Resource": [ARN, f"{ARN}:*"],
            "Condition": {"IpAddress": {"aws:SourceIp": ["10.0.0.0/8"]}, "Bool": {"aws:SecureTransport": False}},
        }
    )
    answer = client.put_resource_policy(ResourceArn=ARN, Policy=json.dumps(mine, indent=4))
    assert json.loads(answer["Policy"]) == mine
    assert policy_of(client) == mine
    statement_of(client)
    assert [held["Sid"] for held in policy_of(client)["Statement"]] == ["deny", "s3"]
    assert client.delete_resource_policy(ResourceArn=ARN)["ResponseMetadata"]["HTTPStatusCode"] == 204
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_policy(FunctionName="orders")


def test_one_statement_may_stand_without_a_list(client):
    client.put_resource_policy(ResourceArn=ARN, Policy=json.dumps(document() | {"Statement": allow()}))
    assert policy_of(client)["Statement"] == [allow()]


@pytest.mark.parametrize(
    "policy",
    [
        "",
        "{",
        "[]",
        '"x"',
        "[" * 5000,
        '{"Statement": NaN}',
        json.dumps(document(allow())).replace('"Effect"', '"Effect": "Deny", "Effect"'),
        json.dumps(document()),
        json.dumps(document(allow(), Version="2020-01-01")),
        json.dumps(document(allow(), Id=3)),
        json.dumps(document(allow(), More=1)),
        json.dumps(document(1)),
        json.dumps(document(allow(Effect="allow"))),
        json.dumps(document(allow(Other=1))),
        json.dumps(document(allow(Sid=1))),
        json.dumps(document(allow(Sid="a"), allow(Sid="a"))),
        json.dumps(document(allow(Sid="\ud800"))),
        json.dumps(document({"Effect": "Allow", "Action": "*", "Resource": ARN})),
        json.dumps(document(allow(NotPrincipal="*"))),
        json.dumps(document(allow(Principal="me"))),
        json.dumps(document(allow(Principal={"Robot": "x"}))),
        json.dumps(document(allow(Principal={"AWS": []}))),
        json.dumps(document(allow(Action="s3:GetObject"))),
        json.dumps(document(allow(Action=[1]))),
        json.dumps(document(allow(Resource="*"))),
        json.dumps(document(allow(Resource=ARN + "2"))),
        json.dumps(document(allow(Condition={"Bool": "x"}))),
        json.dumps(document(allow(Condition=[]))),
        json.dumps(document(allow(Condition={"Bool": {"k": {}}}))),
    ],
)
def test_a_document_that_is_no_policy_is_refused_whole(client, policy):
    statement_of(client)
    with pytest.raises(ClientError) as caught:
        client.put_resource_policy(ResourceArn=ARN, Policy=policy)
    assert caught.value.response["Error"]["Code"] in ("InvalidParameterValueException", "ValidationException")
    assert policy_of(client)["Statement"][0]["Sid"] == "s3"


def test_functions_of_the_operator_have_no_policy_and_take_none(plane, client):
    plane.registered["static"] = Function(len)
    message = refused(client.get_policy, "ResourceNotFoundException", 404, FunctionName="static")
    assert message == "The resource you requested does not exist."
    for call, request in (
        (client.add_permission, {"FunctionName": "static", **S3}),
        (client.remove_permission, {"FunctionName": "static", "StatementId": "s3"}),
        (client.delete_resource_policy, {"ResourceArn": ARN.replace("orders", "static")}),
    ):
        with pytest.raises(client.exceptions.ResourceConflictException, match="which the API cannot write"):
            call(**request)


def test_a_function_of_the_operator_hides_the_policy_of_a_deployed_one(plane, client):
    statement_of(client)
    plane.registered["orders"] = Function(len)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_policy(FunctionName="orders")


def test_accounts_and_regions_do_not_see_each_others_policies(plane, client):
    statement_of(client)
    elsewhere = plane.client(account="999999999999")
    with pytest.raises(elsewhere.exceptions.ResourceNotFoundException):
        elsewhere.get_policy(FunctionName="orders")
    with pytest.raises(elsewhere.exceptions.ResourceNotFoundException):
        elsewhere.get_resource_policy(ResourceArn=ARN)
