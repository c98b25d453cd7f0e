from __future__ import annotations

import gc
import json
import re
import sys
import weakref
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, PlainSerializer, TypeAdapter
from typing_extensions import TypedDict

from serverfull import ChainFetcher, Function, MockingFetcher, RandomAnswers, StaticAnswers, StaticFetcher, ZeroAnswers
from serverfull.config import MockSettings
from serverfull.contracts.validation import EventInvalid, ResultInvalid
from serverfull.domain.functions import NOT_GIVEN
from serverfull.errors import ConfigurationError, FunctionNotReady, NotFoundError, TargetInvalid
from serverfull.fetchers.answers import answers_of
from serverfull.interfaces import Fetcher
from serverfull.runtimes.handlers import bind
from serverfull.runtimes.marshal import encode_result
from serverfull.testing.fetcher_suite import FetcherSuite


class Money(BaseModel):
    amount: int
    currency: str = "EUR"


@dataclass
class Order:
    item: str
    quantity: int = 1


class Opaque:
    """A class that says nothing about its values."""


def price(event: Order) -> Money:
    raise AssertionError("a mock ran the handler")


async def names(event: dict[str, Any], context: Any) -> list[str]:
    raise AssertionError("a mock ran the handler")


def bare() -> None:
    raise AssertionError("a mock ran the handler")


def mocked(functions: dict[str, Any], answers: Any = None) -> MockingFetcher:
    return MockingFetcher(StaticFetcher(functions), answers)


async def call(fetcher: Fetcher, name: str, event: Any = None) -> Any:
    """Do what a runtime does with a function: decode, call, encode."""
    bound = bind(await fetcher.fetch(name))
    assert bound.is_async
    if bound.decode is not None:
        event = bound.decode(event)
    value = await bound.call(event, None)  # type: ignore[arg-type]
    return value if bound.encode is None else bound.encode(value)


class TestMockingFetcher(FetcherSuite):
    @pytest.fixture
    def fetcher(self) -> MockingFetcher:
        return mocked({"price": price, "names": names, "bare": bare})


class TestMockingFetcherWithRandomAnswers(FetcherSuite):
    @pytest.fixture
    def fetcher(self) -> MockingFetcher:
        return mocked({"price": price}, RandomAnswers(3))


async def test_zero_answers_fit_the_results() -> None:
    fetcher = mocked({"price": price, "names": names, "bare": bare})
    assert await call(fetcher, "price", {"item": "tea"}) == {"amount": 0, "currency": "EUR"}
    assert await call(fetcher, "names", {}) == []
    assert await call(fetcher, "bare") is None


async def test_random_answers_fit_the_results_and_are_the_same_for_the_same_seed() -> None:
    async def some(seed: int, name: str = "price") -> list[Any]:
        fetcher = mocked({name: price}, RandomAnswers(seed))
        return [await call(fetcher, name, {"item": "tea"}) for _ in range(20)]

    answers = await some(7)
    for answer in answers:
        TypeAdapter(Money).validate_python(answer, strict=True)
    assert len({json.dumps(answer) for answer in answers}) > 10
    assert await some(7) == answers
    assert await some(8) != answers
    assert await some(7, "other") != answers


async def test_one_function_does_not_change_the_random_answers_of_another() -> None:
    alone, together = mocked({"a": names}, RandomAnswers(1)), mocked({"b": names, "a": names}, RandomAnswers(1))
    for _ in range(5):
        await call(together, "b", {})
        assert await call(together, "a", {}) == await call(alone, "a", {})


async def test_an_answer_is_what_a_real_result_would_be_written_as_and_is_not_written_twice() -> None:
    def day() -> Annotated[date, PlainSerializer(lambda day: f"{day:%d.%m.%Y}")]:
        raise AssertionError("a mock ran the handler")

    assert await call(mocked({"day": day}), "day") == "01.01.1970"
    assert await call(mocked({"day": Function(day, mock=date(2026, 11, 21))}), "day") == "21.11.2026"


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Point(NamedTuple):
    x: int
    y: float


