"""From a name, a query and headers to an `Invocation`: what Invoke's HTTP binding says, without an HTTP library.

The front door gives strings and a mapping of headers; any front (aiohttp's today) comes through here, so that all of
them understand a request alike.

AWS: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html#API_Invoke_RequestSyntax
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from functools import lru_cache
from json import loads
from typing import Any, Protocol

from serverfull.domain import limits
from serverfull.domain.invocations import Invocation
from serverfull.domain.names import (
    FunctionReference,
    check_reachable,
    credential_of,
    parse_credential,
    parse_function_reference,
    shown,
)
from serverfull.errors import InvalidParameterValue, InvalidRequestContent, ValidationFailed

_INVOCATION_TYPES = ("RequestResponse", "Event", "DryRun")
_EXECUTION_NAME_PATTERN = "[a-zA-Z0-9-_]+"
_TENANT_PATTERN = r"[a-zA-Z0-9\._:\/=+\-@ ]+"
_scope_of = lru_cache(maxsize=1024)(parse_credential)


class Headers(Protocol):
    """A view of headers by their names in any case."""

    def get(self, name: str, /) -> str | None:
        """Give the first value of a header, None where it is absent."""


class InvocationReader:
    """Reads invocations.

    :param account: the account of requests that name none.
    :param region: the region of requests that name none.
    :param spell: turns a header's name into the key that the front's view of headers finds fastest.
    """

    def __init__(self, account: str, region: str, spell: Callable[[str], str] = str) -> None:
        self.account = account
        self.region = region
        self._authorization = spell("Authorization")
        self._invocation_type = spell("X-Amz-Invocation-Type")
        self._log_type = spell("X-Amz-Log-Type")
        self._client_context = spell("X-Amz-Client-Context")
        self._cognito_identity = spell("X-Amz-Cognito-Identity")
        self._tenant_id = spell("X-Amz-Tenant-Id")
        self._durable_name = spell("X-Amz-Durable-Execution-Name")
        self._trace_id = spell("X-Amzn-Trace-Id")

    def scope(self, headers: Headers) -> tuple[str | None, str]:
        """Tell account and region of a request; None for an account that the credentials do not tell."""
        authorization = headers.get(self._authorization)
        if authorization is None:
            return None, self.region
        credential = credential_of(authorization)
        scope = None if credential is None else _scope_of(credential)
        return (None, self.region) if scope is None else (scope.account, scope.region)

    def read(self, reference: FunctionReference, headers: Headers, request_id: str) -> Invocation:
        """Read an invocation from its headers; the payload is put in when it has arrived.

        :raises NotFoundError: the reference is an ARN of another account or region.
        :raises ValidationFailed: a header breaks a constraint of the model.
        :raises InvalidRequestContent: the client context or the Cognito identity cannot be read.
        """
        account, region = self.scope(headers)
        if reference.region is not None or reference.account is not None:
            check_reachable(reference, account, region)
            account = account or reference.account
        invocation = Invocation(request_id, reference.name, reference.qualifier, account or self.account, region, b"")
        get = headers.get
        kind = get(self._invocation_type)
        if kind is not None and kind != "RequestResponse":
            invocation.invocation_type = self.invocation_type(kind)
        log_type = get(self._log_type)
        if log_type is not None:
            invocation.tail = _is_tail(log_type)
        client_context = get(self._client_context)
        if client_context is not None:
            invocation.client_context = decode_client_context(client_context)
        identity = get(self._cognito_identity)
        if identity is not None:
            invocation.cognito_identity = _decode_object("X-Amz-Cognito-Identity", identity)
        tenant = get(self._tenant_id)
        if tenant is not None:
            invocation.tenant_id = _tenant(tenant)
        name = get(self._durable_name)
        if name is not None:
            invocation.execution_name = _execution_name(name, invocation.invocation_type)
        invocation.trace_id = get(self._trace_id) or None
        return invocation

    def invocation_type(self, kind: str) -> Any:
        """Check an invocation type that is not the usual one.

        :raises ValidationFailed: there is no such type.
        """
        if kind not in _INVOCATION_TYPES:
            raise _broken("invocationType", kind, f"satisfy enum value set: [{', '.join(_INVOCATION_TYPES)}]")
        return kind


def _is_tail(log_type: str) -> bool:
    if log_type not in ("None", "Tail"):
        raise _broken("logType", log_type, "satisfy enum value set: [None, Tail]")
    return log_type == "Tail"


def _tenant(tenant: str) -> str:
    if not tenant:
        raise _broken("tenantId", tenant, "have length greater than or equal to 1")
    if len(tenant) > 256:
        raise _broken("tenantId", tenant, "have length less than or equal to 256")
    if re.fullmatch(_TENANT_PATTERN, tenant, re.ASCII) is None:
        raise _broken("tenantId", tenant, f"satisfy regular expression pattern: {_TENANT_PATTERN}")
    return tenant


def _execution_name(name: str, kind: str) -> str:
    if kind != "Event":
        raise InvalidParameterValue(
            "X-Amz-Durable-Execution-Name names a durable execution, which this host does not run. Remove the header, "
            "or send an Event: of those with one name a function gets one."
        )
    if not 1 <= len(name) <= 64:
        rule = "less than or equal to 64" if name else "greater than or equal to 1"
        raise _broken("durableExecutionName", name, f"have length {rule}")
    if re.fullmatch(_EXECUTION_NAME_PATTERN, name, re.ASCII) is None:
        rule = f"satisfy regular expression pattern: {_EXECUTION_NAME_PATTERN}"
        raise _broken("durableExecutionName", name, rule)
    return name


def _broken(member: str, value: str, rule: str) -> ValidationFailed:
    return ValidationFailed(f"Value '{shown(value)}' at '{member}' failed to satisfy constraint: Member must {rule}")


def decode_client_context(header: str) -> dict[str, Any]:
    """Read ``X-Amz-Client-Context``: base64 of a JSON object of at most 3,583 bytes.

    :raises InvalidRequestContent: it is not that.
    """
    try:
        decoded = base64.b64decode(header, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequestContent("Client context must be a valid Base64-encoded JSON object.") from None
    if len(decoded) > limits.CLIENT_CONTEXT_BYTES:
        raise InvalidRequestContent(
            f"Client context must be no more than {limits.CLIENT_CONTEXT_BYTES} bytes decoded, not {len(decoded)}."
        )
    return _decode_object("Client context", decoded)


def _decode_object(what: str, text: str | bytes) -> dict[str, Any]:
    try:
        value = loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequestContent(
            f"{what} must be a valid Base64-encoded JSON object."
            if what == "Client context"
            else f"{what} must be a JSON object."
        ) from None
    if not isinstance(value, dict):
        raise InvalidRequestContent(f"{what} must be a JSON object, not {type(value).__name__}.")
    return value


@lru_cache(maxsize=4096)
def reference(name: str, qualifier: str | None) -> FunctionReference:
    """Parse a function reference once for each spelling; see `parse_function_reference`."""
    return parse_function_reference(name, qualifier)
