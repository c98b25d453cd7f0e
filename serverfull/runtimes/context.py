"""The ``context`` that a Python handler gets, with every attribute and method of AWS's own.

Runtimes make one for each invocation. Like AWS's it is a plain object: handlers and libraries may set attributes, and
``vars(context)`` shows what there is.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/python-context.html
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serverfull.domain.invocations import Invocation
    from serverfull.interfaces import FunctionIdentity

_TRACE_FIELDS = ("traceparent", "tracestate", "baggage")


class _Record:
    """An object with a fixed set of fields and a readable repr."""

    __slots__: tuple[str, ...] = ()

    def __repr__(self) -> str:
        fields = ",".join(f"{name}={getattr(self, name)}" for name in self.__slots__)
        return f"{type(self).__name__}([{fields}])"


class CognitoIdentity(_Record):
    """Who called, where an Amazon Cognito identity was given; both are None otherwise."""

    __slots__ = ("cognito_identity_id", "cognito_identity_pool_id")

    def __init__(self, cognito_identity_id: str | None = None, cognito_identity_pool_id: str | None = None) -> None:
        self.cognito_identity_id = cognito_identity_id
        self.cognito_identity_pool_id = cognito_identity_pool_id


class Client(_Record):
    """The mobile application that called."""

    __slots__ = (  # noqa: RUF023 - the order of the repr
        "installation_id",
        "app_title",
        "app_version_name",
        "app_version_code",
        "app_package_name",
    )

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.installation_id = fields.get("installation_id")
        self.app_title = fields.get("app_title")
        self.app_version_name = fields.get("app_version_name")
        self.app_version_code = fields.get("app_version_code")
        self.app_package_name = fields.get("app_package_name")


class ClientContext(_Record):
    """What the caller sent as ``X-Amz-Client-Context``. A field that it did not send is None."""

    __slots__ = ("custom", "env", "client")  # noqa: RUF023 - the order of the repr

    def __init__(self, fields: Mapping[str, Any]) -> None:
        client = fields.get("client")
        self.custom = fields.get("custom")
        self.env = fields.get("env")
        self.client = Client(client) if isinstance(client, dict) else None


class LambdaContext:
    """What a handler may know of its invocation, its function and the time it has left.

    :param identity: the function.
    :param invocation: this call.
    :param arn: the ARN by which it was invoked, with the qualifier if there was one.
    :param deadline: when the function times out, in seconds of `time.monotonic`.
    """

    def __init__(self, identity: FunctionIdentity, invocation: Invocation, arn: str, deadline: float) -> None:
        # Plain assignments in a fixed order: the interpreter makes no dict for them until one is asked for.
        self.aws_request_id = invocation.request_id
        self.log_group_name = identity.log_group
        self.log_stream_name = identity.log_stream
        self.function_name = identity.name
        self.memory_limit_in_mb = str(identity.memory_size)
        self.function_version = identity.version
        self.invoked_function_arn = arn
        self.tenant_id = invocation.tenant_id
        self._client_fields = fields = invocation.client_context
        self.client_context = None if fields is None else ClientContext(fields)
        cognito = invocation.cognito_identity
        self.identity = CognitoIdentity() if cognito is None else _cognito(cognito)
        self._deadline = deadline

    def get_remaining_time_in_millis(self) -> int:
        """Say how many milliseconds are left before the function times out; 0 when it has."""
        return max(0, int((self._deadline - monotonic()) * 1000))

    def log(self, msg: object) -> None:
        """Write to the invocation's log, without adding a newline."""
        sys.stdout.write(str(msg))

    def w3c(self) -> dict[str, str]:
        """Give the W3C trace context (``traceparent``, ``tracestate``, ``baggage``) as far as the caller sent it."""
        sent = (self._client_fields or {}).get("w3c")
        if not isinstance(sent, dict):
            return {}
        return {name: sent[name] for name in _TRACE_FIELDS if isinstance(sent.get(name), str)}

    def __repr__(self) -> str:
        shown = (
            "aws_request_id",
            "log_group_name",
            "log_stream_name",
            "function_name",
            "memory_limit_in_mb",
            "function_version",
            "invoked_function_arn",
            "client_context",
            "identity",
            "tenant_id",
        )
        return f"{type(self).__name__}([{','.join(f'{name}={getattr(self, name)}' for name in shown)}])"


def _cognito(fields: Mapping[str, Any]) -> CognitoIdentity:
    return CognitoIdentity(fields.get("cognitoIdentityId"), fields.get("cognitoIdentityPoolId"))
