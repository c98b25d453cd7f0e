"""Runtimes that others have written, as processes: AWS's Python client, a shell script with curl, Node.js."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from serverfull.runtimes.runtime_api.api import Answer, RuntimeApi, Work

DEADLINE = 30.0

APP = """
import json

def context(event, context):
    return {
        "event": event,
        "id": context.aws_request_id,
        "arn": context.invoked_function_arn,
        "tenant": context.tenant_id,
        "custom": context.client_context.custom,
        "identity": context.identity.cognito_identity_id,
        "left": context.get_remaining_time_in_millis() > 1000,
    }

def echo(event, context):
    if event == "raise":
        raise ValueError("no")
    if event == "recurse":
        return echo(event, context)
    if event == "bytes":
        return b"\\x00\\xff"
    if event == "large":
        return "x" * 6_291_555
    return event
"""

SHELL = """
next=http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation
while true; do
    event=$(curl -sS -D headers "$next/next") || exit 3
    id=$(grep -i '^Lambda-Runtime-Aws-Request-Id' headers | tr -d '[:space:]' | cut -d: -f2)
    if [ "$event" = '"large"' ]; then
        head -c 3000000 /dev/zero | tr '\\0' x > large
        curl -sS --data-binary @large -H 'Content-Type: text/plain' "$next/$id/response" >> said
    elif [ "$event" = '"fail"' ]; then
        kind='Lambda-Runtime-Function-Error-Type: Function.Broken'
        curl -sS -d '{"errorType": "E"}' -H "$kind" "$next/$id/error" >> said
    else
        curl -sS -d "$event" "$next/$id/response" >> said
    fi
done
"""

NODE = """
const http = require("http");
const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(":");
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

function call(method, path, headers, write) {
  return new Promise((resolve, reject) => {
    const url = { host, port, agent, method, headers, path: `/2018-06-01/runtime/invocation/${path}` };
    const request = http.request(url, (answer) => {
      const pieces = [];
      answer.on("data", (piece) => pieces.push(piece));
      answer.on("end", () => resolve([answer.statusCode, answer.headers, Buffer.concat(pieces).toString()]));
    });
    request.on("error", reject);
    write(request);
  });
}

(async () => {
  for (;;) {
    const [, headers, event] = await call("GET", "next", {}, (request) => request.end());
    const id = headers["lambda-runtime-aws-request-id"];
    if (JSON.parse(event) !== "stream") {
      await call("POST", `${id}/response`, { "Content-Type": headers["content-type"] }, (r) => r.end(event));
      continue;
    }
    const streaming = {
      "Lambda-Runtime-Function-Response-Mode": "streaming",
      "Content-Type": "text/plain",
      Trailer: "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body",
    };
    await call("POST", `${id}/response`, streaming, (request) => {
      request.write("some of it");
      setImmediate(() => {
        request.write("and more");
        const body = Buffer.from('{"errorType": "Late"}').toString("base64");
        request.addTrailers([
          ["Lambda-Runtime-Function-Error-Type", "Runtime.Late"],
          ["Lambda-Runtime-Function-Error-Body", body],
        ]);
        request.end();
      });
    });
  }
})();
"""


class Runtime:
    """A process that speaks to a Runtime API on a port."""

    def __init__(self, api: RuntimeApi, process: asyncio.subprocess.Process) -> None:
        self.api = api
        self.process = process
        self.numbers = 0

    async def run(self, event: Any, **more: Any) -> Answer:
        self.numbers += 1
        work = Work(
            request_id=f"8476a536-e9f4-11e8-9739-{self.numbers:012d}",
            payload=json.dumps(event).encode(),
            deadline_ms=int((time.time() + 60) * 1000),
            arn="arn:aws:lambda:us-east-1:000000000000:function:f",
            trace_id="Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700",
            **more,
        )
        return await asyncio.wait_for(self.api.run(work), DEADLINE)

    async def init(self) -> Answer | None:
        return await asyncio.wait_for(self.api.initialised(), DEADLINE)


Start = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start a runtime in a folder of its own: ``await start(command, files)``."""
    started: list[Runtime] = []

    async def run(command: list[str], files: Mapping[str, str]) -> Runtime:
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        api = await RuntimeApi.open()
        environment = {"AWS_LAMBDA_RUNTIME_API": api.address, "PATH": os.environ["PATH"], "PYTHONPATH": "."}
        process = await asyncio.create_subprocess_exec(
            *command, cwd=tmp_path, env=environment, stdin=asyncio.subprocess.DEVNULL, start_new_session=True
        )
        started.append(Runtime(api, process))
        return started[-1]

    yield run
    for runtime in started:
        if runtime.process.returncode is None:
            os.killpg(runtime.process.pid, 9)
        await runtime.process.wait()
        await runtime.api.aclose()


