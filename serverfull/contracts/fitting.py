"""JSON against the schema of results: for types that are written in a form that they do not read themselves.

Such are models that forbid unknown fields and have computed ones, fields that are left out when written, and
serialisers of the user. `serverfull.contracts.contract` asks when an answer is written down for one of them. Types,
names and members are compared; ranges, patterns and formats are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from serverfull.domain.json_functions import dumps

Schema = Mapping[str, Any]

_IS: Mapping[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, (str, bytes)),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def misfits(value: Any, schema: Schema) -> list[str]:
    """Say what of a value does not fit a schema: the paths and what is wrong with each; nothing where it fits.

    :param value: as JSON has it, or bytes.
    :param schema: as `serverfull.contracts.schemas.shown_schema` gives it.
    """
    return list(_Fitting(schema.get("$defs", {})).misfits(value, schema, "result"))


class _Fitting:
    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions

    def misfits(self, value: Any, schema: Schema, where: str) -> Iterator[str]:
        if "$ref" in schema:
            yield from self.misfits(value, self._definitions[schema["$ref"].removeprefix("#/$defs/")], where)
        for part in schema.get("allOf", ()):
            yield from self.misfits(value, part, where)
        members = schema.get("anyOf") or schema.get("oneOf")
        if members and not any(not [*self.misfits(value, member, where)] for member in members):
            yield f"{where}: Input should be one of {len(members)} types"
        known = [schema["const"]] if "const" in schema else schema.get("enum")
        if known is not None and dumps(value, default=repr) not in map(dumps, known):
            yield f"{where}: Input should be {' or '.join(map(dumps, known))}"
        elif (kind := str(schema.get("type"))) in _IS and not _IS[kind](value):
            yield f"{where}: Input should be of type {kind}"
        elif isinstance(value, dict):
            yield from self._fields(value, schema, where)
        elif isinstance(value, list):
            yield from self._items(value, schema, where)

    def _fields(self, value: dict[str, Any], schema: Schema, where: str) -> Iterator[str]:
        properties = schema.get("properties", {})
        yield from (f"{where}.{name}: Field required" for name in schema.get("required", ()) if name not in value)
        rest = schema.get("additionalProperties", True)
        for name, item in value.items():
            if name in properties:
                yield from self.misfits(item, properties[name], f"{where}.{name}")
            elif isinstance(rest, Mapping):
                yield from self.misfits(item, rest, f"{where}.{name}")
            elif not rest:
                yield f"{where}.{name}: Extra inputs are not permitted"

    def _items(self, value: list[Any], schema: Schema, where: str) -> Iterator[str]:
        placed, rest = schema.get("prefixItems", []), schema.get("items", True)
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield f"{where}: {len(value)} items are not the right number"
        for index, item in enumerate(value):
            of_item = placed[index] if index < len(placed) else rest
            if isinstance(of_item, Mapping):
                yield from self.misfits(item, of_item, f"{where}.{index}")
