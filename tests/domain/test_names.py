from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serverfull.domain.names import (
    MAX_NAME_LENGTH,
    MAX_QUALIFIER_LENGTH,
    NAME_PATTERN,
    QUALIFIER_PATTERN,
    CredentialScope,
    FunctionReference,
    check_reachable,
    function_arn,
    function_not_found,
    parse_credential_scope,
    parse_function_reference,
)
from serverfull.errors import InvalidParameterValue, NotFoundError, RequestError, ValidationFailed

ARN = "arn:aws:lambda:us-east-1:123456789012:function:hello"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello", FunctionReference("hello")),
        ("hello:$LATEST", FunctionReference("hello", "$LATEST")),
        ("hello:7", FunctionReference("hello", "7")),
        ("hello:prod-1_a", FunctionReference("hello", "prod-1_a")),
        ("function:hello", FunctionReference("hello")),
        ("function", FunctionReference("function")),
        ("function:$LATEST", FunctionReference("function", "$LATEST")),
        ("123456789012:function:hello", FunctionReference("hello", None, "123456789012")),
        ("123456789012:function:hello:live", FunctionReference("hello", "live", "123456789012")),
        ("123456789012", FunctionReference("123456789012")),
        (ARN, FunctionReference("hello", None, "123456789012", "us-east-1")),
        (f"{ARN}:live", FunctionReference("hello", "live", "123456789012", "us-east-1")),
        (f"{ARN}:$LATEST.PUBLISHED", FunctionReference("hello", "$LATEST.PUBLISHED", "123456789012", "us-east-1")),
        (
            "arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:hello",
            FunctionReference("hello", None, "123456789012", "us-gov-west-1"),
        ),
        (
            "arn:aws-eusc:lambda:eusc-de-east-1:123456789012:function:hello",
            FunctionReference("hello", None, "123456789012", "eusc-de-east-1"),
        ),
        ("dotted.name", FunctionReference("dotted.name")),
    ],
)
def test_every_form_of_a_name_is_read(text, expected):
    assert parse_function_reference(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a b",
        "../etc/passwd",
        "a/b",
        "a\x00b",
        "a\r\nX-Evil: 1",
        "hello\n",
        "hello:",
        "hello:a b",
        "h\u00e9llo",
        "\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668\u0669\u0660\u0661\u0662:function:hello",
        "%2e%2e",
        "arn:aws:s3:::bucket",
        "arn:aws:lambda:us-east-1:1234:function:hello",
        "a:b:c",
        "\udc80",
        "<script>",
    ],
)
def test_a_name_outside_the_pattern_is_refused_in_the_words_of_aws(text):
    with pytest.raises(ValidationFailed) as caught:
        parse_function_reference(text)
    message = caught.value.message
    assert "validation error" in message
    assert "at 'functionName' failed to satisfy constraint: Member must" in message
    assert message.endswith(f"satisfy regular expression pattern: {NAME_PATTERN}")
    assert message.isprintable()
    json.dumps(message).encode()


def test_the_whole_sentence_is_that_of_aws():
    with pytest.raises(ValidationFailed) as caught:
        parse_function_reference("a b")
    assert caught.value.message == (
        "1 validation error detected: Value 'a b' at 'functionName' failed to satisfy constraint: "
        f"Member must satisfy regular expression pattern: {NAME_PATTERN}"
    )


def test_a_name_that_is_too_long_is_refused_and_not_repeated_in_full():
    parse_function_reference("n" * MAX_NAME_LENGTH)
    with pytest.raises(ValidationFailed) as caught:
        parse_function_reference("n" * 10_000)
    assert caught.value.message.endswith("Member must have length less than or equal to 256")
    assert len(caught.value.message) < 500


def test_an_empty_name_breaks_two_constraints():
    with pytest.raises(ValidationFailed) as caught:
        parse_function_reference("")
    assert caught.value.message.startswith("2 validation errors detected: Value '' at 'functionName'")


@pytest.mark.parametrize(("qualifier", "constraint"), [("a b", "pattern"), ("v" * 129, "length"), ("a:b", "pattern")])
def test_a_qualifier_outside_its_constraints_is_refused(qualifier, constraint):
    with pytest.raises(ValidationFailed, match=f"at 'qualifier' failed to satisfy constraint: .*{constraint}"):
        parse_function_reference("hello", qualifier)


def test_problems_of_name_and_qualifier_come_together():
    with pytest.raises(ValidationFailed) as caught:
        parse_function_reference("a b", "c d")
    assert caught.value.message.startswith("2 validation errors detected: ")
    assert len(caught.value.problems) == 2


def test_an_empty_qualifier_counts_as_absent():
    assert parse_function_reference("hello", "") == FunctionReference("hello")
    assert parse_function_reference("hello:1", "") == FunctionReference("hello", "1")


def test_the_same_qualifier_twice_is_fine():
    assert parse_function_reference("hello:live", "live") == FunctionReference("hello", "live")


def test_two_different_qualifiers_are_refused():
    with pytest.raises(InvalidParameterValue) as caught:
        parse_function_reference("hello:live", "test")
    assert caught.value.message == (
        "The derived qualifier from the function name does not match the specified qualifier."
    )


def test_patterns_and_lengths_are_those_of_the_installed_model():
    from botocore.loaders import Loader

    shapes = Loader().load_service_model("lambda", "service-2")["shapes"]
    name, qualifier = shapes["NamespacedFunctionName"], shapes["NumericLatestPublishedOrAliasQualifier"]
    # Models before the European sovereign cloud lack its prefix and are otherwise the same.
    assert name["pattern"] in (NAME_PATTERN, NAME_PATTERN.replace("(eusc-)?", ""))
    assert name["max"] == MAX_NAME_LENGTH
    assert qualifier["pattern"] == QUALIFIER_PATTERN
    assert qualifier["max"] == MAX_QUALIFIER_LENGTH


