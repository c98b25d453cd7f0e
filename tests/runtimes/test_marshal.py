"""Events, results and errors at their edges; what the official client does with ordinary ones is compared elsewhere."""

from __future__ import annotations

import decimal
import gc
import json
import subprocess
import sys
import tracemalloc
import warnings
from typing import Any

import pytest
import simplejson
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serverfull.domain.limits import ERROR_MESSAGE_BYTES, RESPONSE_PAYLOAD_BYTES
from serverfull.errors import InvalidRequestContent
from serverfull.runtimes.marshal import (
    ErrorReport,
    MarshalFault,
    _room_left,
    decode_event,
    describe_exception,
    encode_result,
    error_document,
    error_log_text,
    exit_report,
    init_fault,
    platform_error_document,
)

HERE = (__file__,)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
keys = st.text() | st.integers() | st.booleans() | st.none() | st.floats()
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner),
    max_leaves=30,
)
odd_trees = st.recursive(
    scalars | st.binary() | st.decimals() | st.sets(st.integers(), max_size=1),
    lambda inner: st.lists(inner) | st.dictionaries(keys | st.binary(), inner),
    max_leaves=10,
)


class Reference(simplejson.JSONEncoder):
    """Encodes as the official client is known to encode."""

    def __init__(self) -> None:
        super().__init__(use_decimal=False, ensure_ascii=False, allow_nan=True)

    def default(self, o: Any) -> Any:
        if isinstance(o, decimal.Decimal):
            return float("nan") if o.is_nan() else simplejson.RawJSON(str(o))
        return super().default(o)


# ------------------------------------------------------------------------------------------------------------- events


def test_no_payload_is_an_empty_event() -> None:
    assert decode_event(b"") == {}


@pytest.mark.parametrize(
    ("payload", "event"),
    [
        (b' {"a": [1, 2.5, null, true, "\xc3\xbc"]} ', {"a": [1, 2.5, None, True, "ü"]}),
        (b"null", None),
        (b'"text"', "text"),
        (b"18446744073709551616", 2**64),
        (b"-9223372036854775809", -(2**63) - 1),
        (b'{"id": 123456789012345678901234567890}', {"id": 123456789012345678901234567890}),
        (b'"\\ud800"', "\ud800"),
        (b"1e400", float("inf")),
        (b"-0.0", -0.0),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b"[" * 500 + b"]" * 500, None),
    ],
)
def test_strict_json_is_read_exactly(payload: bytes, event: Any) -> None:
    found = decode_event(payload)
    if event is not None:
        assert found == event
        assert type(found) is type(event)


BROKEN = [
    b" ",
    b"{",
    b"{'a': 1}",
    b"[1,]",
    b"01",
    b'"\t"',
    b"NaN",
    b"[Infinity]",
    b'{"a": -Infinity}',
    b"\xff",
    b'"\xed\xa0\x80"',
    b"\xef\xbb\xbf{}",
    '{"a": 1}'.encode("utf-16"),
    b"[" * 200_000,
    b"[" * 200_000 + b"]" * 200_000,
    b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    b"1" * 5_000,
    b"1" * 1_000_000,
    b"{} {}",
    b"\x00",
]


@pytest.mark.parametrize("payload", BROKEN, ids=range(len(BROKEN)))
def test_what_is_no_strict_json_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidRequestContent) as caught:
        decode_event(payload)
    assert caught.value.message.startswith("Could not parse request body into json: ")
    assert len(caught.value.message) < 300


WITHOUT_ORJSON = """
import sys
sys.modules["orjson"] = None
from serverfull.runtimes.marshal import decode_event
from serverfull.errors import InvalidRequestContent
assert decode_event(b'{"a": [1, 18446744073709551616]}') == {"a": [1, 2**64]}
for payload in (b"{", b"NaN", b"[" * 100_000, b"1" * 5_000, b"\\xef\\xbb\\xbf{}", b"\\xff"):
    try:
        decode_event(payload)
    except InvalidRequestContent as error:
        print(str(error)[:39])
"""


