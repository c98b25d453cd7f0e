"""The AWS model of Lambda's API as the protocol driver needs it: operations and shapes, compiled from botocore's data.

botocore ships the model as one JSON file. That file alone is read, without importing botocore: 10 ms and 2 MB instead
of 170 ms and 19 MB. `read_model` blocks on the file and is called from a thread; nothing here is called before the
first management request. All objects are read-only once built, except for the compiled patterns, which are made when
first needed.
"""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from serverfull.domain.json_functions import loads

if TYPE_CHECKING:
    from collections.abc import Mapping

JSON_TYPES = frozenset({"string", "integer", "long", "double", "float", "boolean"})
"""Types whose values JSON holds as they are."""


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One member of a structure.

    :param name: as the model, and so the mappings of requests and responses, call it.
    :param location: ``uri``, ``querystring``, ``header``, ``statusCode``; None in the body.
    :param wire_name: as it is called there.
    :param path_name: as validation messages call it: the name with a small first letter.
    """

    name: str
    shape: Shape
    location: str | None
    wire_name: str
    path_name: str


@dataclass(slots=True, eq=False)
class Shape:
    """A type of the model with its constraints.

    :param minimum: least value of a number, least length of everything else.
    :param item: what a list holds, or the values of a map.
    :param payload: the member that is the whole body, if one is.
    :param body_members: the members that a JSON body holds.
    :param is_json: whether JSON holds its values as they are.
    """

    name: str
    type: str
    minimum: float | None = None
    maximum: float | None = None
    enum: tuple[str, ...] = ()
    pattern: str | None = None
    sensitive: bool = False
    streaming: bool = False
    payload: str | None = None
    required: frozenset[str] = frozenset()
    members: dict[str, Member] = field(default_factory=dict)
    body_members: tuple[Member, ...] = ()
    item: Shape | None = None
    key: Shape | None = None
    is_json: bool = False
    _matcher: re.Pattern[str] | None = None

    def matches(self, text: str) -> bool:
        """Tell whether a text satisfies the pattern, as Java's ``Matcher.matches`` would."""
        if self.pattern is None:
            return True
        if self._matcher is None:
            self._matcher = compile_pattern(self.pattern)
        return self._matcher.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One operation and its HTTP binding.

    :param path: the path template, without the query.
    :param literals: the query parameters that tell it from another operation with the same path.
    :param status: of the answer when all is well.
    """

    name: str
    method: str
    path: str
    literals: Mapping[str, str]
    status: int
    input: Shape | None
    output: Shape | None


def read_model() -> dict[str, Any]:
    """Read the installed botocore's model of Lambda. Blocks.

    :raises FileNotFoundError: botocore is not installed, or keeps its data elsewhere than every release so far.
    """
    botocore = find_spec("botocore")
    if botocore is None or botocore.origin is None:
        raise FileNotFoundError("botocore is not installed, and its model of the Lambda API is needed")
    versions = sorted((Path(botocore.origin).parent / "data" / "lambda").glob("*/service-2.json*"))
    if not versions:
        raise FileNotFoundError(f"botocore at {botocore.origin} has no model of the Lambda API")
    content = versions[-1].read_bytes()
    model: dict[str, Any] = loads(gzip.decompress(content) if versions[-1].suffix == ".gz" else content)
    return model


def model_source() -> str:
    """Say whose model `read_model` gives, as messages name it. Blocks."""
    try:
        return f"botocore {version('botocore')}"
    except PackageNotFoundError:  # a frozen program has the package and not what pip knows of it
        return "botocore"


@cache
def installed_operations() -> Mapping[str, Operation]:
    """Give the operations of the installed botocore's model: made once for all hosts of a process, and never changed.

    Blocks the first time.

    :raises FileNotFoundError: as `read_model`.
    """
    return MappingProxyType(compile_operations(read_model()))


def compile_operations(model: Mapping[str, Any]) -> dict[str, Operation]:
    """Turn the model's JSON into operations by their names."""
    shapes = _compile_shapes(model["shapes"])
    return {name: _compile_operation(name, raw, shapes) for name, raw in model["operations"].items()}


def compile_pattern(pattern: str) -> re.Pattern[str]:
    r"""Compile a pattern that was written for Java.

    Python has no ``\p{…}``. The three classes that the model uses occur together, in tags: letters and numbers become
    ``\w``, which also takes the underscore that those patterns allow anyway, and separators are listed.
    """
    if "\\p{" not in pattern:
        return re.compile(pattern, re.ASCII)
    for java, python in (("\\p{L}", r"\w"), ("\\p{N}", r"\w"), ("\\p{Z}", _SEPARATORS)):
        pattern = pattern.replace(java, python)
    return re.compile(pattern)


_SEPARATORS = "\\u0020\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"


def _compile_operation(name: str, raw: Mapping[str, Any], shapes: Mapping[str, Shape]) -> Operation:
    http = raw["http"]
    path, _, query = http["requestUri"].partition("?")
    return Operation(
        name=name,
        method=http["method"],
        path=path,
        literals=dict(pair.split("=", 1) for pair in query.split("&") if pair),
        status=http.get("responseCode", 200),
        input=shapes[raw["input"]["shape"]] if "input" in raw else None,
        output=shapes[raw["output"]["shape"]] if "output" in raw else None,
    )


def _compile_shapes(raw_shapes: Mapping[str, Any]) -> dict[str, Shape]:
    # Two rounds, because shapes refer to each other and to themselves.
    shapes = {name: _bare_shape(name, raw) for name, raw in raw_shapes.items()}
    for name, raw in raw_shapes.items():
        _link(shapes[name], raw, shapes)
    return shapes


def _bare_shape(name: str, raw: Mapping[str, Any]) -> Shape:
    return Shape(
        name=name,
        type=raw["type"],
        minimum=raw.get("min"),
        maximum=raw.get("max"),
        enum=tuple(raw.get("enum", ())),
        pattern=raw.get("pattern"),
        sensitive=raw.get("sensitive", False),
        streaming=raw.get("streaming", False) or raw.get("eventstream", False),
        payload=raw.get("payload"),
        required=frozenset(raw.get("required", ())),
        is_json=raw["type"] in JSON_TYPES,
    )


def _link(shape: Shape, raw: Mapping[str, Any], shapes: Mapping[str, Shape]) -> None:
    if shape.type == "structure":
        shape.members = {name: _member(name, member, shapes) for name, member in raw["members"].items()}
        shape.body_members = tuple(m for m in shape.members.values() if m.location is None and m.name != shape.payload)
    elif shape.type == "list":
        shape.item = shapes[raw["member"]["shape"]]
    elif shape.type == "map":
        shape.key, shape.item = shapes[raw["key"]["shape"]], shapes[raw["value"]["shape"]]


def _member(name: str, raw: Mapping[str, Any], shapes: Mapping[str, Shape]) -> Member:
    return Member(
        name=name,
        shape=shapes[raw["shape"]],
        location=raw.get("location"),
        wire_name=raw.get("locationName", name),
        path_name=name[:1].lower() + name[1:],
    )
