from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from botocore.awsrequest import HeadersDict
from botocore.exceptions import ClientError
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import create_parser
from botocore.retries.standard import TransientRetryableChecker

from serverfull import Function, errors
from serverfull.api.errors import MALFORMED_NAMES, ROWS, error_answer

REQUEST_ID = "7c9dcb0a-4f5b-4d0c-8a53-4e3f0e6b4c11"

EXAMPLES = [
    (errors.NotFoundError("nobody"), "ResourceNotFoundException", 404),
    (errors.InvalidParameterValue("no"), "InvalidParameterValueException", 400),
    (errors.ValidationFailed("Value 'x' at 'y'"), "ValidationException", 400),
    (errors.InvalidRequestContent("no JSON"), "InvalidRequestContentException", 400),
    (errors.SerializationFailed("no JSON"), "SerializationException", 400),
    (errors.RequestTooLarge(7, 6), "RequestTooLargeException", 413),
    (errors.TooManyRequests("ConcurrentInvocationLimitExceeded", 3), "TooManyRequestsException", 429),
    (errors.RecursiveInvocation("hello", 16), "RecursiveInvocationException", 400),
    (errors.DurableExecutionAlreadyStarted("order-7"), "DurableExecutionAlreadyStartedException", 409),
    (errors.FunctionNotReady("hello", "Failed", "threads were lost"), "ResourceConflictException", 409),
    (errors.DependenciesNotInstalled("hello", "no such package"), "ResourceConflictException", 409),
    (errors.SnapStartFailed("ValueError: no"), "SnapStartException", 400),
    (errors.SnapStartTimeout(), "SnapStartTimeoutException", 408),
    (errors.SnapStartRegenerationFailure("ValueError: no"), "SnapStartRegenerationFailureException", 409),
    (errors.InvalidRuntime("nodejs"), "InvalidRuntimeException", 502),
    (errors.ReadOnlyFunction("static"), "ResourceConflictException", 409),
    (errors.ResourceNotFound("no such layer"), "ResourceNotFoundException", 404),
    (errors.CodeSigningConfigNotFound("csc-1"), "CodeSigningConfigNotFoundException", 404),
    (errors.ProvisionedConcurrencyConfigNotFound(), "ProvisionedConcurrencyConfigNotFoundException", 404),
    (errors.ResourceConflict("it exists"), "ResourceConflictException", 409),
    (errors.PreconditionFailed(), "PreconditionFailedException", 412),
    (errors.ResourceInUse("it changes"), "ResourceInUseException", 400),
    (errors.CodeStorageExceeded("full"), "CodeStorageExceededException", 400),
    (errors.PolicyLengthExceeded("long"), "PolicyLengthExceededException", 400),
    (errors.AliasLimitExceeded("many"), "AliasLimitExceededException", 400),
    (errors.CapacityProviderLimitExceeded("many"), "CapacityProviderLimitExceededException", 400),
    (errors.CodeVerificationFailed("unsigned"), "CodeVerificationFailedException", 400),
    (errors.InvalidCodeSignature("changed"), "InvalidCodeSignatureException", 400),
    (errors.PublicPolicyRefused("everybody"), "PublicPolicyException", 400),
    (errors.RequestEntityTooLarge("big"), "RequestEntityTooLargeException", 413),
    (errors.UnsupportedOperation("CreateFunction"), "NotImplementedException", 501),
    (errors.UnknownOperation("nothing is there"), "UnknownOperationException", 404),
    (errors.MethodNotAllowed("PUT", "/x", ("GET", "POST")), "MethodNotAllowedException", 405),
    (errors.UnsupportedMediaType("text/plain"), "UnsupportedMediaTypeException", 415),
    (errors.RequestRefused("Origin"), "AccessDeniedException", 403),
    (errors.UnknownRequestMockError("Gone", ("Full", "Late")), "UnknownRequestMockError", 404),
    (errors.MalformedRequest("bytes"), "BadRequestException", 400),
    (errors.MalformedRequest("slow", 408), "RequestTimeoutException", 408),
    (errors.MalformedRequest("big", 413), "RequestTooLargeException", 413),
    (errors.MalformedRequest("long", 414), "RequestUriTooLongException", 414),
    (errors.MalformedRequest("wide", 431), "RequestHeaderFieldsTooLargeException", 431),
    (errors.MalformedRequest("coding", 501), "NotImplementedException", 501),
    (errors.ShuttingDown(2), "ServiceException", 503),
    (errors.InternalFailure(), "ServiceException", 500),
    (errors.SourceUnavailable("s3://bucket/f/ cannot be read: S3 answers AccessDenied."), "ServiceException", 500),
]


def every_request_error(base: type[errors.RequestError] = errors.RequestError) -> set[type[errors.RequestError]]:
    found = {c for c in base.__subclasses__() if c.__module__ == errors.__name__}
    return found.union(*(every_request_error(c) for c in found))


@pytest.fixture(scope="module")
def model() -> ServiceModel:
    return ServiceModel(Loader().load_service_model("lambda", "service-2"), "lambda")


def as_boto3_reads_it(answer, model, operation="Invoke"):
    response = {"status_code": answer.status, "headers": HeadersDict(answer.headers), "body": answer.body}
    parser = create_parser("rest-json")
    parsed = parser.parse(response, model.operation_model(operation).output_shape)
    shape = model.shape_for_error_code(parsed["Error"]["Code"])
    if shape is not None:
        parsed.update(parser.parse(response, shape))
    return ClientError(parsed, operation)