def test_events_are_read_the_same_without_orjson() -> None:
    run = subprocess.run([sys.executable, "-c", WITHOUT_ORJSON], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["Could not parse request body into json:"] * 6


@given(trees)
def test_what_json_writes_is_read_back(tree: Any) -> None:
    text = json.dumps(tree)
    if "NaN" in text or "Infinity" in text:
        return
    assert repr(decode_event(text.encode())) == repr(json.loads(text))


# ------------------------------------------------------------------------------------------------------------ results


def result_or_fault(tree: Any) -> bytes | str:
    try:
        return encode_result(tree)[0]
    except MarshalFault as fault:
        return fault.message


@settings(max_examples=300)
@given(trees | odd_trees)
def test_results_have_the_bytes_or_the_error_of_simplejson(tree: Any) -> None:
    if isinstance(tree, bytes):
        assert encode_result(tree) == (tree, "application/unknown")
        return
    try:
        expected: bytes | str = Reference().encode(tree).encode()
    except Exception as error:
        expected = f"Unable to marshal response: {error}"
    assert result_or_fault(tree) == expected


@pytest.mark.parametrize("make", [lambda size: "x" * (size - 2), lambda size: b"x" * size], ids=["text", "bytes"])
def test_a_result_at_the_limit_passes_and_one_byte_more_does_not(make: Any) -> None:
    assert len(encode_result(make(RESPONSE_PAYLOAD_BYTES))[0]) == RESPONSE_PAYLOAD_BYTES
    with pytest.raises(MarshalFault) as caught:
        encode_result(make(RESPONSE_PAYLOAD_BYTES + 1))
    assert json.loads(caught.value.report("id").document()) == {
        "errorType": "Function.ResponseSizeTooLarge",
        "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
    }


def test_the_limit_counts_bytes_and_not_characters() -> None:
    with pytest.raises(MarshalFault, match="exceeded maximum allowed payload size"):
        encode_result("\N{PILE OF POO}" * (RESPONSE_PAYLOAD_BYTES // 3))


def shared(levels: int) -> Any:
    made: Any = ["x" * 100]
    for _ in range(levels):
        made = [made] * 10
    return made


class Sized(list[Any]):
    """A list whose type is not plain."""


@settings(max_examples=300)
@example({"": 0})
@example([[""], [0], []])
@given(odd_trees | trees)
def test_the_length_that_is_counted_beforehand_is_never_more_than_the_real_one(tree: Any) -> None:
    text = result_or_fault([tree])
    counted = 10_000_000 - _room_left([tree], 10_000_000, [])
    assert isinstance(text, str) or counted <= len(text.decode())


def test_a_result_of_many_small_containers_just_below_the_limit_passes() -> None:
    count = (RESPONSE_PAYLOAD_BYTES - 2) // len("[[0]], ")
    assert len(encode_result([[[0]]] * count)[0]) <= RESPONSE_PAYLOAD_BYTES


HUGE = {
    "a long list": lambda: {"items": [0] * 10_000_000},
    "lists that share lists": lambda: shared(20),
    "a list of one long text": lambda: ["x" * 1_000_000] * 10_000,
    "a dict of long keys": lambda: {str(n) + "k" * 1000: decimal.Decimal(1) for n in range(10_000)},
    "long integers": lambda: [10**4000] * 1_000_000,
    "a subclass": lambda: Sized([["x" * 1_000] * 1_000] * 1_000),
    "bytes within": lambda: [b"x" * 1_000_000] * 10_000,
}


@pytest.mark.parametrize("name", HUGE)
def test_a_huge_result_is_refused_before_its_text_is_made(name: str) -> None:
    value = HUGE[name]()
    tracemalloc.start()
    try:
        with pytest.raises(MarshalFault) as caught:
            encode_result(value)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.error_type == "Function.ResponseSizeTooLarge"
    assert peak < 32_000_000


def test_a_wide_circle_is_called_a_circle_and_not_too_large() -> None:
    circle: list[Any] = ["x" * 100_000]
    circle.append({"back": (circle,)})
    with pytest.raises(MarshalFault, match="Circular reference detected"):
        encode_result(circle)


def test_a_value_that_is_shared_is_no_circle() -> None:
    one = {"a": [1]}
    assert encode_result([one, one, (one,)])[0] == b'[{"a": [1]}, {"a": [1]}, [{"a": [1]}]]'


def test_a_coroutine_as_result_is_an_error_and_leaves_no_warning() -> None:
    async def handler() -> int:
        return 1

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(MarshalFault, match="Object of type coroutine is not JSON serializable"):
            encode_result(handler())
        gc.collect()


def test_lone_surrogates_in_a_result_are_an_error() -> None:
    with pytest.raises(MarshalFault) as caught:
        encode_result({"a": "\ud800"})
    document = json.loads(caught.value.report("id").document())
    assert document["errorType"] == "Runtime.MarshalError"
    assert document["stackTrace"] == []
    assert "surrogates not allowed" in document["errorMessage"]


def test_a_result_whose_own_code_ends_the_process_is_not_called_an_error_of_json() -> None:
    class Leaves:
        def _asdict(self) -> Any:
            raise SystemExit(3)

    with pytest.raises(SystemExit):
        encode_result([Leaves()])


# ------------------------------------------------------------------------------------------------------------- errors


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_error_documents_have_the_fields_in_the_order_of_the_official_client() -> None:
    assert error_document("T", "m", "id", None) == (
        b'{"errorMessage": "m", "errorType": "T", "requestId": "id", "stackTrace": []}'
    )
    assert platform_error_document("Sandbox.Timedout", "m") == b'{"errorType":"Sandbox.Timedout","errorMessage":"m"}'


def test_a_lone_surrogate_in_a_message_becomes_its_escape() -> None:
    document = describe_exception(raised(ValueError("\ud800 ü")), "id").document()
    assert b"\\ud800 \xc3\xbc" in document
    assert json.loads(document)["errorMessage"] == "\ud800 ü"


class Raises(Exception):
    def __str__(self) -> str:
        raise LookupError("no text")


class Leaves(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Number(Exception):
    def __str__(self) -> Any:
        return 5  # noqa: PLE0307 - that is the fault


class Recurses(Exception):
    def __str__(self) -> str:
        return str(self)


class Renames(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise LookupError("no name")


class Nameless(Exception, metaclass=Renames):
    pass


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Raises, "<Raises.__str__ failed: LookupError>"),
        (Leaves, "<Leaves.__str__ failed: SystemExit>"),
        (Number, "<Number.__str__ failed: TypeError>"),
        (Recurses, "<Recurses.__str__ failed: RecursionError>"),
        (Nameless, ""),
    ],
    ids=["raises", "exits", "no text", "recurses", "no name"],
)
def test_a_broken_exception_is_described_all_the_same(kind: type[Exception], message: str) -> None:
    report = describe_exception(raised(kind()), "id")
    assert report.message == message
    assert report.error_type == type.__dict__["__name__"].__get__(kind)
    assert json.loads(report.document())


def test_a_text_of_a_subclass_of_str_is_taken_as_written() -> None:
    class Odd(str):
        __slots__ = ()

        def __len__(self) -> int:
            raise LookupError

    class Error(Exception):
        def __str__(self) -> str:
            return Odd("text")

    assert describe_exception(raised(Error()), "id").message == "text"


@pytest.mark.parametrize("letter", ["x", "ü", "\N{PILE OF POO}", "\ud800"])
def test_a_long_message_is_cut_to_its_limit(letter: str) -> None:
    message = describe_exception(raised(ValueError(letter * 10_000_000)), "id").message
    length = len(message.encode("utf-8", "surrogatepass"))
    assert ERROR_MESSAGE_BYTES - 4 < length <= ERROR_MESSAGE_BYTES
    assert set(message) == {letter}


def test_the_stack_trace_starts_at_the_first_frame_that_is_not_stripped() -> None:
    def users() -> None:
        exec(compile("1 / 0", "/var/task/app.py", "exec"))

    try:
        users()
    except ZeroDivisionError as error:
        report = describe_exception(error, "id", HERE)
    assert report.stack_trace == ('  File "/var/task/app.py", line 1, in <module>\n',)


def test_frames_of_the_host_that_lie_within_the_users_stay() -> None:
    outer = compile("call()", "/var/task/app.py", "exec")

    def call() -> None:
        exec(compile("1 / 0", "/var/task/inner.py", "exec"))

    try:
        exec(outer, {"call": call})
    except ZeroDivisionError as error:
        report = describe_exception(error, "id", HERE)
    assert [line.split('"')[1] for line in report.stack_trace] == ["/var/task/app.py", __file__, "/var/task/inner.py"]


def test_an_exception_that_was_never_raised_has_no_stack_trace() -> None:
    assert describe_exception(ValueError("made"), "id").stack_trace == ()


def test_a_stack_of_many_frames_is_cut_in_its_middle() -> None:
    def even(depth: int) -> None:
        odd(depth - 1)

    def odd(depth: int) -> None:
        if depth <= 0:
            raise ValueError("the end")
        even(depth - 1)

    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        even(10_000)
    except ValueError as error:
        report = describe_exception(error, "id")
    finally:
        sys.setrecursionlimit(before)
    assert sum(map(len, report.stack_trace)) <= ERROR_MESSAGE_BYTES + 100
    assert "left out" in "".join(report.stack_trace)


def test_an_exit_is_reported_with_the_request_id() -> None:
    assert exit_report(SystemExit(3), "id").document() == (
        b'{"errorType":"Runtime.ExitError","errorMessage":'
        b'"RequestId: id Error: Runtime exited with error: exit status 3"}'
    )


def test_the_text_of_an_error_in_the_log_is_one_line() -> None:
    report = ErrorReport("T", "m", "id", ('  File "a.py", line 1, in f\n    x\n',))
    hard = "\N{NO-BREAK SPACE}"
    assert error_log_text(report, "Text") == (
        f'[ERROR] T: m\rTraceback (most recent call last):\r{hard * 2}File "a.py", line 1, in f\r{hard * 4}x\n'
    )


def test_the_json_of_an_error_in_the_log_has_its_time_first() -> None:
    report = ErrorReport("T", "m", "id")
    assert error_log_text(report, "JSON", now=0.0) == (
        '{"timestamp": "1970-01-01T00:00:00Z", "level": "ERROR", "errorMessage": "m", "errorType": "T", '
        '"requestId": "id", "stackTrace": []}\n'
    )


def test_an_error_of_a_module_has_no_request_id() -> None:
    document = json.loads(init_fault(raised(ImportError("No module named 'x'")), "app").document())
    assert document == {
        "errorMessage": "Unable to import module 'app': No module named 'x'",
        "errorType": "Runtime.ImportModuleError",
        "requestId": "",
        "stackTrace": [],
    }
