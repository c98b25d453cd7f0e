"""The contract of a function is what a real call does with events, and what its author declared."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, TypedDict

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
