"""The AWS CLI deploys folders in place: the command lines of Floci's and LocalStack's manuals, and their examples."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from serverfull.domain.runtimes import RUNTIMES
from serverfull.runtimes.process.interpreters import Interpreter, Interpreters
from serverfull.testing.clients import lambda_client
from serverfull.testing.process import HostProcess

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.real_client, pytest.mark.slow]

WITHIN = 20.0

FLOCI = """\
aws lambda create-function \\
  --function-name my-function \\
  --runtime nodejs22.x \\
  --role arn:aws:iam::000000000000:role/lambda-role \\
  --handler index.handler \\
  --code S3Bucket=hot-reload,S3Key=/absolute/path/to/your/code \\
  --endpoint-url $AWS_ENDPOINT_URL
"""

AWSLOCAL = 'awslocal() { aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }\n'

LOCALSTACK = """\
awslocal lambda create-function --function-name my-cool-local-function \\
    --code S3Bucket="__local__",S3Key="/tmp/aws-doc-sdk-examples/python/example_code/lambda/boto_client_examples" \\
    --handler lambda_handler_basic.lambda_handler \\
    --runtime python3.8 \\
    --role cool-stacklifter
"""

SQUARE = """\
awslocal lambda invoke --function-name my-cool-local-function --payload '{"action": "square", "number": 3}' output.txt
"""

INVOKE = "aws lambda invoke --function-name my-function out.json --endpoint-url $AWS_ENDPOINT_URL"

NODE = "export const handler = async () => ({ version: VERSION });\n"

# As https://github.com/awsdocs/aws-doc-sdk-examples has it, but for the comments.
LAMBDA_HANDLER_BASIC = """\
import logging
import math

logger = logging.getLogger()
logger.setLevel(logging.INFO)

ACTIONS = {
    'square': lambda x: x * x,
    'square root': lambda x: math.sqrt(x),
    'increment': lambda x: x + 1,
    'decrement': lambda x: x - 1,
}


def lambda_handler(event, context):
    logger.info('Event: %s', event)
    result = ACTIONS[event['action']](event['number'])
    logger.info('Calculated result of %s', result)
    response = {'result': result}
    return response
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("code")


@pytest.fixture(scope="module")
def host(tmp_path_factory, code):
    allowed = {"SERVERFULL_HOT_RELOAD__ALLOWED_PATHS": str(code)}
    with HostProcess.start(None, "--state", str(tmp_path_factory.mktemp("state")), env=allowed) as host:
        yield host


def save(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    (draft := file.with_name(f".{file.name}.sw")).write_text(text)
    draft.rename(file)


def eventually(look, expected) -> None:
    deadline = time.monotonic() + WITHIN
    while (found := look()) != expected:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_the_example_of_floci_is_edited_and_called_at_once(aws, host, code, tmp_path, require) -> None:
    looking = Interpreters()
    runtime = next(
        (name for name in RUNTIMES if name.startswith("node") and isinstance(looking.find(name), Interpreter)), ""
    )
    require("Node.js", runtime, "apt-get install nodejs")
    save(code / "index.mjs", NODE.replace("VERSION", "1"))
    created = aws(FLOCI.replace("/absolute/path/to/your/code", str(code)).replace("nodejs22.x", runtime))
    assert created.returncode == 0, created.stderr
    answer = json.loads(created.stdout)
    assert (answer["CodeSize"], answer["CodeSha256"]) == (0, "hot-reloading-hash-not-available")
    client = lambda_client(host.url, region="us-east-1")

    def call() -> object:
        return json.load(client.invoke(FunctionName="my-function")["Payload"])

    done = aws(INVOKE)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out.json").read_text()) == {"version": 1}
    save(code / "index.mjs", NODE.replace("VERSION", "2"))
    eventually(call, {"version": 2})
    assert aws(INVOKE).returncode == 0
    assert json.loads((tmp_path / "out.json").read_text()) == {"version": 2}


def test_the_square_of_localstack_is_called_and_changed(aws, host, code, tmp_path) -> None:
    folder = code / "aws-doc-sdk-examples" / "python" / "example_code" / "lambda" / "boto_client_examples"
    save(folder / "lambda_handler_basic.py", LAMBDA_HANDLER_BASIC)
    # A role has to be an ARN by AWS's own model, which LocalStack did not look at.
    line = LOCALSTACK.replace("/tmp/", f"{code}/").replace("cool-stacklifter", "arn:aws:iam::000000000000:role/cool")
    created = aws(AWSLOCAL + line)
    assert created.returncode == 0, created.stderr
    raw = AWSLOCAL + SQUARE.replace(" output.txt", " --cli-binary-format raw-in-base64-out output.txt")
    invoked = aws(raw)
    assert invoked.returncode == 0, invoked.stderr
    assert json.loads((tmp_path / "output.txt").read_text()) == {"result": 9}
    save(folder / "lambda_handler_basic.py", LAMBDA_HANDLER_BASIC.replace("{'result'", "{'math_result'"))
    client = lambda_client(host.url, region="us-east-1")
    payload = b'{"action": "square", "number": 3}'

    def call() -> object:
        return json.load(client.invoke(FunctionName="my-cool-local-function", Payload=payload)["Payload"])

    eventually(call, {"math_result": 9})
    assert aws(raw).returncode == 0
    assert json.loads((tmp_path / "output.txt").read_text()) == {"math_result": 9}
