"""JSON Schema of annotations: the one that is shown, and the one that answers are made from.

Called at start and when contracts are asked for. pydantic is imported inside the functions.
"""

from __future__ import annotations

import enum
import functools
import importlib
from collections.abc import Callable
from typing import Any

from serverfull.domain.json_functions import dumps

DIALECT = "https://json-schema.org/draft/2020-12/schema"

HINTS = "x-core"
"""What JSON Schema has no keyword for, in the schema that answers are made from: bounds of dates, versions of UUIDs."""

_BOUNDS = ("gt", "ge", "lt", "le", "now_op", "tz_constraint")
_DECIMAL = ("gt", "ge", "lt", "le", "multiple_of", "max_digits", "decimal_places")


def shown_schema(adapter: Any, mode: str, *, decimals_are_numbers: bool = False) -> dict[str, Any]:
    """Give the JSON Schema of an annotation; ``{}``, which takes anything, where there is none.

    :param adapter: a ``TypeAdapter``, None for what pydantic cannot use.
    :param mode: ``validation`` for events, ``serialization`` for results.
    :param decimals_are_numbers: pydantic does not write these results, so a ``Decimal`` is a number, not a string.
    """
    if adapter is None:
        return {}
    try:
        generator = _shown_generator(decimals_are_numbers)
        found: dict[str, Any] = adapter.json_schema(mode=mode, schema_generator=generator)
    except importlib.import_module("pydantic").errors.PydanticInvalidForJsonSchema:
        return {}
    return found


def answer_schema(adapter: Any) -> dict[str, Any]:
    """Give the JSON Schema of what the annotation takes, with `HINTS`; it is for `serverfull.contracts.shapes` only."""
    try:
        found: dict[str, Any] = adapter.json_schema(mode="validation", schema_generator=_answer_generator())
    except importlib.import_module("pydantic").errors.PydanticInvalidForJsonSchema:
        return {}
    return found


@functools.cache
def _shown_generator(decimals_are_numbers: bool) -> Any:
    json_schema = importlib.import_module("pydantic.json_schema")

    class Shown(json_schema.GenerateJsonSchema):  # type: ignore[misc, name-defined]
        """Says of results what is written, not what is declared: names of fields, and fields that have a default.

        A default that JSON cannot say is left out without a warning.
        """

        ignored_warning_kinds = frozenset({"skipped-choice", "non-serializable-default", "skipped-discriminator"})

        def field_is_required(self, field: Any, total: bool) -> bool:
            if self.mode == "serialization" and field["type"] != "typed-dict-field":
                return not (field.get("serialization_exclude") or field.get("serialization_exclude_if"))
            return bool(super().field_is_required(field, total))

        def field_is_present(self, field: Any) -> bool:
            # What only __init__ takes (InitVar) is no attribute, so nothing writes it.
            is_argument = self.mode == "serialization" and field.get("init_only")
            return not is_argument and bool(super().field_is_present(field))

        def ser_schema(self, schema: Any) -> dict[str, Any] | None:
            found: dict[str, Any] | None = super().ser_schema(schema)
            return {} if found is None and _is_of_the_user(schema) else found

        def decimal_schema(self, schema: Any) -> dict[str, Any]:
            found: dict[str, Any] = super().decimal_schema(schema)
            if decimals_are_numbers and self.mode == "serialization":
                return {"type": "number"}
            # Not every string is taken, and pydantic says so only where the digits are limited.
            members = [{**m, "format": "decimal"} if m["type"] == "string" else m for m in found.get("anyOf", ())]
            return {**found, "anyOf": members} if members else found

        def dict_schema(self, schema: Any) -> dict[str, Any]:
            found: dict[str, Any] = super().dict_schema(schema)
            named = found.get("propertyNames", {}).get("$ref")
            keys = (self.get_schema_from_definitions(named) or {}) if named else {}
            values = [keys["const"]] if "const" in keys else keys.get("enum", ())
            if all(isinstance(value, str) for value in values):
                return found
            # Names are text in JSON, also those that stand for the numbers of an Enum.
            names = [value if isinstance(value, str) else dumps(value) for value in values]
            return {**found, "propertyNames": {"enum": names}}

        def _get_alias_name(self, field: Any, name: str) -> str:
            # Results are written by the names of fields unless their model says otherwise.
            if self.mode == "serialization" and not getattr(self._config, "serialize_by_alias", False):
                return name
            return str(super()._get_alias_name(field, name))

    return Shown


@functools.cache
def _answer_generator() -> Any:
    class Answers(_shown_generator(False)):  # type: ignore[misc]
        """Keeps what the checks know and JSON Schema does not say."""

        date_schema = _with_hints("date_schema", _BOUNDS)
        datetime_schema = _with_hints("datetime_schema", _BOUNDS)
        time_schema = _with_hints("time_schema", _BOUNDS)
        timedelta_schema = _with_hints("timedelta_schema", _BOUNDS)
        uuid_schema = _with_hints("uuid_schema", ("version",))
        url_schema = _with_hints("url_schema", ("allowed_schemes",))
        multi_host_url_schema = _with_hints("multi_host_url_schema", ("allowed_schemes",))
        dataclass_field_schema = _with_hints("dataclass_field_schema", ("init",))
        default_schema = _with_hints("default_schema", ("default_factory",))

        def decimal_schema(self, schema: Any) -> dict[str, Any]:
            return {"type": "number", HINTS: {"decimal": True, **{k: schema[k] for k in _DECIMAL if k in schema}}}

        def enum_schema(self, schema: Any) -> dict[str, Any]:
            return _with_members(super().enum_schema(schema), schema["members"])

        def literal_schema(self, schema: Any) -> dict[str, Any]:
            expected = schema["expected"]
            found = super().literal_schema(schema)
            # pydantic takes a member of an Enum for a literal, and not the member's value.
            has_members = any(isinstance(value, enum.Enum) for value in expected)
            return {**found, HINTS: {"members": expected}} if has_members else _with_members(found, expected)

        def complex_schema(self, schema: Any) -> dict[str, Any]:
            return {"type": "string", "format": "complex"}

        def dict_schema(self, schema: Any) -> dict[str, Any]:
            found: dict[str, Any] = super().dict_schema(schema)
            keys = self.generate_inner(schema["keys_schema"]) if "keys_schema" in schema else {}
            return {**found, HINTS: {"keys": keys}}

    return Answers


def _with_hints(method: str, names: tuple[str, ...]) -> Callable[[Any, Any], dict[str, Any]]:
    def make(self: Any, schema: Any) -> dict[str, Any]:
        found: dict[str, Any] = getattr(super(type(self), self), method)(schema)
        hints = {name: _plain(schema[name]) for name in names if schema.get(name) is not None}
        return {**found, HINTS: {**found.get(HINTS, {}), **hints}} if hints else found

    return make


def _with_members(found: dict[str, Any], members: list[Any]) -> dict[str, Any]:
    """Keep members that cannot be read back from JSON, such as those of an Enum of tuples."""
    plain = (str, int, float, bool, type(None))
    if all(isinstance(getattr(member, "value", member), plain) for member in members):
        return found
    return {**found, HINTS: {"members": members}}


def _is_of_the_user(serialiser: Any) -> bool:
    """Say whether it is a function of the user: without a return annotation nothing is known of what it writes."""
    function = serialiser.get("function")
    return function is not None and not str(getattr(function, "__module__", "")).startswith("pydantic")


def _plain(value: Any) -> Any:
    return True if callable(value) else value
