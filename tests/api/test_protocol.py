"""The driver against botocore's own serialiser and parser, for every operation of the installed model."""

from __future__ import annotations

import base64
import json
import math
import random
import re
import subprocess
import sys
import warnings
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

import pytest
from botocore.awsrequest import HeadersDict, prepare_request_dict
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import create_parser
from botocore.serialize import create_serializer

from serverfull import errors
from serverfull.api.model import compile_operations, compile_pattern, read_model
from serverfull.api.protocol import Protocol, parse_query
from serverfull.api.routing import Router
from serverfull.domain.names import RequestScope

SCOPE = RequestScope("123456789012", "us-east-1", "5f0f7a5e-1b2c-4d3e-8f90-a1b2c3d4e5f6")
RAW_MODEL = read_model()
OPERATIONS = compile_operations(RAW_MODEL)
MODEL = ServiceModel(Loader().load_service_model("lambda", "service-2"), "lambda")
FUNCTIONS = "/2015-03-31/functions"

# Values of shapes whose patterns no simple generator meets.
ARN = "arn:aws:lambda:us-east-1:123456789012:"
EXAMPLES = {
    "Action": "lambda:InvokeFunction",
    "Alias": "live",
    "Arn": "arn:aws:sqs:us-east-1:123456789012:queue",
    "CallbackId": "Q2FsbGJhY2s=",
    "CapacityProviderArn": ARN + "capacity-provider:small",
    "CheckpointToken": "dG9rZW4=",
    "CodeSigningConfigArn": ARN + "code-signing-config:csc-0123456789abcdef0",
    "CodeSigningConfigId": "csc-0123456789abcdef0",
    "DestinationArn": "arn:aws:sqs:us-east-1:123456789012:queue",
    "DurableExecutionArn": ARN + "function:hello:1/durable-execution/a/b",
    "Endpoint": "broker.example.com:9092",
    "EventSourceMappingArn": ARN + "event-source-mapping:01234567-89ab-cdef-0123-456789abcdef",
    "FileSystemArn": "arn:aws:elasticfilesystem:us-east-1:123456789012:access-point/fsap-0123456789abcdef0",
    "FilterCriteriaErrorCode": "ValidationException",
    "FunctionArn": ARN + "function:hello",
    "FunctionRuntimeArn": ARN + "runtime/python3.13-some-long-name",
    "FunctionUrl": "https://0123456789012345678901234567890.lambda-url.us-east-1.on.aws/",
    "KMSKeyArn": "arn:aws:kms:us-east-1:123456789012:key/a",
    "KMSKeyArnNonEmpty": "arn:aws:kms:us-east-1:123456789012:key/a",
    "LayerArn": ARN + "layer:tools",
    "LayerPermissionAllowedAction": "lambda:GetLayerVersion",
    "LayerPermissionAllowedPrincipal": "*",
    "LayerVersionArn": ARN + "layer:tools:1",
    "LocalMountPath": "/mnt/data",
    "MasterRegion": "us-east-1",
    "NameSpacedFunctionArn": ARN + "function:hello",
    "OrganizationId": "o-0123456789",
    "PolicyResourceArn": ARN + "function:hello",
    "PrincipalOrgID": "o-0123456789",
    "PublishedFunctionQualifier": "1",
    "ResourceArn": "arn:aws:kms:us-east-1:123456789012:key/a",
    "RevisionId": "01234567-89ab-cdef-0123-456789abcdef",
    "RoleArn": "arn:aws:iam::123456789012:role/runner",
    "RuntimeVersionArn": "arn:aws:lambda:us-east-1::runtime:0123456789",
    "SecurityGroupId": "sg-0123",
    "SigningProfileVersionArn": "arn:aws:signer:us-east-1:123456789012:/signing-profiles/a/b",
    "SourceOwner": "123456789012",
    "SubnetId": "subnet-0123",
    "TagsErrorCode": "ValidationException",
    "TaggableResource": ARN + "function:hello",
    "Version": "$LATEST",
    "VersionWithLatestPublished": "$LATEST",
    "NamespacedFunctionName": ARN + "function:hello:$LATEST",
    "FunctionName": "123456789012:function:hello",
    "AdditionalVersion": "7",
    "TagKey": "Größe + 100",
    "TagValue": "a b/c:=é",
}


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    return Protocol(OPERATIONS, {})


