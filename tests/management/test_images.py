"""Functions that are container images: what is kept of them, and how the image that a name means is pinned."""

from __future__ import annotations

import pytest

from tests.management.answers import plain, refused

REPOSITORY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/app"
URI = f"{REPOSITORY}:1"
FIRST, SECOND = "ab" * 32, "cd" * 32
IMAGE = {"PackageType": "Image", "Runtime": None, "Handler": None, "Code": {"ImageUri": URI}}


@pytest.fixture
def client(deploying):
    deploying.preparing.images[URI] = FIRST
    client = deploying.plane.client()
    yield client
    client.close()


def code_of(client, **named):
    return plain(client.get_function(FunctionName="hello", **named))["Code"]


def test_an_image_is_pending_until_it_is_found_and_has_its_digest_from_then_on(deploying, client):
    deploying.preparing.hold()
    config = {"Command": ["app.handler"], "EntryPoint": ["/entry", "-v"], "WorkingDirectory": "/srv"}
    created = client.create_function(**deploying.request(**IMAGE, ImageConfig=config))
    assert (created["State"], created["PackageType"], created["CodeSize"]) == ("Pending", "Image", 0)
    assert created["ImageConfigResponse"] == {"ImageConfig": config}
    assert not {"Runtime", "Handler", "RuntimeVersionConfig", "CodeSha256"} & set(created)
    assert code_of(client) == {"RepositoryType": "ECR", "ImageUri": URI}
    deploying.preparing.release()
    deploying.settle()
    pinned = f"{REPOSITORY}@sha256:{FIRST}"
    assert code_of(client) == {"RepositoryType": "ECR", "ImageUri": URI, "ResolvedImageUri": pinned}
    found = client.get_function_configuration(FunctionName="hello")
    assert (found["State"], found["LastUpdateStatus"], found["CodeSha256"]) == ("Active", "Successful", FIRST)


def test_an_image_that_is_not_there_makes_the_function_fail(deploying, client):
    deploying.create(client, **{**IMAGE, "Code": {"ImageUri": "other:1"}})
    found = client.get_function_configuration(FunctionName="hello")
    assert (found["State"], found["StateReasonCode"]) == ("Failed", "InvalidImage")
    assert found["StateReason"] == "There is no image other:1"


def test_a_name_that_means_another_image_by_now_counts_from_the_next_update_of_the_code(deploying, client):
    deploying.create(client, **IMAGE)
    deploying.preparing.images[URI] = SECOND
    client.update_function_configuration(FunctionName="hello", Timeout=7)
    deploying.settle()
    # The image that was pinned is looked for again, as the machine may have lost it, and never the name.
    assert deploying.preparing.begun[-1].resolved_image == f"{REPOSITORY}@sha256:{FIRST}"
    client.update_function_code(FunctionName="hello", ImageUri=URI)
    deploying.settle()
    assert client.get_function_configuration(FunctionName="hello")["CodeSha256"] == SECOND


def test_publishing_makes_a_version_for_each_image_that_the_name_has_meant(deploying, client):
    deploying.create(client, **IMAGE, Publish=True)
    assert client.publish_version(FunctionName="hello")["Version"] == "1", "nothing has changed since"
    assert client.update_function_code(FunctionName="hello", ImageUri=URI)["LastUpdateStatus"] == "InProgress"
    deploying.settle()
    assert client.publish_version(FunctionName="hello")["Version"] == "1", "it is the same image"
    deploying.preparing.images[URI] = SECOND
    client.update_function_code(FunctionName="hello", ImageUri=URI)
    deploying.settle()
    assert client.publish_version(FunctionName="hello")["CodeSha256"] == SECOND
    assert code_of(client, Qualifier="1")["ResolvedImageUri"].endswith(FIRST)
    assert code_of(client, Qualifier="2")["ResolvedImageUri"].endswith(SECOND)


def test_image_config_can_be_changed_and_taken_away(deploying, client):
    deploying.create(client, **IMAGE, ImageConfig={"Command": ["a.handler"]})
    changed = client.update_function_configuration(FunctionName="hello", ImageConfig={"Command": ["b.handler"]})
    assert changed["ImageConfigResponse"] == {"ImageConfig": {"Command": ["b.handler"]}}
    deploying.settle()
    assert "ImageConfigResponse" not in client.update_function_configuration(FunctionName="hello", ImageConfig={})


@pytest.mark.parametrize(
    ("config", "said"),
    [({"WorkingDirectory": "srv"}, "no absolute path|not an absolute path"), ({"Command": ["a\0b"]}, "null character")],
)
def test_an_image_config_that_no_container_can_have_is_refused(deploying, client, config, said):
    message = refused(
        client.create_function, "InvalidParameterValueException", **deploying.request(**IMAGE, ImageConfig=config)
    )
    assert any(words in message for words in said.split("|"))


@pytest.mark.parametrize(
    "uri", ["", "UPPER:1", "app:", "app@sha256:12", "https://host/app", "a b", "app:1\n", "../app"]
)
def test_what_names_no_image_is_refused(deploying, client, uri):
    request = deploying.request(**{**IMAGE, "Code": {"ImageUri": uri}})
    message = refused(client.create_function, "InvalidParameterValueException", **request)
    if uri.strip() == uri != "":
        assert message == f"Source image {uri} is not valid. Provide a valid source image."


@pytest.mark.parametrize(
    "uri", ["app", "app:1.0", "localhost:5000/team/app:x", URI, f"{REPOSITORY}@sha256:{FIRST}", f"{URI}@sha256:{FIRST}"]
)
def test_what_engines_take_for_an_image_is_taken(deploying, client, uri):
    created = client.create_function(**deploying.request(**{**IMAGE, "Code": {"ImageUri": uri}}))
    assert created["State"] == "Pending"


def test_code_of_the_other_kind_is_refused(deploying, client):
    deploying.create(client, **IMAGE)
    message = refused(
        client.update_function_code, "InvalidParameterValueException", FunctionName="hello", ZipFile=deploying.package
    )
    assert "packageType Image" in message


@pytest.mark.parametrize(
    "members",
    [
        {"Handler": "app.handler"},
        {"Runtime": "python3.12"},
        {"Layers": ["arn:aws:lambda:eu-west-1:123456789012:layer:known:1"]},
        {"SnapStart": {"ApplyOn": "PublishedVersions"}},
        {"CodeSigningConfigArn": "arn:aws:lambda:eu-west-1:123456789012:code-signing-config:csc-0123456789abcdefg"},
    ],
)
def test_images_have_neither_runtime_nor_handler_nor_layers_nor_snapshots_nor_signatures(deploying, client, members):
    request = {"PackageType": "Image", "Code": {"ImageUri": "image:1"}, "Handler": None, "Runtime": None, **members}
    assert "container images" in refused(
        client.create_function, "InvalidParameterValueException", **deploying.request(**request)
    )
