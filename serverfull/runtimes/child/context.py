"""The ``context`` that a handler gets.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/python-context.html
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

_TRACE_FIELDS = ("traceparent", "tracestate", "baggage")


class _Record:
    """An object with a fixed set of fields; those that are not given are None."""

    __slots__: tuple[str, ...] = ()

    def __init__(self, fields: Mapping[str, Any]) -> None:
        for name in self.__slots__:
            setattr(self, name, fields.get(name))

    def __repr__(self) -> str:
        fields = ",".join(f"{name}={getattr(self, name)}" for name in self.__slots__)
        return f"{type(self).__name__}([{fields}])"


class CognitoIdentity(_Record):
    """Who called, where an Amazon Cognito identity was given."""

    __slots__ = ("cognito_identity_id", "cognito_identity_pool_id")

    def __init__(self) -> None:
        self.cognito_identity_id: Any = None
        self.cognito_identity_pool_id: Any = None


class Client(_Record):
    """The mobile application that called."""

    __slots__ = (  # noqa: RUF023 - the order of the repr
        "installation_id",
        "app_title",
        "app_version_name",
        "app_version_code",
        "app_package_name",
    )


class ClientContext(_Record):
    """What the caller sent as ``X-Amz-Client-Context``."""

    __slots__ = ("custom", "env", "client")  # noqa: RUF023 - the order of the repr
    client: Any


class LambdaContext:
    """What a handler may know of its invocation, its function and the time it has left.

    :param function: what `of_the_function` gives.
    :param client_context: as the caller sent it, decoded; None if there was none.
    :param cognito: the Cognito identity, decoded; None if there was none.
    :param deadline_ms: when the function times out, in milliseconds since the epoch.
    """

    def __init__(
        self,
        function: Mapping[str, str | None],
        request_id: str,
        client_context: Any,
        cognito: Any,
        deadline_ms: int,
        arn: str | None,
        tenant_id: str | None,
    ) -> None:
        self.aws_request_id = request_id
        self.log_group_name = function["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = function["AWS_LAMBDA_LOG_STREAM_NAME"]
        self.function_name = function["AWS_LAMBDA_FUNCTION_NAME"]
        self.memory_limit_in_mb = function["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.function_version = function["AWS_LAMBDA_FUNCTION_VERSION"]
        self.invoked_function_arn = arn
        self.tenant_id = tenant_id
        self._w3c_fields = {} if client_context is None else _trace_fields(client_context)
        self.client_context = None if client_context is None else ClientContext(client_context)
        if self.client_context is not None and self.client_context.client is not None:
            self.client_context.client = Client(self.client_context.client)
        self.identity = CognitoIdentity()
        if cognito is not None:
            self.identity.cognito_identity_id = cognito.get("cognitoIdentityId")
            self.identity.cognito_identity_pool_id = cognito.get("cognitoIdentityPoolId")
        self._epoch_deadline_time_in_ms = deadline_ms

    def get_remaining_time_in_millis(self) -> int:
        """Say how many milliseconds are left before the function times out; 0 when it has."""
        return max(0, self._epoch_deadline_time_in_ms - int(time.time() * 1000))

    def w3c(self) -> dict[str, str]:
        """Give the W3C trace context (``traceparent``, ``tracestate``, ``baggage``) as far as the caller sent it."""
        return dict(self._w3c_fields)

    def log(self, msg: object) -> None:
        """Write to the log, without adding a newline."""
        for handler in logging.getLogger().handlers:
            if hasattr(handler, "log_sink"):
                handler.log_sink.log(str(msg))
                return
        sys.stdout.write(str(msg))

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


def of_the_function() -> dict[str, str | None]:
    """Read what a context says of the function; reading it for each invocation would take 4 µs."""
    names = ("LOG_GROUP_NAME", "LOG_STREAM_NAME", "FUNCTION_NAME", "FUNCTION_MEMORY_SIZE", "FUNCTION_VERSION")
    return {f"AWS_LAMBDA_{name}": os.environ.get(f"AWS_LAMBDA_{name}") for name in names}


def _trace_fields(client_context: Any) -> dict[str, str]:
    """Take the trace context out of the client context: `LambdaContext.w3c` is where it is to be seen."""
    sent = client_context.pop("w3c", None) if isinstance(client_context, dict) else None
    if not isinstance(sent, dict):
        return {}
    return {name: sent[name] for name in _TRACE_FIELDS if isinstance(sent.get(name), str)}
