"""Which changes break callers, and which do not."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import itertools
import json
import random
import uuid
from typing import Annotated, Any, Literal, NamedTuple

import pydantic
import pytest
import typing_extensions

from serverfull import Function
from serverfull.contracts.answers import Answers
from serverfull.contracts.changes import BreakingChange, breaking_changes
from serverfull.contracts.contract import contract_of, json_schema
from serverfull.contracts.validation import adapter, lenient_validator

Field = pydantic.Field


def document(event: Any = Any, result: Any = Any, errors: Any = ()) -> dict[str, Any]:
    def handler(event: Any) -> Any: ...

    handler.__annotations__ = {"event": event, "return": result}
    written = json.dumps(json_schema(contract_of("f", Function(handler, errors=errors))))
    return {"f": json.loads(written)}


def changes_of_events(before: Any, after: Any) -> list[str]:
    found = breaking_changes(document(event=before), document(event=after))
    assert all(change.function == "f" and change.where.startswith("event") for change in found)
    return [f"{change.where.removeprefix('event')}: {change.what}" for change in found]


def changes_of_results(before: Any, after: Any) -> list[str]:
    found = breaking_changes(document(result=before), document(result=after))
    assert all(change.function == "f" and change.where.startswith("result") for change in found)
    return [f"{change.where.removeprefix('result')}: {change.what}" for change in found]


def model(**fields: Any) -> Any:
    return pydantic.create_model("Model", **{n: f if isinstance(f, tuple) else (f, ...) for n, f in fields.items()})


class Partial(typing_extensions.TypedDict):
    a: int
    b: typing_extensions.NotRequired[int]


class Total(typing_extensions.TypedDict):
    a: int
    b: int


class TwoColours(enum.Enum):
    RED = "red"
    GREEN = "green"


class OneColour(enum.Enum):
    RED = "red"


class Tree(pydantic.BaseModel):
    value: int
    children: list[Tree]


OldTree = Tree


class Tree(pydantic.BaseModel):  # type: ignore[no-redef]
    value: str
    children: list[Tree]


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    age: int


class OldDog(pydantic.BaseModel):
    kind: Literal["dog"]
    age: int
    name: str


class OldPair(NamedTuple):
    a: int
    b: int


class NewPair(NamedTuple):
    a: int
    b: int = 1


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]
OldPet = Annotated[Cat | OldDog, Field(discriminator="kind")]

# before, after, what breaks those who send it, what breaks those who get it
CASES: list[tuple[Any, Any, list[str], list[str]]] = [
    (int, int, [], []),
    (Any, Any, [], []),
    (int, str, [": integer became string"], [": integer became string"]),
    (int, float, [], [": integer became number"]),
    (float, int, [": number became integer"], []),
    (Any, int, [": anything became integer"], []),
    (int, Any, [], [": integer became anything"]),
    (int, int | None, [], [": may be null now"]),
    (int | None, int, [": null is no longer taken"], []),
    (int | str, int, [": string became integer"], []),
    (int, int | str, [], [": integer became string"]),
    (int | str, bool, [": integer became boolean", ": string became boolean"], [": integer or string became boolean"]),
    (str, dt.date, [": string became string (date)"], []),
    (dt.date, str, [], [": string (date) became string"]),
    (bytes, str, [], []),
    (uuid.UUID, dt.date, *[[": string (uuid) became string (date)"]] * 2),
    # values
    (TwoColours, OneColour, [': the value "green" is no longer taken'], []),
    (OneColour, TwoColours, [], [': the value "green" may be given now']),
    (Literal["a", "b"], str, [], [': one of "a", "b" became string']),
    (str, Literal["a"], [': string became "a"'], []),
    (Literal[1, 2], int, [], [": one of 1, 2 became integer"]),
    (Literal[1, "a"], int, [': one of 1, "a" became integer'], [': one of 1, "a" became integer']),
    (Literal["a"] | None, Literal["a", "b"] | None, [], [': the value "b" may be given now']),
    # fields
    (model(a=int), model(a=int, b=int), [".b: is new and required"], []),
    (model(a=int), model(a=int, b=(int, 1)), [], []),
    (model(a=int, b=int), model(a=int), [], [".b: was removed"]),
    (model(a=int, b=(int, 1)), model(a=int), [], [".b: was removed"]),
    (model(a=int), model(a=str), [".a: integer became string"], [".a: integer became string"]),
    (model(a=(int, 1)), model(a=int), [".a: is required now"], []),
    (model(a=int), model(a=(int, 1)), [], []),  # a default is written, so the result still has the field
    (Partial, Total, [".b: is required now"], []),
    (Total, Partial, [], [".b: may be absent now"]),
    (model(a=int), model(a=(int | None, None)), [], [".a: may be null now"]),
    (model(a=model(b=list[model(c=int)])), model(a=model(b=list[model(c=str)])),
     *[[".a.b[].c: integer became string"]] * 2),
    (model(a=model(b=int) | None), model(a=model(b=str) | None), *[[".a.b: integer became string"]] * 2),
    (model(a=int), pydantic.create_model("Model", __config__={"extra": "forbid"}, a=(int, ...)), [], []),
    (model(a=int, b=int), pydantic.create_model("Model", __config__={"extra": "forbid"}, a=(int, ...)),
     [".b: is no longer taken"], [".b: was removed"]),
    (model(a=int), dict[str, int], [], [".a: may be absent now"]),
    (dict[str, int], model(a=int), [".a: is new and required"], []),
    (OldPet, Pet, [], [".name: was removed"]),
    (Pet, OldPet, [".name: is new and required"], []),
    (Cat, Pet, [], ['.kind: the value "dog" may be given now', ".lives: was removed"]),
    (Pet, Cat, ['.kind: the value "dog" is no longer taken', ".lives: is new and required"], []),
    (OldTree, Tree, *[[".value: integer became string"]] * 2),
    # containers
    (list[int], list[str], *[["[]: integer became string"]] * 2),
    (list[int], dict[str, int], *[[": array became object"]] * 2),
    (dict[str, int], dict[str, str], *[["{}: integer became string"]] * 2),
    (dict[str, Any], dict[str, int], ["{}: anything became integer"], []),
    (tuple[int, str], tuple[int, int], *[["[1]: string became integer"]] * 2),
    (list[int], tuple[int, int], [": minItems none became 2", ": maxItems none became 2"], []),
    (OldPair, NewPair, [], [": minItems 2 became 1"]),
    (set[int], list[int], [], [": uniqueItems true became none"]),
    (list[int], set[int], [], []),  # what an event has twice is there once
    # constraints
    (int, Annotated[int, Field(gt=0)], [": exclusiveMinimum none became 0"], []),
    (Annotated[int, Field(gt=0)], int, [], [": exclusiveMinimum 0 became none"]),
    (Annotated[int, Field(gt=0)], Annotated[int, Field(ge=0)], [], [": exclusiveMinimum 0 became none"]),
    (Annotated[int, Field(ge=1)], Annotated[int, Field(gt=0)], [], [": minimum 1 became none"]),
    (Annotated[str, Field(max_length=5)], Annotated[str, Field(max_length=3)], [": maxLength 5 became 3"], []),
    (Annotated[str, Field(max_length=3)], Annotated[str, Field(max_length=5)], [], [": maxLength 3 became 5"]),
    (str, Annotated[str, Field(pattern="^a")], [': pattern none became "^a"'], []),
    (Annotated[int, Field(multiple_of=6)], Annotated[int, Field(multiple_of=3)], [], [": multipleOf 6 became 3"]),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "sent", "got"), CASES, ids=range(len(CASES)))
def test_what_breaks_those_who_send_it_and_those_who_get_it(
    before: Any, after: Any, sent: list[str], got: list[str]
) -> None:
    assert (changes_of_events(before, after), changes_of_results(before, after)) == (sent, got)


def test_removed_functions_and_errors_break_callers_new_ones_do_not() -> None:
    before = {**document(errors=[KeyError, ValueError("x")]), "gone": document()["f"]}
    after = {**document(errors=[ValueError, IndexError]), "new": document()["f"]}
    assert breaking_changes(before, after) == [
        BreakingChange("f", "errors.KeyError", "was removed"),
        BreakingChange("gone", "function", "was removed"),
    ]
    assert str(breaking_changes(before, after)[0]) == "f: errors.KeyError: was removed"


def test_what_is_no_document_is_named() -> None:
    with pytest.raises(ValueError, match=r"^the contract of f is not in the form"):
        breaking_changes({"f": {"event": {}}}, document())


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


POOL: list[Any] = [
    Any, None, int, float, str, bool, bytes, int | None, int | str, dt.date, uuid.UUID, decimal.Decimal, OneColour,
    TwoColours, Literal["red"], Literal[1, 2], Annotated[int, Field(ge=1, le=2)], Annotated[int, Field(gt=0)],
    Annotated[float, Field(gt=0.5)], Annotated[int, Field(multiple_of=4)], Annotated[int, Field(multiple_of=2)],
    Annotated[str, Field(min_length=1)], Annotated[str, Field(max_length=2)], Annotated[str, Field(pattern="^[a-c]+$")],
    list[int], list[float], list[int | None], set[int], tuple[int, ...], tuple[int, int], tuple[int, str], tuple[()],
    Annotated[list[int], Field(min_length=2)], Annotated[list[int], Field(max_length=1)], dict[str, int],
    dict[str, Any], dict[Literal["x", "a"], int], Annotated[dict[str, int], Field(min_length=1)], Point, Partial, Total,
    OldPair, NewPair, OldTree, Tree, Cat, Dog, OldDog, Pet, OldPet, Pet | None, model(x=int), model(x=int, y=int),
    model(a=(int, 3)), model(a=int | None), model(a=(int | None, None)), model(a=model(a=int)), list[Pet],
]  # fmt: skip


def test_where_nothing_breaks_every_old_event_is_still_taken_and_every_new_result_is_what_was_promised() -> None:
    documents = [document(event=one, result=one) for one in POOL]
    validators = [lenient_validator(adapter(one, "test")) for one in POOL]
    rng = random.Random(0)
    values = [[answers.random(rng) for _ in range(8)] for answers in map(Answers, POOL)]
    compatible = 0
    for mine, theirs in itertools.permutations(range(len(POOL)), 2):
        forth = breaking_changes(documents[mine], documents[theirs])
        if not any(change.where.startswith("event") for change in forth):
            compatible += 1
            for value in values[mine]:
                validators[theirs](value)
        if not any(change.where.startswith("result") for change in forth):
            compatible += 1
            for value in values[theirs]:
                validators[mine](value)
    assert compatible > 300
