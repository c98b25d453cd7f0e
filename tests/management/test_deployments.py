"""Functions are made, changed and deleted, with boto3 on a real socket."""

from __future__ import annotations

import hashlib
import threading
import urllib.parse
from dataclasses import replace

import pytest
from botocore.exceptions import ClientError, WaiterError

from serverfull.domain.deployed import FUNCTIONS
from serverfull.domain.functions import Function
from serverfull.domain.kinds import KINDS
from serverfull.domain.permissions import POLICIES, Policy
from serverfull.management.preparation import PreparationFailed
from serverfull.storage.records import SqlRecords
from serverfull.storage.refusing import RefusingState
from tests.management.answers import plain, refused

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:"
CREATED = {
    "FunctionName": "hello",
    "FunctionArn": ARN + "hello",
    "Runtime": "python3.12",
    "Role": "arn:aws:iam::123456789012:role/runner",
    "Handler": "app.handler",
    "Description": "",
    "Timeout": 3,
    "MemorySize": 128,
    "Version": "$LATEST",
    "TracingConfig": {"Mode": "PassThrough"},
    "PackageType": "Zip",
    "Architectures": ["x86_64"],
    "EphemeralStorage": {"Size": 512},
    "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
    "LoggingConfig": {"LogFormat": "Text", "LogGroup": "/aws/lambda/hello"},
}
"""What every answer to the shortest CreateFunction has, whatever the state."""


@pytest.fixture
def client(deploying):
    return deploying.plane.client()


@pytest.fixture
def lax(deploying):
    """A client that sends what boto3 itself would refuse."""
    return deploying.plane.client(parameter_validation=False)


# Create --------------------------------------------------------------------------------------------------------------


def test_a_new_function_is_pending_and_then_active(deploying, client):
    deploying.preparing.hold()
    answer = client.create_function(**deploying.request())
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 201
    created = plain(answer)
    assert created.pop("RuntimeVersionConfig")["RuntimeVersionArn"].startswith("arn:aws:lambda:eu-west-1::runtime:")
    assert len(created.pop("LastModified")) == len("2026-01-01T00:00:00.000+0000")
    first = created.pop("RevisionId")
    assert created == {
        **CREATED,
        "CodeSize": len(deploying.package),
        "CodeSha256": deploying.sha256_of(deploying.package),
        "State": "Pending",
        "StateReason": "The function is being created.",
        "StateReasonCode": "Creating",
    }
    deploying.preparing.release()
    deploying.settle()
    active = plain(client.get_function_configuration(FunctionName="hello"))
    assert (active["State"], active["LastUpdateStatus"]) == ("Active", "Successful")
    assert not {"StateReason", "StateReasonCode", "LastUpdateStatusReason", "LastUpdateStatusReasonCode"} & set(active)
    assert active["RevisionId"] != first
    assert active["LastModified"] == client.get_function_configuration(FunctionName="hello")["LastModified"]


@pytest.mark.parametrize(
    ("waiter", "members"),
    [
        ("function_active", {}),
        ("function_active_v2", {}),
        ("published_version_active", {"Qualifier": "1"}),
        ("function_updated", {}),
        ("function_updated_v2", {}),
    ],
)
def test_waiters_wait_until_the_code_is_prepared(deploying, client, waiter, members):
    config = {"Delay": 0, "MaxAttempts": 1}
    if "updated" in waiter:
        deploying.create(client)
        deploying.preparing.hold()
        client.update_function_code(FunctionName="hello", ZipFile=deploying.other)
    else:
        deploying.preparing.hold()
        client.create_function(**deploying.request(Publish=True))
    with pytest.raises(WaiterError, match="Max attempts exceeded"):
        client.get_waiter(waiter).wait(FunctionName="hello", WaiterConfig=config, **members)
    deploying.preparing.release()
    deploying.settle()
    client.get_waiter(waiter).wait(FunctionName="hello", WaiterConfig=config, **members)


def test_the_waiter_for_existence_ends_with_the_creation(deploying, client):
    client.create_function(**deploying.request())
    client.get_waiter("function_exists").wait(FunctionName="hello", WaiterConfig={"Delay": 0, "MaxAttempts": 1})


