"""The one table from exception class to AWS error name, HTTP status and body; every error answer is built here.

The front doors call `error_answer` for whatever was raised and write its three parts to their connection. It is a
pure function: nothing is logged here, and no aiohttp type comes in or goes out. A new error class needs a row here, a
place in the tree of `serverfull.errors`, and a reason why none of those that exist will do.

Names, statuses and the spelling of ``message`` and ``Message`` are those of the AWS model where it has the error:
https://docs.aws.amazon.com/lambda/latest/api/CommonErrors.html
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from serverfull import errors
from serverfull.domain.json_functions import dumps

CONTENT_TYPE = "application/json"


class ErrorAnswer(NamedTuple):
    """An error as it goes over the wire.

    :param headers: all that the answer needs except those of HTTP framing (Content-Length, Date).
    """

    status: int
    headers: dict[str, str]
    body: bytes


class ErrorRow(NamedTuple):
    """What one class of exception looks like to a client.

    :param name: the AWS error name, which SDKs turn into an exception class or code.
    :param status: the HTTP status. SDKs retry 429, 500, 502, 503 and 504 and nothing else.
    :param fault: the ``Type`` in the body: ``User`` or ``Service``; None where AWS's answer has none.
    :param message_key: the member that holds the text.
    """

    name: str
    status: int
    fault: Literal["User", "Service"] | None
    message_key: Literal["message", "Message"]


ROWS: dict[type[errors.RequestError], ErrorRow] = {
    errors.NotFoundError: ErrorRow("ResourceNotFoundException", 404, "User", "Message"),
    errors.InvalidParameterValue: ErrorRow("InvalidParameterValueException", 400, "User", "message"),
    errors.ValidationFailed: ErrorRow("ValidationException", 400, None, "message"),
    errors.InvalidRequestContent: ErrorRow("InvalidRequestContentException", 400, "User", "message"),
    errors.SerializationFailed: ErrorRow("SerializationException", 400, "User", "message"),
    errors.RequestTooLarge: ErrorRow("RequestTooLargeException", 413, "User", "message"),
    errors.TooManyRequests: ErrorRow("TooManyRequestsException", 429, "User", "message"),
    errors.RecursiveInvocation: ErrorRow("RecursiveInvocationException", 400, "User", "Message"),
    errors.DurableExecutionAlreadyStarted: ErrorRow("DurableExecutionAlreadyStartedException", 409, "User", "Message"),
    errors.FunctionNotReady: ErrorRow("ResourceConflictException", 409, "User", "message"),
    errors.DependenciesNotInstalled: ErrorRow("ResourceConflictException", 409, "User", "message"),
    errors.SnapStartFailed: ErrorRow("SnapStartException", 400, "User", "Message"),
    errors.SnapStartTimeout: ErrorRow("SnapStartTimeoutException", 408, "User", "Message"),
    errors.SnapStartRegenerationFailure: ErrorRow("SnapStartRegenerationFailureException", 409, "User", "Message"),
    errors.InvalidRuntime: ErrorRow("InvalidRuntimeException", 502, "Service", "Message"),
    errors.ReadOnlyFunction: ErrorRow("ResourceConflictException", 409, "User", "message"),
    errors.ResourceNotFound: ErrorRow("ResourceNotFoundException", 404, "User", "Message"),
    errors.CodeSigningConfigNotFound: ErrorRow("CodeSigningConfigNotFoundException", 404, "User", "Message"),
    errors.ProvisionedConcurrencyConfigNotFound: ErrorRow(
        "ProvisionedConcurrencyConfigNotFoundException", 404, "User", "message"
    ),
    errors.ResourceConflict: ErrorRow("ResourceConflictException", 409, "User", "message"),
    errors.PreconditionFailed: ErrorRow("PreconditionFailedException", 412, "User", "message"),
    errors.ResourceInUse: ErrorRow("ResourceInUseException", 400, "User", "Message"),
    errors.CodeStorageExceeded: ErrorRow("CodeStorageExceededException", 400, "User", "message"),
    errors.PolicyLengthExceeded: ErrorRow("PolicyLengthExceededException", 400, "User", "message"),
    errors.AliasLimitExceeded: ErrorRow("AliasLimitExceededException", 400, "User", "message"),
    errors.CapacityProviderLimitExceeded: ErrorRow("CapacityProviderLimitExceededException", 400, "User", "message"),
    errors.CodeVerificationFailed: ErrorRow("CodeVerificationFailedException", 400, "User", "Message"),
    errors.InvalidCodeSignature: ErrorRow("InvalidCodeSignatureException", 400, "User", "Message"),
    errors.PublicPolicyRefused: ErrorRow("PublicPolicyException", 400, "User", "Message"),
    errors.RequestEntityTooLarge: ErrorRow("RequestEntityTooLargeException", 413, "User", "message"),
    # 501 and not 500 or 503: it says what is the matter, and no SDK retries it.
    errors.UnsupportedOperation: ErrorRow("NotImplementedException", 501, "Service", "message"),
    errors.UnknownOperation: ErrorRow("UnknownOperationException", 404, "User", "message"),
    errors.MethodNotAllowed: ErrorRow("MethodNotAllowedException", 405, "User", "message"),
    errors.UnsupportedMediaType: ErrorRow("UnsupportedMediaTypeException", 415, "User", "message"),
    errors.RequestRefused: ErrorRow("AccessDeniedException", 403, "User", "Message"),
    errors.UnknownRequestMockError: ErrorRow("UnknownRequestMockError", 404, "User", "message"),
    # The status is the instance's own, and MALFORMED_NAMES has the name that goes with it.
    errors.MalformedRequest: ErrorRow("BadRequestException", 400, "User", "message"),
    errors.ShuttingDown: ErrorRow("ServiceException", 503, "Service", "Message"),
    errors.InternalFailure: ErrorRow("ServiceException", 500, "Service", "Message"),
    errors.SourceUnavailable: ErrorRow("ServiceException", 500, "Service", "Message"),
}

MALFORMED_NAMES: dict[int, str] = {
    400: "BadRequestException",
    408: "RequestTimeoutException",
    413: "RequestTooLargeException",
    414: "RequestUriTooLongException",
    431: "RequestHeaderFieldsTooLargeException",
    501: "NotImplementedException",
}
"""AWS error names for `MalformedRequest` by its status."""


def error_answer(error: BaseException, request_id: str) -> ErrorAnswer:
    """Turn whatever was raised into an answer that every AWS SDK reads as a typed error.

    An exception that is no `RequestError` is a failure of the host: the answer says so and nothing about the exception,
    whose text and traceback may hold secrets. The caller logs it under the request id.

    :param request_id: what ``x-amzn-RequestId`` shows.
    """
    known = error if isinstance(error, errors.RequestError) else errors.InternalFailure()
    row = _row_of(known)
    headers = {"Content-Type": CONTENT_TYPE, "x-amzn-RequestId": request_id, "x-amzn-ErrorType": row.name}
    headers.update(_extra_headers(known))
    return ErrorAnswer(row.status, headers, dumps(_document(known, row)).encode())


def _row_of(error: errors.RequestError) -> ErrorRow:
    if isinstance(error, errors.MalformedRequest):
        return ErrorRow(MALFORMED_NAMES.get(error.status, "BadRequestException"), error.status, "User", "message")
    for ancestor in type(error).__mro__:
        if ancestor in ROWS:
            return ROWS[ancestor]
    return ROWS[errors.InternalFailure]


def _extra_headers(error: errors.RequestError) -> dict[str, str]:
    if isinstance(error, errors.TooManyRequests):
        return {"Retry-After": str(error.retry_after)}
    if isinstance(error, errors.ShuttingDown):
        return {"Retry-After": str(error.retry_after), "Connection": "close"}
    if isinstance(error, errors.MethodNotAllowed):
        return {"Allow": ", ".join(error.allowed)}
    if isinstance(error, errors.MalformedRequest):
        # What follows on the connection cannot be trusted to start a request.
        return {"Connection": "close"}
    return {}


def _document(error: errors.RequestError, row: ErrorRow) -> dict[str, str]:
    document: dict[str, str] = {} if row.fault is None else {"Type": row.fault}
    if isinstance(error, errors.TooManyRequests):
        document["Reason"] = error.reason
    document[row.message_key] = error.message
    return document
