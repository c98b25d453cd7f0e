# ruff: noqa: UP007, UP045 - members are known only when a test runs, and not all of them know the operator
"""Types and a strategy of annotations for the tests of contracts."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import ipaddress
import pathlib
import typing
import uuid
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import pydantic
import typing_extensions
from hypothesis import strategies as st

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Corner(enum.Enum):
    LEFT = (0, 1)
    RIGHT = (1, 0)


class Pair(NamedTuple):
    a: int
    b: str = "b"


@dataclasses.dataclass
class Point:
    x: int
    y: int = 7
    tags: list[str] = dataclasses.field(default_factory=list)
    norm: float = dataclasses.field(init=False, default=0.5)


class Movie(typing_extensions.TypedDict):
    name: str
    year: typing.NotRequired[int]


class Node(pydantic.BaseModel):
    value: int
    next: Node | None = None
    children: list[Node] = pydantic.Field(default_factory=list)


class Page(pydantic.BaseModel, typing.Generic[T]):
    items: list[T]
    first: T


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int = pydantic.Field(ge=1)


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"
    age: int


Pet = Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]

FIXED = [
    Any, None, bool, int, float, str, bytes, dict, list, set, tuple, decimal.Decimal, uuid.UUID, dt.date, dt.datetime,
    dt.time, dt.timedelta, Colour, Level, Pair, Point, Movie, Node, Page[int], Pet, Literal["a", 2, None],
    pathlib.Path, ipaddress.IPv4Address, ipaddress.IPv6Network, pydantic.HttpUrl, pydantic.UUID4, pydantic.PastDate,
    pydantic.FutureDatetime, pydantic.AwareDatetime, pydantic.NaiveDatetime,
]  # fmt: skip

HASHABLE = [int, str, bool, decimal.Decimal, uuid.UUID, dt.date, Colour, Literal["a", "b"], float]
KEYS = [str, int, uuid.UUID, dt.date, Colour, Literal["a", "b"], Annotated[str, pydantic.Field(pattern="^k[0-9]$")]]
PATTERNS = ["^[A-Z]{2,4}-\\d{3}$", "x+y", "^(?:a|b)*$", "\\d", "^[^a-c]+$", "^(red|green)[.]\\w{1,3}$", "(?i)^[a-f]{4}"]
MODES = st.integers(0, 2)


@st.composite
def constrained(draw: Any) -> Any:
    least = draw(st.integers(-50, 50))
    room = draw(st.integers(0, 20))
    length = draw(MODES)
    field = pydantic.Field
    return draw(
        st.sampled_from(
            [
                Annotated[int, field(ge=least, le=least + room)],
                Annotated[int, field(gt=least, multiple_of=draw(st.integers(1, 9)))],
                Annotated[int, field(lt=least)],
                Annotated[float, field(gt=least, lt=least + 1 + room)],
                Annotated[float, field(gt=least / 100, lt=least / 100 + 0.005)],
                Annotated[float, field(ge=least, multiple_of=0.5)],
                Annotated[decimal.Decimal, field(gt=least, max_digits=6, decimal_places=draw(MODES))],
                Annotated[decimal.Decimal, field(gt=0, lt=1, max_digits=3, decimal_places=3)],
                Annotated[str, field(min_length=length, max_length=length + room)],
                Annotated[str, field(pattern=draw(st.sampled_from(PATTERNS)))],
                Annotated[bytes, field(min_length=length)],
                Annotated[dt.date, field(gt=dt.date(2000 + least, 2, 28))],
                Annotated[dt.datetime, field(lt=dt.datetime(1950, 1, 1), ge=dt.datetime(1949, 12, 31, 23, 59, 59, 5))],
                Annotated[dt.timedelta, field(gt=dt.timedelta(seconds=least), le=dt.timedelta(seconds=least + 1))],
                Annotated[dt.time, field(ge=dt.time(12, 30))],
                Annotated[list[int], field(min_length=length, max_length=length + room)],
                Annotated[set[int], field(min_length=length)],
                Annotated[frozenset[str], field(min_length=length)],
                Annotated[dict[str, int], field(min_length=length)],
            ]
        )
    )


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        inner.map(lambda one: list[one]),
        inner.map(lambda one: Annotated[list[one], pydantic.Field(min_length=2, max_length=3)]),
        inner.map(lambda one: tuple[one, ...]),
        st.lists(inner, min_size=1, max_size=3).map(lambda several: tuple[tuple(several)]),
        st.tuples(st.sampled_from(KEYS), inner).map(lambda pair: dict[pair]),
        st.sampled_from(HASHABLE).map(lambda one: set[one]),
        inner.map(lambda one: typing.Optional[one]),
        st.lists(inner, min_size=2, max_size=3).map(lambda several: typing.Union[tuple(several)]),
        inner.map(lambda one: Page[one]),
        st.lists(inner, min_size=1, max_size=3).flatmap(records),
    )


def records(fields: list[Any]) -> st.SearchStrategy[Any]:
    named = {f"f{number}": annotation for number, annotation in enumerate(fields)}
    optional = [(name, typing.Optional[annotation], None) for name, annotation in named.items()]
    return st.sampled_from(
        [
            pydantic.create_model("Model", **{name: (annotation, ...) for name, annotation in named.items()}),
            pydantic.create_model("Optionals", **{name: (kind, default) for name, kind, default in optional}),
            pydantic.create_model(
                "Aliased", **{name: (kind, pydantic.Field(alias=f"the-{name}")) for name, kind in named.items()}
            ),
            pydantic.create_model(
                "Strict",
                __config__=pydantic.ConfigDict(strict=True),
                **{name: (kind, ...) for name, kind in named.items()},
            ),
            dataclasses.make_dataclass("Data", list(named.items())),
            dataclasses.make_dataclass("Defaults", [(n, k, dataclasses.field(default=None)) for n, k, _ in optional]),
            typing_extensions.TypedDict("Typed", named),
            typing_extensions.TypedDict("Partial", named, total=False),
            NamedTuple("Named", list(named.items())),
        ]
    )


annotations = st.recursive(st.one_of(st.sampled_from(FIXED), constrained()), containers, max_leaves=6)
