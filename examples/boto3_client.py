"""Invoke the example functions with boto3: only the endpoint is another one.

Start the host with ``make run``, then: ``python examples/boto3_client.py [http://127.0.0.1:8080]``. Needs boto3.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

import boto3


def main(endpoint: str) -> None:
    client = boto3.client(
        "lambda",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",  # nothing checks them yet, but the SDK wants some
        aws_secret_access_key="test",
    )

    answer = client.invoke(FunctionName="hello", Payload=json.dumps({"name": "Ada"}), LogType="Tail")
    print("result:", read(answer))
    print("log:", base64.b64decode(answer["LogResult"]).decode().splitlines()[1])

    answer = client.invoke(FunctionName="reserve", Payload=json.dumps({"item": "coffee"}))
    print("function error:", answer["FunctionError"], read(answer)["errorType"])

    answer = client.invoke(FunctionName="hello", InvocationType="Event")
    print("accepted:", answer["StatusCode"])

    try:
        client.invoke(FunctionName="no-such-function")
    except client.exceptions.ResourceNotFoundException as error:
        print("typed exception:", type(error).__name__)

    names = [
        each["FunctionName"] for page in client.get_paginator("list_functions").paginate() for each in page["Functions"]
    ]
    print("functions:", ", ".join(sorted(names)))


def read(answer: dict[str, Any]) -> Any:
    """Decode the result of an invocation."""
    return json.loads(answer["Payload"].read())


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080")