def generated(shape, depth=0, *, full=True, rng=random.Random(7)):
    """Make a value that satisfies a shape of botocore's model."""
    name, kind, meta = shape.name, shape.type_name, shape.metadata
    if kind == "structure":
        members = shape.members.items()
        return {
            member: generated(inner, depth + 1, full=full, rng=rng)
            for member, inner in members
            if member in shape.required_members or (full and depth < 5)
        }
    if kind == "list":
        return [generated(shape.member, depth + 1, full=full, rng=rng)] * max(1, meta.get("min", 1))
    if kind == "map":
        return {generated(shape.key, depth + 1, rng=rng): generated(shape.value, depth + 1, full=full, rng=rng)}
    if kind == "string":
        return text_for(name, shape, rng)
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "blob":
        return bytes(range(256))[: meta.get("max", 256)]
    if kind == "timestamp":
        return datetime(2026, 3, 1, 12, 30, 15, tzinfo=UTC)
    low, high = meta.get("min", -5), min(meta.get("max", 10**6), 2**31 - 1)
    return rng.randint(math.ceil(low), int(high)) if kind in ("integer", "long") else float(rng.uniform(low, high))


def text_for(name, shape, rng):
    if shape.enum:
        return rng.choice(shape.enum)
    least, most = shape.metadata.get("min", 0), shape.metadata.get("max", 10_000)
    if name in EXAMPLES:
        text = EXAMPLES[name]
        assert least <= len(text) <= most, name
        return text
    pattern = shape.metadata.get("pattern")
    for text in ("hello", "h" * max(least, 1), "/aws/x", "plain text, \u00e9\u4e2d \U0001f600/%2F?&=+"):
        if least <= len(text) <= most and (pattern is None or compile_pattern(pattern).fullmatch(text)):
            candidate = text
    return candidate


def sent_by_botocore(operation_name, params):
    """Let botocore write a request, and take it apart as a server sees it."""
    operation = MODEL.operation_model(operation_name)
    serialised = create_serializer("rest-json", include_validation=True).serialize_to_request(params, operation)
    prepare_request_dict(serialised, endpoint_url="http://localhost:8080", context={})
    url = urlsplit(serialised["url"])
    body = serialised["body"]
    body = body.encode() if isinstance(body, str) else body
    return serialised["method"], url.path, url.query, dict(serialised["headers"]), body


def parsed_by_us(protocol, request):
    method, path, raw_query, headers, body = request
    query = parse_query(raw_query)
    matched = protocol.match(method, path, query)
    return matched.operation_name, protocol.parse(matched, query, headers, body)


@pytest.mark.parametrize("full", [True, False], ids=["all members", "required members"])
@pytest.mark.parametrize("operation_name", MODEL.operation_names)
def test_what_botocore_sends_is_what_we_read(operation_name, full, protocol):
    shape = MODEL.operation_model(operation_name).input_shape
    params = generated(shape, full=full) if shape is not None else {}
    request = sent_by_botocore(operation_name, params)
    name, parsed = parsed_by_us(protocol, request)
    if shape is not None and parsed.get(shape.serialization.get("payload")) == {}:
        # botocore sends ``{}`` for a structure that was not given.
        del parsed[shape.serialization["payload"]]
    assert (name, parsed) == (operation_name, params)


@pytest.mark.parametrize("full", [True, False], ids=["all members", "required members"])
@pytest.mark.parametrize("operation_name", MODEL.operation_names)
def test_what_we_answer_is_what_botocore_reads(operation_name, full, protocol):
    operation = MODEL.operation_model(operation_name)
    if operation.has_event_stream_output:
        with pytest.raises(TypeError, match="event stream"):
            protocol.serialise(operation_name, {})
        return
    result = generated(operation.output_shape, full=full) if operation.output_shape is not None else {}
    shapes = operation.output_shape.members if operation.output_shape is not None else {}
    expected_status = operation.http["responseCode"]
    for name, shape in shapes.items():
        if shape.serialization.get("location") == "statusCode" and name in result:
            result[name] = expected_status = 207
    answer = protocol.serialise(operation_name, result)
    response = {"status_code": answer.status, "headers": HeadersDict(answer.headers), "body": answer.body}
    if operation.has_streaming_output:
        assert answer.body == result.pop(operation.output_shape.serialization["payload"], b"")
        response["body"] = None
    read = create_parser("rest-json").parse(response, operation.output_shape)
    assert read.pop("ResponseMetadata")["HTTPStatusCode"] == expected_status
    if answer.status == 204:
        assert answer.body == b""
        result = {}
    without_empty = {key: value for key, value in read.items() if key in result}
    assert without_empty == result