class Shelf(TypedDict):
    label: str
    colours: list[Colour]


class Parcel(BaseModel):
    weight: int = Field(gt=3)
    at: datetime
    shelf: Shelf | None
    points: dict[str, Point]


LEAVES = [int, str, bool, float, None, date, datetime, Decimal, UUID, Colour, Literal["a", 7], Point, Shelf, Parcel]
ANNOTATIONS = st.recursive(
    st.sampled_from([*LEAVES, Money, Order]),
    lambda inner: st.one_of(
        inner.map(lambda one: list[one]),  # type: ignore[valid-type]
        inner.map(lambda one: dict[str, one]),  # type: ignore[valid-type]
        inner.map(lambda one: one | None if one is not None else None),
        st.tuples(inner, inner).map(lambda two: tuple[two[0], two[1]]),  # type: ignore[valid-type]
    ),
    max_leaves=4,
)


@given(annotation=ANNOTATIONS, seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_every_kind_of_answer_validates_against_the_type_as_it_goes_out(
    annotation: Any, seed: int, tmp_path: Path
) -> None:
    def handler(event):
        raise AssertionError("a mock ran the handler")

    handler.__annotations__ = {"return": annotation}
    check = TypeAdapter(annotation)
    (tmp_path / "it.json").write_bytes((await answered(handler, RandomAnswers(seed)))[0])
    for answers in (ZeroAnswers(), RandomAnswers(seed), StaticAnswers(tmp_path)):
        for payload in await answered(handler, answers):
            check.validate_json(payload)


async def answered(handler: Any, answers: Any) -> list[bytes]:
    """Give three answers as their callers get them."""
    fetcher = mocked({"it": handler}, answers)
    return [encode_result(await call(fetcher, "it"))[0] for _ in range(3)]


@pytest.mark.parametrize("in_folder", [False, True])
async def test_static_answers_come_from_a_file_or_a_folder_as_they_are_written(tmp_path: Path, in_folder: bool) -> None:
    written = {"price": {"amount": 3, "currency": "GBP"}, "bare": None}
    path = tmp_path / ("answers" if in_folder else "answers.json")
    if in_folder:
        path.mkdir()
        (path / "notes.txt").write_text("not an answer")
        for name, answer in written.items():
            (path / f"{name}.json").write_text(json.dumps(answer))
    else:
        path.write_text(json.dumps(written))
    fetcher = mocked({"price": price, "bare": bare, "names": names}, StaticAnswers(path))
    assert await call(fetcher, "price", {"item": "tea"}) == written["price"]
    assert await call(fetcher, "bare") is None
    assert await call(fetcher, "names", {}) == [], "where there is no answer, the zero value"


async def test_an_answer_without_a_field_that_has_a_default_is_given_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"price": {"amount": 3}}')
    assert await call(mocked({"price": price}, StaticAnswers(tmp_path / "a.json")), "price", {"item": "tea"}) == {
        "amount": 3
    }