def test_a_function_is_made_by_its_arn_too(deploying, client):
    assert client.create_function(**deploying.request(FunctionName=ARN + "hello"))["FunctionArn"] == ARN + "hello"


def test_a_second_function_of_a_name_is_refused_and_costs_nothing(deploying, client):
    deploying.create(client)
    message = refused(
        client.create_function,
        "ResourceConflictException",
        409,
        **deploying.request(Code={"ZipFile": b"whatever this is"}),
    )
    assert message == "Function already exist: hello"


def test_the_same_name_is_another_function_in_another_account_or_region(deploying, client):
    elsewhere = [deploying.plane.client(account="210987654321"), deploying.plane.client(region="us-east-1")]
    deploying.create(client, Description="here")
    for other in elsewhere:
        assert other.list_functions()["Functions"] == []
        deploying.create(other, Description="there")
        assert other.get_function_configuration(FunctionName="hello")["Description"] == "there"
    arns = {each.get_function_configuration(FunctionName="hello")["FunctionArn"] for each in (client, *elsewhere)}
    assert arns == {
        ARN + "hello",
        "arn:aws:lambda:eu-west-1:210987654321:function:hello",
        "arn:aws:lambda:us-east-1:123456789012:function:hello",
    }
    elsewhere[0].delete_function(FunctionName="hello")
    assert client.get_function(FunctionName="hello")["Configuration"]["Description"] == "here"


def test_names_and_arns_that_cannot_be_are_refused(deploying, client):
    create = client.create_function
    message = refused(create, "InvalidParameterValueException", **deploying.request(FunctionName="n" * 65))
    assert message.endswith(
        "at 'functionName' failed to satisfy constraint: Member must have length less than or equal to 64"
    )
    assert "length less than or equal to 140" in refused(
        create, "ValidationException", **deploying.request(FunctionName="n" * 141)
    )
    assert "regular expression" in refused(create, "ValidationException", **deploying.request(FunctionName="a.b"))
    arn = "arn:aws:lambda:us-east-1:123456789012:function:hello"
    message = refused(create, "ResourceNotFoundException", 404, **deploying.request(FunctionName=arn))
    assert message == "Functions from 'us-east-1' are not reachable in this region ('eu-west-1')"
    arn = "arn:aws:lambda:eu-west-1:210987654321:function:hello"
    refused(create, "ResourceNotFoundException", 404, **deploying.request(FunctionName=arn))
    refused(create, "InvalidParameterValueException", **deploying.request(FunctionName="hello:1"))
    assert deploying.create(client, FunctionName="n" * 64)["FunctionName"] == "n" * 64


def test_a_function_of_the_operators_own_cannot_be_written(deploying, client):
    deploying.plane.registered["hello"] = Function(lambda event, context: event)
    for call, members in (
        (client.create_function, deploying.request()),
        (client.update_function_code, {"FunctionName": "hello", "ZipFile": deploying.other}),
        (client.update_function_configuration, {"FunctionName": "hello", "Timeout": 9}),
        (client.delete_function, {"FunctionName": "hello"}),
        (client.publish_version, {"FunctionName": "hello"}),
        (client.create_alias, {"FunctionName": "hello", "Name": "live", "FunctionVersion": "$LATEST"}),
    ):
        assert "static fetcher" in refused(call, "ResourceConflictException", 409, **members)
    assert client.list_aliases(FunctionName="hello")["Aliases"] == []
    [only] = client.list_versions_by_function(FunctionName="hello")["Versions"]
    assert only["FunctionArn"] == ARN + "hello:$LATEST"


def test_everybody_who_listens_hears_of_every_change(deploying, client):
    def heard():
        names, deploying.plane.published[:] = [change.name for change in deploying.plane.published], []
        assert set(names) == {"hello"}
        return len(names)

    deploying.create(client)
    assert heard() == 2  # made, and active
    client.update_function_configuration(FunctionName="hello", Timeout=9)
    deploying.settle()
    assert heard() == 2
    client.publish_version(FunctionName="hello")
    client.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    client.update_alias(FunctionName="hello", Name="live", Description="it")
    client.delete_alias(FunctionName="hello", Name="live")
    client.delete_function(FunctionName="hello", Qualifier="1")
    client.delete_function(FunctionName="hello")
    deploying.settle()
    assert heard() == 6