async def official(start: Start, handler: str) -> Runtime:
    runtime: Runtime = await start([sys.executable, "-m", "awslambdaric", handler], {"app.py": APP})
    return runtime


async def test_awslambdaric_gets_the_whole_context(start: Start) -> None:
    runtime = await official(start, "app.context")
    assert await runtime.init() is None
    answer = await runtime.run(
        {"n": 1},
        client_context='{"custom": {"a": "ä"}}',
        cognito_identity='{"cognitoIdentityId": "i", "cognitoIdentityPoolId": "p"}',
        tenant_id="blue",
    )
    assert json.loads(answer.payload) == {
        "event": {"n": 1},
        "id": "8476a536-e9f4-11e8-9739-000000000001",
        "arn": "arn:aws:lambda:us-east-1:000000000000:function:f",
        "tenant": "blue",
        "custom": {"a": "ä"},
        "identity": "i",
        "left": True,
    }
    assert (answer.error, answer.content_type) == (False, "application/json")


async def test_awslambdaric_runs_one_invocation_after_the_other(start: Start) -> None:
    runtime = await official(start, "app.echo")
    for number in range(20):
        assert (await runtime.run(number)).payload == b"%d" % number
    answer = await runtime.run("bytes")
    assert (answer.payload, answer.content_type) == (b"\x00\xff", "application/unknown")
    large = "y" * 6_000_000
    assert json.loads((await runtime.run(large)).payload) == large


@pytest.mark.parametrize(("event", "error_type"), [("raise", "ValueError"), ("recurse", "RecursionError")])
async def test_errors_of_awslambdaric_arrive_however_long_their_stack_traces_are(
    start: Start, event: str, error_type: str
) -> None:
    runtime = await official(start, "app.echo")
    answer = await runtime.run(event)
    assert answer.error
    assert json.loads(answer.payload)["errorType"] == error_type
    assert answer.error_type == "Runtime.Unknown"
    assert (await runtime.run(1)).payload == b"1"


async def test_a_result_of_awslambdaric_over_the_limit_is_an_error_of_the_function(start: Start) -> None:
    runtime = await official(start, "app.echo")
    answer = await runtime.run("large")
    assert answer.error_type == "Function.ResponseSizeTooLarge"


@pytest.mark.parametrize(
    ("handler", "error_type"),
    [("missing.handler", "Runtime.ImportModuleError"), ("app.missing", "Runtime.HandlerNotFound")],
)
async def test_awslambdaric_says_that_it_cannot_load_the_function(start: Start, handler: str, error_type: str) -> None:
    runtime = await official(start, handler)
    answer = await runtime.init()
    assert answer is not None
    assert json.loads(answer.payload)["errorType"] == error_type
    assert (answer.error, answer.error_type, answer.content_type) == (True, error_type, "application/json")


@pytest.mark.real_client
async def test_a_shell_script_with_curl_is_a_runtime(start: Start, require: Any, tmp_path: Path) -> None:
    require("curl", shutil.which("curl"), "apt-get install curl")
    runtime = await start(["sh", "bootstrap"], {"bootstrap": SHELL})
    assert (await runtime.run({"a": 1})).payload == b'{"a": 1}'
    assert await runtime.run("large") == Answer(b"x" * 3_000_000, False, "text/plain")  # curl asks before it sends it
    failed = await runtime.run("fail")
    assert (failed.payload, failed.error_type) == (b'{"errorType": "E"}', "Function.Broken")
    assert (await runtime.run(2)).payload == b"2"
    said = await asyncio.to_thread((tmp_path / "said").read_text)
    assert said.startswith('{"status":"OK"}\n' * 3)


@pytest.mark.real_client
async def test_node_keeps_its_connection_and_streams_with_trailers(start: Start, require: Any) -> None:
    require("node", shutil.which("node"), "https://nodejs.org")
    runtime = await start(["node", "client.js"], {"client.js": NODE})
    for number in range(10):
        answer = await runtime.run(number)
        assert (answer.payload, answer.content_type) == (b"%d" % number, "application/json")
        assert len(runtime.api._connections) == 1
    streamed = await runtime.run("stream")
    assert streamed == Answer(b'{"errorType": "Late"}', True, "application/json", "Runtime.Late")
    assert (await runtime.run(1)).payload == b"1"
