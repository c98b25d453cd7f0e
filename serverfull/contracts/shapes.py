"""Makes values of a JSON Schema: the zero value, or random ones. `serverfull.contracts.answers` checks them.

Sizes and depth are bounded. A recursive schema ends because every part knows its height, the fewest definitions that
a value of it must go through: where a value is deep enough, the lowest alternative is taken.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from serverfull.contracts import ranges
from serverfull.contracts.ranges import NothingFits
from serverfull.contracts.schemas import HINTS
from serverfull.contracts.texts import text
from serverfull.domain.json_functions import dumps

Schema = Mapping[str, Any]

_DEEPEST = 4
_LONGER = 3
_ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class Making:
    """How values are made, and where we are.

    :param rng: None: the zero value.
    :param defaults: what a field that has a default gets: the default, ``made`` a value like every other field, or
        ``left`` nothing.
    :param where: the path of the field, for messages.
    :param inside: the definitions that we are in.
    """

    rng: random.Random | None
    defaults: Literal["given", "made", "left"] = "given"
    where: str = ""
    inside: tuple[str, ...] = ()
    depth: int = 0

    def at(self, part: str) -> Making:
        # Not dataclasses.replace: most of the time of a random answer went there.
        where = f"{self.where}.{part}" if self.where else part
        return Making(self.rng, self.defaults, where, self.inside, self.depth + 1)

    @property
    def is_deep(self) -> bool:
        return self.depth >= _DEEPEST

    @property
    def is_repeating(self) -> bool:
        """Whether we are for the second time in one of the definitions."""
        return len(set(self.inside)) < len(self.inside)


class Shapes:
    """Makes values of one schema."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._definitions: Mapping[str, Schema] = schema.get("$defs", {})
        self._heights = _heights(self._definitions)

    def make(self, making: Making) -> Any:
        """Make one value.

        :raises NothingFits: no value can be found; the message names the field.
        """
        return self._make(self._schema, making)

    def _make(self, schema: Schema, making: Making) -> Any:
        try:
            return self._made(schema, making)
        except NothingFits as error:
            if making.where and not str(error).startswith(making.where):
                raise NothingFits(f"{making.where}: {error}") from None
            raise

    def _made(self, schema: Schema, making: Making) -> Any:
        if "$ref" in schema:
            return self._definition(schema["$ref"], making)
        if members := _members(schema):
            return self._member(members, making)
        if "allOf" in schema:
            return self._make(_merged(schema), making)
        if "const" in schema or "enum" in schema:
            return _one_of(schema, making)
        make: Callable[[Schema, Making], Any] = getattr(self, f"_{schema.get('type')}", _anything)
        return make(schema, making)

    def _definition(self, ref: str, making: Making) -> Any:
        name = _name(ref)
        if math.isinf(self._heights[name]):
            raise NothingFits(f"{name} never ends: each needs another one")
        return self._make(self._definitions[name], replace(making, inside=(*making.inside, name)))

    def _member(self, members: list[Schema], making: Making) -> Any:
        """Make the null of a union that has one, otherwise its first member that can be made."""
        problem = NothingFits("no member of the union can be made")
        for member in self._order(members, making):
            try:
                return self._make(member, making)
            except NothingFits as error:
                problem = error
        raise problem

    def _order(self, members: list[Schema], making: Making) -> list[Schema]:
        possible = [member for member in members if not math.isinf(self._height(member))]
        lowest_first = sorted(possible, key=self._height)
        if making.rng is not None:
            if making.is_deep:
                return lowest_first
            return making.rng.sample(possible, len(possible))
        nulls = [member for member in possible if member.get("type") == "null"]
        outside = [m for m in possible if "$ref" not in m or _name(m["$ref"]) not in making.inside]
        return nulls or (lowest_first if making.is_repeating else outside or lowest_first)

    # ------------------------------------------------------------------------------------------------- types of JSON

    def _null(self, schema: Schema, making: Making) -> None:
        return None

    def _boolean(self, schema: Schema, making: Making) -> bool:
        return making.rng is not None and making.rng.random() < 0.5

    def _integer(self, schema: Schema, making: Making) -> int | float:
        return ranges.number(schema, making.rng)

    def _number(self, schema: Schema, making: Making) -> int | float:
        return ranges.number(schema, making.rng)

    def _string(self, schema: Schema, making: Making) -> str:
        if schema.get("contentMediaType") == "application/json":
            return dumps(self._make(schema.get("contentSchema", {}), making))
        return text(schema, making.rng)

    def _array(self, schema: Schema, making: Making) -> list[Any]:
        placed: list[Schema] = schema.get("prefixItems", [])
        made: list[Any] = []
        for index, item in enumerate(placed):
            if index >= schema.get("minItems", 0) and not self._is_wanted(item, making):
                return made
            made.append(self._field(item, making.at(str(index)), is_required=index < schema.get("minItems", 0)))
        count = _count(schema.get("minItems", 0), schema.get("maxItems"), making)
        items = schema.get("items", {})
        make = self._distinct if schema.get("uniqueItems") else self._several
        return made + make(items, count - len(made), making) if count > len(made) and items is not False else made

    def _several(self, schema: Schema, count: int, making: Making) -> list[Any]:
        return [self._make(schema, making.at(str(index))) for index in range(count)]

    def _distinct(self, schema: Schema, count: int, making: Making) -> list[Any]:
        found: dict[str, Any] = {}
        for attempt in range(_ATTEMPTS):
            if len(found) >= count:
                break
            # Zero values are all the same, so those after the first are random, from a fixed seed.
            rng = making.rng if making.rng or not attempt else random.Random(attempt)  # noqa: S311 - no secret
            item = self._make(schema, replace(making.at(str(len(found))), rng=rng))
            found.setdefault(dumps(item, default=repr), item)
        return list(found.values())

    def _object(self, schema: Schema, making: Making) -> dict[str, Any]:
        if "properties" not in schema:
            return self._mapping(schema, making)
        required = schema.get("required", ())
        return {
            name: self._field(field, making.at(name), is_required=name in required)
            for name, field in schema["properties"].items()
            if name in required or self._is_wanted(field, making)
        }

    def _is_wanted(self, field: Schema, making: Making) -> bool:
        """Say whether a field that may be absent is given a value."""
        hints = field.get(HINTS, {})
        if hints.get("init") is False or making.defaults == "left":
            return False
        if making.rng is not None and making.rng.random() < 0.5:
            return not making.is_deep and not math.isinf(self._height(field))
        if "default" in field:
            return making.defaults == "given" or not self._is_inside(field, making)
        # A factory is not called: what it gives may differ from call to call, and it is the user's code.
        return hints.get("default_factory") is not None and not self._is_inside(field, making)

    def _is_inside(self, field: Schema, making: Making) -> bool:
        if math.isinf(self._height(field)) or making.is_repeating:
            return True
        return "$ref" in field and _name(field["$ref"]) in making.inside

    def _field(self, field: Schema, making: Making, *, is_required: bool) -> Any:
        if is_required or "default" not in field or making.defaults != "given":
            return self._make(field, making)
        takes_default = making.rng is None or making.is_deep or making.rng.random() < 0.5
        return field["default"] if takes_default else self._make(field, making)

    def _mapping(self, schema: Schema, making: Making) -> dict[str, Any]:
        values = schema.get("additionalProperties", True)
        if "patternProperties" in schema:
            values = next(iter(schema["patternProperties"].values()))
        keys = schema.get(HINTS, {}).get("keys", {"type": "string"}) or {"type": "string"}
        count = _count(schema.get("minProperties", 0), schema.get("maxProperties"), making) if values else 0
        made = (_key(key) for key in self._distinct(keys, count, making))
        return {key: self._make(values if isinstance(values, Mapping) else {}, making.at(key)) for key in made}

    # ------------------------------------------------------------------------------------------------------- heights

    def _height(self, schema: Schema) -> float:
        return _height(schema, self._heights)