def test_the_model_is_read_without_importing_botocore():
    code = """
import sys
from serverfull.api.protocol import Protocol
assert len(Protocol.load({}).operations) > 80
assert not {"botocore", "boto3", "aiohttp"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_the_model_holds_nothing_that_the_driver_does_not_know():
    locations, kinds = set(), set()
    for shape in RAW_MODEL["shapes"].values():
        kinds.add(shape["type"])
        locations |= {member.get("location") for member in shape.get("members", {}).values()}
        assert not {"document", "union", "flattened", "timestampFormat", "locationName"} & set(shape)
    scalars = {"string", "integer", "long", "double", "float", "boolean", "blob", "timestamp"}
    in_headers = {
        RAW_MODEL["shapes"][member["shape"]]["type"]
        for shape in RAW_MODEL["shapes"].values()
        for member in shape.get("members", {}).values()
        if member.get("location") == "header"
    }
    assert in_headers <= {"string", "integer", "boolean"}
    assert kinds <= scalars | {"structure", "list", "map"}
    assert locations <= {None, "uri", "querystring", "header", "statusCode"}
    methods = {operation.method for operation in Protocol(OPERATIONS, {}).operations.values()}
    assert methods <= {"GET", "POST", "PUT", "DELETE"}


def test_every_pattern_of_the_model_compiles_without_a_warning():
    patterns = {shape["pattern"] for shape in RAW_MODEL["shapes"].values() if "pattern" in shape}
    assert len(patterns) > 50
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for pattern in patterns:
            re.purge()
            assert compile_pattern(pattern)


# Routing


@pytest.mark.parametrize(
    ("method", "path", "raw_query", "expected"),
    [
        ("GET", "/2018-10-31/layers", "", "ListLayers"),
        ("GET", "/2018-10-31/layers", "find=LayerVersion&Arn=x", "GetLayerVersionByArn"),
        ("GET", "/2018-10-31/layers", "find=Other", "ListLayers"),
        ("GET", "/2019-09-30/functions/f/provisioned-concurrency", "List=ALL", "ListProvisionedConcurrencyConfigs"),
        ("GET", "/2019-09-30/functions/f/provisioned-concurrency", "Qualifier=1", "GetProvisionedConcurrencyConfig"),
        ("GET", "/2019-09-25/functions/f/event-invoke-config/list", "", "ListFunctionEventInvokeConfigs"),
        ("PUT", "/2019-09-25/functions/f/event-invoke-config", "", "PutFunctionEventInvokeConfig"),
        ("POST", "/2019-09-25/functions/f/event-invoke-config", "", "UpdateFunctionEventInvokeConfig"),
        ("POST", "/2014-11-13/functions/f/invoke-async", "", "InvokeAsync"),
        ("POST", "/2014-11-13/functions/f/invoke-async/", "", "InvokeAsync"),
        ("GET", "/2015-03-31/functions/", "", "ListFunctions"),
        ("GET", "/2015-03-31/functions/f", "", "GetFunction"),
    ],
)
def test_a_request_finds_its_operation(method, path, raw_query, expected, protocol):
    assert protocol.match(method, path, parse_query(raw_query)).operation_name == expected


def test_labels_are_decoded_after_the_path_is_split(protocol):
    matched = protocol.match("GET", f"{FUNCTIONS}/a%2Fb%3A%24LATEST%252F/configuration", {})
    assert matched.operation_name == "GetFunctionConfiguration"
    assert matched.uri_params == {"FunctionName": "a/b:$LATEST%2F"}


def test_a_greedy_label_takes_slashes():
    from serverfull.api.model import Operation

    greedy = Operation("GetThing", "GET", "/2030-01-01/things/{Arn+}/parts", {}, 200, None, None)
    tail = Operation("GetTail", "GET", "/2030-01-01/tails/{Arn+}", {}, 200, None, None)
    router = Router([greedy, tail])
    matched = router.match("GET", "/2030-01-01/things/arn:a/b%2Fc/parts", {})
    assert matched.operation_name == "GetThing"
    assert matched.uri_params == {"Arn": "arn:a/b/c"}
    assert router.match("GET", "/2030-01-01/tails/a/b/c", {}).uri_params == {"Arn": "a/b/c"}


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/2015-03-31",
        "//2015-03-31/functions",
        "/2015-03-31%2Ffunctions",
        "/v1/functions",
        "/2021-10-31/functions//url",
        "/2015-03-31//functions",
        "/2015-03-31/",
        "/x\x00",
    ],
)
def test_an_unknown_path_is_an_unknown_operation(path, protocol):
    with pytest.raises(errors.UnknownOperation) as caught:
        protocol.match("GET", path, {})
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    "path",
    [
        "/2015-03-31/function",
        "/2016-01-01/functions",
        "/2016-01-01/functions/",
        "/2015-03-31/functions/f/nothing",
        "/2015-03-31/functions/f/x/y/z",
        "/2031-01-01/\x00",
    ],
)
def test_a_path_that_a_newer_model_may_have_is_refused_with_what_is_known_of_it(path):
    newest = Protocol(OPERATIONS, {}, "botocore 1.2.3")
    with pytest.raises(errors.UnsupportedOperation) as caught:
        newest.match("GET", path, {})
    assert f"GET {path}".rstrip("\x00") in caught.value.message
    assert "botocore 1.2.3" in caught.value.message
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("command", ["md/command#lambda.move-function", "command/lambda.move-function"])
@pytest.mark.parametrize("path", ["/2031-01-01/functions/f/move", f"{FUNCTIONS}/f"])
def test_an_operation_that_the_model_does_not_have_is_named_where_the_client_tells_its_name(path, command, protocol):
    with pytest.raises(errors.UnsupportedOperation, match=rf"^The operation move-function \(PATCH {path}\) is not "):
        protocol.match("PATCH", path, {}, f"aws-cli/2.40.0 md/installer#exe {command} lang/python#3.13")


def test_the_message_tells_the_installed_botocore():
    import botocore

    with pytest.raises(errors.UnsupportedOperation, match=f"of botocore {botocore.__version__}, "):
        Protocol.load({}).match("GET", "/2031-01-01/functions", {})


def test_a_known_path_with_another_method_names_the_methods_it_has(protocol):
    with pytest.raises(errors.MethodNotAllowed) as caught:
        protocol.match("PATCH", f"{FUNCTIONS}/f", {})
    assert caught.value.allowed == ("DELETE", "GET")


def test_a_label_that_is_not_utf8_is_a_malformed_request(protocol):
    with pytest.raises(errors.MalformedRequest):
        protocol.match("GET", f"{FUNCTIONS}/%ff", {})


@pytest.mark.parametrize("raw_query", ["a=%ff", "&".join(f"a{i}=1" for i in range(1001))])
def test_a_query_that_cannot_be_read_is_a_malformed_request(raw_query):
    with pytest.raises(errors.MalformedRequest):
        parse_query(raw_query)


# Constraints


def create_function(protocol, document, body=None):
    matched = protocol.match("POST", FUNCTIONS, {})
    content = json.dumps(document).encode() if body is None else body
    return protocol.parse(matched, {}, {"Content-Type": "application/json"}, content)


MINIMAL = {"FunctionName": "f", "Role": "arn:aws:iam::123456789012:role/r", "Code": {}}


def listed(protocol, raw_query):
    query = parse_query(raw_query)
    return protocol.parse(protocol.match("GET", FUNCTIONS, query), query, {}, b"")


def test_a_number_out_of_its_range_is_worded_as_aws_does(protocol):
    with pytest.raises(errors.ValidationFailed) as caught:
        listed(protocol, "MaxItems=10001")
    assert caught.value.message == (
        "1 validation error detected: Value '10001' at 'maxItems' failed to satisfy constraint: "
        "Member must have value less than or equal to 10000"
    )
    with pytest.raises(errors.ValidationFailed, match=r"Member must have value greater than or equal to 1$"):
        listed(protocol, "MaxItems=0")


def test_a_text_that_is_too_long_is_not_held_against_its_pattern(protocol):
    with pytest.raises(errors.ValidationFailed) as caught:
        create_function(protocol, MINIMAL | {"FunctionName": "a b" * 100})
    assert [problem.split("Member must ")[1] for problem in caught.value.problems] == [
        "have length less than or equal to 140"
    ]


@pytest.mark.parametrize("text", ["2026-03-01T12:00:00Z", "2026-03-01T13:00:00+01:00", "2026-03-01T12:00:00"])
def test_a_moment_in_the_query_is_that_of_utc_unless_it_says_otherwise(text, protocol):
    query = {"StartedAfter": [text]}
    matched = protocol.match("GET", "/2025-12-01/functions/f/durable-executions", query)
    assert protocol.parse(matched, query, {}, b"")["StartedAfter"] == datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_value_outside_an_enum_is_worded_as_aws_does(protocol):
    with pytest.raises(errors.ValidationFailed) as caught:
        listed(protocol, "FunctionVersion=SOME")
    assert caught.value.message == (
        "1 validation error detected: Value 'SOME' at 'functionVersion' failed to satisfy constraint: "
        "Member must satisfy enum value set: [ALL]"
    )


def test_a_missing_member_is_worded_as_aws_does(protocol):
    with pytest.raises(errors.ValidationFailed) as caught:
        create_function(protocol, {"FunctionName": "f", "Role": MINIMAL["Role"]})
    assert caught.value.message == (
        "1 validation error detected: Value null at 'code' failed to satisfy constraint: Member must not be null"
    )


def test_several_problems_come_in_one_answer(protocol):
    with pytest.raises(errors.ValidationFailed) as caught:
        create_function(protocol, MINIMAL | {"FunctionName": "a b", "Timeout": 0, "Role": "r", "KMSKeyArn": "k"})
    assert caught.value.message.startswith("4 validation errors detected: ")
    assert [re.search("at '([^']*)'", problem).group(1) for problem in caught.value.problems] == [
        "functionName",
        "role",
        "timeout",
        "kMSKeyArn",
    ]


def test_nested_members_are_named_by_their_path(protocol):
    with pytest.raises(errors.ValidationFailed, match=r"at 'code\.s3Bucket' failed"):
        create_function(protocol, MINIMAL | {"Code": {"S3Bucket": "a"}})
    with pytest.raises(errors.ValidationFailed, match=r"at 'fileSystemConfigs\.1\.member\.localMountPath' failed"):
        create_function(
            protocol, MINIMAL | {"FileSystemConfigs": [{"Arn": EXAMPLES["FileSystemArn"], "LocalMountPath": "x"}]}
        )


def test_members_of_a_list_are_worded_as_aws_does(protocol):
    with pytest.raises(errors.ValidationFailed) as caught:
        create_function(protocol, MINIMAL | {"Architectures": ["vax"]})
    assert caught.value.message == (
        "1 validation error detected: Value '[vax]' at 'architectures' failed to satisfy constraint: "
        "Member must satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64], Member must not be null]"
    )


def test_a_list_that_is_too_long_is_refused(protocol):
    with pytest.raises(errors.ValidationFailed, match="Member must have length less than or equal to 1"):
        create_function(protocol, MINIMAL | {"Architectures": ["x86_64", "arm64"]})


def test_null_in_a_list_is_refused(protocol):
    with pytest.raises(errors.ValidationFailed, match="Member must not be null"):
        create_function(protocol, MINIMAL | {"Architectures": [None]})


def test_sensitive_values_are_never_repeated(protocol):
    with pytest.raises(errors.ValidationFailed) as caught:
        create_function(protocol, MINIMAL | {"Environment": {"Variables": {"9": "hunter2"}}})
    assert "at 'environment.variables' failed to satisfy constraint: Map keys must satisfy" in caught.value.message
    assert "hunter2" not in caught.value.message
    with pytest.raises(errors.SerializationFailed) as refused:
        create_function(protocol, MINIMAL | {"Environment": {"Variables": {"A": ["hunter2"]}}})
    assert "hunter2" not in refused.value.message


def test_a_hostile_list_makes_no_endless_answer(protocol):
    item = {"Arn": "x" * 1000, "LocalMountPath": "y" * 1000}
    with pytest.raises(errors.ValidationFailed) as caught:
        create_function(protocol, MINIMAL | {"FileSystemConfigs": [item] * 5000})
    assert len(caught.value.message) < 20_000


def test_tags_take_the_letters_of_every_script(protocol):
    request = create_function(protocol, MINIMAL | {"Tags": {"Größe 中": "a+b=c"}})
    assert request["Tags"] == {"Größe 中": "a+b=c"}


def test_the_character_classes_of_java_are_understood():
    tag = compile_pattern(r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)")
    assert tag.fullmatch("Größe 中\u2028\u00a0Ⅷ_.:/=+-@٣")
    assert not tag.fullmatch("<")
    assert not tag.fullmatch("a%")
    assert not tag.fullmatch("a\n")
    assert not compile_pattern(r"\d{2}").fullmatch("٣٣")


def test_unknown_members_and_nulls_are_left_out(protocol):
    assert create_function(protocol, MINIMAL | {"Runtime": None, "Nonsense": 1}) == MINIMAL


# Bodies and types


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"x"',
        b"null",
        b"nothing",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b'{"FunctionName": NaN}',
        b'{"Nonsense": NaN}',
        b'{"Nonsense": -Infinity}',
        b'{"Timeout": ' + b"9" * 10_000 + b"}",
        b"[" * 200_000,
        b'{"a":' * 200_000,
    ],
)
def test_a_body_that_is_no_json_object_is_refused(body, protocol):
    with pytest.raises(errors.SerializationFailed) as caught:
        create_function(protocol, None, body)
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"FunctionName": 7}, "NUMBER_VALUE can not be converted to a String at 'functionName'"),
        ({"Publish": "true"}, "STRING_VALUE can not be converted to a Boolean at 'publish'"),
        ({"Timeout": "1"}, "STRING_VALUE can not be converted to an Integer at 'timeout'"),
        ({"Timeout": 1.5}, "NUMBER_VALUE can not be converted to an Integer at 'timeout'"),
        ({"Timeout": True}, "TRUE_VALUE can not be converted to an Integer at 'timeout'"),
        ({"Timeout": 2**31}, "NUMBER_VALUE can not be converted to an Integer at 'timeout'"),
        ({"Code": []}, "START_ARRAY can not be converted to a Structure at 'code'"),
        ({"Layers": {}}, "START_OBJECT can not be converted to a List at 'layers'"),
        ({"Tags": []}, "START_ARRAY can not be converted to a Map at 'tags'"),
        ({"Code": {"ZipFile": "no base64!"}}, "STRING_VALUE can not be converted to a Blob at 'code.zipFile'"),
        ({"Code": {"ZipFile": "\u00e9"}}, "STRING_VALUE can not be converted to a Blob at 'code.zipFile'"),
    ],
)
def test_a_value_of_another_type_is_refused_and_located(changes, message, protocol):
    with pytest.raises(errors.SerializationFailed) as caught:
        create_function(protocol, MINIMAL | changes)
    assert caught.value.message == message


def test_a_large_blob_is_read_whole_and_refused_wherever_it_is_damaged(protocol):
    text = base64.b64encode(bytes(range(256)) * 12_000 + b"end!").decode()
    parsed = create_function(protocol, MINIMAL | {"Code": {"ZipFile": text}})
    assert parsed["Code"]["ZipFile"] == base64.b64decode(text)
    for at in (0, 1 << 20, (1 << 20) - 2, len(text) - 9):
        for bad in ("==", "= ", "A\n", "-_"):
            with pytest.raises(errors.SerializationFailed):
                create_function(protocol, MINIMAL | {"Code": {"ZipFile": text[:at] + bad + text[at + 2 :]}})


@pytest.mark.parametrize("value", ["x", "1_0", " 1", "1.0", "\u0661", "9" * 5000, ""])
def test_a_number_in_the_query_must_be_one(value, protocol):
    with pytest.raises(errors.SerializationFailed):
        listed(protocol, f"MaxItems={quote(value)}")


@pytest.mark.parametrize("value", [True, [], "yesterday", 1e300])
def test_a_moment_must_be_one(value, protocol):
    matched = protocol.match("POST", "/2015-03-31/event-source-mappings", {})
    body = json.dumps({"FunctionName": "f", "StartingPositionTimestamp": value}).encode()
    with pytest.raises(errors.SerializationFailed):
        protocol.parse(matched, {}, {"content-type": "application/json"}, body)


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", None]
)
def test_a_body_must_say_that_it_is_json(content_type, protocol):
    headers = {} if content_type is None else {"content-type": content_type}
    with pytest.raises(errors.UnsupportedMediaType):
        protocol.parse(protocol.match("POST", FUNCTIONS, {}), {}, headers, json.dumps(MINIMAL).encode())


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8"])
def test_json_by_every_spelling_of_its_type_is_taken(content_type, protocol):
    matched = protocol.match("POST", FUNCTIONS, {})
    assert protocol.parse(matched, {}, {"CONTENT-TYPE": content_type}, json.dumps(MINIMAL).encode()) == MINIMAL


def test_a_payload_may_be_of_any_type(protocol):
    matched = protocol.match("POST", f"{FUNCTIONS}/f/invocations", {})
    request = protocol.parse(matched, {}, {"Content-Type": "text/plain"}, b"\x00raw")
    assert request == {"FunctionName": "f", "Payload": b"\x00raw"}


# Answers


def test_only_what_the_model_has_goes_out(protocol):
    answer = protocol.serialise("GetFunctionConfiguration", {"FunctionName": "f", "Runtime": None, "secret": 1})
    assert (answer.status, answer.body) == (200, b'{"FunctionName":"f"}')
    assert answer.headers == {"Content-Type": "application/json"}


def test_moments_and_blobs_go_out_as_aws_writes_them(protocol):
    moment = datetime(2026, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC)
    answer = protocol.serialise("GetFunctionEventInvokeConfig", {"LastModified": moment})
    assert json.loads(answer.body) == {"LastModified": moment.timestamp()}
    whole = protocol.serialise("GetFunctionEventInvokeConfig", {"LastModified": moment.replace(microsecond=0)})
    assert whole.body == b'{"LastModified":1767225600}'


# Dispatch


async def test_a_request_goes_all_the_way_to_its_operation_and_back():
    seen = []

    async def get_function(request, scope):
        seen.append((request, scope))
        return {"Configuration": {"FunctionName": request["FunctionName"]}}

    protocol = Protocol(OPERATIONS, {"GetFunction": get_function})
    answer = await protocol.handle("GET", f"{FUNCTIONS}/hello%3Alive", "Qualifier=live", {}, b"", SCOPE)
    assert seen == [({"FunctionName": "hello:live", "Qualifier": "live"}, SCOPE)]
    assert json.loads(answer.body) == {"Configuration": {"FunctionName": "hello:live"}}
    assert answer.headers["x-amzn-RequestId"] == SCOPE.request_id


@pytest.mark.parametrize("operation_name", MODEL.operation_names)
async def test_an_operation_without_implementation_is_named(operation_name, protocol):
    shape = MODEL.operation_model(operation_name).input_shape
    request = sent_by_botocore(operation_name, generated(shape, full=False) if shape is not None else {})
    with pytest.raises(errors.UnsupportedOperation, match=f"The operation {operation_name} is not supported"):
        await protocol.handle(*request, SCOPE)


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "%00", "a%0d%0ab", "%252e", "%C3%A9", "a b"])
async def test_hostile_names_stop_at_the_constraints(name):
    async def get_function(request, scope):
        raise AssertionError(request)

    protocol = Protocol(OPERATIONS, {"GetFunction": get_function})
    with pytest.raises(errors.ValidationFailed):
        await protocol.handle("GET", f"{FUNCTIONS}/{name}", "", {}, b"", SCOPE)


def test_the_generator_fills_requests_so_that_the_round_trips_mean_something():
    params = generated(MODEL.operation_model("CreateFunction").input_shape)
    assert len(params) > 20
    assert len(params["Code"]) > 4
