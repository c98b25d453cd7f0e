"""Versions are published and listed, with boto3 on a real socket."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from tests.management.answers import plain

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:"


@pytest.fixture
def client(deploying):
    return deploying.plane.client()


def change(deploying, client, **members):
    client.update_function_configuration(FunctionName="hello", **members)
    deploying.settle()


def published(client, **members):
    return plain(client.publish_version(FunctionName="hello", **members))


def test_a_version_is_the_latest_frozen_under_a_number(deploying, client):
    deploying.create(client, Description="first", Environment={"Variables": {"STAGE": "test"}})
    latest = plain(client.get_function_configuration(FunctionName="hello"))
    answer = client.publish_version(FunctionName="hello", Description="release")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 201
    version = plain(answer)
    assert version["RevisionId"] != latest["RevisionId"]
    assert version == latest | {
        "FunctionArn": ARN + "hello:1",
        "Version": "1",
        "Description": "release",
        "RevisionId": version["RevisionId"],
    }
    change(deploying, client, Description="second", Environment={"Variables": {}})
    client.update_function_code(FunctionName="hello", ZipFile=deploying.other)
    deploying.settle()
    assert plain(client.get_function_configuration(FunctionName="hello", Qualifier="1")) == version
    location = client.get_function(FunctionName="hello", Qualifier="1")["Code"]["Location"]
    assert location.partition("?")[0] != client.get_function(FunctionName="hello")["Code"]["Location"].partition("?")[0]
    assert published(client)["Description"] == "second"


def test_revisions_change_where_those_of_aws_do(deploying, client):
    def revision(qualifier="$LATEST"):
        return client.get_function_configuration(FunctionName="hello", Qualifier=qualifier)["RevisionId"]

    created = deploying.create(client)["RevisionId"]
    active = revision()
    version = published(client, RevisionId=active)["RevisionId"]
    latest = revision()
    assert len({created, active, version, latest}) == 4, "publishing changes the revision of $LATEST too"
    assert published(client)["RevisionId"] == version
    client.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    assert (revision(), revision("1"), revision("live")) == (latest, version, version)


def test_publishing_without_a_change_gives_the_version_that_there_is(deploying, client):
    deploying.create(client)
    first = published(client, Description="one")
    assert published(client) == first
    assert published(client, Description="another text is no change") == first
    change(deploying, client, Timeout=9)
    assert published(client)["Version"] == "2"
    change(deploying, client, Timeout=3)
    assert published(client)["Version"] == "3", "it is compared with the last version alone"
    change(deploying, client, Timeout=3)
    assert published(client)["Version"] == "3", "an update that changes nothing is no change"
    client.delete_function(FunctionName="hello", Qualifier="3")
    assert published(client)["Version"] == "4"


@pytest.mark.parametrize(
    "members",
    [
        {"Description": "other"},
        {"Handler": "app.other"},
        {"Runtime": "python3.13"},
        {"MemorySize": 256},
        {"Environment": {"Variables": {"AB": "c"}}},
        {"LoggingConfig": {"LogFormat": "JSON"}},
        {"EphemeralStorage": {"Size": 1024}},
        {"Layers": ["arn:aws:lambda:eu-west-1:123456789012:layer:known:1"]},
    ],
)
def test_every_change_of_the_configuration_makes_another_version(deploying, client, members):
    deploying.create(client, Publish=True)
    change(deploying, client, **members)
    assert published(client)["Version"] == "2"


def test_other_code_makes_another_version(deploying, client):
    deploying.create(client, Publish=True)
    client.update_function_code(FunctionName="hello", ZipFile=deploying.other)
    deploying.settle()
    assert published(client)["Version"] == "2"


def test_creating_can_publish_at_once(deploying, client):
    deploying.preparing.hold()
    created = client.create_function(**deploying.request(Publish=True))
    assert (created["Version"], created["State"], created["FunctionArn"]) == ("1", "Pending", ARN + "hello")
    deploying.preparing.release()
    deploying.settle()
    versions = client.list_versions_by_function(FunctionName="hello")["Versions"]
    assert [version["Version"] for version in versions] == ["$LATEST", "1"]
    for qualifier in ("$LATEST", "1"):
        found = client.get_function_configuration(FunctionName="hello", Qualifier=qualifier)
        assert (found["State"], found["LastUpdateStatus"]) == ("Active", "Successful")
    assert published(client)["Version"] == "1"


def test_updating_code_can_publish_at_once(deploying, client):
    deploying.create(client)
    deploying.preparing.hold()
    version = client.update_function_code(FunctionName="hello", ZipFile=deploying.other, Publish=True)
    assert (version["Version"], version["State"], version["FunctionArn"]) == ("1", "Pending", ARN + "hello:1")
    assert "LastUpdateStatus" not in version
    latest = client.get_function_configuration(FunctionName="hello")
    assert (latest["State"], latest["LastUpdateStatus"]) == ("Active", "InProgress")
    deploying.preparing.release()
    deploying.settle()
    assert client.get_function_configuration(FunctionName="hello", Qualifier="1")["State"] == "Active"
    again = client.update_function_code(FunctionName="hello", ZipFile=deploying.other, Publish=True)
    deploying.settle()
    assert again["Version"] == "1", "the same code is no other version"


def test_the_guards_of_publishing(deploying, client):
    deploying.create(client)
    latest = client.get_function_configuration(FunctionName="hello")
    with pytest.raises(client.exceptions.InvalidParameterValueException) as caught:
        published(client, CodeSha256="somethingelse")
    assert caught.value.response["message"] == (
        f"CodeSHA256 (somethingelse) is different from current CodeSHA256 in $LATEST ({latest['CodeSha256']}). "
        "Please try again with the CodeSHA256 in $LATEST."
    )
    with pytest.raises(client.exceptions.PreconditionFailedException):
        published(client, RevisionId="somethingelse")
    with pytest.raises(client.exceptions.InvalidParameterValueException, match="does not support versions other"):
        client.publish_version(FunctionName="hello:1")
    with pytest.raises(client.exceptions.InvalidParameterValueException, match="PublishTo"):
        published(client, PublishTo="LATEST_PUBLISHED")
    version = published(client, CodeSha256=latest["CodeSha256"], RevisionId=latest["RevisionId"])
    assert version["Version"] == "1"


def test_versions_are_listed_page_by_page_by_their_numbers(deploying, client):
    deploying.plane.put_function("hello", *range(1, 121))
    deploying.plane.put_function("hello2", 1)
    pages = [
        page["Versions"] for page in client.get_paginator("list_versions_by_function").paginate(FunctionName="hello")
    ]
    assert [len(page) for page in pages] == [50, 50, 21]
    listed = [version for page in pages for version in page]
    assert [version["Version"] for version in listed] == ["$LATEST", *map(str, range(1, 121))]
    assert listed[0]["FunctionArn"] == ARN + "hello:$LATEST"
    assert not {"State", "LastUpdateStatus", "RuntimeVersionConfig"} & set(listed[0])
    one = client.list_versions_by_function(FunctionName="hello", MaxItems=1)
    two = client.list_versions_by_function(FunctionName="hello", MaxItems=1, Marker=one["NextMarker"])
    assert [version["Version"] for version in two["Versions"]] == ["1"]
    with pytest.raises(ClientError, match="Marker"):
        client.list_versions_by_function(FunctionName="hello", Marker="none")
