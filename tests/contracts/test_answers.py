"""Zero values and random values fit the annotation, whatever it is."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import importlib.util
import json
import os
import random
import subprocess
import sys
import typing
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import pydantic
import pytest
from hypothesis import HealthCheck, given, settings

from serverfull import Function
from serverfull.contracts.answers import AnswerImpossible, Answers, zero_value
from serverfull.contracts.changes import breaking_changes
from serverfull.contracts.contract import contract_of, documents, json_schema
from serverfull.contracts.validation import adapter, lenient_validator

_spec = importlib.util.spec_from_file_location("contract_types", Path(__file__).with_name("typed.py"))
assert _spec is not None
assert _spec.loader is not None
types = importlib.util.module_from_spec(_spec)
sys.modules["contract_types"] = types
_spec.loader.exec_module(types)

RNG = random.Random


# ------------------------------------------------------------------------------------------------ whatever it is


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(types.annotations)
def test_answers_fit_any_annotation_are_json_and_depend_on_the_seed_alone(annotation: Any) -> None:
    answers = Answers(annotation)
    validate = lenient_validator(adapter(annotation, "test"))
    again, rng = Answers(annotation), RNG(7)
    made = [answers.zero(), *(answers.random(rng) for _ in range(4))]
    for value in made:
        assert isinstance(value, bytes) or json.loads(json.dumps(value, allow_nan=False)) == value
        validate(value)
    rng = RNG(7)
    assert [again.zero(), *(again.random(rng) for _ in range(4))] == made


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(types.annotations)
def test_a_contract_takes_its_own_answers_and_has_a_document_that_breaks_nothing(annotation: Any) -> None:
    def handler(event: Any) -> Any: ...

    handler.__annotations__ = {"event": annotation, "return": annotation}
    contract = contract_of("f", Function(handler))
    contract.validate_result(contract.answers.zero())
    contract.validate_result(contract.answers.random(RNG(1)))
    document = documents({"f": contract})
    text = json.dumps(document)
    assert json.dumps(documents({"f": contract_of("f", Function(handler))})) == text
    assert breaking_changes(json.loads(text), document) == []
    assert json_schema(contract) == document["f"]


# ------------------------------------------------------------------------------------------------------ zero values


class Plain(TypedDict):
    """Of the standard library, which pydantic does not take before Python 3.12."""

    movies: dict[str, types.Movie]
    many: typing.NotRequired[int]


class Family(TypedDict):
    """Refers to itself, and is of the standard library."""

    children: typing.NotRequired[list[Family]]
    age: int


class Parents(TypedDict, total=False):
    first: typing.Required[Person | None]
    second: Person


class Person(TypedDict):
    parents: Parents


class Wrong(pydantic.BaseModel):
    a: int = None  # type: ignore[assignment] - as people write it
    b: Annotated[str, pydantic.Field(min_length=2)] = "x"


class Factories(pydantic.BaseModel):
    made: uuid.UUID = pydantic.Field(default_factory=lambda: pytest.fail("the factory was called"))


class Sized(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(str_min_length=3)
    text: str


class Ordered(pydantic.BaseModel):
    low: int
    high: int

    @pydantic.model_validator(mode="after")
    def rises(self) -> Ordered:
        if self.low >= self.high:
            raise ValueError("high must be above low")
        return self


class Computed(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    n: int

    @pydantic.computed_field
    def double(self) -> int:
        return self.n * 2


class Root(pydantic.RootModel[list[int]]):
    pass


class Either(pydantic.BaseModel):
    either: Either | int


class ByList(pydantic.BaseModel):
    more: Annotated[list[ByList], pydantic.Field(min_length=1)] | str


class Bush(pydantic.BaseModel):
    twigs: Annotated[list[Bush], pydantic.Field(min_length=3)] | tuple[Bush, Bush] | int


@pydantic.dataclasses.dataclass(config={"extra": "forbid"})
class Closed:
    given: int = 5
    derived: int = dataclasses.field(init=False, default=6)


@pydantic.dataclasses.dataclass
class Checked:
    n: Annotated[int, pydantic.Field(gt=3)]


Field = pydantic.Field

ZEROS: list[tuple[Any, Any]] = [
    (Any, None), (object, None), (None, None), (bool, False), (int, 0), (float, 0.0), (str, ""), (bytes, b""),
    (complex, "0j"), (decimal.Decimal, 0), (list, []), (dict, {}), (set[int], []), (frozenset, []), (tuple, []),
    (list[types.Point], []), (dict[str, types.Point], {}), (typing.Sequence[int], []), (typing.Mapping[str, int], {}),
    (int | None, None), (int | str, 0), (str | int, ""), (Literal["b", "a"], "b"),
    (types.Colour, "red"), (types.Level, 1), (types.Corner, [0, 1]), (Literal[b"raw"], b"raw"),
    (Literal[types.Colour.GREEN], "green"), (list[bytes], []), (bytes | None, None), (collections.deque, []),
    (types.Pair, [0, "b"]), (types.Point, {"x": 0, "y": 7, "tags": [], "norm": 0.5}),
    (types.Movie, {"name": ""}), (Plain, {"movies": {}}), (Family, {"age": 0}), (Parents, {"first": None}),
    (types.Node, {"value": 0, "next": None, "children": []}), (types.Page[str], {"items": [], "first": ""}),
    (types.Pet, {"kind": "cat", "lives": 1}), (types.Dog, {"kind": "dog", "age": 0}), (Root, []),
    (tuple[int, str], [0, ""]), (tuple[int, ...], []), (tuple[()], []), (dict[int, str], {}),
    (dt.date, "1970-01-01"), (dt.datetime, "1970-01-01T00:00:00Z"), (dt.time, "00:00:00"), (dt.timedelta, "PT0S"),
    (pydantic.NaiveDatetime, "1970-01-01T00:00:00"), (pydantic.FutureDate, "9000-01-01"),
    (uuid.UUID, "00000000-0000-0000-0000-000000000000"), (pydantic.UUID4, "00000000-0000-4000-8000-000000000000"),
    (Path, "."), (pydantic.IPvAnyAddress, "0.0.0.0"), (pydantic.HttpUrl, "http://localhost/"),
    (pydantic.PostgresDsn, "postgres://localhost/"), (pydantic.SecretStr, ""), (pydantic.Json[list[int]], []),
    (pydantic.Base64Bytes, b""),
    # Constraints: the value next to zero.
    (Annotated[int, Field(gt=0)], 1), (Annotated[int, Field(le=-3)], -3),
    (Annotated[int, Field(gt=7, multiple_of=5)], 10),
    (Annotated[int, Field(ge=10**30)], 10**30), (Annotated[float, Field(gt=0, lt=1)], 0.1),
    (Annotated[float, Field(gt=0.5)], 1.0), (Annotated[decimal.Decimal, Field(gt=0, lt=1, decimal_places=2)], "0.1"),
    (Annotated[str, Field(min_length=2)], "aa"), (Annotated[str, Field(pattern="^[A-Z]{2}-[0-9]+$")], "AA-0"),
    (Annotated[list[int], Field(min_length=2)], [0, 0]),
    (Annotated[dt.date, Field(gt=dt.date(2030, 1, 1))], "2030-01-02"),
    (Annotated[dt.timedelta, Field(ge=dt.timedelta(hours=1))], "PT1H"), (Annotated[bytes, Field(min_length=1)], b"a"),
    (Annotated[set[bool], Field(min_length=2)], [False, True]), (Sized, {"text": "aaa"}), (Checked, {"n": 4}),
    # Defaults that do not fit, factories, computed fields, recursion.
    (Wrong, {"a": 0, "b": "aa"}), (Factories, {"made": "00000000-0000-0000-0000-000000000000"}),
    (Computed, {"n": 0, "double": 0}), (Closed, {"given": 5, "derived": 6}),
    (types.Pair | Annotated[set[int], Field(min_length=1)], [0, "b"]), (Either, {"either": 0}),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "zero"), ZEROS, ids=[str(annotation) for annotation, _ in ZEROS])
def test_the_zero_value_is_what_nobody_set_or_what_is_next_to_it(annotation: Any, zero: Any) -> None:
    found = zero_value(annotation)
    assert found == zero
    assert type(found) is type(zero)


@pytest.mark.parametrize("annotation", [annotation for annotation, _ in ZEROS], ids=str)
def test_whatever_has_a_zero_value_has_random_ones(annotation: Any) -> None:
    answers = Answers(annotation)
    for seed in range(5):
        value = answers.random(RNG(seed))
        if not isinstance(value, bytes):
            json.dumps(value, allow_nan=False)


def test_a_recursive_union_ends() -> None:
    assert zero_value(ByList) == {"more": [{"more": ""}]}
    answers = Answers(Bush)
    sizes = [len(json.dumps(answers.random(RNG(seed)))) for seed in range(30)]
    assert max(sizes) > 100
    assert max(sizes) < 20_000


def test_where_a_validator_is_code_some_values_are_tried() -> None:
    zero = zero_value(Ordered)
    assert zero["low"] < zero["high"]


class Endless(pydantic.BaseModel):
    next: Endless


class Holder(pydantic.BaseModel):
    inner: dict[str, Any]
    endless: Endless


class Refusing(pydantic.BaseModel):
    n: Annotated[int, pydantic.AfterValidator(lambda _value: 1 / 0)]


class Library:
    """A class that pydantic knows nothing of."""


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (Endless, "Endless never ends: each needs another one"),
        (Holder, "endless: Endless never ends"),
        (Annotated[int, Field(gt=1, lt=2)], "no number is within its bounds"),
        (Refusing, "ZeroDivisionError: division by zero"),
        (dict[str, Annotated[str, Field(pattern="a", max_length=0)]] | None, None),
        (tuple[int, Annotated[str, Field(pattern="^abc$", max_length=1)]], "1: no text of the allowed length"),
        (Annotated[set[bool], Field(min_length=3)], "Set should have at least 3 items"),
        (Library, "the result: pydantic cannot use the annotation"),
        (typing.Callable[[], int], "Input should be callable"),
    ],
    ids=range(9),
)
def test_where_nothing_fits_the_field_is_named(annotation: Any, reason: str | None) -> None:
    if reason is None:
        assert zero_value(annotation) is None
        return
    with pytest.raises(AnswerImpossible, match=r"^the result: .*Give a static answer$") as caught:
        zero_value(annotation)
    assert reason in str(caught.value)


def test_messages_name_the_function() -> None:
    def handler() -> Endless: ...

    with pytest.raises(AnswerImpossible, match=r"^the result of orders: no value was found that fits Endless: "):
        contract_of("orders", Function(handler)).answers.zero()


# ---------------------------------------------------------------------------------------------------- random values


def test_random_values_differ_from_call_to_call_and_show_all_members() -> None:
    answers, rng = Answers(int | Literal["a"] | None), RNG(0)
    kinds = {type(answers.random(rng)) for _ in range(50)}
    assert kinds == {int, str, type(None)}
    movies = Answers(types.Movie)
    assert {frozenset(movies.random(rng)) for _ in range(50)} == {frozenset({"name"}), frozenset({"name", "year"})}
    defaults = Answers(types.Dog | types.Point)
    assert {value.get("y", 7) == 7 for value in (defaults.random(rng) for _ in range(50))} == {True, False}


def test_random_values_stay_small() -> None:
    answers, rng = Answers(dict[str, list[list[list[list[types.Node]]]]]), RNG(0)
    assert max(len(json.dumps(answers.random(rng))) for _ in range(50)) < 20_000


CODE = """
import random, sys, uuid, datetime, importlib.util
sys.modules["t"] = t = importlib.util.module_from_spec(spec := importlib.util.spec_from_file_location("t", sys.argv[1]))
spec.loader.exec_module(t)
from typing import Annotated, Optional
import pydantic
from serverfull.contracts.answers import Answers
rng = random.Random(3)
Tags = Annotated[set[str], pydantic.Field(min_length=4)]
Model = pydantic.create_model("Model", tags=(Tags, pydantic.Field(alias="tag")), days=(set[datetime.date], ...))
several = (Tags, list[Model], dict[str, Optional[Tags]], tuple[Tags, t.Node], t.Pet, frozenset[uuid.UUID], t.Point)
for annotation in several:
    answers = Answers(annotation)
    print(answers.zero(), [answers.random(rng) for _ in range(5)])