def test_missing_and_unknown_answers_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"price": {"amount": 3}, "prise": 1}')
    assert list(StaticAnswers(path).remarks(["price", "names", "bare"])) == [
        f"{path} has no answer for bare, names: zero values are answered",
        f"{path} has answers for functions that are not there: prise",
    ]
    assert list(ZeroAnswers().remarks(["price"])) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ('{"a": NaN}', "is not JSON: NaN is not allowed"),
        ("[1]", "it takes a JSON object with an answer under each function's name"),
        (None, "cannot be read from"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_that_names_it(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "answers.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=message) as wrong:
        StaticAnswers(path)
    assert str(path) in str(wrong.value)


def test_a_folder_without_answers_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no file NAME\.json in it"):
        StaticAnswers(tmp_path)


async def test_a_static_answer_that_does_not_fit_is_refused_with_its_place_and_its_field(tmp_path: Path) -> None:
    (tmp_path / "price.json").write_text('{"amount": "many"}')
    fetcher = mocked({"price": price}, StaticAnswers(tmp_path))
    with pytest.raises(ConfigurationError, match=r"price\.json: the answer does not fit .*'price'.*amount: Input"):
        await fetcher.list()
    with pytest.raises(FunctionNotReady, match="amount: Input"):
        await fetcher.fetch("price")


async def test_the_functions_own_mock_wins_over_everything(tmp_path: Path) -> None:
    (tmp_path / "price.json").write_text('{"amount": 1}')
    functions = {
        "price": Function(price, mock=Money(amount=5)),
        "names": Function(names, mock=["Ada"]),
        "bare": Function(bare, mock=None),
    }
    for answers in (ZeroAnswers(), RandomAnswers(), StaticAnswers(tmp_path)):
        fetcher = mocked(functions, answers)
        assert await call(fetcher, "price", {"item": "tea"}) == {"amount": 5, "currency": "EUR"}
        assert await call(fetcher, "names", {}) == ["Ada"]
        assert await call(fetcher, "bare") is None


async def test_a_mock_that_is_called_gets_the_event_as_the_handler_would_and_its_result_is_written_so_too() -> None:
    def expensive(event: Order) -> Money:
        assert isinstance(event, Order)
        return Money(amount=event.quantity * 100)

    async def later(event: Order) -> Money:
        return expensive(event)

    class Callable:
        async def __call__(self, event: Order) -> Money:
            return expensive(event)

    for mock in (expensive, later, Callable()):
        fetcher = mocked({"price": Function(price, mock=mock)})
        assert await call(fetcher, "price", {"item": "tea", "quantity": 2}) == {"amount": 200, "currency": "EUR"}
        with pytest.raises(EventInvalid):
            await call(fetcher, "price", {"item": 1})


async def test_a_mock_that_is_called_with_a_partial_is_awaited_too() -> None:
    async def later(amount: int, event: Order) -> Money:
        return Money(amount=amount)

    fetcher = mocked({"price": Function(price, mock=partial(later, 3))})
    assert (await call(fetcher, "price", {"item": "tea"}))["amount"] == 3


@pytest.mark.parametrize("in_a_loop", [False, True])
async def test_what_a_called_mock_gives_has_to_fit_the_result(in_a_loop: bool) -> None:
    def wrong(event: Order) -> Any:
        return {"amount": "many"}

    async def wrong_later(event: Order) -> Any:
        return {"amount": "many"}

    fetcher = mocked({"price": Function(price, mock=wrong_later if in_a_loop else wrong)})
    with pytest.raises(ResultInvalid, match=r"the mock of function 'price' does not fit its result: .*amount: Input"):
        await call(fetcher, "price", {"item": "tea"})


@pytest.mark.parametrize("mock", [lambda event, context: None, lambda: None, Money])
async def test_a_mock_that_cannot_be_called_with_the_event_is_refused_at_start(mock: Any) -> None:
    with pytest.raises(TargetInvalid, match="'price' cannot be mocked: its mock is called with the event alone"):
        await mocked({"price": Function(price, mock=mock)}).list()


async def test_a_result_that_is_bytes_is_answered_as_the_bytes_that_a_handler_would_give(tmp_path: Path) -> None:
    def raw() -> bytes:
        raise AssertionError("a mock ran the handler")

    (tmp_path / "it.json").write_text('"tea"')
    assert encode_result(await call(mocked({"it": raw}), "it")) == (b"", "application/unknown")
    assert encode_result(await call(mocked({"it": raw}, StaticAnswers(tmp_path)), "it")) == (
        b"tea",
        "application/unknown",
    )
    random = encode_result(await call(mocked({"it": raw}, RandomAnswers(1)), "it"))
    assert random[1] == "application/unknown"
    assert b'"' not in random[0]
    assert encode_result(await call(mocked({"it": Function(raw, mock=b"\xff")}), "it"))[0] == b"\xff"


async def test_a_static_answer_that_only_a_conversion_would_make_fit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "price.json").write_text('{"amount": "3"}')
    with pytest.raises(ConfigurationError, match=r"price\.json: the answer does not fit .*amount: Input"):
        await mocked({"price": price}, StaticAnswers(tmp_path)).list()


async def test_answers_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "price.json").write_bytes(b'\xef\xbb\xbf{"amount": 3}')
    answer = await call(mocked({"price": price}, StaticAnswers(tmp_path)), "price", {"item": "tea"})
    assert answer == {"amount": 3}


