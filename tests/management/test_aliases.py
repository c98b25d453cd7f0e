"""Aliases, with boto3 on a real socket."""

from __future__ import annotations

import pytest

from serverfull.domain.permissions import POLICIES, Policy
from tests.management.answers import plain, refused

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:hello"


@pytest.fixture
def client(deploying):
    deploying.plane.put_function("hello", 1, 2)
    deploying.plane.put_function("other")
    return deploying.plane.client()


@pytest.fixture
def lax(deploying, client):
    """A client that sends what boto3 itself would refuse."""
    return deploying.plane.client(parameter_validation=False)


def weights(**shares):
    return {"AdditionalVersionWeights": {name.removeprefix("v"): share for name, share in shares.items()}}


def create(client, **members):
    return client.create_alias(**{"FunctionName": "hello", "Name": "live", "FunctionVersion": "1", **members})


def test_an_alias_names_a_version(client):
    answer = create(client, Description="what users get", RoutingConfig=weights(v2=0.25))
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 201
    created = plain(answer)
    revision = created["RevisionId"]
    assert created == {
        "AliasArn": ARN + ":live",
        "Name": "live",
        "FunctionVersion": "1",
        "Description": "what users get",
        "RoutingConfig": {"AdditionalVersionWeights": {"2": 0.25}},
        "RevisionId": revision,
    }
    assert plain(client.get_alias(FunctionName="hello", Name="live")) == created
    assert client.list_aliases(FunctionName="hello")["Aliases"] == [created]


def test_the_shortest_alias_has_an_empty_description_and_no_routing(client):
    created = plain(create(client, FunctionVersion="$LATEST", RoutingConfig={}))
    assert set(created) == {"AliasArn", "Name", "FunctionVersion", "Description", "RevisionId"}
    assert (created["Description"], created["FunctionVersion"]) == ("", "$LATEST")


def test_an_update_changes_what_it_names_and_the_revision(client):
    created = plain(create(client, Description="text", RoutingConfig=weights(v2=0.25)))
    moved = plain(client.update_alias(FunctionName="hello", Name="live", RoutingConfig=weights(v2=1.0)))
    assert moved == created | {"RoutingConfig": weights(v2=1.0), "RevisionId": moved["RevisionId"]}
    assert moved["RevisionId"] != created["RevisionId"]
    cleared = plain(
        client.update_alias(FunctionName="hello", Name="live", RoutingConfig={"AdditionalVersionWeights": {}})
    )
    assert "RoutingConfig" not in cleared
    moved = client.update_alias(
        FunctionName="hello", Name="live", FunctionVersion="2", Description="", RevisionId=cleared["RevisionId"]
    )
    assert (moved["FunctionVersion"], moved["Description"]) == ("2", "")


def test_a_revision_that_is_not_the_latest_is_refused(client):
    create(client)
    message = refused(
        client.update_alias, "PreconditionFailedException", 412, FunctionName="hello", Name="live", RevisionId="1"
    )
    assert message.startswith("The Revision Id provided does not match the latest Revision Id.")


ROUTINGS = [
    (
        {"RoutingConfig": weights(v2=0.1, v3=0.2)},
        "InvalidParameterValueException",
        "Number of items in AdditionalVersionWeights cannot be greater than 1",
    ),
    (
        {"RoutingConfig": weights(v1=0.5)},
        "InvalidParameterValueException",
        "Invalid function version 1. Function version 1 is already included in routing configuration.",
    ),
    (
        {"FunctionVersion": "$LATEST", "RoutingConfig": weights(v1=0.5)},
        "InvalidParameterValueException",
        "$LATEST is not supported for an alias pointing to more than 1 version",
    ),
    ({"RoutingConfig": weights(v10=0.5)}, "ResourceNotFoundException", f"Function not found: {ARN}:10"),
    ({"FunctionVersion": "10"}, "ResourceNotFoundException", f"Function not found: {ARN}:10"),
    (
        {"FunctionVersion": "9" * 30},
        "ResourceNotFoundException",
        f"Function not found: {ARN}:{'9' * 30}",
    ),
]


