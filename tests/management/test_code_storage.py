"""How much code an account may keep, with functions and their versions, driven with boto3."""

from __future__ import annotations

import pytest

from serverfull.domain.concurrency import AccountLimits
from serverfull.management.account import Account
from tests.management.answers import refused

EXCEEDED = "CodeStorageExceededException"


@pytest.fixture
def limits():
    return AccountLimits(total_code_size=700)


@pytest.fixture
def client(deploying, limits):
    plane = deploying.plane
    plane.serve(Account(plane.state, plane.fetcher, limits).operations())
    return plane.client()


def used(client):
    return client.get_account_settings()["AccountUsage"]["TotalCodeSize"]


def sized(deploying, size):
    package = deploying.zipped(app="#" * (size - len(deploying.zipped(app=""))))
    assert len(package) == size
    return package


def test_a_function_needs_room_for_its_package(deploying, client):
    deploying.create(client, Code={"ZipFile": sized(deploying, 400)})
    refused(
        client.create_function,
        EXCEEDED,
        **deploying.request(FunctionName="f2", Code={"ZipFile": sized(deploying, 301)}),
    )
    assert used(client) == 400
    deploying.create(client, FunctionName="f3", Code={"ZipFile": sized(deploying, 300)})
    assert used(client) == 700
    assert [function["FunctionName"] for function in client.list_functions()["Functions"]] == ["f3", "hello"]


def test_other_code_needs_room_only_for_what_it_has_more(deploying, client):
    deploying.create(client, Code={"ZipFile": sized(deploying, 400)})
    client.update_function_code(FunctionName="hello", ZipFile=sized(deploying, 700))
    deploying.settle()
    assert used(client) == 700
    for dry_run in (True, False):
        refused(
            client.update_function_code, EXCEEDED, FunctionName="hello", ZipFile=sized(deploying, 701), DryRun=dry_run
        )
    client.update_function_configuration(FunctionName="hello", Description="of the same code")
    deploying.settle()
    client.update_function_code(FunctionName="hello", ZipFile=sized(deploying, 300))
    deploying.settle()
    assert used(client) == 300


def test_every_version_needs_room_for_the_package_of_its_own(deploying, client):
    deploying.create(client, Code={"ZipFile": sized(deploying, 300)})
    client.publish_version(FunctionName="hello")
    assert used(client) == 600
    assert client.publish_version(FunctionName="hello")["Version"] == "1"  # nothing has changed, nothing is added
    client.update_function_configuration(FunctionName="hello", Description="other")
    deploying.settle()
    refused(client.publish_version, EXCEEDED, FunctionName="hello")
    refused(client.update_function_code, EXCEEDED, FunctionName="hello", ZipFile=sized(deploying, 299), Publish=True)
    assert client.get_function_configuration(FunctionName="hello")["CodeSize"] == 300  # all of it was refused
    client.delete_function(FunctionName="hello", Qualifier="1")
    assert client.publish_version(FunctionName="hello")["Version"] == "2"


def test_a_function_that_is_published_at_once_needs_room_twice(deploying, client):
    request = {"Code": {"ZipFile": sized(deploying, 351)}, "Publish": True}
    refused(client.create_function, EXCEEDED, **deploying.request(**request))
    assert client.list_functions()["Functions"] == []
    deploying.create(client, Code={"ZipFile": sized(deploying, 350)}, Publish=True)
    assert used(client) == 700


@pytest.mark.parametrize("limits", [AccountLimits(total_code_size=1)])
def test_who_has_more_than_is_allowed_by_now_may_still_do_with_less(deploying, client):
    deploying.plane.put_function("hello", code_size=500)
    client.update_function_code(FunctionName="hello", ZipFile=sized(deploying, 400))
    deploying.settle()
    assert used(client) == 400


def test_nothing_of_a_package_that_is_refused_is_left(deploying, client):
    deploying.create(client)
    before = list(deploying.code._packages.iterdir())
    large = sized(deploying, 701)
    refused(client.create_function, EXCEEDED, **deploying.request(FunctionName="f2", Code={"ZipFile": large}))
    refused(client.update_function_code, EXCEEDED, FunctionName="hello", ZipFile=large)
    assert list(deploying.code._packages.iterdir()) == before


def test_accounts_and_regions_have_room_of_their_own(deploying, client):
    deploying.create(client, Code={"ZipFile": sized(deploying, 700)})
    for elsewhere in (deploying.plane.client(region="us-east-1"), deploying.plane.client(account="999999999999")):
        deploying.create(elsewhere, Code={"ZipFile": sized(deploying, 700)})
