"""What may be a handler, how it is called, and what its annotations do."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import subprocess
import sys
import types
import typing
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, NewType, Optional, TypedDict

import pydantic
import pytest
import typing_extensions

from serverfull.contracts.validation import EventInvalid
from serverfull.domain.functions import Function
from serverfull.runtimes.handlers import BoundHandler, bind
from serverfull.runtimes.marshal import MarshalFault, encode_result

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext  # type: ignore[import-not-found]
    from missing_module import Absent  # type: ignore[import-not-found]


class Item(pydantic.BaseModel):
    sku: str
    count: int


class Order(pydantic.BaseModel):
    id: uuid.UUID
    items: list[Item]
    placed: dt.date


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    day: dt.date
    count: int


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Movie(TypedDict):
    name: str
    year: typing.NotRequired[int]


class Shelf(TypedDict, total=False):
    movies: list[Movie]


class ExtendedMovie(typing_extensions.TypedDict):
    name: str


class Pair(NamedTuple):
    a: int
    b: str


class Colour(enum.Enum):
    RED = "red"


class Library:
    """A class of some library, as the event data classes of AWS Lambda Powertools."""


Identifier = NewType("Identifier", int)
Identifiers = NewType("Identifiers", list[Identifier])


def bound(handler: Any) -> BoundHandler:
    return bind(Function(handler))


def run(handler: Any, event: Any) -> Any:
    """What a runtime does with a handler, without threads and loops."""
    ready = bound(handler)
    value = ready.call(ready.decode(event) if ready.decode else event, typing.cast("Any", "the context"))
    if ready.is_async:
        value = asyncio.run(value)
    return ready.encode(value) if ready.encode else value


def as_json(handler: Any, event: Any) -> bytes:
    return encode_result(run(handler, event))[0]


# ------------------------------------------------------------------------------------------- what a handler may be


def two(event: Any, context: Any) -> Any:
    return [event, context]


def one(event: Any) -> Any:
    return [event]


def none() -> Any:
    return []


async def coroutine_function(event: Any, context: Any) -> Any:
    await asyncio.sleep(0)
    return [event, context]


class Callable_:
    def __call__(self, event: Any) -> Any:
        return [event]

    def method(self, event: Any, context: Any) -> Any:
        return [event, context]

    @classmethod
    def of_class(cls, event: Any) -> Any:
        return [event]

    @staticmethod
    def static(event: Any) -> Any:
        return [event]


class AsyncCallable:
    async def __call__(self, event: Any) -> Any:
        return [event]


def decorated(wrapped: Any) -> Any:
    @functools.wraps(wrapped)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return wrapped(*args, **kwargs)

    return wrapper


def decorated_with_two(wrapped: Any) -> Any:
    @functools.wraps(wrapped)
    def wrapper(event: Any, context: Any) -> Any:
        return wrapped(event)

    return wrapper


BOTH = ["event", "the context"]
SHAPES = [
    (two, BOTH, False),
    (one, ["event"], False),
    (none, [], False),
    (lambda *arguments: list(arguments), BOTH, False),
    (lambda event, *more: [event, *more], BOTH, False),
    (lambda event=1: [event], ["event"], False),
    (lambda event, context=None: [event, context], BOTH, False),
    (lambda event, context, third=3: [event, context], BOTH, False),
    (lambda event, *, option=1: [event], ["event"], False),
    (lambda event, /, **more: [event], ["event"], False),
    (coroutine_function, BOTH, True),
    (Callable_(), ["event"], False),
    (Callable_().method, BOTH, False),
    (Callable_.of_class, ["event"], False),
    (Callable_.static, ["event"], False),
    (AsyncCallable(), ["event"], True),
    (functools.partial(two, context="given"), ["event", "given"], False),
    (functools.partial(coroutine_function), BOTH, True),
    (functools.partial(AsyncCallable()), ["event"], True),
    (decorated(one), ["event"], False),
    (decorated(none), [], False),
    (decorated_with_two(one), ["event"], False),
    (Function(Function(one)), ["event"], False),
    (Function(coroutine_function, timeout=1), BOTH, True),
    (Function(staticmethod(coroutine_function), timeout=1), BOTH, True),  # as in the body of a class
    (staticmethod(one), ["event"], False),
]


@pytest.mark.parametrize(("handler", "result", "is_async"), SHAPES, ids=range(len(SHAPES)))
def test_a_handler_gets_the_arguments_that_it_takes(handler: Any, result: list[Any], is_async: bool) -> None:
    if isinstance(handler, functools.partial) and "context" in handler.keywords:
        assert bound(handler).call("event", None) == result  # type: ignore[arg-type]
        return
    assert bound(handler).is_async is is_async
    assert run(handler, "event") == result


def three(event: Any, context: Any, third: Any) -> Any: ...


def keyword(event: Any, *, option: Any) -> Any: ...


def generator(event: Any) -> Any:
    yield event


async def async_generator(event: Any) -> Any:
    yield event


class GeneratorCall:
    def __call__(self, event: Any) -> Any:
        yield event


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (three, r"three needs 3 parameters \(event, context, third\)"),
        (keyword, "keyword needs the keyword argument 'option'"),
        (generator, "generator is a generator"),
        (async_generator, "async_generator is a generator"),
        (GeneratorCall(), "GeneratorCall is a generator"),
        (functools.partial(generator), "is a generator"),
        (Callable_, "Callable_ is a class"),
        (decorated(three), "three needs 3 parameters"),
    ],
)
def test_what_cannot_be_a_handler_is_refused_by_name(handler: Any, reason: str) -> None:
    with pytest.raises(TypeError, match=f"^handler .*{reason}"):
        bound(handler)


def test_a_plain_handler_that_returns_a_coroutine_is_an_error_of_its_result() -> None:
    ready = bound(lambda event: coroutine_function(event, None))
    assert not ready.is_async
    with pytest.raises(MarshalFault, match="coroutine is not JSON serializable"):
        encode_result(ready.call(1, None))  # type: ignore[arg-type]


# -------------------------------------------------------------------------------------------------- typed events

ORDER = {"id": "00000000-0000-0000-0000-000000000001", "items": [{"sku": "a", "count": 2}], "placed": "2026-11-21"}


def typed(annotation: Any, result: Any = Any) -> Any:
    def handler(event: Any) -> Any:
        return event

    handler.__annotations__ = {"event": annotation, "return": result}
    return handler


FITS = [
    (Order, ORDER, Order.model_validate(ORDER)),
    ("Order", ORDER, Order.model_validate(ORDER)),
    (Point, {"x": "1"}, Point(1)),
    (Movie, {"name": "x", "year": 1}, {"name": "x", "year": 1}),
    (Shelf, {"movies": [{"name": "x"}]}, {"movies": [{"name": "x"}]}),
    (ExtendedMovie, {"name": "x"}, {"name": "x"}),
    (list[Movie], [{"name": "x"}], [{"name": "x"}]),
    (Pair, {"a": 1, "b": "x"}, Pair(1, "x")),
    (Pair, [1, "x"], Pair(1, "x")),
    (Colour, "red", Colour.RED),
    (Literal["a", 1], 1, 1),
    (list[int], ["1", 2], [1, 2]),
    (dict[str, Item], {"a": {"sku": "s", "count": 1}}, {"a": Item(sku="s", count=1)}),
    (tuple[int, str], [1, "a"], (1, "a")),
    (set[int], [1, 1], {1}),
    (Optional[Item], None, None),  # noqa: UP045 - the old form
    (Item | None, None, None),
    (Item | Point, {"x": 1}, Point(1)),
    (dt.date, "2026-11-21", dt.date(2026, 11, 21)),
    (uuid.UUID, str(uuid.UUID(int=1)), uuid.UUID(int=1)),
    (decimal.Decimal, "1.10", decimal.Decimal("1.10")),
    (Identifiers, [1], [1]),
    (Annotated[int, pydantic.Field(gt=0)], 5, 5),
    (Strict, {"day": "2026-11-21", "count": 1}, Strict(day=dt.date(2026, 11, 21), count=1)),
    (dict[str, Any], {"a": 1}, {"a": 1}),
    (Mapping[str, object], {"a": 1}, {"a": 1}),
    (list[Any], [1], [1]),
]


@pytest.mark.parametrize(("annotation", "event", "made"), FITS, ids=range(len(FITS)))
def test_an_event_that_fits_arrives_as_its_type(annotation: Any, event: Any, made: Any) -> None:
    ready = bound(typed(annotation))
    assert ready.decode is not None
    found = ready.decode(event)
    assert found == made
    assert type(found) is type(made)


MISFITS = [
    (Order, {**ORDER, "items": [{"sku": "a"}]}, "1 validation error for Order: items.0.count: Field required"),
    (
        Movie,
        {"year": "x"},
        "2 validation errors for Movie: name: Field required; year: Input should be a valid integer",
    ),
    (Point, [], "1 validation error for Point: event: Input should be an object"),
    (Colour, "blue", "1 validation error for Colour: event: Input should be 'red'"),
    (Literal["a"], "b", "1 validation error for Literal['a']: event: Input should be 'a'"),
    (list[int], {"a": 1}, "1 validation error for list[int]: event: Input should be a valid array"),
    (
        Strict,
        {"day": "2026-11-21", "count": "1"},
        "1 validation error for Strict: count: Input should be a valid integer",
    ),
    (dict[str, Any], [], "1 validation error for dict[str, Any]: event: Input should be an object"),
    (list[Any], {}, "1 validation error for list[Any]: event: Input should be a valid array"),
    (Item | None, 5, "1 validation error for Item | None: event: Input should be an object"),
    (Annotated[int, pydantic.Field(gt=1)], 1, "1 validation error for int: event: Input should be greater than 1"),
    (
        Annotated[Item | None, pydantic.Field(description="x")],
        5,
        "1 validation error for Item | None: event: Input should be an object",
    ),
]


@pytest.mark.parametrize(("annotation", "event", "message"), MISFITS, ids=range(len(MISFITS)))
def test_an_event_that_does_not_fit_names_the_fields_and_what_is_wrong(
    annotation: Any, event: Any, message: str
) -> None:
    decode = bound(typed(annotation)).decode
    assert decode is not None
    with pytest.raises(EventInvalid) as caught:
        decode(event)
    assert caught.value.message.startswith(message)
    assert caught.value.error_type == "ValidationError"


def test_what_was_sent_is_not_shown_in_the_message() -> None:
    with pytest.raises(EventInvalid) as caught:
        run(typed(Item), {"sku": 5, "count": "the secret"})
    assert "secret" not in caught.value.message
    assert "http" not in caught.value.message


def test_a_long_list_of_problems_is_cut() -> None:
    with pytest.raises(EventInvalid) as caught:
        run(typed(list[int]), ["x"] * 10_000)
    assert caught.value.message.startswith("10000 validation errors for list[int]: 0: Input should be a valid integer")
    assert caught.value.message.endswith("; and 9900 more")


def test_an_event_with_lone_surrogates_is_refused_for_what_is_wrong_with_it() -> None:
    with pytest.raises(EventInvalid, match="count: Input should be a valid integer"):
        run(typed(Item), {"sku": "\ud800", "count": "x"})


UNTOUCHED = [
    Any, object, dict, list, str, int, float, bool, None, Library, dict | None, str | int, "dict",
    "a note to the reader", 42, Identifier, typing.Callable[[], int], type[int], typing.TypeVar("T"),
]  # fmt: skip


@pytest.mark.parametrize("annotation", UNTOUCHED, ids=range(len(UNTOUCHED)))
def test_an_annotation_that_says_nothing_of_the_event_changes_nothing(annotation: Any) -> None:
    ready = bound(typed(annotation, annotation))
    assert ready.decode is None
    assert ready.encode is None


def test_annotations_of_parameters_that_are_only_known_to_a_type_checker_do_no_harm() -> None:
    def handler(event: Item, context: LambdaContext) -> int:
        return event.count

    assert run(handler, {"sku": "a", "count": 3}) == 3


def test_an_annotation_of_the_event_that_cannot_be_resolved_is_named() -> None:
    def handler(event: Absent) -> None: ...

    with pytest.raises(TypeError, match=r"handler \S*handler: the annotation 'Absent' of parameter 'event' cannot be"):
        bound(handler)


def test_an_annotation_that_pydantic_cannot_use_is_named() -> None:
    with pytest.raises(TypeError, match=r"handler \S*handler: pydantic cannot use the annotation list\[.*Library\]"):
        bound(typed(list[Library]))


def test_types_of_the_enclosing_function_are_found() -> None:
    class Local(pydantic.BaseModel):
        n: int

    def handler(event: Local) -> Any:
        return Local, event.n

    assert run(handler, {"n": "5"})[1] == 5


@pytest.mark.parametrize("wrap", [decorated, functools.partial, lambda h: Function(h, timeout=1)])
def test_a_decorator_does_not_hide_the_types(wrap: Any) -> None:
    def handler(event: Item) -> Any:
        return event.count

    assert run(wrap(handler), {"sku": "a", "count": "3"}) == 3


def test_methods_and_callables_are_typed_too() -> None:
    class Service:
        def __call__(self, event: Item) -> Any:
            return event.count

        def method(self, event: Item, context: Any) -> Any:
            return event.count

    assert run(Service(), {"sku": "a", "count": "3"}) == 3
    assert run(Service().method, {"sku": "a", "count": "3"}) == 3


def test_an_async_handler_is_typed_too() -> None:
    async def handler(event: Item) -> Item:
        return event

    assert as_json(handler, {"sku": "a", "count": "3"}) == b'{"sku": "a", "count": 3}'


# -------------------------------------------------------------------------------------------------- typed results


@pytest.mark.parametrize(
    ("annotation", "value", "text"),
    [
        (Item, Item(sku="a", count=1), b'{"sku": "a", "count": 1}'),
        (Point, Point(1), b'{"x": 1, "y": 0}'),
        (list[Item], [Item(sku="a", count=1)], b'[{"sku": "a", "count": 1}]'),
        (dict[str, dt.date], {"a": dt.date(2026, 1, 1)}, b'{"a": "2026-01-01"}'),
        (Item | None, None, b"null"),
        (dt.date, dt.date(2026, 1, 1), b'"2026-01-01"'),
        (decimal.Decimal, decimal.Decimal("1.10"), b"1.10"),
        (Colour, Colour.RED, b'"red"'),
        (Movie, {"name": "x"}, b'{"name": "x"}'),
        (set[int], {1}, b"[1]"),
        (set, {1}, b"[1]"),
        (frozenset, frozenset({dt.date(2026, 1, 1)}), b'["2026-01-01"]'),
        (collections.deque[int], collections.deque([1]), b"[1]"),
        (complex, 1j, b'"1j"'),
        (fractions.Fraction, fractions.Fraction(1, 2), b'"1/2"'),
        (Literal[Colour.RED], Colour.RED, b'"red"'),
        (Item, {"sku": "given as a dict", "count": 1}, b'{"sku": "given as a dict", "count": 1}'),
        (Item, b"raw", b"raw"),
        # What the JSON encoder knows is written as on AWS.
        (dict[str, Any], {"a": decimal.Decimal("1.10")}, b'{"a": 1.10}'),
        (list[decimal.Decimal], [decimal.Decimal("1.10")], b"[1.10]"),
        (dict, {"a": decimal.Decimal("1.10")}, b'{"a": 1.10}'),
        (tuple[int, int], (1, 2), b"[1, 2]"),
    ],
)
def test_a_result_is_serialised_by_its_annotation(annotation: Any, value: Any, text: bytes) -> None:
    def handler() -> Any:
        return value

    handler.__annotations__ = {"return": annotation}
    assert as_json(handler, {}) == text


def test_a_result_that_its_annotation_cannot_serialise_is_a_marshal_error() -> None:
    def handler() -> Item:
        return typing.cast("Item", {"sku": object()})

    with pytest.raises(MarshalFault, match=r"^Unable to marshal response: Unable to serialize unknown type") as caught:
        run(handler, {})
    assert caught.value.error_type == "Runtime.MarshalError"


def test_a_typed_handler_that_does_not_say_what_it_returns_may_return_a_model() -> None:
    def handler(event: Item):  # type: ignore[no-untyped-def]
        return event

    assert as_json(handler, {"sku": "a", "count": 1}) == b'{"sku": "a", "count": 1}'
    for annotation in (Any, object):
        assert as_json(typed(Item, annotation), {"sku": "a", "count": 1}) == b'{"sku": "a", "count": 1}'


def test_a_handler_without_annotations_is_answered_as_on_aws() -> None:
    with pytest.raises(MarshalFault, match="Object of type Item is not JSON serializable"):
        as_json(lambda: Item(sku="a", count=1), {})


def test_a_handler_is_bound_while_another_thread_imports_what_its_annotation_may_be_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "decimal", types.ModuleType("decimal"))  # as it is until its first line has run
    assert bound(typed(Library)).decode is None
    assert bound(typed(dict)).decode is None


def test_pydantic_is_imported_for_typed_handlers_only() -> None:
    code = """
import sys
from typing import Any
from serverfull.contracts.validation import EventInvalid
from serverfull.domain.functions import Function
from serverfull.runtimes.handlers import bind
def handler(event: dict[str, Any], context: "Context") -> dict[str, Any]: ...
def other(event, context): ...
bind(Function(handler)), bind(Function(other))
assert "pydantic" not in sys.modules, "imported"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