@pytest.mark.parametrize(
    ("annotation", "fits", "others"),
    [
        (dict, [{}, {"a": 1}], ["text", 1, [], None]),
        (list, [[], [1]], ["text", 1, {}, None]),
        (str, ["", "text"], [1, {}, [], None]),
        (int, [0, -1], ["1", 1.5, True, {}, None]),
        (float, [0, 1.5], ["1", True, {}, None]),
        (bool, [True], [1, "true", None]),
        (str | None, ["", None], [1, {}]),
        (int | str | None, [1, "1", None], [1.5, True, {}]),
        (NewType("Name", str), ["Ada"], [1]),
        (Any, [None, {}, 1], []),
        (None, [None, {}, 1], []),
    ],
)
@pytest.mark.parametrize("mock", [NOT_GIVEN, lambda _event: 1])
async def test_events_of_plain_types_are_held_to_the_contract(
    annotation: Any, fits: list[Any], others: list[Any], mock: Any
) -> None:
    def handler(event):
        raise AssertionError("a mock ran the handler")

    handler.__annotations__ = {"event": annotation, "return": int}
    assert (decode := bind(Function(handler)).decode) is None, f"a real handler gets anything: {decode}"
    fetcher = mocked({"it": Function(handler, mock=mock)})
    for event in fits:
        await call(fetcher, "it", event)
    for event in others:
        title = re.escape(getattr(annotation, "__name__", str(annotation)))
        with pytest.raises(EventInvalid, match=rf"^\d validation errors? for {title}: "):
            await call(fetcher, "it", event)


async def test_a_mock_that_does_not_fit_is_refused_with_its_field() -> None:
    fetcher = mocked({"price": Function(price, mock={"amount": "many"})})
    with pytest.raises(TargetInvalid, match=r"the mock of function 'price' does not fit its result: .*amount: Input"):
        await fetcher.list()


async def test_a_result_that_nothing_is_known_of_is_refused_unless_an_answer_is_given(tmp_path: Path) -> None:
    def handler(event: Any) -> Opaque:
        raise AssertionError

    for answers in (ZeroAnswers(), RandomAnswers()):
        with pytest.raises(TargetInvalid, match=r"function 'it' cannot be mocked: .*Opaque"):
            await mocked({"it": handler}, answers).list()
    (tmp_path / "it.json").write_text("[1]")
    assert await call(mocked({"it": handler}, StaticAnswers(tmp_path)), "it") == [1]


@pytest.mark.parametrize("event", [None, [], {}, {"item": 1}, {"item": "tea", "quantity": "many"}])
async def test_events_are_refused_in_the_words_of_the_real_function(event: Any) -> None:
    messages = []
    for function in (Function(price), await mocked({"price": price}).fetch("price")):
        decode = bind(function).decode
        assert decode is not None
        with pytest.raises(EventInvalid) as refused:
            decode(event)
        messages.append(refused.value.message)
    assert messages[0] == messages[1]


async def test_the_configuration_of_a_mocked_function_is_that_of_the_real_one() -> None:
    options: dict[str, Any] = {"timeout": 7, "memory_size": 256, "description": "d", "loop": "own", "tags": {"t": "1"}}
    real = Function(price, [ValueError], environment={"A": "b"}, **options)
    made = await mocked({"price": real}).fetch("price")
    for field in ("errors", "timeout", "memory_size", "environment", "description", "loop", "max_concurrency", "tags"):
        assert getattr(made, field) == getattr(real, field)
    assert made.handler_name == real.handler_name == f"{__name__}.price"
    assert made.handler is not real.handler


