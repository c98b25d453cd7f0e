"""The deeds with a runtime of their own, as functions for ``provided.al2023`` bring one; written as ``bootstrap``.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
import traceback
from types import SimpleNamespace
from typing import Any

BASE = "/2018-06-01/runtime/"


class Api:
    """The Runtime API, on one connection."""

    def __init__(self) -> None:
        self._line = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])

    def call(self, method: str, path: str, body: bytes = b"", headers: Any = ()) -> tuple[Any, bytes]:
        """Give the headers and the body of an answer."""
        self._line.request(method, BASE + path, body, dict(headers))
        answer = self._line.getresponse()
        return answer.headers, answer.read()

    def fail(self, path: str, error: BaseException, kind: str = "", request_id: str = "") -> None:
        """Say that something has failed."""
        kind = kind or type(error).__name__
        document = {
            "errorType": kind,
            "errorMessage": str(error),
            "requestId": request_id,
            "stackTrace": traceback.format_tb(error.__traceback__),
        }
        named = {"Content-Type": "application/json", "Lambda-Runtime-Function-Error-Type": kind}
        self.call("POST", path, json.dumps(document).encode(), named)


def context_of(headers: Any) -> Any:
    """Make what the deeds call a context."""
    named, deadline = os.environ, int(headers["Lambda-Runtime-Deadline-Ms"])
    sent = json.loads(headers.get("Lambda-Runtime-Client-Context", "null"))
    caller = json.loads(headers.get("Lambda-Runtime-Cognito-Identity", "{}"))
    if sent is not None:
        client = SimpleNamespace(installation_id=sent["client"]["installation_id"])
        sent = SimpleNamespace(custom=sent["custom"], env=sent["env"], client=client)
    return SimpleNamespace(
        aws_request_id=headers["Lambda-Runtime-Aws-Request-Id"],
        function_name=named["AWS_LAMBDA_FUNCTION_NAME"],
        function_version=named["AWS_LAMBDA_FUNCTION_VERSION"],
        memory_limit_in_mb=named["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"],
        log_group_name=named["AWS_LAMBDA_LOG_GROUP_NAME"],
        log_stream_name=named["AWS_LAMBDA_LOG_STREAM_NAME"],
        invoked_function_arn=headers["Lambda-Runtime-Invoked-Function-Arn"],
        get_remaining_time_in_millis=lambda: deadline - int(time.time() * 1000),
        client_context=sent,
        identity=SimpleNamespace(
            cognito_identity_id=caller.get("cognitoIdentityId"),
            cognito_identity_pool_id=caller.get("cognitoIdentityPoolId"),
        ),
        tenant_id=headers.get("Lambda-Runtime-Aws-Tenant-Id"),
    )


def run(api: Api, handler: Any) -> None:
    """Run one invocation."""
    headers, event = api.call("GET", "invocation/next")
    request_id, kind = headers["Lambda-Runtime-Aws-Request-Id"], ""
    os.environ["_X_AMZN_TRACE_ID"] = headers["Lambda-Runtime-Trace-Id"]
    try:
        value = handler(json.loads(event), context_of(headers))
        kind = "Runtime.MarshalError"
        result = json.dumps(value, ensure_ascii=False).encode()
    except Exception as error:  # whatever a handler raises is its result
        api.fail(f"invocation/{request_id}/error", error, kind, request_id)
    else:
        api.call("POST", f"invocation/{request_id}/response", result, {"Content-Type": "application/json"})


def main() -> None:
    """Load the deeds, and run what comes."""
    api = Api()
    try:
        from deeds import handler  # type: ignore[import-not-found]  # beside this file, where it is written to
    except Exception as error:  # whatever the module's own code raises
        api.fail("init/error", error)
        sys.exit(1)
    while True:
        run(api, handler)


main()