"""


def test_answers_are_the_same_in_every_process() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", CODE, str(Path(__file__).with_name("typed.py"))],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1
    assert len(outputs.pop().splitlines()) == 7


# ----------------------------------------------------------------------------------------------- written as results


class Aliased(pydantic.BaseModel):
    n: int = pydantic.Field(alias="theN")


class AliasedOut(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(serialize_by_alias=True)
    n: int = pydantic.Field(alias="theN")


def test_answers_are_written_as_results_are() -> None:
    assert zero_value(Aliased) == {"n": 0}
    assert zero_value(list[decimal.Decimal] | None) is None
    assert zero_value(tuple[decimal.Decimal, ...] | int) == []
    assert zero_value(types.Page[decimal.Decimal]) == {"items": [], "first": "0"}


@dataclasses.dataclass
class Seeded:
    """One argument of the constructor is no field."""

    seed: dataclasses.InitVar[int]
    value: int = 0

    def __post_init__(self, seed: int) -> None:
        self.value = seed


class Only(enum.IntEnum):
    SEVEN = 7


class Stamp(pydantic.BaseModel):
    at: dt.datetime
    label: str = pydantic.Field("x", exclude=True)

    @pydantic.field_serializer("at")
    def seconds(self, at: dt.datetime):  # type: ignore[no-untyped-def] # as people write it
        return int(at.timestamp())


def test_the_document_of_results_promises_only_what_is_written() -> None:
    def schema(annotation: Any) -> Any:
        def handler(): ...

        handler.__annotations__["return"] = annotation
        return json_schema(contract_of("f", Function(handler)))["result"]

    assert list(schema(Seeded)["properties"]) == ["value"]
    assert schema(Stamp)["properties"] == {"at": {"title": "At"}}
    assert schema(collections.deque[dt.date])["items"] == {"type": "string", "format": "date"}
    assert schema(Path)["type"] == "string"
    assert schema(dict[types.Level, int])["propertyNames"] == {"enum": ["1", "2"]}
    assert schema(dict[Only, int])["propertyNames"] == {"enum": ["7"]}
    assert schema(dict[types.Colour, int])["propertyNames"] == {"$ref": "#/$defs/Colour"}


def test_the_document_of_results_says_how_decimals_are_written() -> None:
    def schema(annotation: Any) -> Any:
        def handler(): ...

        handler.__annotations__["return"] = annotation
        return json_schema(contract_of("f", Function(handler)))["result"]

    assert schema(list[decimal.Decimal])["items"] == {"type": "number"}
    assert schema(set[decimal.Decimal])["items"]["type"] == "string"


def test_the_document_of_results_has_the_names_that_are_written() -> None:
    def handler(event: Aliased) -> dict[str, list[Aliased] | AliasedOut]: ...

    document = json_schema(contract_of("f", Function(handler)))
    assert list(document["event"]["properties"]) == ["theN"]
    definitions = document["result"]["$defs"]
    assert list(definitions["Aliased"]["properties"]) == ["n"]
    assert list(definitions["AliasedOut"]["properties"]) == ["theN"]
    adapter_ = pydantic.TypeAdapter(dict[str, list[Aliased] | AliasedOut])
    value = {"a": [Aliased(theN=1)], "b": AliasedOut(theN=1)}
    assert adapter_.dump_python(value, mode="json") == {"a": [{"n": 1}], "b": {"theN": 1}}


def test_pydantic_is_not_imported_with_the_room() -> None:
    code = """
import sys
import serverfull.contracts.answers, serverfull.contracts.changes, serverfull.contracts.contract
from serverfull import Function
serverfull.contracts.contract.contract_of("f", Function(lambda event: event))
assert "pydantic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