@pytest.mark.parametrize(("members", "code", "message"), ROUTINGS)
def test_routings_that_no_call_could_take_are_refused(client, members, code, message):
    status = 404 if code == "ResourceNotFoundException" else 400
    names = {"FunctionName": "hello", "Name": "live"}
    assert refused(client.create_alias, code, status, **{**names, "FunctionVersion": "1", **members}) == message
    create(client)
    assert refused(client.update_alias, code, status, **names, **members) == message


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (
            2.0,
            "Value '{2=2.0}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map value must",
        ),
        (
            -1.0,
            "Value '{2=-1.0}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map value must",
        ),
    ],
)
def test_a_share_is_from_0_to_1(lax, share, text):
    assert text in refused(
        lax.create_alias,
        "ValidationException",
        FunctionName="hello",
        Name="live",
        FunctionVersion="1",
        RoutingConfig=weights(v2=share),
    )


def test_a_share_of_the_latest_is_against_the_model(lax):
    message = refused(
        lax.create_alias,
        "ValidationException",
        FunctionName="hello",
        Name="live",
        FunctionVersion="1",
        RoutingConfig={"AdditionalVersionWeights": {"$LATEST": 0.5}},
    )
    assert "Map keys must satisfy constraint" in message


def test_an_update_is_checked_together_with_what_it_leaves(client):
    create(client, RoutingConfig=weights(v2=0.5))
    message = refused(
        client.update_alias, "InvalidParameterValueException", FunctionName="hello", Name="live", FunctionVersion="2"
    )
    assert message.startswith("Invalid function version 2.")


def test_a_name_is_taken_once(client):
    create(client)
    assert (
        refused(
            client.create_alias,
            "ResourceConflictException",
            409,
            FunctionName="hello",
            Name="live",
            FunctionVersion="2",
        )
        == f"Alias already exists: {ARN}:live"
    )
    client.create_alias(FunctionName="other", Name="live", FunctionVersion="$LATEST")


def test_names_of_digits_are_versions(lax):
    assert "at 'name'" in refused(
        lax.create_alias, "ValidationException", FunctionName="hello", Name="12", FunctionVersion="1"
    )


@pytest.mark.parametrize(
    ("operation", "words"), [("get_alias", "Cannot find alias arn"), ("update_alias", "Alias not found")]
)
def test_an_alias_that_is_not_there_is_named_by_its_arn(client, operation, words):
    message = refused(getattr(client, operation), "ResourceNotFoundException", 404, FunctionName="hello", Name="nobody")
    assert message == f"{words}: {ARN}:nobody"


def test_an_alias_of_an_unknown_function_is_refused_by_its_version(client):
    message = refused(
        client.create_alias, "ResourceNotFoundException", 404, FunctionName="nobody", Name="live", FunctionVersion="1"
    )
    assert message == f"Function not found: {ARN.removesuffix('hello')}nobody:1"


def test_a_deleted_alias_takes_along_what_was_set_up_for_it(deploying, client):
    create(client)
    for qualifier in ("live", "1"):
        policy = Policy(function="hello", qualifier=qualifier, content={})
        deploying.plane.write(lambda records, policy=policy: records.insert(POLICIES, policy))
    assert client.delete_alias(FunctionName="hello", Name="live")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert client.list_aliases(FunctionName="hello")["Aliases"] == []
    assert [kept.qualifier for kept in deploying.plane.write(lambda records: records.list(POLICIES))] == ["1"]
    client.delete_alias(FunctionName="hello", Name="live")  # as on AWS: nothing is there, and nothing is wrong


def test_aliases_are_listed_page_by_page_by_their_names(client):
    for number in range(60):
        create(client, Name=f"a{number:02}", FunctionVersion=str(number % 2 + 1))
    client.create_alias(FunctionName="other", Name="live", FunctionVersion="$LATEST")
    pages = [page["Aliases"] for page in client.get_paginator("list_aliases").paginate(FunctionName="hello")]
    assert [len(page) for page in pages] == [50, 10]
    assert [alias["Name"] for page in pages for alias in page] == [f"a{number:02}" for number in range(60)]


def test_the_aliases_of_a_version_are_those_that_send_calls_to_it(client):
    create(client, Name="all", FunctionVersion="2")
    create(client, Name="none", FunctionVersion="1")
    create(client, Name="share", FunctionVersion="1", RoutingConfig=weights(v2=0.1))
    pages = client.get_paginator("list_aliases").paginate(
        FunctionName="hello", FunctionVersion="2", PaginationConfig={"PageSize": 1}
    )
    assert [alias["Name"] for page in pages for alias in page["Aliases"]] == ["all", "share"]
    assert client.list_aliases(FunctionName="hello", FunctionVersion="9")["Aliases"] == []
