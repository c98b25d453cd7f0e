"""Reserved and provisioned concurrency, driven with boto3."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from serverfull.domain.changes import FunctionChanged
from serverfull.domain.concurrency import AccountLimits
from serverfull.domain.deployed import ALIASES, FUNCTIONS, Alias
from serverfull.domain.functions import Function
from serverfull.domain.readiness import Readiness
from serverfull.domain.records import Partition
from serverfull.management.concurrency import Concurrency
from tests.management.answers import refused

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:"
INVALID = "InvalidParameterValueException"
MISSING = "ResourceNotFoundException"
QUALIFIED = (
    "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. "
    "Please specify either a function name or an unqualified function ARN."
)
TOO_FEW_LEFT = (
    "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its "
    "minimum value of [100]."
)


READINESS = {"1": Readiness(5, 3), "2": Readiness(4, 0, "The disk is full"), "live": Readiness(3, 3)}


def readiness(partition, config):
    """Stand in for who makes environments ready."""
    return READINESS.get(config.qualifier, Readiness(config.requested))


def serve(plane, limits):
    concurrency = Concurrency(plane.state, plane.resolver, plane.changes, limits=limits, readiness=readiness)
    plane.serve(concurrency.operations())


@pytest.fixture
def plane(control_plane):
    plane = control_plane
    limits = AccountLimits()
    plane.serve(
        Concurrency(plane.state, plane.resolver, plane.changes, limits=limits, readiness=readiness).operations()
    )
    plane.put_function("orders", 1, 2)
    plane.put_function("mails", 1)
    plane.put_alias("orders", "live")
    return plane


def reserve(client, executions, name="orders"):
    return client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=executions)


def reserved(client, name="orders"):
    return client.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions")


def provision(client, qualifier, executions=1, name="orders"):
    return client.put_provisioned_concurrency_config(
        FunctionName=name, Qualifier=qualifier, ProvisionedConcurrentExecutions=executions
    )


def provisioned(client, qualifier):
    answer = client.get_provisioned_concurrency_config(FunctionName="orders", Qualifier=qualifier)
    return answer["RequestedProvisionedConcurrentExecutions"]


def test_a_reservation_is_put_read_and_deleted(plane, client):
    assert reserved(client) is None
    assert reserve(client, 0)["ReservedConcurrentExecutions"] == 0
    assert reserved(client) == 0
    assert reserve(client, 7, ARN + "orders")["ReservedConcurrentExecutions"] == 7
    assert reserved(client) == 7
    assert plane.write(lambda records: records.get(FUNCTIONS, "orders").reserved_concurrency) == 7
    for _ in range(2):
        response = client.delete_function_concurrency(FunctionName="orders")
        assert response["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert reserved(client) is None


def test_those_who_enforce_limits_are_told_after_a_change_and_of_changes_alone(plane, client):
    change = FunctionChanged(Partition("123456789012", "eu-west-1"), "orders")
    reserve(client, 7)
    client.delete_function_concurrency(FunctionName="orders")
    provision(client, "1")
    client.delete_provisioned_concurrency_config(FunctionName="orders", Qualifier="1")
    assert plane.published == [change] * 4
    with pytest.raises(client.exceptions.InvalidParameterValueException):
        reserve(client, 901)
    assert len(plane.published) == 4


def test_a_hundred_executions_are_left_to_the_other_functions(client):
    reserve(client, 900)
    message = refused(client.put_function_concurrency, INVALID, FunctionName="mails", ReservedConcurrentExecutions=1)
    assert message == TOO_FEW_LEFT
    reserve(client, 0, "mails")
    reserve(client, 600)
    reserve(client, 300, "mails")
    message = refused(client.put_function_concurrency, INVALID, FunctionName="orders", ReservedConcurrentExecutions=601)
    assert message == TOO_FEW_LEFT
    assert reserved(client) == 600
    client.delete_function_concurrency(FunctionName="mails")
    reserve(client, 900)


def test_the_limits_are_the_hosts_to_set(control_plane):
    plane = control_plane
    limits = AccountLimits(concurrent_executions=10, minimum_unreserved=4)
    serve(plane, limits)
    plane.put_function("orders")
    client = plane.client()
    reserve(client, 6)
    with pytest.raises(client.exceptions.InvalidParameterValueException, match=r"minimum value of \[4\]"):
        reserve(client, 7)


def test_a_reservation_can_always_shrink(plane, client):
    def overcommit(records):
        for name in ("orders", "mails"):
            function = records.get(FUNCTIONS, name)
            records.replace(FUNCTIONS, type(function)(name=name, reserved_concurrency=800))

    plane.write(overcommit)
    reserve(client, 799)
    with pytest.raises(client.exceptions.InvalidParameterValueException):
        reserve(client, 800)


def test_reservations_of_other_accounts_and_regions_take_nothing(plane, client):
    reserve(client, 900)
    plane.put_function("orders", partition=Partition("123456789012", "us-east-1"))
    reserve(plane.client(region="us-east-1"), 900)


def test_a_reservation_is_the_functions_as_a_whole(client):
    for call, request in (
        (client.put_function_concurrency, {"ReservedConcurrentExecutions": 1}),
        (client.get_function_concurrency, {}),
        (client.delete_function_concurrency, {}),
    ):
        assert refused(call, INVALID, FunctionName=ARN + "orders:1", **request) == QUALIFIED


def test_reservations_of_functions_that_are_missing(client):
    message = refused(
        client.put_function_concurrency, MISSING, 404, FunctionName="nobody", ReservedConcurrentExecutions=1
    )
    assert message == f"Function not found: {ARN}nobody:$LATEST"
    for call in (client.get_function_concurrency, client.delete_function_concurrency):
        assert refused(call, MISSING, 404, FunctionName="nobody") == f"Function not found: {ARN}nobody"


def test_what_the_model_says_is_checked(client):
    with pytest.raises(ClientError, match="greater than or equal to 0"):
        reserve(client, -1)
    assert refused(
        client.put_provisioned_concurrency_config,
        "ValidationException",
        FunctionName="orders",
        Qualifier="1",
        ProvisionedConcurrentExecutions=0,
    ) == (
        "1 validation error detected: Value '0' at 'provisionedConcurrentExecutions' failed to satisfy constraint: "
        "Member must have value greater than or equal to 1"
    )


def test_functions_of_the_operator_show_their_limit_and_take_none(plane, client):
    plane.registered["static"] = Function(len, max_concurrency=3)
    plane.registered["free"] = Function(len)
    assert reserved(client, "static") == 3
    assert reserved(client, "free") is None
    listed = client.list_provisioned_concurrency_configs(FunctionName="static")
    assert listed["ProvisionedConcurrencyConfigs"] == []
    for call, request in (
        (client.put_function_concurrency, {"ReservedConcurrentExecutions": 1}),
        (client.delete_function_concurrency, {}),
        (client.put_provisioned_concurrency_config, {"Qualifier": "1", "ProvisionedConcurrentExecutions": 1}),
        (client.delete_provisioned_concurrency_config, {"Qualifier": "1"}),
    ):
        with pytest.raises(client.exceptions.ResourceConflictException, match="which the API cannot write"):
            call(FunctionName="static", **request)


def test_provisioned_concurrency_is_in_progress_until_who_makes_it_ready_says_so(client):
    put = provision(client, "1", 5)
    got = client.get_provisioned_concurrency_config(FunctionName="orders", Qualifier="1")
    assert put["ResponseMetadata"]["HTTPStatusCode"] == 202
    (listed,) = client.list_provisioned_concurrency_configs(FunctionName="orders")["ProvisionedConcurrencyConfigs"]
    assert listed.pop("FunctionArn") == ARN + "orders:1"
    for answer in (put, got):
        del answer["ResponseMetadata"]
        assert answer == listed
    assert listed.pop("LastModified").endswith("+0000")
    assert listed == {
        "RequestedProvisionedConcurrentExecutions": 5,
        "AvailableProvisionedConcurrentExecutions": 3,
        "AllocatedProvisionedConcurrentExecutions": 3,
        "Status": "IN_PROGRESS",
    }
    assert provision(client, "2", 4)["Status"] == "IN_PROGRESS"
    failed = client.get_provisioned_concurrency_config(FunctionName="orders", Qualifier="2")
    assert (failed["Status"], failed["StatusReason"]) == ("FAILED", "The disk is full")


def test_a_second_put_replaces_the_first(client):
    provision(client, "live", 5)
    provision(client, "live", 3)
    assert provisioned(client, "live") == 3
    client.delete_provisioned_concurrency_config(FunctionName="orders", Qualifier="live")
    message = refused(
        client.get_provisioned_concurrency_config,
        "ProvisionedConcurrencyConfigNotFoundException",
        404,
        FunctionName="orders",
        Qualifier="live",
    )
    assert message == "No Provisioned Concurrency Config found for this function"
    client.delete_provisioned_concurrency_config(FunctionName="orders", Qualifier="live")


def test_latest_cannot_be_provisioned(plane, client):
    unpublished = "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
    published = "The function resource provided must be an alias or a published version."
    put = {"ProvisionedConcurrentExecutions": 1}
    for call, text, request in (
        (client.put_provisioned_concurrency_config, unpublished, put),
        (client.get_provisioned_concurrency_config, published, {}),
        (client.delete_provisioned_concurrency_config, published, {}),
    ):
        assert refused(call, INVALID, FunctionName="orders", Qualifier="$LATEST", **request) == text
    plane.put_alias("orders", "edge", "$LATEST")
    message = refused(
        client.put_provisioned_concurrency_config, INVALID, FunctionName="orders", Qualifier="edge", **put
    )
    assert message == unpublished


def test_an_alias_with_weights_cannot_be_provisioned(plane, client):
    shared = Alias(function="orders", name="shared", version="1", weights={"2": 0.1}, revision_id="")
    plane.write(lambda records: records.insert(ALIASES, shared))
    message = refused(
        client.put_provisioned_concurrency_config,
        INVALID,
        FunctionName="orders",
        Qualifier="shared",
        ProvisionedConcurrentExecutions=1,
    )
    assert message == "Alias with weights can not be used with Provisioned Concurrency"


def test_versions_and_aliases_that_are_missing(client):
    for call, request in (
        (client.put_provisioned_concurrency_config, {"ProvisionedConcurrentExecutions": 1}),
        (client.get_provisioned_concurrency_config, {}),
        (client.delete_provisioned_concurrency_config, {}),
    ):
        for name, qualifier, text in (
            ("orders", "10", f"Function not found: {ARN}orders:10"),
            ("orders", "0", f"Function not found: {ARN}orders:0"),
            ("orders", "9" * 100, f"Function not found: {ARN}orders:{'9' * 100}"),
            ("nobody", "1", f"Function not found: {ARN}nobody:1"),
            ("orders", "beta", f"Cannot find alias arn: {ARN}orders:beta"),
            ("nobody", "beta", f"Cannot find alias arn: {ARN}nobody:beta"),
        ):
            assert refused(call, MISSING, 404, FunctionName=name, Qualifier=qualifier, **request) == text
    message = refused(client.list_provisioned_concurrency_configs, MISSING, 404, FunctionName="nobody")
    assert message == f"Function not found: {ARN}nobody"


def test_an_alias_and_its_version_are_not_both_provisioned(client):
    provision(client, "1")
    message = refused(
        client.put_provisioned_concurrency_config,
        "ResourceConflictException",
        409,
        FunctionName="orders",
        Qualifier="live",
        ProvisionedConcurrentExecutions=1,
    )
    assert message == "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"
    client.delete_provisioned_concurrency_config(FunctionName="orders", Qualifier="1")
    provision(client, "live")
    message = refused(
        client.put_provisioned_concurrency_config,
        "ResourceConflictException",
        409,
        FunctionName="orders",
        Qualifier="1",
        ProvisionedConcurrentExecutions=1,
    )
    assert message == "Version is pointed by a Provisioned Concurrency alias"
    provision(client, "2")


def test_provisioned_and_reserved_concurrency_fit_together(client):
    reserve(client, 5)
    provision(client, "1", 3)
    message = refused(
        client.put_provisioned_concurrency_config,
        INVALID,
        FunctionName="orders",
        Qualifier="2",
        ProvisionedConcurrentExecutions=3,
    )
    assert (
        message
        == "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function"
    )
    provision(client, "2", 2)
    message = refused(client.put_function_concurrency, INVALID, FunctionName="orders", ReservedConcurrentExecutions=4)
    assert (
        message
        == " ReservedConcurrentExecutions  4 should not be lower than function's total provisioned concurrency [5]."
    )


def test_provisioned_concurrency_comes_out_of_what_is_not_reserved(client):
    message = refused(
        client.put_provisioned_concurrency_config,
        INVALID,
        FunctionName="orders",
        Qualifier="1",
        ProvisionedConcurrentExecutions=1001,
    )
    assert (
        message
        == "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency [1000]."
    )
    provision(client, "1", 500)
    assert refused(
        client.put_provisioned_concurrency_config,
        INVALID,
        FunctionName="orders",
        Qualifier="2",
        ProvisionedConcurrentExecutions=401,
    ) == (
        "Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its "
        "minimum value of [100]."
    )
    message = refused(client.put_function_concurrency, INVALID, FunctionName="mails", ReservedConcurrentExecutions=401)
    assert message == TOO_FEW_LEFT
    reserve(client, 400, "mails")
    reserve(client, 500)


def test_lists_come_in_pages_and_are_the_functions_own(plane, client):
    provision(client, "1", name="mails")
    provision(client, "live")
    provision(client, "2")
    pages = client.get_paginator("list_provisioned_concurrency_configs").paginate(
        FunctionName="orders", PaginationConfig={"PageSize": 1}
    )
    arns = [[config["FunctionArn"] for config in page["ProvisionedConcurrencyConfigs"]] for page in pages]
    assert arns == [[ARN + "orders:2"], [ARN + "orders:live"]]
    with pytest.raises(client.exceptions.InvalidParameterValueException):
        client.list_provisioned_concurrency_configs(FunctionName="orders", Marker="x")