# Code ----------------------------------------------------------------------------------------------------------------


def test_code_comes_from_s3(deploying, client):
    deploying.objects["bucket", "app.zip", None] = deploying.package
    deploying.objects["bucket", "app.zip", "v7"] = deploying.other
    created = deploying.create(client, Code={"S3Bucket": "bucket", "S3Key": "app.zip"})
    assert created["CodeSha256"] == deploying.sha256_of(deploying.package)
    updated = client.update_function_code(
        FunctionName="hello", S3Bucket="bucket", S3Key="app.zip", S3ObjectVersion="v7"
    )
    assert updated["CodeSha256"] == deploying.sha256_of(deploying.other)
    message = refused(
        client.create_function,
        "InvalidParameterValueException",
        **deploying.request(FunctionName="more", Code={"S3Bucket": "bucket", "S3Key": "no"}),
    )
    assert message.startswith("Error occurred while GetObject. S3 Error Code: NoSuchKey.")


def test_a_host_that_cannot_read_s3_says_what_is_missing(deploying, client):
    deploying.packages._fetch_object = None
    message = refused(
        client.create_function,
        "InvalidParameterValueException",
        **deploying.request(Code={"S3Bucket": "bucket", "S3Key": "app.zip"}),
    )
    assert "pip install 'serverfull[s3]'" in message


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ({}, "Please provide a source for function code."),
        ({"S3Bucket": "bucket"}, "Please provide a source for function code."),
        (
            {"ZipFile": b"x", "S3Bucket": "bucket", "S3Key": "key"},
            "Please do not provide other FunctionCode parameters when providing a ZipFile.",
        ),
        ({"ImageUri": "image:1"}, "Please don't provide ImageUri when updating a function with packageType Zip."),
        ({"ZipFile": b""}, "Uploaded file must be a non-empty zip"),
        (
            {"ZipFile": b"no zip"},
            "Could not unzip uploaded file. Please check your file, then try to upload again.",
        ),
    ],
)
def test_code_that_cannot_be_used_is_refused(deploying, client, code, message):
    assert refused(client.create_function, "InvalidParameterValueException", **deploying.request(Code=code)) == message
    deploying.create(client)
    if code:
        assert (
            refused(client.update_function_code, "InvalidParameterValueException", FunctionName="hello", **code)
            == message
        )
    assert client.get_function_configuration(FunctionName="hello")["CodeSize"] == len(deploying.package)


@pytest.mark.slow
def test_a_package_in_the_request_has_a_limit(deploying, client):
    most = 52_428_800
    message = refused(
        client.create_function,
        "RequestEntityTooLargeException",
        413,
        **deploying.request(Code={"ZipFile": b"\0" * (most + 1)}),
    )
    assert message == "Zipped size must be smaller than 52428800 bytes"


def test_other_code_is_in_progress_until_it_is_prepared(deploying, client):
    before = deploying.create(client)
    deploying.preparing.hold()
    updated = client.update_function_code(FunctionName="hello", ZipFile=deploying.other, Architectures=["arm64"])
    assert (updated["State"], updated["LastUpdateStatus"]) == ("Active", "InProgress")
    assert updated["LastUpdateStatusReasonCode"] == "Creating"
    assert (updated["CodeSha256"], updated["CodeSize"]) == (deploying.sha256_of(deploying.other), len(deploying.other))
    assert updated["Architectures"] == ["arm64"]
    assert updated["RevisionId"] != before["RevisionId"]
    deploying.preparing.release()
    deploying.settle()
    assert client.get_function_configuration(FunctionName="hello")["LastUpdateStatus"] == "Successful"


def test_a_dry_run_tells_what_would_be_and_changes_nothing(deploying, client):
    deploying.create(client)
    before = plain(client.get_function_configuration(FunctionName="hello"))
    dry = client.update_function_code(FunctionName="hello", ZipFile=deploying.other, DryRun=True)
    assert dry["CodeSha256"] == deploying.sha256_of(deploying.other)
    assert plain(client.get_function_configuration(FunctionName="hello")) == before
    assert "unzip" in refused(
        client.update_function_code, "InvalidParameterValueException", FunctionName="hello", ZipFile=b"x", DryRun=True
    )
    assert not is_kept(deploying, deploying.other)
    assert is_kept(deploying, deploying.package)


