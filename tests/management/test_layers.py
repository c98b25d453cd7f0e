"""Layers, driven with boto3."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from functools import partial

import pytest
from botocore.exceptions import ClientError

from serverfull.domain.concurrency import AccountLimits
from serverfull.domain.deployed import VERSIONS
from serverfull.domain.layers import LAYER_VERSIONS
from serverfull.domain.names import RequestScope
from serverfull.domain.objects import StoredObject
from serverfull.domain.records import Partition
from serverfull.errors import InvalidParameterValue, RequestRefused
from serverfull.management.layer_permissions import LayerPermissions
from serverfull.management.layers import Layers, find_layers, forget_deleted
from serverfull.management.packages import PackageIntake
from serverfull.storage.code import MemoryCodeStore
from serverfull.storage.packages import check
from serverfull.testing.deployments import zipped
from tests.management.answers import plain, refused

ACCOUNT = "123456789012"
ARN = f"arn:aws:lambda:eu-west-1:{ACCOUNT}:layer:"
PARTITION = Partition(ACCOUNT, "eu-west-1")
SCOPE = RequestScope(ACCOUNT, "eu-west-1", "id", account_known=True)
MISSING = "The resource you requested does not exist."
SHARE = {"StatementId": "share", "Action": "lambda:GetLayerVersion", "Principal": "210987654321"}


PACKAGE = zipped({"tool": "print()"})


class Bucket:
    """Stands for S3."""

    def __init__(self):
        self.read = []

    async def __call__(self, bucket, key, version):
        self.read.append((bucket, key, version))
        if key == "missing":
            raise InvalidParameterValue("Error occurred while GetObject.")
        return StoredObject(PACKAGE, '"etag"')


@pytest.fixture
def bucket():
    return Bucket()


@pytest.fixture
def code(control_plane):
    async def make():
        return MemoryCodeStore()

    code = control_plane.run(make())
    control_plane.at_end(code.aclose)
    return code


@pytest.fixture
def limits():
    return AccountLimits()


@pytest.fixture
def client(control_plane, code, bucket, limits):
    plane = control_plane
    intake = PackageIntake(code, check_package=partial(asyncio.to_thread, check), fetch_object=bucket)
    plane.serve(Layers(plane.state, code, intake=intake, limits=limits).operations())
    plane.serve(LayerPermissions(plane.state).operations())
    return plane.client(parameter_validation=False)


def publish(client, name="tools", content=PACKAGE, **members):
    return client.publish_layer_version(LayerName=name, Content={"ZipFile": content}, **members)


def versions_of(client, name="tools", **where):
    return [held["Version"] for held in client.list_layer_versions(LayerName=name, **where)["LayerVersions"]]


def layers_of(client, **where):
    layers = client.list_layers(**where)["Layers"]
    return [(layer["LayerName"], layer["LatestMatchingVersion"]["Version"]) for layer in layers]


def test_a_published_version_is_the_whole_that_aws_answers(client):
    response = publish(
        client,
        Description="shared",
        LicenseInfo="MIT",
        CompatibleRuntimes=["python3.12", "python3.13"],
        CompatibleArchitectures=["x86_64"],
    )
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert response["Content"].pop("Location").startswith("http://127.0.0.1:")
    assert response.pop("CreatedDate").endswith("+0000")
    assert plain(response) == {
        "LayerArn": ARN + "tools",
        "LayerVersionArn": ARN + "tools:1",
        "Version": 1,
        "Description": "shared",
        "LicenseInfo": "MIT",
        "CompatibleRuntimes": ["python3.12", "python3.13"],
        "CompatibleArchitectures": ["x86_64"],
        "Content": {
            "CodeSha256": base64.b64encode(hashlib.sha256(PACKAGE).digest()).decode(),
            "CodeSize": len(PACKAGE),
        },
    }


def test_what_was_not_said_is_left_out(client):
    assert set(plain(publish(client))) == {
        "LayerArn",
        "LayerVersionArn",
        "Version",
        "Description",
        "CreatedDate",
        "Content",
    }


def test_a_version_is_read_by_name_by_arn_and_by_its_own_arn(client):
    published = plain(publish(client, Description="first"))
    by_name = plain(client.get_layer_version(LayerName="tools", VersionNumber=1))
    by_arn = plain(client.get_layer_version(LayerName=ARN + "tools", VersionNumber=1))
    by_version_arn = plain(client.get_layer_version_by_arn(Arn=ARN + "tools:1"))
    for read in (published, by_name, by_arn, by_version_arn):
        read["Content"].pop("Location")
    assert by_name == by_arn == by_version_arn == published


def test_the_package_is_in_the_code_store(control_plane, client, code):
    publish(client)
    assert control_plane.run(code.package(hashlib.sha256(PACKAGE).hexdigest())) == PACKAGE


def test_a_package_may_come_from_s3(client, bucket):
    content = {"S3Bucket": "shop", "S3Key": "tools.zip", "S3ObjectVersion": "7"}
    response = client.publish_layer_version(LayerName="tools", Content=content)
    assert response["Content"]["CodeSize"] == len(PACKAGE)
    assert bucket.read == [("shop", "tools.zip", "7")]
    with pytest.raises(client.exceptions.InvalidParameterValueException, match="GetObject"):
        client.publish_layer_version(LayerName="tools", Content={"S3Bucket": "shop", "S3Key": "missing"})


@pytest.mark.parametrize("content", [{}, {"ZipFile": b""}, {"ZipFile": b"no zip"}, {"S3Bucket": "shop"}])
def test_a_package_that_is_none_makes_no_version(client, content):
    with pytest.raises(client.exceptions.InvalidParameterValueException):
        client.publish_layer_version(LayerName="tools", Content=content)
    assert layers_of(client) == []
    assert publish(client)["Version"] == 1


def test_numbers_go_up_and_are_never_used_again(client):
    assert [publish(client)["Version"] for _ in range(3)] == [1, 2, 3]
    for number in (3, 1, 2, 2):
        response = client.delete_layer_version(LayerName="tools", VersionNumber=number)
        assert response["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert versions_of(client) == []
    assert layers_of(client) == []
    assert publish(client)["Version"] == 4
    assert publish(client, "other")["Version"] == 1


def test_versions_are_listed_from_the_newest_in_pages(client):
    for number in range(1, 6):
        publish(client, Description=f"v{number}")
    client.delete_layer_version(LayerName="tools", VersionNumber=4)
    assert versions_of(client) == [5, 3, 2, 1]
    assert versions_of(client, ARN + "tools") == [5, 3, 2, 1]
    assert versions_of(client, "nothing") == []
    pages = client.get_paginator("list_layer_versions").paginate(LayerName="tools", PaginationConfig={"PageSize": 2})
    assert [[held["Version"] for held in page["LayerVersions"]] for page in pages] == [[5, 3], [2, 1]]
    (newest, *_) = client.list_layer_versions(LayerName="tools")["LayerVersions"]
    assert newest.pop("CreatedDate")
    assert newest == {"LayerVersionArn": ARN + "tools:5", "Version": 5, "Description": "v5"}
    with pytest.raises(client.exceptions.InvalidParameterValueException):
        client.list_layer_versions(LayerName="tools", Marker="x")


def test_filters_find_what_says_that_it_is_compatible(client):
    publish(client, CompatibleRuntimes=["python3.11"], CompatibleArchitectures=["arm64"])
    publish(client, CompatibleRuntimes=["python3.12"], CompatibleArchitectures=["arm64", "x86_64"])
    publish(client)
    publish(client, "other", CompatibleRuntimes=["python3.12"])
    assert versions_of(client, CompatibleRuntime="python3.12") == [2]
    assert versions_of(client, CompatibleArchitecture="arm64") == [2, 1]
    assert versions_of(client, CompatibleRuntime="python3.11", CompatibleArchitecture="x86_64") == []
    assert layers_of(client) == [("other", 1), ("tools", 3)]
    assert layers_of(client, CompatibleRuntime="python3.12") == [("other", 1), ("tools", 2)]
    assert layers_of(client, CompatibleRuntime="python3.11") == [("tools", 1)]
    assert layers_of(client, CompatibleArchitecture="arm64") == [("tools", 2)]
    assert layers_of(client, CompatibleRuntime="ruby3.3") == []
    with pytest.raises(ClientError, match="Member must satisfy enum value set"):
        client.list_layers(CompatibleRuntime="cobol")


def test_layers_are_listed_by_name_in_pages_that_skip_what_is_gone(client):
    for name in "edcba":
        publish(client, name)
    for name in "bc":
        client.delete_layer_version(LayerName=name, VersionNumber=1)
    pages = client.get_paginator("list_layers").paginate(PaginationConfig={"PageSize": 2})
    assert [[layer["LayerName"] for layer in page["Layers"]] for page in pages] == [["a", "d"], ["e"]]
    assert client.list_layers()["Layers"][0]["LayerArn"] == ARN + "a"


def test_what_is_not_there_is_told_in_the_words_of_aws(client):
    publish(client)
    missing = "ResourceNotFoundException"
    for request in (
        {"LayerName": "tools", "VersionNumber": 2},
        {"LayerName": "nothing", "VersionNumber": 1},
        {"LayerName": ARN.replace("eu-west-1", "us-east-1") + "tools", "VersionNumber": 1},
        {"LayerName": ARN.replace(ACCOUNT, "999999999999") + "tools", "VersionNumber": 1},
        {"LayerName": ARN.replace("arn:aws:", "arn:aws-cn:") + "tools", "VersionNumber": 1},
    ):
        assert refused(client.get_layer_version, missing, 404, **request) == MISSING
    for number in ("2", "9" * 18, "9" * 19, "9" * 1_000):
        assert refused(client.get_layer_version_by_arn, missing, 404, Arn=f"{ARN}tools:{number}") == MISSING
    message = refused(client.get_layer_version_by_arn, missing, 404, Arn="arn:aws:lambda:::awslayer:AmazonLinux1703")
    assert message == MISSING
    below = "Layer Version Cannot be less than 1"
    for call in (client.get_layer_version, client.delete_layer_version):
        assert refused(call, "InvalidParameterValueException", LayerName="tools", VersionNumber=0) == below
    text = f"Layer version {ARN}tools:2 does not exist."
    for call, request in (
        (client.add_layer_version_permission, SHARE),
        (client.get_layer_version_policy, {}),
        (client.remove_layer_version_permission, {"StatementId": "share"}),
    ):
        assert refused(call, missing, 404, LayerName="tools", VersionNumber=2, **request) == text
    with pytest.raises(ClientError, match="Member must satisfy regular expression pattern"):
        client.get_layer_version(LayerName="a.b", VersionNumber=1)


def test_accounts_and_regions_number_their_layers_for_themselves(control_plane, client):
    publish(client)
    for elsewhere in (control_plane.client(account="999999999999"), control_plane.client(region="us-east-1")):
        assert layers_of(elsewhere) == []
        assert publish(elsewhere)["Version"] == 1


@pytest.mark.parametrize("limits", [AccountLimits(total_code_size=2 * len(PACKAGE))])
def test_an_account_has_room_for_so_much(client):
    publish(client)
    publish(client)
    message = refused(
        client.publish_layer_version,
        "CodeStorageExceededException",
        LayerName="tools",
        Content={"ZipFile": PACKAGE},
    )
    assert message == "Code storage limit exceeded."
    client.delete_layer_version(LayerName="tools", VersionNumber=1)
    assert publish(client)["Version"] == 3


@pytest.mark.parametrize("arn", [ARN + "tools:1", ARN + "tools:01", ARN.replace(ACCOUNT, "999999999999") + "tools:1"])
def test_a_version_that_a_function_has_stays_for_it_alone(control_plane, client, arn):
    plane = control_plane
    publish(client)
    publish(client)
    plane.put_function("orders", settings={"Layers": [{"Arn": arn, "CodeSize": 1}]})
    for number in (1, 2):
        client.delete_layer_version(LayerName="tools", VersionNumber=number)
    message = refused(client.get_layer_version, "ResourceNotFoundException", 404, LayerName="tools", VersionNumber=1)
    assert message == MISSING

    assert versions_of(client) == []
    assert layers_of(client) == []

    def kept(records):
        return [version.number for version in records.list(LAYER_VERSIONS, "tools")]

    assert plane.write(kept) == [1]
    plane.write(lambda records: forget_deleted(records))
    assert plane.write(kept) == [1]
    plane.write(lambda records: records.delete(VERSIONS, "orders"))
    plane.write(lambda records: forget_deleted(records))
    assert plane.write(kept) == []


def test_functions_find_their_layers_or_are_told_which_is_not_there(control_plane, client):
    def find(*arns, scope=SCOPE):
        return control_plane.write(lambda records: [held.number for held in find_layers(records, scope, arns)])

    publish(client)
    publish(client)
    assert find(ARN + "tools:2", ARN + "tools:1") == [2, 1]
    assert find() == []
    client.delete_layer_version(LayerName="tools", VersionNumber=2)
    elsewhere = [ARN.replace("eu-west-1", "us-east-1"), ARN.replace("arn:aws:", "arn:aws-cn:")]
    for arn in (ARN + "tools:2", ARN + "tools:9", ARN + "nothing:1", *(base + "tools:1" for base in elsewhere)):
        with pytest.raises(InvalidParameterValue) as caught:
            find(ARN + "tools:1", arn)
        assert caught.value.message == f"Layer version {arn} does not exist."
    foreign = ARN.replace(ACCOUNT, "999999999999") + "tools:1"
    for arn in (foreign, "arn:aws:lambda:::awslayer:AmazonLinux1703"):
        with pytest.raises(RequestRefused, match="not authorized to perform: lambda:GetLayerVersion on resource"):
            find(arn)
    assert find(foreign, scope=RequestScope(ACCOUNT, "eu-west-1", "id")) == [1]


def test_a_layer_is_shared_by_a_statement_in_the_shape_of_aws(client):
    publish(client)
    added = client.add_layer_version_permission(LayerName="tools", VersionNumber=1, **SHARE)
    assert added["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert added["Statement"] == (
        '{"Sid":"share","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::210987654321:root"},'
        f'"Action":"lambda:GetLayerVersion","Resource":"{ARN}tools:1"}}'
    )
    everybody = SHARE | {"StatementId": "all", "Principal": "*", "OrganizationId": "o-abcdefghij"}
    second = client.add_layer_version_permission(LayerName=ARN + "tools", VersionNumber=1, **everybody)
    statement = json.loads(second["Statement"])
    assert statement["Principal"] == "*"
    assert statement["Condition"] == {"StringEquals": {"aws:PrincipalOrgID": "o-abcdefghij"}}
    got = client.get_layer_version_policy(LayerName="tools", VersionNumber=1)
    assert json.loads(got["Policy"]) == {
        "Version": "2012-10-17",
        "Id": "default",
        "Statement": [json.loads(added["Statement"]), statement],
    }
    assert got["RevisionId"] == second["RevisionId"] != added["RevisionId"]


def test_statements_of_a_layer_are_guarded_and_removed(client):
    publish(client)
    where = {"LayerName": "tools", "VersionNumber": 1}
    no_policy = "No policy is associated with the given resource."
    assert refused(client.get_layer_version_policy, "ResourceNotFoundException", 404, **where) == no_policy
    message = refused(
        client.remove_layer_version_permission, "ResourceNotFoundException", 404, **where, StatementId="s"
    )
    assert message == no_policy
    revision = client.add_layer_version_permission(**where, **SHARE)["RevisionId"]
    assert refused(client.add_layer_version_permission, "ResourceConflictException", 409, **where, **SHARE) == (
        "The statement id (share) provided already exists. "
        "Please provide a new statement id, or remove the existing statement."
    )
    stale = (
        "The Revision Id provided does not match the latest Revision Id. "
        "Call the GetLayerPolicy API to retrieve the latest Revision Id"
    )
    for call, request in (
        (client.add_layer_version_permission, SHARE | {"StatementId": "more"}),
        (client.remove_layer_version_permission, {"StatementId": "share"}),
    ):
        assert refused(call, "PreconditionFailedException", 412, **where, **request, RevisionId="old") == stale
    message = refused(
        client.remove_layer_version_permission, "ResourceNotFoundException", 404, **where, StatementId="more"
    )
    assert message == "Statement more is not found in resource policy."
    client.remove_layer_version_permission(**where, StatementId="share", RevisionId=revision)
    assert refused(client.get_layer_version_policy, "ResourceNotFoundException", 404, **where) == no_policy


def test_an_organization_goes_with_everybody_alone(client):
    publish(client)
    with pytest.raises(client.exceptions.InvalidParameterValueException, match="OrganizationId"):
        client.add_layer_version_permission(LayerName="tools", VersionNumber=1, **SHARE, OrganizationId="o-abcdefghij")


def test_a_layers_policy_is_twenty_kilobytes_at_most(client):
    publish(client)

    def share_with(many):
        for number in range(many):
            statement = SHARE | {"StatementId": f"{number:0100}"}
            client.add_layer_version_permission(LayerName="tools", VersionNumber=1, **statement)

    with pytest.raises(client.exceptions.PolicyLengthExceededException, match=r"bigger than the limit \(20480\)"):
        share_with(200)
    got = client.get_layer_version_policy(LayerName="tools", VersionNumber=1)
    assert 20_000 < len(got["Policy"]) <= 20_480
