"""The AWS CLI and curl call functions that a host has from the start; `test_aws_cli_management` deploys some."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import pytest

from serverfull.testing.process import HostProcess

pytestmark = pytest.mark.real_client

INVOKE_AND_SHOW = """\
aws lambda invoke \\
    --endpoint-url="http://localhost:8080" \\
    --function-name="hello" \\
    output.txt && \\
    cat output.txt && \\
    rm output.txt
"""

CURL = "curl --request POST localhost:8080/2015-03-31/functions/hello/invocations"

ENDPOINT = "--endpoint-url $AWS_ENDPOINT_URL"


@pytest.fixture(scope="module")
def host():
    """Serve on the port that the command lines name, or on another where that one is taken."""
    target = f"{Path(__file__).parent}/functions.py:functions"
    with HostProcess.start(target, "--port", "8080" if port_is_free(8080) else "0") as host:
        yield host


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def test_curl_invokes_hello(run, require) -> None:
    require("curl", shutil.which("curl"), "install curl")
    done = run(CURL)
    assert json.loads(done.stdout) == "Hello ƛ!"


def test_the_cli_invokes_hello_and_shows_the_output(aws, tmp_path) -> None:
    done = aws(INVOKE_AND_SHOW)
    assert (done.returncode, done.stderr) == (0, "")
    metadata, end = json.JSONDecoder().raw_decode(done.stdout)
    assert metadata == {"StatusCode": 200, "ExecutedVersion": "$LATEST"}
    assert json.loads(done.stdout[end:]) == "Hello ƛ!"
    assert not (tmp_path / "output.txt").exists()


def test_the_cli_decodes_the_tail_of_the_log(aws) -> None:
    done = aws(
        f"aws lambda invoke {ENDPOINT} --function-name talk --log-type Tail --query LogResult --output text /dev/null"
        " | base64 -d"
    )
    assert "line 0 of the log" in done.stdout


def test_the_cli_lists_and_reads_functions(aws) -> None:
    listed = aws(f"aws lambda list-functions {ENDPOINT} --max-items 20 --query 'Functions[].FunctionName'")
    assert {"hello", "my-function"} <= set(json.loads(listed.stdout))
    arn = "arn:aws:lambda:us-east-1:000000000000:function:about"
    read = aws(f"aws lambda get-function {ENDPOINT} --function-name {arn}")
    assert json.loads(read.stdout)["Configuration"]["FunctionArn"] == arn


def test_the_cli_waits_for_an_active_function(aws) -> None:
    assert aws(f"aws lambda wait function-active-v2 {ENDPOINT} --function-name hello").returncode == 0


def test_the_cli_shows_the_name_of_an_error(aws) -> None:
    done = aws(f"aws lambda invoke {ENDPOINT} --function-name no-such-function output.txt")
    assert done.returncode != 0
    assert "(ResourceNotFoundException) when calling the Invoke operation" in done.stderr
    assert "Function not found: arn:aws:lambda:us-east-1:000000000000:function:no-such-function" in done.stderr