def _sha256_hex(package):
    return hashlib.sha256(package).hexdigest()


def is_kept(deploying, package):
    try:
        return deploying.plane.run(deploying.code.package(_sha256_hex(package))) == package
    except KeyError:
        return False


def test_a_host_that_takes_no_deployments_keeps_no_code(deploying, client):
    deploying.deployments._state = RefusingState(deploying.plane.state, "it is a test.")
    message = refused(client.create_function, "ResourceConflictException", 409, **deploying.request())
    assert message == "This host takes no deployments: it is a test."
    assert not is_kept(deploying, deploying.package)


def test_code_for_a_configuration_that_is_refused_is_not_kept(deploying, client):
    refused(client.create_function, "InvalidParameterValueException", **deploying.request(Runtime="python3.7"))
    assert not is_kept(deploying, deploying.package)


def test_a_failed_update_leaves_the_function_active_and_says_why(deploying, client):
    deploying.create(client)
    deploying.preparing.failure = PreparationFailed("It has no handler.", "InvalidConfiguration")
    client.update_function_code(FunctionName="hello", ZipFile=deploying.other)
    deploying.settle()
    failed = client.get_function_configuration(FunctionName="hello")
    assert (failed["State"], failed["LastUpdateStatus"]) == ("Active", "Failed")
    assert (failed["LastUpdateStatusReason"], failed["LastUpdateStatusReasonCode"]) == (
        "It has no handler.",
        "InvalidConfiguration",
    )
    deploying.preparing.failure = None
    client.update_function_code(FunctionName="hello", ZipFile=deploying.package)
    deploying.settle()
    repaired = client.get_function_configuration(FunctionName="hello")
    assert repaired["LastUpdateStatus"] == "Successful"
    assert "LastUpdateStatusReason" not in repaired


def test_a_failure_of_the_host_is_no_fault_of_the_code_and_is_logged(deploying, client):
    deploying.preparing.failure = OSError("disk on fire")
    client.create_function(**deploying.request())
    deploying.settle()
    failed = client.get_function_configuration(FunctionName="hello")
    assert (failed["State"], failed["StateReasonCode"]) == ("Failed", "InternalError")
    assert "fire" not in failed["StateReason"]
    [(_, event, fields)] = deploying.plane.log.lines
    deploying.plane.log.lines.clear()
    assert (event, str(fields["exc_info"])) == ("preparing code failed", "disk on fire")


def test_a_failed_function_is_repaired_by_an_update(deploying, client):
    deploying.preparing.failure = PreparationFailed("no", "InvalidZipFileException")
    deploying.create(client)
    failed = client.get_function_configuration(FunctionName="hello")
    assert (failed["State"], failed["LastUpdateStatus"]) == ("Failed", "Failed")
    deploying.preparing.failure = None
    client.update_function_code(FunctionName="hello", ZipFile=deploying.other)
    deploying.settle()
    repaired = client.get_function_configuration(FunctionName="hello")
    assert (repaired["State"], repaired["LastUpdateStatus"]) == ("Active", "Successful")
    assert "StateReason" not in repaired


def test_what_a_host_did_not_get_to_the_next_one_finds(deploying, client):
    deploying.create(client, FunctionName="updated")
    deploying.preparing.hold()
    client.create_function(**deploying.request(Publish=True))
    client.update_function_code(FunctionName="updated", ZipFile=deploying.other)
    deploying.plane.run(deploying.preparations.aclose())
    deploying.preparing.release()
    assert client.get_function_configuration(FunctionName="hello")["State"] == "Pending"
    begun = len(deploying.preparing.begun)
    deploying.preparations = deploying.make_preparations()
    deploying.plane.run(deploying.preparations.resume())
    deploying.settle()
    for qualifier in ("$LATEST", "1"):
        found = client.get_function_configuration(FunctionName="hello", Qualifier=qualifier)
        assert found["State"] == "Active"
    assert client.get_function_configuration(FunctionName="updated")["LastUpdateStatus"] == "Successful"
    deploying.plane.run(deploying.preparations.resume())
    deploying.settle()
    assert len(deploying.preparing.begun) == begun + 3, "what is done is not done again"


