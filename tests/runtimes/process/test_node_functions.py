"""Functions for Node.js that are deployed to a real host, and run in processes of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from serverfull.domain.runtimes import RUNTIMES
from serverfull.runtimes.process.interpreters import Interpreter, Interpreters
from serverfull.testing import deployments
from serverfull.testing.process import HostProcess

pytestmark = pytest.mark.real_client

CODE = """
let calls = 0;
exports.plain = async (event, context) => {
    console.log('seen', ++calls);
    if (event.fail) throw new RangeError('refused');
    if (event.lost) setImmediate(() => { throw new TypeError('lost'); });
    if (event.lost || event.stuck) await new Promise((resolve) => setTimeout(resolve, 60000));
    return { event, calls, name: context.functionName, left: context.getRemainingTimeInMillis() > 0 };
};
exports.streaming = awslambda.streamifyResponse(async (event, stream) => {
    stream.setContentType('text/plain');
    stream.write('one ');
    if (event.fail) throw new RangeError('in the middle');
    stream.end('two');
});
"""


@pytest.fixture(scope="module")
def runtime(require: Callable[[str, object, str], None]) -> str:
    """The newest runtime for Node.js that this machine has."""
    looking = Interpreters()
    named = [name for name in RUNTIMES if name.startswith("nodejs")]
    found = [name for name in named if isinstance(looking.find(name), Interpreter)]
    require("Node.js", found, "apt-get install nodejs")
    return found[-1]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    with HostProcess.start(None, "--state", str(tmp_path_factory.mktemp("state"))) as started:
        yield started


@pytest.fixture
def client(host: HostProcess, boto: Callable[..., Any]) -> Any:
    return boto(host)


def deploy(client: Any, name: str, runtime: str, handler: str) -> Callable[..., tuple[bytes, str | None]]:
    deployments.deploy(client, name, {"index.js": CODE}, Runtime=runtime, Handler=handler, Timeout=10)

    def invoke(event: Any) -> tuple[bytes, str | None]:
        answer = client.invoke(FunctionName=name, Payload=json.dumps(event).encode())
        return answer["Payload"].read(), answer.get("FunctionError")

    return invoke


def test_a_function_stays_warm_through_its_errors_and_not_through_what_nobody_caught(client: Any, runtime: str) -> None:
    invoke = deploy(client, "plain", runtime, "index.plain")
    payload, error = invoke({"n": 1})
    assert (json.loads(payload), error) == ({"event": {"n": 1}, "calls": 1, "name": "plain", "left": True}, None)
    payload, error = invoke({"fail": True})
    assert (json.loads(payload)["errorType"], error) == ("RangeError", "Unhandled")
    assert json.loads(invoke({})[0])["calls"] == 3
    payload, error = invoke({"lost": True})
    assert (json.loads(payload)["errorType"], json.loads(payload)["errorMessage"]) == ("TypeError", "lost")
    assert json.loads(invoke({})[0])["calls"] == 1  # although the process that has answered may be ending just now


def test_a_function_beyond_its_timeout_is_ended(client: Any, runtime: str) -> None:
    invoke = deploy(client, "stuck", runtime, "index.plain")
    invoke({})
    client.update_function_configuration(FunctionName="stuck", Timeout=1)
    deployments.wait_until_ready(client, "stuck")
    payload, error = invoke({"stuck": True})
    assert (json.loads(payload)["errorType"], error) == ("Sandbox.Timedout", "Unhandled")
    assert json.loads(invoke({})[0])["calls"] == 1


def test_a_streamed_response_is_answered_whole_and_its_failure_is_the_functions(client: Any, runtime: str) -> None:
    invoke = deploy(client, "streaming", runtime, "index.streaming")
    assert invoke({}) == (b"one two", None)
    payload, error = invoke({"fail": True})
    assert (json.loads(payload)["errorMessage"], error) == ("in the middle", "Unhandled")
    assert invoke({}) == (b"one two", None)