def _anything(_schema: Schema, making: Making) -> Any:
    if making.rng is None:
        return None
    return making.rng.choice([None, making.rng.random() < 0.5, making.rng.randrange(1_000), text({}, making.rng)])


def _one_of(schema: Schema, making: Making) -> Any:
    values = schema.get(HINTS, {}).get("members") or schema.get("enum") or [schema.get("const")]
    return making.rng.choice(values) if making.rng else values[0]


def _members(schema: Schema) -> list[Schema]:
    if isinstance(schema.get("type"), list):
        return [{**schema, "type": one} for one in schema["type"]]
    members: list[Schema] = schema.get("anyOf") or schema.get("oneOf") or []
    return members


def _merged(schema: Schema) -> Schema:
    merged = {key: value for key, value in schema.items() if key != "allOf"}
    for part in schema["allOf"]:
        merged.update(part)
    return merged


def _name(ref: str) -> str:
    return ref.removeprefix("#/$defs/")


def _count(least: int, most: int | None, making: Making) -> int:
    if making.rng is None or making.is_deep:
        return least
    return making.rng.randint(least, least + _LONGER if most is None else min(most, least + _LONGER))


def _key(value: Any) -> str:
    if not isinstance(value, (str, int, float)):
        raise NothingFits("an object of JSON has no such keys")
    return value if isinstance(value, str) else dumps(value)


def _heights(definitions: Mapping[str, Schema]) -> dict[str, float]:
    """Say of each definition how many a value of it goes through at least; infinite where it never ends."""
    heights = dict.fromkeys(definitions, math.inf)
    for _ in definitions:
        found = {name: 1 + _height(schema, heights) for name, schema in definitions.items()}
        if found == heights:
            break
        heights = found
    return heights


def _height(schema: Schema, heights: Mapping[str, float]) -> float:
    if "$ref" in schema:
        return heights[_name(schema["$ref"])]
    if members := _members(schema):
        return min(_height(member, heights) for member in members)
    needed = [*schema.get("allOf", ()), *(schema.get("properties", {})[name] for name in schema.get("required", ()))]
    if (count := schema.get("minItems", 0)) > 0:
        placed = schema.get("prefixItems", [])[:count]
        needed += placed if len(placed) == count else [*placed, schema.get("items", {})]
    if schema.get("minProperties", 0) > 0 and isinstance(schema.get("additionalProperties"), Mapping):
        needed.append(schema["additionalProperties"])
    return max((_height(part, heights) for part in needed), default=0)