def test_a_preparation_that_comes_too_late_changes_nothing(deploying, client):
    deploying.preparing.hold()
    client.create_function(**deploying.request(Description="first"))
    client.delete_function(FunctionName="hello")
    second = client.create_function(**deploying.request(Description="second"))
    deploying.preparing.failure = PreparationFailed("of the first", "InternalError")
    deploying.preparing.fails = lambda version: version.description == "first"
    deploying.preparing.holds = lambda version: version.description == "second"
    deploying.settle(left=1)
    assert client.get_function_configuration(FunctionName="hello")["RevisionId"] == second["RevisionId"]
    deploying.preparing.release()
    deploying.settle()
    found = client.get_function_configuration(FunctionName="hello")
    assert (found["State"], found["Description"]) == ("Active", "second")
    assert found["RevisionId"] != second["RevisionId"]


# Guards --------------------------------------------------------------------------------------------------------------


def test_nothing_is_changed_while_a_function_is_being_made_or_changed(deploying, client):
    calls = [
        (client.update_function_code, {"FunctionName": "hello", "ZipFile": deploying.other}),
        (client.update_function_configuration, {"FunctionName": "hello", "Timeout": 9}),
        (client.publish_version, {"FunctionName": "hello"}),
    ]
    deploying.preparing.hold()
    client.create_function(**deploying.request())
    for call, members in calls:
        assert refused(call, "ResourceConflictException", 409, **members) == (
            "The operation cannot be performed at this time. The function is currently in the following state: Pending"
        )
    deploying.preparing.release()
    deploying.settle()
    deploying.preparing.hold()
    client.update_function_configuration(FunctionName="hello", Timeout=5)
    for call, members in calls:
        assert refused(call, "ResourceConflictException", 409, **members) == (
            f"The operation cannot be performed at this time. An update is in progress for resource: {ARN}hello"
        )


@pytest.mark.parametrize("qualifier", ["1", "live"])
def test_only_the_latest_is_changed(deploying, client, qualifier):
    deploying.create(client, Publish=True)
    client.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    calls = [
        (client.update_function_code, {"ZipFile": deploying.other}),
        (client.update_function_configuration, {"Timeout": 9}),
        (client.publish_version, {}),
    ]
    for call, members in calls:
        message = refused(call, "InvalidParameterValueException", FunctionName=f"hello:{qualifier}", **members)
        assert message == "Current operation does not support versions other than $LATEST."
        call(FunctionName="hello:$LATEST", **members)
        deploying.settle()


def test_a_revision_that_is_not_the_latest_is_refused(deploying, client):
    deploying.create(client)
    revision = client.get_function_configuration(FunctionName="hello")["RevisionId"]
    calls = [
        (client.update_function_configuration, {"Timeout": 9}),
        (client.update_function_code, {"ZipFile": deploying.other}),
    ]
    for call, members in calls:
        message = refused(call, "PreconditionFailedException", 412, FunctionName="hello", RevisionId="1", **members)
        assert message == (
            "The Revision Id provided does not match the latest Revision Id. "
            "Call the GetFunction/GetAlias API to retrieve the latest Revision Id"
        )
        call(FunctionName="hello", RevisionId=revision, **members)
        deploying.settle()
        revision = client.get_function_configuration(FunctionName="hello")["RevisionId"]