async def test_nothing_of_the_handlers_body_or_its_module_is_touched_by_a_mock_call(tmp_path: Path) -> None:
    module = tmp_path / "module_with_state.py"
    module.write_text(
        "from dataclasses import dataclass\n"
        "state = {'calls': 0, 'imports': 1}\n"
        "cache = []\n"
        "@dataclass\n"
        "class Order:\n"
        "    item: str\n"
        "def handler(event: Order, context) -> list[Order]:\n"
        "    global handler\n"
        "    state['calls'] += 1\n"
        "    cache.append(event)\n"
        "    handler = None\n"
        "functions = {'it': handler}\n"
    )
    from serverfull.fetchers.targets import load_target

    real = load_target(f"{module}:functions")
    loaded = sys.modules["module_with_state"]
    try:
        before = dict(vars(loaded))
        code_events: list[Any] = []

        def trace(frame: Any, event: str, _argument: Any) -> None:
            if frame.f_code.co_filename == str(module):
                code_events.append((frame.f_code.co_name, event))

        (tmp_path / "answers.json").write_text('{"it": [{"item": "tea"}]}')
        for answers in (ZeroAnswers(), RandomAnswers(), StaticAnswers(tmp_path / "answers.json")):
            fetcher = MockingFetcher(real, answers)
            sys.setprofile(trace)
            try:
                await call(fetcher, "it", {"item": "tea"})
                with pytest.raises(EventInvalid):
                    await call(fetcher, "it", {})
            finally:
                sys.setprofile(None)
        assert vars(loaded) == before
        assert loaded.state == {"calls": 0, "imports": 1}
        assert loaded.cache == []
        assert [event for event in code_events if event[0] == "handler"] == []
    finally:
        del sys.modules["module_with_state"]


async def test_a_new_object_of_the_wrapped_fetcher_is_a_new_mock_and_the_old_one_goes() -> None:
    class Changing(Fetcher):
        function: Function

        async def fetch(self, name: str, qualifier: str | None = None) -> Function:
            return self.function

        async def list(self) -> dict[str, Function]:
            return {"it": self.function}

    changing = Changing()
    changing.function = Function(bare)
    fetcher = MockingFetcher(changing)
    first = await fetcher.fetch("it")
    assert (await fetcher.list())["it"] is first
    old = weakref.ref(changing.function)
    changing.function = Function(names, mock=["Ada"])
    assert await fetcher.fetch("it") is not first
    assert await call(fetcher, "it", {}) == ["Ada"]
    gc.collect()
    assert old() is None


async def test_one_function_under_two_names_has_two_answers(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"one": 1, "two": 2}')
    both = Function(lambda event: None)
    fetcher = mocked({"one": both, "two": both}, StaticAnswers(tmp_path / "a.json"))
    assert [await call(fetcher, "one"), await call(fetcher, "two")] == [1, 2]


async def test_what_is_not_there_is_not_found_and_sources_are_those_of_the_wrapped_fetcher() -> None:
    chain = ChainFetcher(StaticFetcher({"price": price}))
    fetcher = MockingFetcher(chain)
    with pytest.raises(NotFoundError):
        await fetcher.fetch("nope")
    await fetcher.fetch("price")
    assert (fetcher.source, fetcher.source_of("price"), fetcher.read_only) == ("chain", "static", True)


def test_the_settings_name_the_source_of_answers(tmp_path: Path) -> None:
    assert isinstance(answers_of(MockSettings()), ZeroAnswers)
    assert isinstance(answers_of(MockSettings(answers="random", seed=3)), RandomAnswers)
    (tmp_path / "a.json").write_text("{}")
    assert isinstance(answers_of(MockSettings(answers=str(tmp_path / "a.json"))), StaticAnswers)
    with pytest.raises(ConfigurationError, match="They are 'zero', 'random', or the path"):
        answers_of(MockSettings(answers="rnadom"))


def test_a_function_has_no_mock_unless_one_is_given() -> None:
    assert Function(price).mock is NOT_GIVEN
    assert Function(price, mock=None).mock is None
    assert Function(mock={"amount": 1})(price).mock == {"amount": 1}