def test_an_arn_of_another_region_is_not_reachable():
    reference = parse_function_reference(ARN.replace("us-east-1", "eu-west-1"))
    with pytest.raises(NotFoundError) as caught:
        check_reachable(reference, "123456789012", "us-east-1")
    assert caught.value.message == "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"


@pytest.mark.parametrize(
    "arn",
    [
        ARN.replace("arn:aws:", "arn:aws-cn:"),
        ARN.replace("arn:aws:", "arn:aws-us-gov:") + ":live",
        ARN.replace("arn:aws:", "arn::"),
        ARN.replace("us-east-1", "cn-north-1"),
    ],
)
def test_an_arn_whose_region_is_in_another_partition_names_nothing(arn):
    with pytest.raises(NotFoundError) as caught:
        parse_function_reference(arn)
    assert caught.value.message == f"Function not found: {arn}"


def test_an_arn_of_another_account_is_not_found_when_the_account_is_known():
    reference = parse_function_reference(ARN)
    with pytest.raises(NotFoundError, match=f"^Function not found: {ARN}$"):
        check_reachable(reference, "999999999999", "us-east-1")


@pytest.mark.parametrize("account", ["123456789012", None])
def test_an_arn_of_the_own_or_an_untold_account_is_reachable(account):
    check_reachable(parse_function_reference(ARN), account, "us-east-1")


def test_a_bare_name_is_reachable_from_everywhere():
    check_reachable(parse_function_reference("hello"), "999999999999", "ap-south-1")


@pytest.mark.parametrize(
    ("region", "partition"),
    [
        ("us-east-1", "aws"),
        ("cn-north-1", "aws-cn"),
        ("us-gov-west-1", "aws-us-gov"),
        ("us-iso-east-1", "aws-iso"),
        ("us-isob-east-1", "aws-iso-b"),
        ("eusc-de-east-1", "aws-eusc"),
    ],
)
def test_the_partition_of_an_arn_follows_its_region(region, partition):
    assert (
        function_arn("hello", "123456789012", region) == f"arn:{partition}:lambda:{region}:123456789012:function:hello"
    )


@given(
    name=st.from_regex(r"[a-zA-Z][a-zA-Z0-9_-]{0,63}", fullmatch=True).filter(lambda name: name != "function"),
    qualifier=st.none() | st.from_regex(r"\$LATEST|[a-zA-Z0-9_-]{1,40}", fullmatch=True),
    region=st.sampled_from(["us-east-1", "cn-north-1", "us-gov-east-1", "eu-central-2"]),
)
def test_an_arn_reads_back_as_it_was_written(name, qualifier, region):
    arn = function_arn(name, "123456789012", region, qualifier)
    assert parse_function_reference(arn) == FunctionReference(name, qualifier, "123456789012", region)


@given(st.text(max_size=400), st.none() | st.text(max_size=200))
def test_no_text_gets_anything_but_a_reference_or_a_typed_error(text, qualifier):
    try:
        shown = parse_function_reference(text, qualifier).name
    except RequestError as error:
        shown = error.message.replace(NAME_PATTERN, "")
    assert shown.isprintable()


def test_an_unknown_function_is_named_by_its_arn_with_the_qualifier_that_was_asked_for():
    assert function_not_found("hello", "123456789012", "us-east-1", "7").message == f"Function not found: {ARN}:7"
    assert function_not_found("hello", "123456789012", "us-east-1").message == f"Function not found: {ARN}"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/eu-west-1/lambda/aws4_request, SignedHeaders=host",
            CredentialScope("AKIDEXAMPLE", "eu-west-1", "lambda"),
        ),
        ("AWS4-HMAC-SHA256 Credential=1/2/r/lambda/aws4_request,SignedHeaders=x", CredentialScope("1", "r", "lambda")),
        (None, None),
        ("", None),
        ("Bearer abc", None),
        ("AWS4-HMAC-SHA256 Credential=AKID/20260101/eu-west-1", None),
        ("AWS4-HMAC-SHA256 Credential=AKID/20260101/eu-west-1/aws4_request", None),
        ("AWS4-HMAC-SHA256 Credential=A/K/ID/20260101/eu-west-1/lambda/aws4_request", None),
        ("AWS4-HMAC-SHA256 Credential=AKID/20260101//lambda/aws4_request", None),
        ("AWS4-HMAC-SHA256 Credential=AKID/20260101/eu west/lambda/aws4_request", None),
        ("AWS4-HMAC-SHA256 Credential=/20260101/eu-west-1/lambda/aws4_request", None),
        ("Credential=" + "a" * 100_000, None),
    ],
)
def test_a_credential_scope_is_read_or_passed_over(header, expected):
    assert parse_credential_scope(header) == expected


def test_an_access_key_of_twelve_digits_is_the_account():
    assert CredentialScope("123456789012", "us-east-1", "lambda").account == "123456789012"
    assert CredentialScope("AKIDEXAMPLE", "us-east-1", "lambda").account is None
    assert CredentialScope("\u0661" * 12, "us-east-1", "lambda").account is None


def test_the_scope_that_botocore_signs_is_read():
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest("POST", "http://localhost/2015-03-31/functions/x/invocations", data=b"{}")
    SigV4Auth(Credentials("123456789012", "secret"), "lambda", "eu-central-1").add_auth(request)
    scope = parse_credential_scope(request.headers["Authorization"])
    assert scope == CredentialScope("123456789012", "eu-central-1", "lambda")