def test_of_two_updates_at_once_one_wins(deploying, client):
    deploying.create(client)
    revision = client.get_function_configuration(FunctionName="hello")["RevisionId"]
    deploying.preparing.hold()
    start, codes = threading.Barrier(4), []

    def update(number):
        other = clients[number]
        start.wait()
        try:
            other.update_function_code(
                FunctionName="hello", ZipFile=deploying.zipped(app=f"#{number}"), RevisionId=revision
            )
        except ClientError as error:
            codes.append(error.response["ResponseMetadata"]["HTTPStatusCode"])
        else:
            codes.append(200)

    clients = [deploying.plane.client() for _ in range(4)]
    threads = [threading.Thread(target=update, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert codes.count(200) == 1
    assert set(codes) <= {200, 409, 412}
    assert len(codes) == 4


@pytest.mark.parametrize(
    ("operation", "members"),
    [
        ("get_function", {}),
        ("get_function_configuration", {}),
        ("update_function_code", {"ZipFile": b"x"}),
        ("update_function_configuration", {"Timeout": 3}),
        ("delete_function", {}),
        ("publish_version", {}),
        ("list_versions_by_function", {}),
        ("list_aliases", {}),
        ("delete_alias", {"Name": "live"}),
        ("get_alias", {"Name": "live"}),
        ("update_alias", {"Name": "live"}),
    ],
)
def test_an_unknown_function_is_told_by_its_arn(client, operation, members):
    call = getattr(client, operation)
    message = refused(call, "ResourceNotFoundException", 404, FunctionName="nobody", **members)
    assert message == f"Function not found: {ARN}nobody"


# Delete --------------------------------------------------------------------------------------------------------------


def test_a_deleted_function_leaves_nothing(deploying, client):
    deploying.create(client, Publish=True)
    client.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    policy = Policy(function="hello", qualifier="live", content={})
    deploying.plane.write(lambda records: records.insert(POLICIES, policy))
    answer = client.delete_function(FunctionName="hello")
    assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["StatusCode"]) == (204, 204)
    left = deploying.plane.write(lambda records: {kind.name: records.count(kind) for kind in KINDS})
    assert set(left.values()) == {0}, left
    refused(client.get_function, "ResourceNotFoundException", 404, FunctionName="hello")
    assert deploying.create(client, Publish=True)["Version"] == "1"


def test_one_version_is_deleted_by_its_number(deploying, client):
    deploying.create(client, Publish=True)
    client.update_function_configuration(FunctionName="hello", Timeout=9)
    deploying.settle()
    client.publish_version(FunctionName="hello")
    client.delete_function(FunctionName="hello", Qualifier="1")
    versions = client.list_versions_by_function(FunctionName="hello")["Versions"]
    assert [version["Version"] for version in versions] == ["$LATEST", "2"]
    client.delete_function(FunctionName="hello", Qualifier="99")  # as on AWS: nothing is there, and nothing is wrong
    client.delete_function(FunctionName="hello:2")
    client.publish_version(FunctionName="hello")
    versions = client.list_versions_by_function(FunctionName="hello")["Versions"]
    assert [version["Version"] for version in versions] == ["$LATEST", "3"], "a number is never used again"


def test_what_is_no_version_of_its_own_is_not_deleted(deploying, client):
    deploying.create(client, Publish=True)
    client.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    call = client.delete_function
    assert refused(call, "InvalidParameterValueException", FunctionName="hello", Qualifier="$LATEST") == (
        "$LATEST version cannot be deleted without deleting the function."
    )
    assert refused(call, "InvalidParameterValueException", FunctionName="hello", Qualifier="live") == (
        "Deletion of aliases is not currently supported."
    )
    assert refused(call, "ResourceConflictException", 409, FunctionName="hello", Qualifier="1") == (
        "Unable to delete version because the following aliases reference it: [live]"
    )


def test_a_version_that_gets_a_share_of_an_alias_is_not_deleted(deploying, client):
    deploying.create(client, Publish=True)
    client.update_function_configuration(FunctionName="hello", Timeout=9)
    deploying.settle()
    client.publish_version(FunctionName="hello")
    for name in ("a", "b"):
        client.create_alias(
            FunctionName="hello",
            Name=name,
            FunctionVersion="1",
            RoutingConfig={"AdditionalVersionWeights": {"2": 0.5}},
        )
    assert refused(
        client.delete_function, "ResourceConflictException", 409, FunctionName="hello", Qualifier="2"
    ).endswith("reference it: [a, b]")


# Get and list --------------------------------------------------------------------------------------------------------


def test_get_function_tells_where_the_code_is_and_what_belongs_to_it(deploying, client):
    kms = "arn:aws:kms:eu-west-1:123456789012:key/1"
    deploying.create(client, Tags={"team": "shop"}, Code={"ZipFile": deploying.package, "SourceKMSKeyArn": kms})
    deploying.plane.write(
        lambda records: records.replace(FUNCTIONS, replace(records.get(FUNCTIONS, "hello"), reserved_concurrency=0))
    )
    got = plain(client.get_function(FunctionName="hello"))
    assert got["Configuration"] == plain(client.get_function_configuration(FunctionName="hello"))
    assert (got["Tags"], got["Concurrency"]) == ({"team": "shop"}, {"ReservedConcurrentExecutions": 0})
    location = urllib.parse.urlsplit(got["Code"].pop("Location"))
    assert got["Code"] == {"RepositoryType": "S3", "SourceKMSKeyArn": kms}
    assert _sha256_hex(deploying.package) in location.path
    assert "Tags" not in got["Configuration"]


def test_what_a_function_has_not_is_left_out(deploying, client):
    deploying.create(client)
    assert set(plain(client.get_function(FunctionName="hello"))) == {"Configuration", "Code"}


def test_a_qualifier_chooses_the_version_and_qualifies_the_arn(deploying, client):
    deploying.create(client, Publish=True, Description="first")
    client.update_function_configuration(FunctionName="hello", Description="second")
    deploying.settle()
    client.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    expected = {"$LATEST": ("second", "$LATEST"), "1": ("first", "1"), "live": ("first", "1")}
    for qualifier, (description, version) in expected.items():
        for name, members in (("hello", {"Qualifier": qualifier}), (f"{ARN}hello:{qualifier}", {})):
            got = client.get_function(FunctionName=name, **members)["Configuration"]
            assert (got["Description"], got["Version"]) == (description, version)
            assert got["FunctionArn"] == f"{ARN}hello:{qualifier}"
            assert got == plain(client.get_function_configuration(FunctionName=name, **members))
    for qualifier in ("2", "0", "007", "99999999999999999999", "nobody"):
        message = refused(
            client.get_function, "ResourceNotFoundException", 404, FunctionName="hello", Qualifier=qualifier
        )
        assert message == f"Function not found: {ARN}hello:{qualifier}"


def test_deployed_functions_are_listed_among_the_operators_own(deploying, client):
    for name in ("a", "c", "d"):
        deploying.create(client, FunctionName=name)
    for name in ("b", "c", "e"):
        deploying.plane.registered[name] = Function(lambda event, context: event, description="own")
    listed = client.list_functions()["Functions"]
    assert [(each["FunctionName"], each["Description"]) for each in listed] == [
        ("a", ""),
        ("b", "own"),
        ("c", "own"),
        ("d", ""),
        ("e", "own"),
    ]
    assert client.get_function(FunctionName="c")["Configuration"]["Description"] == "own"
    pages = client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2})
    assert [each["FunctionName"] for page in pages for each in page["Functions"]] == ["a", "b", "c", "d", "e"]


