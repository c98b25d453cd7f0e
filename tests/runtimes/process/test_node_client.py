"""The runtime client for Node.js, run by the real Node.js and driven over the Runtime API."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serverfull.domain.runtimes import RUNTIMES
from serverfull.runtimes.process.interpreters import NODE_CLIENT, Interpreter, Interpreters
from serverfull.testing.process import plain_environment
from serverfull.testing.runtime_api import NativeAnswer, NativeLambda

pytestmark = pytest.mark.real_client

Start = Callable[..., NativeLambda]


@pytest.fixture(scope="module")
def node(require: Callable[[str, object, str], None]) -> Path:
    """The newest Node.js of this machine."""
    looking = Interpreters()
    found = [looking.find(runtime) for runtime in RUNTIMES if runtime.startswith("nodejs")]
    paths = [each.path for each in found if isinstance(each, Interpreter)]
    require("Node.js", paths, "apt-get install nodejs")
    assert paths[-1] is not None
    return paths[-1]


@pytest.fixture
def start(node: Path, tmp_path: Path) -> Iterator[Start]:
    """Start a function: ``start(code)``, or ``start(handler="a.b", files={"a.js": ...})``; others are variables."""
    started: list[NativeLambda] = []

    def function(
        code: str = "", *, handler: str = "index.handler", files: dict[str, str] | None = None, **env: str
    ) -> NativeLambda:
        for name, text in {"index.js": code, **(files or {})}.items():
            file = tmp_path / "task" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if text:
                file.write_text(text)
        runtime = {"AWS_EXECUTION_ENV": "AWS_Lambda_nodejs20.x", "LAMBDA_TASK_ROOT": str(tmp_path / "task")}
        native = NativeLambda([node, NODE_CLIENT, handler], cwd=tmp_path / "task", env=runtime | env)
        started.append(native)
        return native

    yield function
    for native in started:
        native.close()


def error_of(answer: NativeAnswer) -> tuple[str, str]:
    document = answer.json()
    assert answer.function_error == "Unhandled"
    assert set(document) == {"errorType", "errorMessage", "trace"}
    return document["errorType"], document["errorMessage"]


HANDLERS = {
    "async": "exports.handler = async (event) => ({ got: event });",
    "promise": "exports.handler = (event) => Promise.resolve({ got: event });",
    "callback": "exports.handler = (event, context, callback) => callback(null, { got: event });",
    "later": "exports.handler = (event, context, callback) => { setTimeout(() => callback(null, { got: event }), 5) };",
    "succeed": "exports.handler = (event, context) => { context.succeed({ got: event }); };",
    "done": "exports.handler = (event, context) => { context.done(null, { got: event }); };",
}


@pytest.mark.parametrize("style", HANDLERS)
def test_a_handler_of_each_style_answers_every_call_in_one_process(start: Start, style: str) -> None:
    native = start(HANDLERS[style])
    answers = [native.invoke({"n": number, "text": "ƛ😀"}) for number in range(3)]
    assert [answer.json() for answer in answers] == [{"got": {"n": n, "text": "ƛ😀"}} for n in range(3)]
    assert [answer.cold for answer in answers] == [True, False, False]
    assert {answer.content_type for answer in answers} == {"application/json"}


@pytest.mark.parametrize(
    ("handler", "files"),
    [
        ("index.handler", {"index.mjs": "export const handler = async () => 'here';"}),
        ("index.handler", {"index.cjs": "exports.handler = async () => 'here';"}),
        (
            "index.handler",
            {"index.js": "export const handler = async () => 'here';", "package.json": '{"type": "module"}'},
        ),
        ("src/app.main.go", {"src/app.js": "exports.main = { go: async () => 'here' };"}),
        ("app.handler", {"node_modules/app/index.js": "exports.handler = async () => 'here';"}),
        ("index.handler", {"index.mjs": "const text = await 'here'; export const handler = async () => text;"}),
        (
            "index.handler",
            {"index.js": "exports.handler = require('./part').run;", "part.js": "exports.run = async () => 'here';"},
        ),
    ],
    ids=["mjs", "cjs", "module package", "folder and member", "node_modules", "awaits while it loads", "requires"],
)
def test_a_module_of_each_form_is_loaded(start: Start, handler: str, files: dict[str, str]) -> None:
    assert start(handler=handler, files=files).invoke().json() == "here"


UNFIT = ("Error", "Unable to stringify response body")
UNREADABLE = ("handled", "name, message or stack of the error cannot be read")


LAYERED = {
    "../opt/nodejs/node_modules/layered/package.json": '{"type": "module", "exports": {".": "./main.js"}}',
    "../opt/nodejs/node_modules/layered/main.js": "import { inner } from '@of/layer'; export default 'both ' + inner;",
    "../opt/nodejs/node_modules/@of/layer/index.js": "exports.inner = 'of the layer';",
    "../opt/nodejs/node20/node_modules/ours/index.js": "module.exports = 'of this version';",
    "../opt/nodejs/node_modules/ours/index.js": "module.exports = 'of all';",
    "node_modules/shared/index.js": "module.exports = 'of the package';",
    "../opt/nodejs/node_modules/shared/index.js": "module.exports = 'of the layer';",
}
IMPORTS = """
import layered from 'layered';
import ours from 'ours';
import shared from 'shared';
export const handler = async ({ name }) => [layered, ours, shared, await import(name).catch((e) => e.code)];
"""
REQUIRES = """
exports.handler = async ({ name }) => [
    (await import('layered')).default, require('ours'), require('shared'), await import(name).catch((e) => e.code)
];
"""


@pytest.mark.parametrize("code", [{"index.mjs": IMPORTS}, {"index.js": REQUIRES}], ids=["imports", "requires"])
def test_modules_are_imported_from_layers_as_they_are_required(
    start: Start, tmp_path: Path, code: dict[str, str]
) -> None:
    nodejs = tmp_path / "opt" / "nodejs"
    folders = [nodejs / "node20" / "node_modules", nodejs / "node_modules", tmp_path / "task" / "node_modules"]
    native = start(files=LAYERED | code, NODE_PATH=":".join(map(str, folders)))
    found = ["both of the layer", "of this version", "of the package"]
    assert native.invoke({"name": "gone"}).json() == [*found, "ERR_MODULE_NOT_FOUND"]
    assert native.invoke({"name": "./gone.mjs"}).json() == [*found, "ERR_MODULE_NOT_FOUND"]
    assert native.invoke({"name": "layered/inner"}).json() == [*found, "ERR_PACKAGE_PATH_NOT_EXPORTED"]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("exports.handler = async () => { throw new TypeError('boom'); };", ("TypeError", "boom")),
        ("exports.handler = () => { throw new RangeError('boom'); };", ("RangeError", "boom")),
        ("exports.handler = (e, c, callback) => callback(new Error('boom'));", ("Error", "boom")),
        ("exports.handler = (e, c, callback) => callback('a text');", ("string", "a text")),
        ("exports.handler = async () => { throw 'a text'; };", ("string", "a text")),
        ("exports.handler = (e, context) => { context.fail(); };", ("string", "handled")),
        ("exports.handler = async () => Promise.reject();", ("string", "handled")),
        (
            "exports.handler = async () => { throw Object.assign(new Error('own'), { name: 'Mine' }); };",
            ("Mine", "own"),
        ),
        ("exports.handler = async () => { const a = {}; return (a.a = a); };", UNFIT),
        ("exports.handler = async () => 10n;", UNFIT),
        ("exports.handler = async () => { throw Object.create(null); };", UNREADABLE),
    ],
)
def test_an_error_has_the_shape_that_awss_node_gives_it(start: Start, code: str, error: tuple[str, str]) -> None:
    native = start(code)
    answer = native.invoke()
    assert error_of(answer) == error
    assert native.invoke().cold is False  # an error of the handler does not end its process
    line = native.wait_for_output("Invoke Error")
    assert line.split("\t")[1:4] == [answer.request_id, "ERROR", "Invoke Error "]
    logged = json.loads(line.split("\t")[4])["errorType"]
    assert logged == ("Error" if error[0] in {"string", "handled"} else error[0])  # there, all that is thrown is one


def test_the_trace_of_an_error_leads_to_its_line(start: Start) -> None:
    trace = start("exports.handler = async () => {\n  throw new Error('boom');\n};").invoke().json()["trace"]
    assert trace[0] == "Error: boom"
    assert "index.js:2:" in trace[1]


def test_an_error_of_a_function_whose_log_is_json_is_logged_as_json(start: Start) -> None:
    native = start("exports.handler = async () => { throw new Error('boom'); };", AWS_LAMBDA_LOG_FORMAT="JSON")
    answer = native.invoke()
    record = json.loads(native.wait_for_output("boom"))
    assert (record["level"], record["requestId"]) == ("ERROR", answer.request_id)
    assert record["message"]["errorMessage"] == "boom"


REFUSED = "Object.assign(new Error('refused'), { code: 'E429', after: [5], by: new TypeError('upstream') })"


def test_an_error_is_logged_with_all_that_it_has(start: Start) -> None:
    native = start(f"exports.handler = async () => {{ throw {REFUSED}; }};")
    assert set(native.invoke().json()) == {"errorType", "errorMessage", "trace"}
    logged = json.loads(native.wait_for_output("Invoke Error").split("\t")[4])
    assert (logged["errorMessage"], logged["code"], logged["after"]) == ("refused", "E429", [5])
    assert (logged["by"]["errorType"], logged["by"]["errorMessage"]) == ("TypeError", "upstream")
    assert "index.js:1:" in logged["stack"][1]
    assert "index.js:1:" in logged["by"]["stack"][1]


def test_an_error_whose_members_cannot_be_shown_is_logged_without_them(start: Start) -> None:
    native = start("exports.handler = async () => { const e = new Error('round'); e.self = e; throw e; };")
    native.invoke()
    logged = json.loads(native.wait_for_output("Invoke Error").split("\t")[4])
    assert (set(logged), logged["errorMessage"]) == ({"errorType", "errorMessage", "stack"}, "round")


def test_a_rejection_that_nobody_catches_is_logged_with_its_reason_and_where_it_was_made(start: Start) -> None:
    native = start(f"exports.handler = async () => {{ Promise.reject({REFUSED}); }};")
    assert error_of(native.invoke()) == ("Runtime.UnhandledPromiseRejection", "Error: refused")
    logged = json.loads(native.wait_for_output("Unhandled Promise Rejection").split("\t")[4])
    assert (logged["errorType"], "name" in logged) == ("Runtime.UnhandledPromiseRejection", False)
    assert (logged["reason"]["errorMessage"], logged["reason"]["code"]) == ("refused", "E429")
    assert "index.js:1:" in logged["reason"]["stack"][1]


@pytest.mark.parametrize(
    ("handler", "code", "error_type", "words"),
    [
        ("gone.handler", "", "Runtime.ImportModuleError", "Error: Cannot find module 'gone'"),
        ("index.handler", "require('not-installed');", "Runtime.ImportModuleError", "find module 'not-installed'"),
        ("index.handler", "this is no code", "Runtime.UserCodeSyntaxError", "SyntaxError: "),
        ("index.gone", "exports.handler = 1;", "Runtime.HandlerNotFound", "index.gone is undefined or not exported"),
        ("index.handler", "exports.handler = 1;", "Runtime.HandlerNotFound", "index.handler is not a function"),
        ("index", "exports.handler = 1;", "Runtime.MalformedHandlerName", "Bad handler"),
        ("../index.handler", "exports.handler = 1;", "Runtime.MalformedHandlerName", "'../index.handler' is not"),
        ("index.handler", "throw new RangeError('at start');", "RangeError", "at start"),
    ],
)
def test_code_that_cannot_be_loaded_is_an_error_of_the_init_phase(
    start: Start, handler: str, code: str, error_type: str, words: str
) -> None:
    native = start(code, handler=handler)
    answer = native.invoke()
    found = error_of(answer)
    assert (found[0], words in found[1]) == (error_type, True)
    assert native.api.init_error == answer.payload
    assert error_type in native.wait_for_output("Uncaught Exception")


def test_what_fails_between_init_and_the_first_call_is_an_init_error_too(start: Start) -> None:
    answer = start("Promise.reject(new Error('early')); exports.handler = async () => 1;").invoke()
    assert error_of(answer) == ("Runtime.UnhandledPromiseRejection", "Error: early")


@pytest.mark.parametrize(
    ("code", "error", "status"),
    [
        ("setImmediate(() => { throw new TypeError('later'); }); return never;", ("TypeError", "later"), 129),
        ("Promise.reject(new Error('lost')); return never;", ("Runtime.UnhandledPromiseRejection", "Error: lost"), 128),
        ("Promise.reject('lost'); return 1;", ("Runtime.UnhandledPromiseRejection", "lost"), 128),
    ],
)
def test_an_error_that_nobody_catches_is_the_answer_and_ends_the_process(
    start: Start, code: str, error: tuple[str, str], status: int
) -> None:
    native = start(f"const never = new Promise(() => {{}}); exports.handler = async () => {{ {code} }};")
    assert error_of(native.invoke()) == error
    assert native._process is not None
    assert native._process.wait(20) == status
    assert native.invoke().cold


def test_a_process_that_exits_is_the_hosts_to_report(start: Start) -> None:
    error = start("exports.handler = async () => process.exit(3);").invoke().json()
    assert error["errorType"] == "Runtime.ExitError"
    assert error["errorMessage"].endswith("exit status 3")


def test_the_context_has_what_aws_gives_it(start: Start) -> None:
    native = start(
        """exports.handler = async (event, context) => ({
            ...context, left: context.getRemainingTimeInMillis(), trace: context.w3c(),
            env: process.env._X_AMZN_TRACE_ID, waits: context.callbackWaitsForEmptyEventLoop,
        });"""
    )
    headers = {
        "Lambda_Runtime_Client_Context": '{"custom": {"a": 1}, "w3c": {"traceparent": "00-1", "more": "x"}}',
        "Lambda_Runtime_Cognito_Identity": '{"cognitoIdentityId": "i"}',
        "Lambda_Runtime_Trace_Id": "Root=1",
        "Lambda_Runtime_Aws_Tenant_Id": "blue",
    }
    answer = native.invoke(timeout=8, **headers)
    context: dict[str, Any] = answer.json()
    assert 0 < context.pop("left") <= 8000
    assert context == {
        "functionName": "function",
        "functionVersion": "$LATEST",
        "memoryLimitInMB": "128",
        "logGroupName": "/aws/lambda/function",
        "logStreamName": "stream",
        "clientContext": {"custom": {"a": 1}, "w3c": {"traceparent": "00-1", "more": "x"}},
        "identity": {"cognitoIdentityId": "i"},
        "invokedFunctionArn": "arn:aws:lambda:us-east-1:000000000000:function:function",
        "awsRequestId": answer.request_id,
        "tenantId": "blue",
        "xRayTraceId": "Root=1",
        "callbackWaitsForEmptyEventLoop": True,
        "trace": {"traceparent": "00-1"},
        "env": "Root=1",
        "waits": True,
    }
    second = native.invoke().json()
    assert not {"clientContext", "identity", "tenantId", "env"} & set(second)


def test_a_callback_waits_for_the_loop_unless_it_is_told_not_to(start: Start) -> None:
    native = start(
        """const seen = [];
        exports.handler = (event, context, callback) => {
            context.callbackWaitsForEmptyEventLoop = event.waits;
            if (event.look) return callback(null, seen);
            setTimeout(() => { seen.push(event.waits); }, 50);
            callback(null, seen);
        };"""
    )
    assert native.invoke({"waits": True}).json() == [True]
    assert native.invoke({"waits": False}).json() == [True]
    assert native.invoke({"look": True, "waits": True}).json() == [True, False]


def test_only_the_first_of_several_answers_counts(start: Start) -> None:
    native = start("exports.handler = (e, c, done) => { done(null, 1); done(null, 2); c.fail('three'); };")
    assert [native.invoke().json(), native.invoke().json()] == [1, 1]


def test_a_handler_that_never_answers_gives_null_or_is_told_apart_if_it_is_async(start: Start) -> None:
    native = start("exports.handler = () => 'not looked at';")
    assert [native.invoke().json(), native.invoke().json()] == [None, None]
    stuck = start("exports.handler = async () => new Promise(() => {});")
    assert error_of(stuck.invoke())[0] == "Runtime.NodeJsExit"
    assert stuck.invoke().cold is False


SAYING = """console.log('loading');
exports.handler = async (event, context) => {
    console.trace('t'); console.debug('d'); console.log('a %s', 'b', {c: 1}); console.info({d: [2]});
    console.warn('two\\nlines'); console.error('e', new TypeError('wrong')); console.error(new RangeError('far'));
    const circle = {}; circle.circle = circle; console.log(circle);
    process.stdout.write('plain\\n');
    return context.awsRequestId;
};"""
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def said(native: NativeLambda) -> tuple[str, list[str]]:
    """Give the id of an invocation, and the lines that it and what came before it wrote."""
    request_id = native.invoke().json()
    native.wait_for_output("plain")
    return request_id, native.output()


def test_console_writes_lines_as_on_aws(start: Start) -> None:
    request_id, lines = said(start(SAYING))
    parted = [line.split("\t", 3) for line in lines if re.match(TIME, line)]
    assert [rest for _, *rest in parted[:6]] == [
        ["undefined", "INFO", "loading"],
        [request_id, "TRACE", "t"],
        [request_id, "DEBUG", "d"],
        [request_id, "INFO", "a b { c: 1 }"],
        [request_id, "INFO", "{ d: [ 2 ] }"],
        [request_id, "WARN", "two"],
    ]
    assert parted[6][1:] == [request_id, "ERROR", "e TypeError: wrong"]
    assert lines[6] == "lines"  # behind a carriage return, which the reader of this test takes for an end of line
    assert lines[-1] == "plain"


def test_console_writes_json_as_on_aws_where_the_log_is_json(start: Start) -> None:
    native = start(SAYING, AWS_LAMBDA_LOG_FORMAT="JSON", AWS_LAMBDA_LOG_LEVEL="DEBUG")
    request_id, lines = said(native)
    loading, *rest = [json.loads(line) for line in lines if line != "plain"]
    assert re.fullmatch(TIME, loading.pop("timestamp"))
    assert loading == {"level": "INFO", "message": "loading"}
    assert {record["requestId"] for record in rest} == {request_id}
    said_as = [(record["level"], record["message"]) for record in rest]
    assert said_as[:4] == [("DEBUG", "d"), ("INFO", "a b { c: 1 }"), ("INFO", {"d": [2]}), ("WARN", "two\nlines")]
    several, alone, circle = rest[4:]
    assert (several["errorType"], several["errorMessage"]) == ("TypeError", "wrong")
    assert several["message"].startswith("e TypeError: wrong\n    at ")
    assert several["stackTrace"][0] == "TypeError: wrong"
    assert (alone["message"]["errorType"], alone["message"]["errorMessage"]) == ("RangeError", "far")
    assert "[Circular *1]" in circle["message"]


@pytest.mark.parametrize(("level", "count"), [("TRACE", 9), ("INFO", 7), ("WARN", 3), ("ERROR", 2), ("FATAL", 0)])
def test_console_says_nothing_below_the_functions_level(start: Start, level: str, count: int) -> None:
    _, lines = said(start(SAYING, AWS_LAMBDA_LOG_FORMAT="JSON", AWS_LAMBDA_LOG_LEVEL=level))
    assert len(lines) - 1 == count


def test_large_events_and_results_pass(start: Start) -> None:
    native = start("exports.handler = async (event) => event;")
    text = "ƛ" * 1_500_000
    assert native.invoke({"text": text}).json() == {"text": text}
    answer = start("exports.handler = async () => 'x'.repeat(6291556);").invoke()
    assert answer.json()["errorType"] == "Function.ResponseSizeTooLarge"


def test_code_that_replaces_nodes_http_and_json_reaches_not_the_client(start: Start) -> None:
    native = start(
        """const http = require('http'); http.request = http.get = () => { throw new Error('traced'); };
        JSON.parse = () => 'replaced'; JSON.stringify = () => 'replaced';
        exports.handler = async (event) => event;"""
    )
    assert [native.invoke({"n": 1}).json(), native.invoke({"n": 2}).json()] == [{"n": 1}, {"n": 2}]


# --------------------------------------------------------------------------------------------- from Node.js 24 on

NODE_24 = {"AWS_EXECUTION_ENV": "AWS_Lambda_nodejs24.x"}


def test_from_24_on_callbacks_are_refused(start: Start) -> None:
    answer = start("exports.handler = (event, context, callback) => callback(null, 1);", **NODE_24).invoke()
    assert error_of(answer)[0] == "Runtime.CallbackHandlerDeprecated"


def test_from_24_on_what_is_returned_counts_without_a_promise(start: Start) -> None:
    native = start("exports.handler = (event, context) => [event, typeof context.succeed];", **NODE_24)
    assert [native.invoke(1).json(), native.invoke(2).json()] == [[1, "undefined"], [2, "undefined"]]


def test_from_24_on_a_promise_that_nothing_settles_is_an_error(start: Start) -> None:
    native = start("exports.handler = () => new Promise(() => {});", **NODE_24)
    assert error_of(native.invoke())[0] == "Runtime.NodeJsExit"
    assert native.invoke().cold is False


# ----------------------------------------------------------------------------------------------------- streaming

STREAMING = """exports.handler = awslambda.streamifyResponse(async (event, stream, context) => {
    if (event === 'nothing') return;
    if (event === 'refused') throw new Error('refused');
    if (event === 'http') {
        stream = awslambda.HttpResponseStream.from(stream, { statusCode: 201 });
    } else {
        stream.setContentType('text/plain');
    }
    stream.write('one ');
    await new Promise((resolve) => setTimeout(resolve, 5));
    stream.write(Buffer.from('two '));
    if (event === 'broken') throw new Error('broken');
    stream.write({ three: context.awsRequestId });
    stream.end();
});"""


def test_a_streaming_handler_is_answered_whole(start: Start) -> None:
    native = start(STREAMING)
    for _ in range(2):
        answer = native.invoke("go")
        assert answer.payload.decode() == f'one two {{"three":"{answer.request_id}"}}'
        assert answer.content_type == "text/plain"
    answer = native.invoke("http")
    assert answer.content_type == "application/vnd.awslambda.http-integration-response"
    assert answer.payload.startswith(b'{"statusCode":201}' + b"\0" * 8 + b"one two ")


def test_a_streaming_handler_that_fails_before_it_writes_is_an_error(start: Start) -> None:
    native = start(STREAMING)
    assert error_of(native.invoke("refused")) == ("Error", "refused")
    assert error_of(native.invoke("nothing")) == ("Error", "Response stream is not finished.")
    assert native.invoke("go").cold is False


def test_a_streaming_handler_that_fails_in_the_middle_ends_its_answer_and_goes_on(start: Start) -> None:
    native = start(STREAMING)
    assert native.invoke("broken").payload == b"one two "
    assert "broken" in native.wait_for_output("Invoke Error")
    assert native.invoke("go").cold is False


def test_a_connection_that_was_closed_while_it_was_idle_is_replaced(node: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "index.js").write_text(
        f"exports.handler = async () => require('fs').readFileSync({str(fifo)!r}, 'utf-8');"  # blocks Node's loop
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        env = plain_environment() | {"AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.getsockname()[1]}"}
        process = subprocess.Popen([node, NODE_CLIENT, "index.handler"], cwd=tmp_path, env=env)
        try:
            first = server.accept()[0]
            assert first.recv(65536).startswith(b"GET /2018-06-01/runtime/invocation/next ")
            first.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nLambda-Runtime-Aws-Request-Id: 1\r\n"
                b"Lambda-Runtime-Deadline-Ms: 1\r\nContent-Length: 2\r\n\r\n{}"
            )
            writer = fifo.open("w")  # once the handler reads
            first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            first.close()
            with writer:
                writer.write("read")
            with server.accept()[0] as second:
                second.settimeout(20)
                received = b""
                while not received.endswith(b'"read"'):
                    received += second.recv(65536)
            assert received.startswith(b"POST /2018-06-01/runtime/invocation/1/response ")
        finally:
            process.kill()
            process.wait(20)
