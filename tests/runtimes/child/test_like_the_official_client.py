"""The same functions, run by the official Python client and by ours: answers, logs and ends must be the same."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

pytest.importorskip("awslambdaric")

CASES = Path(__file__).parent.with_name("cases.py").read_text()
NAMES = [
    *re.findall(r'^value\("([^"]+)"', CASES, re.MULTILINE),
    *re.findall(r"^@case\ndef (\w+)", CASES, re.MULTILINE),
]


def same(text: str) -> str:
    """Take out of a document or a log what differs between two runs, and between two clients that raise alike."""
    text = re.sub(r"Previous line repeated \d+ more times", "Previous line repeated N more times", text)
    text = re.sub(r"(recursion depth exceeded while )[a-zA-Z ]+", r"\1...", text)  # simplejson's words, and json's
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "NOW", text)
    return re.sub(r" at 0x[0-9a-f]+", " at 0x", text)


def document(answer: Any) -> Any:
    """Read an error document; the official client writes those of a failed start as JSON in JSON."""
    read = json.loads(answer.payload)
    return json.loads(read) if isinstance(read, str) else read


@pytest.fixture(scope="module", params=["AWS_Lambda_python3.13", "AWS_Lambda_python3.11"])
def both(
    request: Any, tmp_path_factory: Any, make_runner: Any, call: Any
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Answers of the official client and of ours to all cases, by their names."""
    runner = make_runner(tmp_path_factory.mktemp("handlers"))
    (runner.folder / "cases.py").write_text(CASES)
    calls = [call(json.dumps(name).encode(), f"id-of-{name}".replace(" ", "-")) for name in NAMES]
    family = request.param

    async def run() -> Any:
        theirs = await runner.official("cases.handler", calls, AWS_EXECUTION_ENV=family)
        ours = await runner.ours("cases.handler", calls, AWS_EXECUTION_ENV=family)
        return theirs, ours

    theirs, ours = asyncio.run(run())
    return dict(zip(NAMES, theirs.answers, strict=True)), dict(zip(NAMES, ours.answers, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_handler_is_answered_with_the_bytes_of_the_official_client(name: str, both: Any) -> None:
    theirs, ours = (answers[name] for answers in both)
    assert (ours.error, ours.content_type) == (theirs.error, theirs.content_type)
    assert same(ours.payload.decode("utf-8", "replace")) == same(theirs.payload.decode("utf-8", "replace"))
    if not ours.error:
        assert ours.payload == theirs.payload


ENDS = {
    "SystemExit without a code": "raise SystemExit",
    "exit with 0": "import sys; sys.exit(0)",
    "exit with 3": "import sys; sys.exit(3)",
    "exit with -1": "import sys; sys.exit(-1)",
    "exit with a text": "import sys; sys.exit('the reason')",
    "os._exit": "import os; os._exit(7)",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "GeneratorExit": "raise GeneratorExit",
    "own BaseException": "raise type('Own', (BaseException,), {})('gone')",
    "SIGTERM": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "SIGKILL": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "abort": "import os; os.abort()",
    "segmentation fault": "import ctypes; ctypes.string_at(0)",
    "exit at exit": "import atexit; atexit.register(print, 'last words'); raise SystemExit(4)",
}


@pytest.mark.parametrize("code", ENDS.values(), ids=ENDS.keys())
async def test_what_ends_the_process_of_the_official_client_ends_ours_with_the_same_status(
    code: str, runner: Any, call: Any
) -> None:
    (runner.folder / "cases.py").write_text(CASES)
    calls = [call(json.dumps({"code": code}).encode())]
    theirs, ours = await runner.official("cases.handler", calls), await runner.ours("cases.handler", calls)
    assert theirs.answers == ours.answers == [None]
    assert ours.status == theirs.status
    assert ("last words" in ours.log) == ("last words" in theirs.log)


STARTS = {
    "syntax error": ("broken.handler", "def handler(event, context)\n    pass\n"),
    "import error": ("broken.handler", "import surely_missing_module\n"),
    "name that cannot be imported": ("broken.handler", "from json import surely_missing_name\n"),
    "own error": ("broken.handler", "def boom():\n    raise ValueError('at start')\nboom()\n"),
    "own error with a cause": (
        "broken.handler",
        "try:\n    1 / 0\nexcept Exception as e:\n    raise KeyError(1) from e\n",
    ),
    "handler missing": ("broken.handler", "def other(event, context):\n    pass\n"),
    "module missing": ("nothing.handler", ""),
    "folder missing": ("a/b.handler", ""),
    "name without a dot": ("broken", ""),
    "empty name": ("", ""),
    "built-in module": ("sys.exit", ""),
    "exit": ("broken.handler", "raise SystemExit(5)"),
    "exit without a code": ("broken.handler", "raise SystemExit"),
    "interrupt": ("broken.handler", "raise KeyboardInterrupt"),
    "os._exit": ("broken.handler", "import os; os._exit(6)"),
    "null byte": ("broken.handler", "a = 1\0\n"),
}


@pytest.mark.parametrize("log_format", ["Text", "JSON"])
@pytest.mark.parametrize(("handler", "source"), STARTS.values(), ids=STARTS.keys())
async def test_a_function_that_cannot_be_loaded_is_reported_as_the_official_client_does(
    handler: str, source: str, log_format: str, runner: Any
) -> None:
    (runner.folder / "broken.py").write_text(source)
    environment = {"AWS_LAMBDA_LOG_FORMAT": log_format, "PYTHONDONTWRITEBYTECODE": "1"}
    theirs = await runner.official(handler, [], **environment)
    ours = await runner.ours(handler, [], **environment)
    assert (ours.init is None) == (theirs.init is None)
    if theirs.init is not None:
        assert document(ours.init) == document(theirs.init)
        assert ours.init.error_type == theirs.init.error_type
        assert same(ours.log) == same(theirs.log)
    assert ours.status == theirs.status


LOGGING = """
import decimal, logging, os, sys
logger = logging.getLogger("shop.orders")
logger.warning("at start")

def handler(event, context):
    print("printed", end=" ")
    print("in parts")
    print("gr\\u00fc\\u00df", file=sys.stderr)
    sys.stdout.write("no newline")
    os.write(1, b"")
    for level in ("debug", "info", "warning", "error", "critical"):
        getattr(logging, level)("at %s", level)
        getattr(logger, level)("named, at %s", level)
    logger.log(25, "between")
    logger.log(5, "below")
    logger.error({"a": decimal.Decimal("1.5")})
    logger.error("with extra", extra={"order": 7, "what": object, "requestId": "mine", "empty": None})
    try:
        {}["missing"]
    except KeyError:
        logger.exception("caught")
        logger.error("again", exc_info=True, stack_info=True)
    logger.error("several\\nlines")
    context.log("from the context\\n")
    if event == "fails":
        raise ValueError("two\\n  lines")
    return logging.getLogger().level
"""


@pytest.mark.parametrize("log_format", [None, "Text", "JSON", "json"])
@pytest.mark.parametrize("level", [None, "TRACE", "DEBUG", "info", "ERROR", "FATAL", "NONSENSE"])
async def test_what_a_function_logs_looks_as_with_the_official_client(
    log_format: str | None, level: str | None, runner: Any, call: Any
) -> None:
    (runner.folder / "logging_function.py").write_text(LOGGING)
    calls = [call(b'"fails"', "first"), call(b"{}", "second", tenant_id="blue")]
    environment = {
        name: value
        for name, value in {"AWS_LAMBDA_LOG_FORMAT": log_format, "AWS_LAMBDA_LOG_LEVEL": level}.items()
        if value is not None
    }
    theirs = await runner.official("logging_function.handler", calls, **environment)
    ours = await runner.ours("logging_function.handler", calls, **environment)
    assert [a.error for a in ours.answers] == [a.error for a in theirs.answers]
    assert comparable(ours.log) == comparable(theirs.log)
    assert [same(a.payload.decode()) for a in ours.answers] == [same(a.payload.decode()) for a in theirs.answers]


@pytest.mark.parametrize("log_format", ["Text", "JSON"])
async def test_a_record_that_cannot_be_formatted_raises_where_it_is_logged(
    log_format: str, runner: Any, call: Any
) -> None:
    source = "import logging\ndef handler(event, context):\n    logging.error('%d', 'no number')\n"
    (runner.folder / "function.py").write_text(source)
    (theirs,) = (await runner.official("function.handler", [call()], AWS_LAMBDA_LOG_FORMAT=log_format)).answers
    (ours,) = (await runner.ours("function.handler", [call()], AWS_LAMBDA_LOG_FORMAT=log_format)).answers
    for field in ("errorType", "errorMessage"):
        assert document(ours)[field] == document(theirs)[field]


def comparable(log: str) -> str:
    """Leave out the frames of the clients, which a stack dump shows."""
    lines = same(log).splitlines()
    frames = re.compile(r"\s*File .*(awslambdaric|serverfull|runpy)")
    return "\n".join(line for number, line in enumerate(lines) if not _of_a_client(lines, number, frames))


def _of_a_client(lines: list[str], number: int, frames: re.Pattern[str]) -> bool:
    return bool(frames.match(lines[number]) or (number and frames.match(lines[number - 1])))


CONTEXT = """
import os
def handler(event, context):
    seen = {name: repr(getattr(context, name)) for name in dir(context) if not name.startswith("__")
            and not callable(getattr(context, name)) and name != "_epoch_deadline_time_in_ms"}
    left = context.get_remaining_time_in_millis()
    assert isinstance(left, int) and 50_000 < left <= 60_000, left
    context.own = 1
    client = context.client_context
    return [repr(context), seen, context.w3c(), os.environ.get("_X_AMZN_TRACE_ID"), sorted(vars(context)),
            os.getcwd(), client and [client.custom, client.env, client.client and client.client.app_title]]
"""

CONTEXTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "everything": {
        "client_context": json.dumps(
            {
                "custom": {"a": 1},
                "env": {"locale": "de"},
                "client": {"app_title": "shop", "installation_id": "i", "more": 1},
                "w3c": {"traceparent": "00-1", "tracestate": 5, "other": "x", "baggage": "b=1"},
            }
        ),
        "cognito_identity": json.dumps({"cognitoIdentityId": "id", "cognitoIdentityPoolId": "pool"}),
        "tenant_id": "blue",
    },
    "empty objects": {"client_context": "{}", "cognito_identity": "{}"},
    "w3c that is no object": {"client_context": '{"w3c": []}'},
    "no object": {"client_context": "[1]"},
    "null": {"client_context": "null", "cognito_identity": "null"},
    "no JSON": {"client_context": "{"},
    "cognito that is no JSON": {"cognito_identity": "x"},
}


@pytest.mark.parametrize("fields", CONTEXTS.values(), ids=CONTEXTS.keys())
async def test_the_context_is_that_of_the_official_client(fields: dict[str, Any], runner: Any, call: Any) -> None:
    (runner.folder / "function.py").write_text(CONTEXT)
    environment = {
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/f",
        "AWS_LAMBDA_LOG_STREAM_NAME": "2026/11/21/[$LATEST]abc",
        "AWS_LAMBDA_FUNCTION_NAME": "f",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    }
    calls = [call(**fields)]
    (theirs,) = (await runner.official("function.handler", calls, **environment)).answers
    (ours,) = (await runner.ours("function.handler", calls, **environment)).answers
    assert ours.error == theirs.error
    if fields.get("client_context") == "[1]":  # an exception inside the client: only its kind is the same
        assert document(ours)["errorType"] == document(theirs)["errorType"]
    else:
        assert json.loads(ours.payload) == json.loads(theirs.payload)


EVENTS = [b"{}", b"null", b'"text"', b"1e3", b"[1, NaN]", b'{"a": "\xc3\xbc"}', b'"\\ud800"', b"{", b"\xff", b"1" * 30]


async def test_events_are_read_as_by_the_official_client(runner: Any, call: Any) -> None:
    (runner.folder / "function.py").write_text("def handler(event, context):\n    return ascii(event)\n")
    calls = [call(event) for event in EVENTS]
    theirs, ours = (
        await runner.official("function.handler", calls),
        await runner.ours("function.handler", calls),
    )
    for event, their, our in zip(EVENTS, theirs.answers, ours.answers, strict=True):
        assert our.error == their.error, event
        if our.error:  # simplejson words what is no JSON in its own way
            assert document(our)["errorType"] == document(their)["errorType"]
        else:
            assert our.payload == their.payload


async def test_handlers_lie_in_folders_and_packages(runner: Any, call: Any) -> None:
    (runner.folder / "a" / "b").mkdir(parents=True)
    (runner.folder / "a" / "b" / "c.py").write_text("def handler(event, context):\n    return [__name__, __file__]\n")
    for name in ("a/b/c.handler", "a.b.c.handler", "a/b.c.handler"):
        theirs, ours = await runner.official(name, [call()]), await runner.ours(name, [call()])
        assert ours.answers[0].payload == theirs.answers[0].payload
        assert json.loads(ours.answers[0].payload)[0] == "a.b.c"