def test_every_version_is_listed_where_all_are_asked_for(deploying, client):
    for name in ("a", "c"):
        deploying.create(client, FunctionName=name, Publish=True)
    deploying.plane.registered["b"] = Function(lambda event, context: event)
    pages = client.get_paginator("list_functions").paginate(FunctionVersion="ALL", PaginationConfig={"PageSize": 2})
    assert [each["FunctionArn"].removeprefix(ARN) for page in pages for each in page["Functions"]] == [
        "a:$LATEST",
        "a:1",
        "b:$LATEST",
        "c:$LATEST",
        "c:1",
    ]


def test_pages_are_of_fifty_and_leave_out_what_aws_leaves_out(deploying, client):
    for number in range(120):
        deploying.plane.put_function(f"f{number:03}")
    pages = [page["Functions"] for page in client.get_paginator("list_functions").paginate()]
    assert [len(page) for page in pages] == [50, 50, 20]
    assert [each["FunctionName"] for page in pages for each in page] == [f"f{number:03}" for number in range(120)]
    left_out = {"State", "StateReason", "LastUpdateStatus", "RuntimeVersionConfig"}
    assert not left_out & set(pages[0][0])


def test_a_page_reads_as_much_among_many_functions_as_among_few(deploying, client, monkeypatch):
    read = []
    original = SqlRecords.list

    def counting(self, kind, *prefix, **narrowed):
        found = original(self, kind, *prefix, **narrowed)
        read.append(len(found))
        return found

    for number in range(60):
        deploying.plane.put_function(f"f{number:03}")
    monkeypatch.setattr(SqlRecords, "list", counting)
    client.list_functions()
    few, read[:] = list(read), []
    for number in range(60, 400):
        deploying.plane.put_function(f"f{number:03}")
    client.list_functions()
    assert read == few
