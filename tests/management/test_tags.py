"""Tags, driven with boto3."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from serverfull.domain.capacity import CAPACITY_PROVIDERS, CapacityProvider
from serverfull.domain.code_signing import CODE_SIGNING_CONFIGS, CodeSigningConfig
from serverfull.domain.deployed import FUNCTIONS, LATEST_NUMBER, VERSIONS
from serverfull.domain.functions import Function
from serverfull.domain.mappings import EVENT_SOURCE_MAPPINGS, EventSourceMapping
from serverfull.management.tags import Tags
from tests.management.answers import refused

BASE = "arn:aws:lambda:eu-west-1:123456789012:"
FUNCTION = BASE + "function:orders"
MAPPING = BASE + "event-source-mapping:0f7a5e5f-1b2c-4d3e-8f90-a1b2c3d4e5f6"
CONFIG = BASE + "code-signing-config:csc-0123456789abcdef0"
PROVIDER = BASE + "capacity-provider:pool"
INVALID = "InvalidParameterValueException"


@pytest.fixture
def client(control_plane):
    plane = control_plane
    plane.serve(Tags(plane.state, plane.resolver, plane.changes).operations())
    plane.put_function("orders", 1)

    def work(records):
        records.insert(
            EVENT_SOURCE_MAPPINGS,
            EventSourceMapping(uuid=MAPPING.rpartition(":")[2], target="orders", source="sqs", last_modified=0),
        )
        records.insert(
            CODE_SIGNING_CONFIGS, CodeSigningConfig(id=CONFIG.rpartition(":")[2], publishers=[], last_modified="")
        )
        records.insert(CAPACITY_PROVIDERS, CapacityProvider(name="pool", settings={}, last_modified=""))

    plane.write(work)
    return plane.client(parameter_validation=False)


def tags_of(client, arn):
    return client.list_tags(Resource=arn)["Tags"]


@pytest.mark.parametrize("arn", [FUNCTION, MAPPING, CONFIG, PROVIDER])
def test_tags_are_added_replaced_and_removed(client, arn):
    assert tags_of(client, arn) == {}
    response = client.tag_resource(Resource=arn, Tags={"team": "shop", "stage": "test", "a b:c/d=e": ""})
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 204
    client.tag_resource(Resource=arn, Tags={"stage": "live", "cost": "7"})
    assert tags_of(client, arn) == {"team": "shop", "stage": "live", "a b:c/d=e": "", "cost": "7"}
    response = client.untag_resource(Resource=arn, TagKeys=["a b:c/d=e", "cost", "nothing"])
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert tags_of(client, arn) == {"team": "shop", "stage": "live"}
    client.untag_resource(Resource=arn, TagKeys=["team", "stage"])
    assert tags_of(client, arn) == {}


def test_the_tags_of_a_function_are_those_of_its_record(control_plane, client):
    client.tag_resource(Resource=FUNCTION, Tags={"team": "shop"})
    assert control_plane.write(lambda records: records.get(FUNCTIONS, "orders").tags) == {"team": "shop"}


def test_changed_tags_make_a_revision_and_the_same_tags_make_none(control_plane, client):
    def revision():
        return control_plane.write(lambda records: records.get(VERSIONS, "orders", LATEST_NUMBER).revision_id)

    first = revision()
    client.tag_resource(Resource=FUNCTION, Tags={"team": "shop"})
    second = revision()
    client.tag_resource(Resource=FUNCTION, Tags={"team": "shop"})
    client.untag_resource(Resource=FUNCTION, TagKeys=["nothing"])
    assert revision() == second != first


@pytest.mark.parametrize("arn", [FUNCTION, MAPPING])
def test_a_resource_has_fifty_tags_at_most(client, arn):
    full = "Number of tags exceeds resource tag limit."
    tags = {f"{number}_key": f"{number}_value" for number in range(51)}
    assert refused(client.tag_resource, INVALID, Resource=arn, Tags=tags) == full
    assert tags_of(client, arn) == {}
    del tags["50_key"]
    client.tag_resource(Resource=arn, Tags=tags)
    assert refused(client.tag_resource, INVALID, Resource=arn, Tags={"one more": ""}) == full
    client.tag_resource(Resource=arn, Tags={"0_key": "changed"})
    assert tags_of(client, arn) == tags | {"0_key": "changed"}


@pytest.mark.parametrize("key", ["aws:stack", "AWS:stack"])
def test_keys_that_aws_keeps_for_itself_are_refused(client, key):
    message = refused(client.tag_resource, INVALID, Resource=FUNCTION, Tags={key: "x"})
    assert message == "aws: prefixed tag key names are not allowed for external use."


def test_no_tags_at_all_are_refused(client):
    message = refused(client.tag_resource, INVALID, Resource=FUNCTION, Tags={})
    assert message == "An error occurred and the request cannot be processed."
    message = refused(client.untag_resource, "ValidationException", Resource=FUNCTION, TagKeys=[])
    assert (
        message
        == "1 validation error detected: Value null at 'tagKeys' failed to satisfy constraint: Member must not be null"
    )


@pytest.mark.parametrize(
    "tags", [{"k" * 129: ""}, {"": "x"}, {"key": "v" * 257}, {"semi;colon": ""}, {"key": "tab\t"}, {"key": None}]
)
def test_keys_and_values_are_what_the_model_says(client, tags):
    with pytest.raises(ClientError) as caught:
        client.tag_resource(Resource=FUNCTION, Tags=tags)
    assert caught.value.response["Error"]["Code"] == "ValidationException"


def test_the_longest_keys_and_values_of_every_script_are_fine(client):
    tags = {"k" * 128: "v" * 256, "größe": "大きい 1"}
    client.tag_resource(Resource=FUNCTION, Tags=tags)
    assert tags_of(client, FUNCTION) == tags


@pytest.mark.parametrize("arn", [FUNCTION + ":1", FUNCTION + ":$LATEST", FUNCTION + ":live"])
def test_versions_and_aliases_have_no_tags(client, arn):
    text = "Tags on function aliases and versions are not supported. Please specify a function ARN."
    assert refused(client.tag_resource, INVALID, Resource=arn, Tags={"a": "b"}) == text
    assert refused(client.untag_resource, INVALID, Resource=arn, TagKeys=["a"]) == text
    assert refused(client.list_tags, INVALID, Resource=arn) == text


@pytest.mark.parametrize(
    ("arn", "text"),
    [
        (BASE + "function:nobody", f"Function not found: {BASE}function:nobody"),
        (
            CONFIG.replace("0123", "9999"),
            f"The Lambda code signing configuration {CONFIG.replace('0123', '9999')} can not be found.",
        ),
        (MAPPING.replace("0f7a", "1111"), "The resource you requested does not exist."),
        (MAPPING.replace("eu-west-1", "us-east-1"), "The resource you requested does not exist."),
        (MAPPING.replace("arn:aws:", "arn:aws-cn:"), "The resource you requested does not exist."),
        (
            CONFIG.replace("arn:aws:", "arn:aws-cn:"),
            f"The Lambda code signing configuration {CONFIG.replace('arn:aws:', 'arn:aws-cn:')} can not be found.",
        ),
        (
            BASE.replace("arn:aws:", "arn:aws-us-gov:") + "function:orders",
            f"Function not found: {BASE.replace('arn:aws:', 'arn:aws-us-gov:')}function:orders",
        ),
        (PROVIDER + "s", "The resource you requested does not exist."),
        (BASE + "network-connector:wire", "The resource you requested does not exist."),
    ],
)
def test_what_is_not_there_is_told_in_the_words_of_aws(client, arn, text):
    missing = "ResourceNotFoundException"
    assert refused(client.tag_resource, missing, 404, Resource=arn, Tags={"a": "b"}) == text
    assert refused(client.untag_resource, missing, 404, Resource=arn, TagKeys=["a"]) == text
    assert refused(client.list_tags, missing, 404, Resource=arn) == text


@pytest.mark.parametrize("arn", ["arn:aws:something", BASE + "layer:tools", "orders"])
def test_only_what_can_have_tags_is_named(client, arn):
    with pytest.raises(ClientError, match="at 'resource' failed to satisfy constraint"):
        client.list_tags(Resource=arn)


def test_functions_of_the_operator_show_their_tags_and_take_none(control_plane, client):
    control_plane.registered["static"] = Function(len, tags={"team": "shop"})
    arn = BASE + "function:static"
    assert tags_of(client, arn) == {"team": "shop"}
    for call, request in ((client.tag_resource, {"Tags": {"a": "b"}}), (client.untag_resource, {"TagKeys": ["team"]})):
        with pytest.raises(client.exceptions.ResourceConflictException, match="which the API cannot write"):
            call(Resource=arn, **request)