def test_every_error_class_has_a_row_and_an_example():
    assert set(ROWS) == every_request_error()
    assert {type(example) for example, _, _ in EXAMPLES} == every_request_error()
    assert {example.status for example, _, _ in EXAMPLES if isinstance(example, errors.MalformedRequest)} == set(
        MALFORMED_NAMES
    )


@pytest.mark.parametrize(("error", "name", "status"), EXAMPLES)
def test_boto3_reads_every_error_as_a_typed_one(error, name, status, model):
    answer = error_answer(error, REQUEST_ID)
    read = as_boto3_reads_it(answer, model)
    assert read.response["Error"]["Code"] == name
    assert read.response["Error"]["Message"] == error.message
    assert read.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert read.response["ResponseMetadata"]["HTTPHeaders"]["x-amzn-requestid"] == REQUEST_ID


@pytest.mark.parametrize(("error", "name", "status"), EXAMPLES)
def test_every_error_is_json_with_its_headers(error, name, status):
    answer = error_answer(error, REQUEST_ID)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["x-amzn-RequestId"] == REQUEST_ID
    assert answer.headers["x-amzn-ErrorType"] == name
    assert isinstance(json.loads(answer.body), dict)
    assert all(value.isprintable() for value in answer.headers.values())


@pytest.mark.parametrize("row", {row.name: row for row in ROWS.values()}.values(), ids=lambda row: row.name)
def test_rows_that_the_model_knows_are_spelled_as_it_spells_them(row, model):
    shape = model.shape_for_error_code(row.name)
    if shape is None:
        pytest.skip("an error of AWS's front end, which the model leaves out")
    assert row.message_key in shape.members
    if row.name != "ServiceException":  # 503 while the host drains
        assert row.status == shape.metadata["error"]["httpStatusCode"]
    assert (row.fault == "User") == shape.metadata["error"].get("senderFault", False)


def test_throttling_tells_the_reason_and_when_to_retry(model):
    answer = error_answer(errors.TooManyRequests("ConcurrentInvocationLimitExceeded", 3), REQUEST_ID)
    assert answer.headers["Retry-After"] == "3"
    assert json.loads(answer.body) == {
        "Type": "User",
        "Reason": "ConcurrentInvocationLimitExceeded",
        "message": "Rate Exceeded.",
    }
    read = as_boto3_reads_it(answer, model).response
    assert read["Reason"] == "ConcurrentInvocationLimitExceeded"
    assert read["retryAfterSeconds"] == "3"


def test_a_draining_host_ends_the_connection():
    headers = error_answer(errors.ShuttingDown(2), REQUEST_ID).headers
    assert headers["Retry-After"] == "2"
    assert headers["Connection"] == "close"


def test_a_malformed_request_ends_the_connection():
    assert error_answer(errors.MalformedRequest("x"), REQUEST_ID).headers["Connection"] == "close"


def test_a_wrong_method_is_told_the_right_ones():
    answer = error_answer(errors.MethodNotAllowed("PUT", "/x", ("GET", "POST")), REQUEST_ID)
    assert answer.headers["Allow"] == "GET, POST"


@pytest.mark.parametrize(
    "error", [ValueError("secret"), KeyError("secret"), OSError(2, "secret"), SystemExit("secret")]
)
def test_an_unexpected_exception_is_a_500_that_tells_nothing(error):
    answer = error_answer(error, REQUEST_ID)
    assert answer.status == 500
    assert answer.headers["x-amzn-ErrorType"] == "ServiceException"
    assert b"secret" not in answer.body
    assert type(error).__name__.encode() not in answer.body
    assert json.loads(answer.body) == {"Type": "Service", "Message": errors.InternalFailure().message}


def test_a_subclass_is_answered_as_its_ancestor():
    class Unknown(errors.NotFoundError):
        pass

    assert error_answer(Unknown("x"), REQUEST_ID).headers["x-amzn-ErrorType"] == "ResourceNotFoundException"


def test_a_bare_request_error_is_a_failure_of_the_host():
    assert error_answer(errors.RequestError("x"), REQUEST_ID).status == 500


def test_unpaired_surrogates_in_a_message_reach_the_client_as_json():
    body = error_answer(errors.NotFoundError("x", "bad \udc80 name"), REQUEST_ID).body
    assert json.loads(body)["Message"] == "bad \udc80 name"


@pytest.mark.parametrize("operation", ["CreateFunction", "ListLayers"])
def test_boto3_does_not_retry_an_operation_that_is_not_there(operation):
    transient = TransientRetryableChecker()._transient_status_codes
    assert error_answer(errors.UnsupportedOperation(operation), REQUEST_ID).status not in transient


async def test_answers_of_the_host_survive_handlers_that_replace_functions_of_the_json_module(
    start_host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(event: Any) -> None:
        monkeypatch.setattr(json, "dumps", None)
        monkeypatch.setattr(json, "loads", None)

    def fail(event: Any) -> None:
        logging.getLogger().error("as JSON")
        raise LookupError("no")

    host = await start_host({"replace": replace, "fail": Function(fail, log_format="JSON")})
    await host.invoke("replace")
    failed, missing = await host.tail("fail"), await host.invoke("missing")
    refused, listed = await host.request("PUT", "/healthcheck"), await host.request("GET", "/2015-03-31/functions/")
    monkeypatch.undo()
    assert failed.json()["errorType"] == "LookupError"
    assert '"message": "as JSON"' in failed.tail()
    assert missing.json()["Message"].startswith("Function not found")
    assert (refused.status, refused.error_type) == (405, "MethodNotAllowedException")
    assert refused.json()["Type"] == "User"
    assert len(listed.json()["Functions"]) == 2
