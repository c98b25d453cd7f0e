"""Which changes between two documents of contracts break those who call the functions.

``serverfull contracts --check`` asks. Both documents map function names to what
`serverfull.contracts.contract.json_schema` gives. One question decides everything: is every value of the one schema a
value of the other?

* Of **events**, what was taken must still be taken: a new required field, a field of another type, a narrower range, a
  removed value of an enum break callers. A new field that may be absent does not, nor does a removed one, which is
  ignored, unless the type forbids what it does not know.
* Of **results**, what is given must be what was promised: a removed field, one of another type, one that may be absent
  or null now, a wider range, a new value of an enum break callers. A new field does not.
* A removed function and a removed error break callers. A new error does not: whoever invokes a function has to expect
  errors that nobody declared.

Titles, descriptions and defaults do not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from serverfull.domain.json_functions import dumps

Schema = Mapping[str, Any]
Found = tuple[str, str]
"""A path below the place that is compared, and what happened there."""

_SAYS_SOMETHING = ("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref")
_TEXT_ALL_THE_SAME = (None, "binary", "password", "path")
_LEAST = ("minLength", "minItems", "minProperties", "minimum", "exclusiveMinimum")
_MOST = ("maxLength", "maxItems", "maxProperties", "maximum", "exclusiveMaximum")


@dataclass(frozen=True, slots=True)
class BreakingChange:
    """A change that breaks callers.

    :param function: the function's name.
    :param where: ``event``, ``result`` or ``errors`` with the path of the field, such as ``result.items[].price``;
        ``function`` where all of it is meant.
    :param what: what happened, such as ``string became integer``.
    """

    function: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.function}: {self.where}: {self.what}"


def breaking_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[BreakingChange]:
    """Find what breaks callers, in the order of function names.

    :param before: documents of contracts by function name, as they were committed.
    :param after: the same of today.
    :raises ValueError: a document does not have the form of one; the message names the function.
    """
    return [
        BreakingChange(name, where, what)
        for name in sorted(before)
        for where, what in dict.fromkeys(_changes(name, before[name], after.get(name)))
    ]


def _changes(name: str, before: Any, after: Any) -> Iterator[Found]:
    if after is None:
        yield "function", "was removed"
        return
    try:
        yield from _Comparison(before["event"], after["event"], of_results=False).changes()
        yield from _Comparison(before["result"], after["result"], of_results=True).changes()
        still_there = {error["errorType"] for error in after["errors"]}
        gone = (e["errorType"] for e in before["errors"] if e["errorType"] not in still_there)
        yield from ((f"errors.{error_type}", "was removed") for error_type in gone)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the contract of {name} is not in the form that is written here: {error!r}") from None


class _Comparison:
    """Compares two schemas. ``given`` is what comes, ``wanted`` what it has to fit.

    Of events, what callers sent comes, and today's schema is wanted; of results, what is written today comes, and what
    was promised is wanted.
    """

    def __init__(self, before: Schema, after: Schema, *, of_results: bool) -> None:
        self._of_results = of_results
        self._given, self._wanted = (after, before) if of_results else (before, after)
        # What is known of two definitions; those that are being compared count as fitting, so recursion ends.
        self._known: dict[tuple[str, str], list[Found]] = {}

    def changes(self) -> list[Found]:
        root = "result" if self._of_results else "event"
        return [(root + path, what) for path, what in self._compare(self._given, self._wanted)]

    def _compare(self, given: Schema, wanted: Schema) -> list[Found]:
        # A recursive type refers to itself by name, on both sides: that is where the comparison would not end.
        if "$ref" not in given or "$ref" not in wanted:
            return self._compare_unnamed(given, wanted)
        pair = (given["$ref"], wanted["$ref"])
        if pair not in self._known:
            self._known[pair] = []
            self._known[pair] = self._compare_unnamed(given, wanted)
        return self._known[pair]

    def _compare_unnamed(self, given: Schema, wanted: Schema) -> list[Found]:
        named = given
        given = _resolved(given, self._given)
        if members := _members(given):
            return [found for member in members for found in self._compare(member, wanted)]
        wanted = _resolved(wanted, self._wanted)
        if _takes_anything(wanted):
            return []
        if members := _members(wanted):
            return self._compare_with_union(named, members, wanted)
        return self._compare_single(given, wanted)

    def _compare_single(self, given: Schema, wanted: Schema) -> list[Found]:
        if _takes_anything(given):
            return [("", self._retyped(given, wanted))]
        if "const" in given or "enum" in given:
            return self._compare_values(_values(given), wanted)
        if "const" in wanted or "enum" in wanted or not _is_type(given["type"], wanted["type"]):
            return [("", self._retyped(given, wanted))]
        return [*self._constraints(given, wanted), *self._parts(given, wanted)]

    def _compare_with_union(self, given: Schema, members: list[Schema], wanted: Schema) -> list[Found]:
        alike: list[list[Found]] = []
        for member in members:
            if not (found := self._compare(given, member)):
                return []
            if _is_alike(_resolved(given, self._given), _resolved(member, self._wanted)):
                alike.append(found)
        # One member is of the same kind: what is different in there says more than that the whole does not fit.
        return alike[0] if len(alike) == 1 else [("", self._retyped(given, wanted))]

    def _compare_values(self, values: list[Any], wanted: Schema) -> list[Found]:
        allowed = _values(wanted)
        if allowed is None:
            single = [_schema_of_value(value) for value in values]
            fits = all(
                _is_type(one["type"], wanted["type"]) and not [*self._constraints(one, wanted)] for one in single
            )
            return [] if fits else [("", self._retyped({"enum": values}, wanted))]
        known = {_text(value) for value in allowed}
        new = [dumps(value) for value in values if _text(value) not in known]
        verb = "may be given now" if self._of_results else "is no longer taken"
        return [("", f"the value {value} {verb}") for value in new]

    # ---------------------------------------------------------------------------------------------- of the same type

    def _constraints(self, given: Schema, wanted: Schema) -> Iterator[Found]:
        for names, is_within in ((_LEAST, _at_least), (_MOST, _at_most)):
            for name in names:
                if name in wanted and not is_within(given, wanted, name):
                    yield "", self._changed(name, given, wanted)
        if "multipleOf" in wanted and not _is_multiple(given, wanted["multipleOf"]):
            yield "", self._changed("multipleOf", given, wanted)
        if "pattern" in wanted and given.get("pattern") != wanted["pattern"]:
            yield "", self._changed("pattern", given, wanted)
        # An event's array may have items twice where a set is read: they become one.
        if self._of_results and wanted.get("uniqueItems") and not given.get("uniqueItems"):
            yield "", self._changed("uniqueItems", given, wanted)
        if wanted.get("format") not in (*_TEXT_ALL_THE_SAME, given.get("format")):
            yield "", self._retyped(given, wanted)

    def _parts(self, given: Schema, wanted: Schema) -> Iterator[Found]:
        if given["type"] == "object":
            yield from self._fields(given, wanted)
        elif given["type"] == "array":
            yield from self._items(given, wanted)

    def _fields(self, given: Schema, wanted: Schema) -> Iterator[Found]:
        given_fields, wanted_fields = given.get("properties", {}), wanted.get("properties", {})
        given_required, wanted_required = set(given.get("required", ())), set(wanted.get("required", ()))
        given_rest, wanted_rest = _rest(given), _rest(wanted)
        for name, field in wanted_fields.items():
            if name in given_fields:
                yield from _below(f".{name}", self._compare(given_fields[name], field))
            elif self._of_results and given_rest is None:
                yield f".{name}", "was removed"
                continue
            if name in wanted_required and name not in given_required:
                yield f".{name}", self._not_there(is_known=name in given_fields)
        for name, field in given_fields.items():
            if name not in wanted_fields and wanted_rest is not None:
                yield from _below(f".{name}", self._compare(field, wanted_rest))
                yield from _below(f".{name}", self._compare({"const": name}, _key(wanted)))
            elif name not in wanted_fields and wanted.get("additionalProperties") is False and not self._of_results:
                yield f".{name}", "is no longer taken"
        if given_rest is not None and wanted_rest is not None:
            yield from _below("{}", self._compare(given_rest, wanted_rest))
            yield from _below("{key}", self._compare(_key(given), _key(wanted)))

    def _not_there(self, *, is_known: bool) -> str:
        if self._of_results:
            return "may be absent now"
        return "is required now" if is_known else "is new and required"

    def _items(self, given: Schema, wanted: Schema) -> Iterator[Found]:
        given_at, wanted_at = given.get("prefixItems", []), wanted.get("prefixItems", [])
        for index in range(max(len(given_at), len(wanted_at))):
            mine, theirs = _at(given, given_at, index), _at(wanted, wanted_at, index)
            if mine is not None and theirs is not None:
                yield from _below(f"[{index}]", self._compare(mine, theirs))
        mine, theirs = _at(given, [], 0), _at(wanted, [], 0)
        if mine is not None and theirs is not None and not (given_at and "items" not in given):
            yield from _below("[]", self._compare(mine, theirs))

    # ---------------------------------------------------------------------------------------------------------- words

    def _retyped(self, given: Schema, wanted: Schema) -> str:
        if given.get("type") == "null":
            return "may be null now" if self._of_results else "null is no longer taken"
        old, new = (wanted, given) if self._of_results else (given, wanted)
        return f"{_named(old)} became {_named(new)}"

    def _changed(self, name: str, given: Schema, wanted: Schema) -> str:
        old, new = (wanted, given) if self._of_results else (given, wanted)
        return f"{name} {_shown(old, name)} became {_shown(new, name)}"


def _below(part: str, found: Iterable[Found]) -> Iterator[Found]:
    return ((part + path, what) for path, what in found)


# ----------------------------------------------------------------------------------------------------- parts of schemas


def _resolved(schema: Schema, document: Schema) -> Schema:
    while "$ref" in schema or "allOf" in schema:
        if "$ref" in schema:
            schema = document["$defs"][schema["$ref"].removeprefix("#/$defs/")]
        else:
            parts = [_resolved(part, document) for part in schema["allOf"]]
            merged: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
            for part in parts:
                merged.update(part)
            schema = merged
    return schema


def _takes_anything(schema: Schema) -> bool:
    return not any(word in schema for word in _SAYS_SOMETHING)


def _members(schema: Schema) -> list[Schema]:
    if isinstance(schema.get("type"), list):
        return [{**schema, "type": one} for one in schema["type"]]
    members: list[Schema] = schema.get("anyOf") or schema.get("oneOf") or []
    return members


def _values(schema: Schema) -> Any:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _is_type(given: str, wanted: str) -> bool:
    return given == wanted or (given, wanted) == ("integer", "number")


def _is_alike(given: Schema, wanted: Schema) -> bool:
    """Say whether two schemas are of the same kind: of one type, with the same tags in their fields."""
    same = given.get("type") is not None and given.get("type") == wanted.get("type")
    given_fields, wanted_fields = given.get("properties", {}), wanted.get("properties", {})
    for name in given_fields.keys() & wanted_fields.keys():
        mine, theirs = given_fields[name].get("const"), wanted_fields[name].get("const")
        same = same and (mine is None or theirs is None or mine == theirs)
    return same and ("enum" in given or "const" in given) == ("enum" in wanted or "const" in wanted)


def _schema_of_value(value: Any) -> dict[str, Any]:
    """Describe one value with the words that constraints are compared by."""
    match value:
        case bool():
            return {"type": "boolean"}
        case int() | float():
            kind = "integer" if isinstance(value, int) else "number"
            return {"type": kind, "minimum": value, "maximum": value, "multipleOf": value or 1}
        case str():
            return {"type": "string", "minLength": len(value), "maxLength": len(value)}
        case list():
            return {"type": "array", "minItems": len(value), "maxItems": len(value)}
    return {"type": "null" if value is None else "object"}


def _rest(schema: Schema) -> Schema | None:
    """Give the schema of the values of a mapping; None for an object with declared fields."""
    if "patternProperties" in schema:
        first: Schema = next(iter(schema["patternProperties"].values()))
        return first
    rest = schema.get("additionalProperties")
    if isinstance(rest, Mapping):
        return rest
    return {} if rest is True or "properties" not in schema else None


def _key(schema: Schema) -> Schema:
    patterns = schema.get("patternProperties")
    key = {"type": "string", "pattern": next(iter(patterns))} if patterns else schema.get("propertyNames", {})
    return {"type": "string", **key} if "$ref" not in key else key


def _at(schema: Schema, placed: list[Schema], index: int) -> Schema | None:
    """Give the schema of one item of an array; None where there is none."""
    if index < len(placed):
        return placed[index]
    items = schema.get("items", True if not schema.get("prefixItems") else None)
    return {} if items is True else items if isinstance(items, Mapping) else None


# --------------------------------------------------------------------------------------------------------- constraints


def _at_least(given: Schema, wanted: Schema, name: str) -> bool:
    if name in ("minimum", "exclusiveMinimum"):
        low, above = given.get("minimum"), given.get("exclusiveMinimum")
        if name == "minimum":
            return any(one is not None and one >= wanted[name] for one in (low, above))
        return (above is not None and above >= wanted[name]) or (low is not None and low > wanted[name])
    return bool(given.get(name, 0) >= wanted[name])


def _at_most(given: Schema, wanted: Schema, name: str) -> bool:
    if name in ("maximum", "exclusiveMaximum"):
        high, below = given.get("maximum"), given.get("exclusiveMaximum")
        if name == "maximum":
            return any(one is not None and one <= wanted[name] for one in (high, below))
        return (below is not None and below <= wanted[name]) or (high is not None and high < wanted[name])
    return name in given and bool(given[name] <= wanted[name])


def _is_multiple(given: Schema, wanted: float) -> bool:
    own = given.get("multipleOf", 1 if given.get("type") == "integer" else None)
    return own is not None and (Fraction(str(own)) / Fraction(str(wanted))).denominator == 1


# --------------------------------------------------------------------------------------------------------------- words


def _named(schema: Schema) -> str:
    if _takes_anything(schema):
        return "anything"
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix("#/$defs/")
    if members := _members(schema):
        return " or ".join(dict.fromkeys(map(_named, members)))
    if (values := _values(schema)) is not None:
        return f"one of {', '.join(map(dumps, values))}" if len(values) != 1 else dumps(values[0])
    kind = str(schema.get("type"))
    return f"{kind} ({schema['format']})" if "format" in schema else kind


def _shown(schema: Schema, name: str) -> str:
    return dumps(schema[name]) if name in schema else "none"


def _text(value: Any) -> str:
    return dumps(value, sort_keys=True)
