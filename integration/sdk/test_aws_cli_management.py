"""The AWS CLI deploys: command lines as users find them in manuals, word for word, and what belongs to them."""

from __future__ import annotations

import contextlib
import json
import shutil
from typing import Any

import pytest

pytestmark = [pytest.mark.real_client, pytest.mark.slow]

NODE_FUNCTION = """\
# Package a simple Node.js function
cat > index.mjs << 'EOF'
export const handler = async (event) => {
  console.log("Event:", JSON.stringify(event));
  return { statusCode: 200, body: JSON.stringify({ hello: "world" }) };
};
EOF
zip function.zip index.mjs
"""

PYTHON_FUNCTION = """\
cat > index.py << 'EOF'
def handler(event, context):
    return {"statusCode": 200, "event": event}
EOF
zip function.zip index.py
"""

CREATE = """\
# Deploy the function
aws lambda create-function \\
  --function-name my-function \\
  --runtime nodejs22.x \\
  --role arn:aws:iam::000000000000:role/lambda-role \\
  --handler index.handler \\
  --zip-file fileb://function.zip \\
  --endpoint-url $AWS_ENDPOINT_URL
"""

INVOKE = """\
# Invoke synchronously
aws lambda invoke \\
  --function-name my-function \\
  --payload '{"key":"value"}' \\
  --cli-binary-format raw-in-base64-out \\
  response.json \\
  --endpoint-url $AWS_ENDPOINT_URL
"""

INVOKE_ASYNCHRONOUSLY = """\
# Invoke asynchronously
aws lambda invoke \\
  --function-name my-function \\
  --invocation-type Event \\
  --payload '{"key":"value"}' \\
  --cli-binary-format raw-in-base64-out \\
  /dev/null \\
  --endpoint-url $AWS_ENDPOINT_URL
"""

UPDATE = """\
# Update code
zip function.zip index.mjs
aws lambda update-function-code \\
  --function-name my-function \\
  --zip-file fileb://function.zip \\
  --endpoint-url $AWS_ENDPOINT_URL
"""

MAP = """\
aws lambda create-event-source-mapping \\
  --function-name my-function \\
  --event-source-arn $QUEUE_ARN \\
  --batch-size 10 \\
  --endpoint-url $AWS_ENDPOINT_URL
"""

MAP_WITH_SCALING = """\
aws lambda create-event-source-mapping \\
  --function-name my-function \\
  --event-source-arn $QUEUE_ARN \\
  --scaling-config MaximumConcurrency=5 \\
  --endpoint-url $AWS_ENDPOINT_URL
"""

ENDPOINT = "--endpoint-url $AWS_ENDPOINT_URL"
WAIT = f"aws lambda wait function-active-v2 --function-name my-function {ENDPOINT}"
WAIT_FOR_UPDATE = f"aws lambda wait function-updated-v2 --function-name my-function {ENDPOINT}"
DELETE = f"aws lambda delete-function --function-name my-function {ENDPOINT}"
QUEUE = "QUEUE_ARN=arn:aws:sqs:us-east-1:000000000000:orders"


@pytest.fixture(scope="module")
def host(fresh_host):
    return fresh_host


@pytest.fixture
def said(aws, require):
    """Run command lines that succeed; gives what they print, read as JSON."""
    require("zip", shutil.which("zip"), "install zip")

    def answers(*commands: str) -> list[Any]:
        done = aws("set -e\n" + "\n".join(commands))
        assert (done.returncode, done.stderr) == (0, "")
        return list(documents(done.stdout))

    return answers


def documents(text: str):
    """Read JSON objects that stand one after the other, with lines of other commands between them."""
    decoder = json.JSONDecoder()
    start = text.find("{")
    while start >= 0:
        value, end = decoder.raw_decode(text, start)
        yield value
        start = text.find("{", end)


@pytest.fixture
def deleted(client):
    """Delete the function after the test, if that got so far as to make it."""
    yield
    with contextlib.suppress(client.exceptions.ResourceNotFoundException):
        client.delete_function(FunctionName="my-function")


@pytest.mark.usefixtures("deleted")
def test_a_function_of_another_runtime_is_deployed_as_the_manual_says_and_refused_by_name(said, aws) -> None:
    (created,) = said(NODE_FUNCTION, CREATE.replace("nodejs22.x", "java21"))
    assert created["FunctionArn"] == "arn:aws:lambda:us-east-1:000000000000:function:my-function"
    assert (created["Runtime"], created["Handler"], created["State"]) == ("java21", "index.handler", "Pending")
    assert "Failed" in aws(WAIT).stderr
    (updated,) = said(UPDATE)
    assert (updated["CodeSha256"], updated["LastUpdateStatus"]) == (created["CodeSha256"], "InProgress")
    invoked = aws(f"export AWS_MAX_ATTEMPTS=1\n{INVOKE}")
    assert "(ResourceConflictException) when calling the Invoke operation" in invoked.stderr
    assert "java21" in invoked.stderr


def test_a_python_function_is_deployed_invoked_updated_and_deleted(said, aws, tmp_path) -> None:
    (created,) = said(PYTHON_FUNCTION, CREATE.replace("nodejs22.x", "python3.12"), WAIT)
    assert (created["Runtime"], created["CodeSize"]) == ("python3.12", (tmp_path / "function.zip").stat().st_size)
    answered, queued = said(INVOKE, INVOKE_ASYNCHRONOUSLY)
    assert json.loads((tmp_path / "response.json").read_text()) == {"statusCode": 200, "event": {"key": "value"}}
    assert (answered["StatusCode"], queued["StatusCode"]) == (200, 202)
    changed = PYTHON_FUNCTION.replace("statusCode", "status")
    (updated, _) = said(changed, UPDATE.replace("index.mjs", "index.py"), WAIT_FOR_UPDATE, INVOKE)
    assert updated["CodeSha256"] != created["CodeSha256"]
    assert json.loads((tmp_path / "response.json").read_text()) == {"status": 200, "event": {"key": "value"}}
    said(DELETE)
    assert "(ResourceNotFoundException) when calling the Invoke operation" in aws(INVOKE).stderr


@pytest.mark.usefixtures("deleted")
def test_queues_are_mapped_as_the_manual_says(said, client) -> None:
    said(NODE_FUNCTION, CREATE)
    (mapping,) = said(QUEUE, MAP)
    assert (mapping["BatchSize"], mapping["State"]) == (10, "Creating")
    assert "ScalingConfig" not in mapping
    client.delete_event_source_mapping(UUID=mapping["UUID"])
    (scaled,) = said(QUEUE, MAP_WITH_SCALING)
    assert scaled["ScalingConfig"] == {"MaximumConcurrency": 5}
    client.delete_event_source_mapping(UUID=scaled["UUID"])
