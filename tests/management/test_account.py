"""The settings of an account, read with boto3."""

from __future__ import annotations

import pytest

from serverfull.domain.concurrency import AccountLimits
from serverfull.domain.functions import Function
from serverfull.domain.layers import LAYER_VERSIONS, LayerVersion
from serverfull.domain.records import Partition
from serverfull.management.account import Account
from serverfull.management.concurrency import Concurrency
from tests.management.answers import plain


def _not_asked(partition, config):
    raise AssertionError("account settings have nothing to do with provisioned concurrency")


@pytest.fixture
def plane(control_plane):
    return control_plane


@pytest.fixture
def client(plane):
    limits = AccountLimits()
    plane.serve(Account(plane.state, plane.fetcher, limits).operations())
    plane.serve(
        Concurrency(plane.state, plane.resolver, plane.changes, limits=limits, readiness=_not_asked).operations()
    )
    return plane.client()


def settings_of(client):
    return plain(client.get_account_settings())


def test_a_fresh_account_has_the_limits_of_aws_and_uses_nothing(client):
    assert settings_of(client) == {
        "AccountLimit": {
            "TotalCodeSize": 80530636800,
            "CodeSizeUnzipped": 262144000,
            "CodeSizeZipped": 52428800,
            "ConcurrentExecutions": 1000,
            "UnreservedConcurrentExecutions": 1000,
        },
        "AccountUsage": {"TotalCodeSize": 0, "FunctionCount": 0},
    }


def test_usage_is_what_functions_versions_and_layers_take(plane, client):
    plane.put_function("orders", 1, 2, code_size=100)
    plane.put_function("picture", code_size=0, package_type="Image")
    plane.put_function("far", partition=Partition("123456789012", "us-east-1"), code_size=7)
    layer = LayerVersion(layer="tools", number=1, code_sha256="", code_size=11, created="")
    plane.write(lambda records: records.insert(LAYER_VERSIONS, layer))
    assert settings_of(client)["AccountUsage"] == {"TotalCodeSize": 311, "FunctionCount": 2}
    elsewhere = plane.client(region="us-east-1")
    assert settings_of(elsewhere)["AccountUsage"] == {"TotalCodeSize": 7, "FunctionCount": 1}


def test_functions_of_the_operator_count_once(plane, client):
    plane.put_function("orders")
    plane.registered |= {"orders": Function(len), "static": Function(len)}
    assert settings_of(client)["AccountUsage"]["FunctionCount"] == 2


def test_reserved_executions_are_not_left_to_the_others(plane, client):
    plane.put_function("orders")
    plane.put_function("mails")
    client.put_function_concurrency(FunctionName="orders", ReservedConcurrentExecutions=300)
    client.put_function_concurrency(FunctionName="mails", ReservedConcurrentExecutions=0)
    limit = settings_of(client)["AccountLimit"]
    assert (limit["ConcurrentExecutions"], limit["UnreservedConcurrentExecutions"]) == (1000, 700)


def test_the_limits_are_the_hosts_to_set(control_plane):
    plane = control_plane
    limits = AccountLimits(concurrent_executions=20, total_code_size=5)
    plane.serve(Account(plane.state, plane.fetcher, limits).operations())
    limit = settings_of(plane.client())["AccountLimit"]
    assert (limit["ConcurrentExecutions"], limit["TotalCodeSize"]) == (20, 5)
