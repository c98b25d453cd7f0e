"""Function URL configurations, driven with boto3."""

from __future__ import annotations

from datetime import datetime

import pytest

from serverfull.domain.changes import FunctionChanged
from serverfull.domain.functions import Function
from serverfull.domain.records import Partition
from serverfull.domain.urls import FUNCTION_URLS
from serverfull.management.urls import FunctionUrls
from tests.management.answers import plain, refused

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:orders"
PARTITION = Partition("123456789012", "eu-west-1")
CORS = {
    "AllowCredentials": True,
    "AllowHeaders": ["Date", "X-Custom-Header", "*"],
    "AllowMethods": ["GET", "*"],
    "AllowOrigins": ["https://www.example.com", "http://localhost:60905", "*"],
    "ExposeHeaders": ["Keep-Alive"],
    "MaxAge": 300,
}


@pytest.fixture
def plane(control_plane):
    plane = control_plane
    plane.serve(FunctionUrls(plane.state, plane.resolver, plane.changes).operations())
    plane.put_function("orders", 1)
    for name in ("live", "next"):
        plane.put_alias("orders", name)
    return plane


def test_a_url_is_created_with_the_defaults_of_aws(client, plane):
    created = plain(client.create_function_url_config(FunctionName="orders", AuthType="NONE"))
    url = created.pop("FunctionUrl")
    datetime.fromisoformat(created.pop("CreationTime"))
    assert created == {"FunctionArn": ARN, "AuthType": "NONE", "InvokeMode": "BUFFERED"}
    base, _, url_id = url.removesuffix("/").rpartition("/")
    assert base == f"{plane.url}/_serverfull/urls"
    assert len(url_id) == 32
    assert plane.published == [FunctionChanged(PARTITION, "orders")]
    kept = plane.write(lambda records: records.list(FUNCTION_URLS, where={"url_id": url_id}))
    assert [(one.function, one.qualifier) for one in kept] == [("orders", "")]


def test_creation_answers_201_and_deletion_204(client):
    created = client.create_function_url_config(FunctionName="orders", AuthType="NONE")
    assert created["ResponseMetadata"]["HTTPStatusCode"] == 201
    deleted = client.delete_function_url_config(FunctionName="orders")
    assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 204


def test_what_was_created_is_read_back_as_it_is(client):
    members = {"AuthType": "AWS_IAM", "Cors": CORS, "InvokeMode": "RESPONSE_STREAM"}
    created = plain(client.create_function_url_config(FunctionName=ARN, Qualifier="live", **members))
    read = plain(client.get_function_url_config(FunctionName="orders:live"))
    assert {name: read[name] for name in members} == members
    assert read["FunctionArn"] == f"{ARN}:live"
    assert read.pop("LastModifiedTime") == read["CreationTime"]
    assert read == created


def test_an_update_changes_what_it_mentions_and_keeps_the_url(client, plane):
    created = plain(client.create_function_url_config(FunctionName="orders", AuthType="NONE", Cors=CORS))
    updated = plain(client.update_function_url_config(FunctionName="orders", AuthType="AWS_IAM"))
    assert updated["AuthType"] == "AWS_IAM"
    assert updated["Cors"] == CORS
    assert updated["FunctionUrl"] == created["FunctionUrl"]
    assert updated["CreationTime"] == created["CreationTime"]
    assert updated["LastModifiedTime"] > created["CreationTime"]
    assert plain(client.get_function_url_config(FunctionName="orders")) == updated
    assert len(plane.published) == 2


def test_an_empty_cors_takes_cors_away(client):
    client.create_function_url_config(FunctionName="orders", AuthType="NONE", Cors=CORS)
    assert "Cors" not in client.update_function_url_config(FunctionName="orders", Cors={})
    assert "Cors" not in client.get_function_url_config(FunctionName="orders")


def test_a_deleted_url_is_gone_and_a_new_one_is_another(client):
    first = client.create_function_url_config(FunctionName="orders", AuthType="NONE")
    client.delete_function_url_config(FunctionName="orders")
    missing = "The resource you requested does not exist."
    for call in (client.get_function_url_config, client.delete_function_url_config, client.update_function_url_config):
        assert refused(call, "ResourceNotFoundException", 404, FunctionName="orders") == missing
    second = client.create_function_url_config(FunctionName="orders", AuthType="NONE")
    assert second["FunctionUrl"] != first["FunctionUrl"]


@pytest.mark.parametrize(("members", "arn"), [({}, ARN), ({"Qualifier": "live"}, f"{ARN}:live")])
def test_a_second_url_is_refused_in_the_words_of_aws(client, members, arn):
    members = {"FunctionName": "orders", "AuthType": "NONE", **members}
    client.create_function_url_config(**members)
    message = refused(client.create_function_url_config, "ResourceConflictException", 409, **members)
    assert message == (
        f"Failed to create function url config for [functionArn = {arn}]. "
        "Error message:  FunctionUrlConfig exists for this Lambda function"
    )


