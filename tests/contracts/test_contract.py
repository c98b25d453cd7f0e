"""The contract of a function is what a real call does with events, and what its author declared."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import functools
import uuid
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

import pydantic
import pytest

from serverfull import Function
from serverfull.contracts.contract import DeclaredErrorContract, contract_of, documents, json_schema
from serverfull.contracts.validation import EventInvalid, ResultInvalid
from serverfull.runtimes.handlers import bind

if TYPE_CHECKING:
    from missing_module import Absent  # type: ignore[import-not-found]


class Item(pydantic.BaseModel):
    sku: str
    count: int = pydantic.Field(gt=0)


@dataclasses.dataclass
class Receipt:
    total: float


class Movie(TypedDict):
    name: str


class OutOfStock(Exception):
    """There is nothing left.

    More that is for the reader of the code.
    """


class Quiet(OutOfStock): ...


def order(event: Item, context: Any) -> Receipt:
    pytest.fail("the handler was called")


class Service:
    def __call__(self, event: Item) -> Receipt: ...

    async def method(self, event: Item, context: Any) -> Receipt: ...


@pytest.mark.parametrize(
    "handler",
    [order, functools.partial(order, context=1), Function(order), Service(), Service().method, Service.method],
    ids=range(6),
)
def test_the_contract_is_found_behind_every_shape_of_handler(handler: Any) -> None:
    contract = contract_of("orders", Function(handler))
    if handler is Service.method:  # not bound to an instance, so the event is its first parameter
        assert contract.event is Any
        return
    assert (contract.name, contract.event, contract.result, contract.errors) == ("orders", Item, Receipt, ())


def test_without_annotations_everything_is_taken_and_nothing_is_known() -> None:
    contract = contract_of("f", Function(lambda event: event))
    assert (contract.event, contract.result) == (Any, Any)
    contract.validate_event(object())
    contract.validate_result(object())
    assert json_schema(contract) == {"name": "f", "event": {}, "result": {}, "errors": []}
    assert contract.answers.zero() is None


@pytest.mark.parametrize("annotation", [Item, Receipt, Movie, list[Item], dict[str, Any], Item | None, str, Any])
@pytest.mark.parametrize(
    "event", [{"sku": "a", "count": 1}, {"sku": 1}, {"total": 1}, {"name": "x"}, [], [{"sku": "a"}], "text", None]
)
def test_an_event_is_refused_as_a_real_call_refuses_it(annotation: Any, event: Any) -> None:
    def handler(event: Any) -> None: ...

    handler.__annotations__["event"] = annotation
    function = Function(handler)
    decode, contract = bind(function).decode, contract_of("f", function)
    problems = []
    for check in (decode or (lambda event: event), contract.validate_event):
        try:
            check(event)
        except EventInvalid as error:
            problems.append(str(error))
        else:
            problems.append("none")
    assert problems[0] == problems[1]


def test_an_event_that_does_not_fit_is_refused() -> None:
    contract = contract_of("orders", Function(order))
    contract.validate_event({"sku": "a", "count": 1})
    with pytest.raises(EventInvalid, match=r"^1 validation error for Item: count: Input should be greater than 0$"):
        contract.validate_event({"sku": "a", "count": 0})


@pytest.mark.parametrize("value", [{"total": 1}, {"total": 0.5, "more": 1}, Receipt(1.0)])
def test_a_result_that_fits_is_taken_as_json_and_as_an_instance(value: Any) -> None:
    contract_of("orders", Function(order)).validate_result(value)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({}, "total: Field required"),
        (1, "result: Input should be an object"),
        ({"total": "x"}, "total: Input should be"),
    ],
)
def test_a_result_that_does_not_fit_is_refused_with_the_field(value: Any, problem: str) -> None:
    with pytest.raises(ResultInvalid, match=f"^1 validation error for Receipt: {problem}"):
        contract_of("orders", Function(order)).validate_result(value)


class Area(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    width: int
    note: str = pydantic.Field(exclude=True)
    kinds: dict[str, Literal["a", "b"] | None] = {}

    @pydantic.computed_field
    def double(self) -> int:
        return self.width * 2

    @pydantic.field_serializer("width")
    def as_text(self, width: int) -> str:
        return f"{width} m"


def returning(annotation: Any) -> Any:
    def handler(event: Any) -> Any: ...

    handler.__annotations__["return"] = annotation
    return contract_of("f", Function(handler))


def test_a_result_that_is_written_otherwise_than_read_is_compared_with_what_is_written() -> None:
    contract = returning(list[Area])
    fits = {"width": "1 m", "double": 2, "kinds": {"x": "a", "y": None}}
    assert contract.validate_result([fits]) == [fits]
    contract.validate_result(contract.answers.zero())
    for change, problem in {
        "width": "result.0.width: Input should be of type string",
        "double": "result.0.double: Input should be of type integer",
        "kinds": "result.0.kinds: Input should be of type object",
        "note": "result.0.note: Extra inputs are not permitted",
    }.items():
        with pytest.raises(ResultInvalid) as refused:
            contract.validate_result([fits | {change: 1.5}])
        assert str(refused.value) == problem
    with pytest.raises(ResultInvalid, match=r"^result\.0\.kinds\.x: Input should be one of 2 types$"):
        contract.validate_result([fits | {"kinds": {"x": "c"}}])
    with pytest.raises(ResultInvalid, match=r"^result\.0\.double: Field required$"):
        contract.validate_result([{"width": "1 m", "kinds": {}}])
    with pytest.raises(ResultInvalid, match=r"^result: Input should be of type array$"):
        contract.validate_result({})


@pytest.mark.parametrize(("annotation", "value"), [(int, "1"), (str, 1), (bool, 1), (dt.date, 0), (list[int], ["1"])])
def test_json_that_only_a_conversion_would_make_fit_is_refused(annotation: Any, value: Any) -> None:
    with pytest.raises(ResultInvalid, match="Input should be"):
        returning(annotation).validate_result(value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [(float, 1), (dt.date, "2026-01-01"), (set[int], [1]), (tuple[int, str], [1, "a"]), (dict[int, str], {"1": "a"}),
     (decimal.Decimal, 1.5), (decimal.Decimal, "1.5"), (uuid.UUID, str(uuid.UUID(int=1))), (dt.timedelta, "PT1S")],
)  # fmt: skip
def test_json_that_stands_for_a_value_is_taken(annotation: Any, value: Any) -> None:
    assert returning(annotation).validate_result(value) == value


def test_the_text_of_a_result_that_is_bytes_is_answered_as_bytes() -> None:
    assert returning(bytes).validate_result("tea") == b"tea"
    assert returning(bytes | None).validate_result(None) is None
    assert returning(list[bytes]).validate_result(["tea"]) == ["tea"]
    assert returning(pydantic.Base64Bytes).validate_result(b"o") == b"o"


def test_a_result_of_a_class_that_pydantic_does_not_know_is_anything() -> None:
    class Library: ...

    def handler() -> Library:
        return Library()

    contract = contract_of("f", Function(handler))
    contract.validate_result({"any": "thing"})
    assert json_schema(contract)["result"] == {}


def test_declared_errors_have_a_type_and_a_message() -> None:
    contract = contract_of("f", Function(order, errors=[OutOfStock, Quiet, OutOfStock("sold out"), ValueError()]))
    assert contract.errors == (
        DeclaredErrorContract("OutOfStock", "There is nothing left."),
        DeclaredErrorContract("Quiet", ""),
        DeclaredErrorContract("OutOfStock", "sold out"),
        DeclaredErrorContract("ValueError", ""),
    )
    assert json_schema(contract)["errors"][0] == {"errorType": "OutOfStock", "message": "There is nothing left."}


def test_errors_whose_text_cannot_be_had_or_is_made_by_dataclass_are_declared_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    @dataclasses.dataclass
    class Coded(Exception):
        code: int = 5

    assert contract_of("f", Function(order, errors=[Mute(), Coded])).errors == (
        DeclaredErrorContract("Mute", "<Mute.__str__ failed: RuntimeError>"),
        DeclaredErrorContract("Coded", ""),
    )


class Unfinished(pydantic.BaseModel):
    price: Missing  # type: ignore[name-defined] # noqa: F821 - as with a type imported for the type checker alone


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (Unfinished, "name 'Missing' is not defined"),
        (Annotated[int | str, pydantic.Strict()], "Unable to apply constraint 'strict'"),
        (Annotated[str, pydantic.Field(pattern="(?=a)b")], "regex parse error"),
    ],
)
@pytest.mark.parametrize("where", ["event", "return"])
def test_types_that_no_call_could_use_are_refused_at_start(where: str, annotation: Any, reason: str) -> None:
    def handler(event: Any) -> Any: ...

    handler.__annotations__[where] = annotation
    refusals = []
    for use in (bind, lambda function: contract_of("f", function).answers):
        with pytest.raises(TypeError, match=reason) as refused:
            use(Function(handler))
        refusals.append(str(refused.value))
    assert all("pydantic cannot use the annotation" in refusal for refusal in refusals)


def test_annotations_that_cannot_be_used_are_refused_as_at_start() -> None:
    def handler(event: Absent) -> None: ...

    with pytest.raises(TypeError, match=r"handler \S*handler: the annotation 'Absent' of parameter 'event' cannot be"):
        contract_of("f", Function(handler))
    with pytest.raises(TypeError, match="the Function has no handler"):
        contract_of("f", Function())


def test_documents_are_in_the_order_of_names() -> None:
    found = documents({name: contract_of(name, Function(order)) for name in ("b", "c", "a")})
    assert list(found) == ["a", "b", "c"]
    assert list(found["a"]) == ["name", "event", "result", "errors"]
    assert found["a"]["event"]["required"] == ["sku", "count"]
    assert found["a"]["event"]["properties"]["count"]["exclusiveMinimum"] == 0