def test_functions_and_aliases_that_are_not_there_have_no_urls(client):
    for members in ({"FunctionName": "nobody"}, {"FunctionName": "orders", "Qualifier": "nobody"}):
        create = {**members, "AuthType": "NONE"}
        assert refused(client.create_function_url_config, "ResourceNotFoundException", 404, **create) == (
            "Function does not exist"
        )
        assert refused(client.update_function_url_config, "ResourceNotFoundException", 404, **members) == (
            "Function does not exist"
        )
        assert refused(client.get_function_url_config, "ResourceNotFoundException", 404, **members) == (
            "The resource you requested does not exist."
        )
    assert refused(client.list_function_url_configs, "ResourceNotFoundException", 404, FunctionName="nobody") == (
        "Function does not exist"
    )


@pytest.mark.parametrize("qualifier", ["1", "$LATEST"])
def test_versions_have_no_urls(client, qualifier):
    message = refused(
        client.create_function_url_config,
        "ValidationException",
        FunctionName="orders",
        Qualifier=qualifier,
        AuthType="NONE",
    )
    assert message.startswith(f"1 validation error detected: Value '{qualifier}' at 'qualifier'")


@pytest.mark.parametrize(
    ("members", "part"),
    [
        ({"AuthType": "ANYBODY"}, "'authType' failed to satisfy constraint"),
        ({"AuthType": "NONE", "InvokeMode": "FAST"}, "'invokeMode' failed to satisfy constraint"),
        ({"AuthType": "NONE", "Cors": {"MaxAge": 86_401}}, "'cors.maxAge' failed to satisfy constraint"),
        ({"AuthType": "NONE", "Cors": {"AllowMethods": ["OPTIONS"]}}, "length less than or equal to 6"),
        ({}, "at 'authType' failed to satisfy constraint: Member must not be null"),
    ],
)
def test_the_constraints_of_the_model_hold(client, members, part):
    message = refused(client.create_function_url_config, "ValidationException", FunctionName="orders", **members)
    assert part in message


@pytest.mark.parametrize(
    ("cors", "part"),
    [
        ({"AllowMethods": ["GET", "TRACE"]}, "The method TRACE in AllowMethods"),
        ({"AllowMethods": ["get"]}, "The method get in AllowMethods"),
        ({"AllowOrigins": ["www.example.com"]}, "The origin www.example.com in AllowOrigins"),
        ({"AllowOrigins": ["https://www.example.com/path"]}, "AllowOrigins"),
        ({"AllowHeaders": ["two words"]}, "two words in AllowHeaders"),
        ({"ExposeHeaders": [""]}, "ExposeHeaders"),
    ],
)
def test_cors_that_no_browser_understands_is_refused(client, cors, part):
    create = {"FunctionName": "orders", "AuthType": "NONE"}
    assert part in refused(client.create_function_url_config, "InvalidParameterValueException", **create, Cors=cors)
    client.create_function_url_config(**create)
    update = client.update_function_url_config
    assert part in refused(update, "InvalidParameterValueException", FunctionName="orders", Cors=cors)
    assert "Cors" not in client.get_function_url_config(FunctionName="orders")


def test_urls_are_listed_in_pages(client, plane):
    for members in ({"Qualifier": "next"}, {}, {"Qualifier": "live"}):
        client.create_function_url_config(FunctionName="orders", AuthType="NONE", **members)
    page = client.list_function_url_configs(FunctionName="orders", MaxItems=2)
    assert [url["FunctionArn"] for url in page["FunctionUrlConfigs"]] == [ARN, f"{ARN}:live"]
    rest = client.list_function_url_configs(FunctionName="orders", Marker=page["NextMarker"])
    assert [url["FunctionArn"] for url in rest["FunctionUrlConfigs"]] == [f"{ARN}:next"]
    assert "NextMarker" not in rest
    assert "Marker" in refused(
        client.list_function_url_configs, "InvalidParameterValueException", FunctionName="orders", Marker="x"
    )


def test_urls_of_another_account_are_not_seen(client, plane):
    client.create_function_url_config(FunctionName="orders", AuthType="NONE")
    other = plane.client(account="999999999999")
    assert refused(other.get_function_url_config, "ResourceNotFoundException", 404, FunctionName="orders")


def test_functions_of_the_operator_have_none(client, plane):
    plane.registered["greet"] = Function(print)
    assert client.list_function_url_configs(FunctionName="greet")["FunctionUrlConfigs"] == []
    assert refused(client.get_function_url_config, "ResourceNotFoundException", 404, FunctionName="greet")
    message = refused(
        client.create_function_url_config, "ResourceConflictException", 409, FunctionName="greet", AuthType="NONE"
    )
    assert "static fetcher" in message


def test_the_url_names_the_address_that_the_caller_used(client, plane):
    client.create_function_url_config(FunctionName="orders", AuthType="NONE")
    by_name = plane.client()
    by_name.meta.events.register(
        "before-send.lambda", lambda request, **_: request.headers.__setitem__("Host", "localhost:1234")
    )
    url = by_name.get_function_url_config(FunctionName="orders")["FunctionUrl"]
    assert url.startswith("http://localhost:1234/_serverfull/urls/")
