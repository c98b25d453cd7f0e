"""HTTP parts → typed mapping and back, shape by shape, as AWS's rest-json protocol lays them out.

Parsing checks types only; `serverfull.api.constraints` checks the rest. Requests come in as text and bytes, and go on
as Python values keyed by the model's member names: str, int, float, bool, bytes for blobs, aware datetimes for
timestamps, lists and dicts. Responses take the same values.

Protocol: https://smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from serverfull.api.bodies import decode_base64, read_json, text_of
from serverfull.domain.json_functions import dumps
from serverfull.domain.names import shown
from serverfull.errors import SerializationFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from serverfull.api.model import Member, Shape

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_INTEGER_RANGES = {"integer": 1 << 31, "long": 1 << 63}


def parse_input(
    shape: Shape,
    uri_params: Mapping[str, str],
    query: Mapping[str, Sequence[str]],
    headers: Mapping[str, str],
    body: bytes,
) -> dict[str, Any]:
    """Read a request's parts into one mapping. Members that are absent or null are left out.

    :param headers: by names in small letters.
    :raises SerializationFailed: the body is not JSON, or a value is not of its member's type.
    """
    request: dict[str, Any] = {}
    for name, member in shape.members.items():
        value = _located_value(member, uri_params, query, headers)
        if value is not None:
            request[name] = value
    if shape.payload is not None:
        payload = _payload_value(shape.members[shape.payload], body)
        if payload is not None:
            request[shape.payload] = payload
    elif shape.body_members and body:
        request.update(_structure(shape, read_json(body), ""))
    return request


def serialise_output(shape: Shape, result: Mapping[str, Any]) -> tuple[int | None, dict[str, str], bytes]:
    """Lay a result out as status (where the result holds one), headers and body.

    Only what the model has goes out, and members that are None stay out.

    :raises TypeError: a value is not of its member's type, or the answer is an event stream, which is not for here.
    """
    status: int | None = None
    headers: dict[str, str] = {}
    for member in shape.members.values():
        value = result.get(member.name)
        if value is None or member.location is None:
            continue
        if member.location == "statusCode":
            status = int(value)
        elif member.location == "header":
            headers[member.wire_name] = _text_of(value)
    return status, headers, _body_of(shape, result)


# Requests ------------------------------------------------------------------------------------------------------------


def _located_value(
    member: Member, uri_params: Mapping[str, str], query: Mapping[str, Sequence[str]], headers: Mapping[str, str]
) -> Any:
    if member.location == "uri":
        text = uri_params.get(member.wire_name)
    elif member.location == "querystring":
        texts = query.get(member.wire_name)
        if texts and member.shape.type == "list":
            return [_from_text(member.shape.item, text, member.path_name) for text in texts]
        text = texts[0] if texts else None
    elif member.location == "header":
        text = headers.get(member.wire_name.lower())
    else:
        return None
    return None if text is None else _from_text(member.shape, text, member.path_name)


def _from_text(shape: Shape | None, text: str, path: str) -> Any:
    kind = shape.type if shape is not None else "string"
    if kind == "string":
        return text
    try:
        if kind in _INTEGER_RANGES:
            return _in_range(kind, _integer(text), path)
        if kind == "boolean":
            return {"true": True, "false": False}[text.lower()]
        if kind == "timestamp":
            return _moment(text)
        return float(text)
    except (ValueError, KeyError, OverflowError):
        _refuse("STRING_VALUE", kind, path)


def _integer(text: str) -> int:
    # int() alone takes spaces, underscores and the digits of every script.
    if not _INTEGER.fullmatch(text):
        raise ValueError(text)
    return int(text)


def _payload_value(member: Member, body: bytes) -> Any:
    if member.shape.type == "structure":
        return _structure(member.shape, read_json(body), member.path_name + ".") if body else None
    return body or None


def _from_json(shape: Shape, value: Any, path: str) -> Any:
    parse = _PARSERS.get(shape.type)
    if parse is None:
        raise TypeError(f"the model has a type that is not known: {shape.type}")
    return parse(shape, value, path)


def _structure(shape: Shape, value: Any, prefix: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _refuse(_token(value), "structure", prefix.removesuffix("."))
    parsed = {}
    for member in shape.body_members:
        held = value.get(member.wire_name)
        if held is not None:
            parsed[member.name] = _from_json(member.shape, held, prefix + member.path_name)
    return parsed


def _structure_value(shape: Shape, value: Any, path: str) -> dict[str, Any]:
    return _structure(shape, value, path + ".")


def _list_value(shape: Shape, value: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        _refuse(_token(value), "list", path)
    assert shape.item is not None
    item = shape.item
    return [None if held is None else _from_json(item, held, path) for held in value]


def _map_value(shape: Shape, value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _refuse(_token(value), "map", path)
    assert shape.item is not None
    item = shape.item
    return {name: None if held is None else _from_json(item, held, path) for name, held in value.items()}


def _string_value(shape: Shape, value: Any, path: str) -> str:
    if isinstance(value, memoryview):
        return text_of(value)
    if not isinstance(value, str):
        _refuse(_token(value), shape.type, path)
    return value


def _integer_value(shape: Shape, value: Any, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        _refuse(_token(value), shape.type, path)
    return _in_range(shape.type, value, path)


def _float_value(shape: Shape, value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        _refuse(_token(value), shape.type, path)
    try:
        return float(value)
    except OverflowError:
        _refuse(_token(value), shape.type, path)


def _boolean_value(shape: Shape, value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        _refuse(_token(value), shape.type, path)
    return value


def _blob_value(shape: Shape, value: Any, path: str) -> bytes:
    try:
        return decode_base64(value if isinstance(value, memoryview) else _string_value(shape, value, path))
    except (binascii.Error, ValueError):  # ValueError: characters outside ASCII
        _refuse("STRING_VALUE", shape.type, path)


def _timestamp_value(shape: Shape, value: Any, path: str) -> datetime:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        _refuse(_token(value), shape.type, path)
    try:
        return _moment(value) if isinstance(value, str) else datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        _refuse(_token(value), shape.type, path)


_PARSERS: Mapping[str, Callable[[Shape, Any, str], Any]] = {
    "structure": _structure_value,
    "list": _list_value,
    "map": _map_value,
    "string": _string_value,
    "integer": _integer_value,
    "long": _integer_value,
    "float": _float_value,
    "double": _float_value,
    "boolean": _boolean_value,
    "blob": _blob_value,
    "timestamp": _timestamp_value,
}


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _in_range(kind: str, value: int, path: str) -> int:
    limit = _INTEGER_RANGES[kind]
    if not -limit <= value < limit:
        _refuse("NUMBER_VALUE", kind, path)
    return value


def _token(value: Any) -> str:
    if isinstance(value, bool):
        return "TRUE_VALUE" if value else "FALSE_VALUE"
    names = {
        str: "STRING_VALUE",
        memoryview: "STRING_VALUE",
        int: "NUMBER_VALUE",
        float: "NUMBER_VALUE",
        list: "START_ARRAY",
        dict: "START_OBJECT",
    }
    return names.get(type(value), "NULL_VALUE")


def _refuse(token: str, kind: str, path: str) -> NoReturn:
    # The value itself is not told: it may belong to a sensitive shape.
    article = "an" if kind[0] in "aeiou" else "a"
    where = f" at '{shown(path)}'" if path else ""
    raise SerializationFailed(f"{token} can not be converted to {article} {kind.capitalize()}{where}")


# Answers -------------------------------------------------------------------------------------------------------------


def _body_of(shape: Shape, result: Mapping[str, Any]) -> bytes:
    if shape.payload is None:
        return _encoded(_plain_structure(shape, result))
    payload, value = shape.members[shape.payload].shape, result.get(shape.payload)
    if payload.type == "structure":
        if payload.streaming:
            raise TypeError(f"{shape.name} answers with an event stream")
        return _encoded(_plain(payload, value or {}))
    if value is None:
        return b""
    return value.encode() if isinstance(value, str) else bytes(value)


def _encoded(document: Any) -> bytes:
    return dumps(document, separators=(",", ":"), allow_nan=False).encode()


def _plain_structure(shape: Shape, value: Mapping[str, Any]) -> dict[str, Any]:
    document = {}
    for member in shape.body_members:
        held = value.get(member.name)
        if held is not None:
            document[member.wire_name] = held if member.shape.is_json else _plain(member.shape, held)
    return document


def _plain(shape: Shape, value: Any) -> Any:
    """Turn a value into what JSON can hold."""
    if shape.is_json:
        return value
    kind = shape.type
    if kind == "structure":
        return _plain_structure(shape, value)
    if kind == "list":
        assert shape.item is not None
        item = shape.item
        return [_plain(item, held) for held in value]
    if kind == "map":
        assert shape.item is not None
        item = shape.item
        return {str(name): _plain(item, held) for name, held in value.items()}
    if kind == "blob":
        return base64.b64encode(value.encode() if isinstance(value, str) else value).decode("ascii")
    return _epoch_seconds(value)


def _epoch_seconds(moment: datetime) -> float:
    # AWS answers with milliseconds; a whole number of seconds goes out without a fraction.
    seconds = round(moment.timestamp(), 3)
    return int(seconds) if seconds.is_integer() else seconds


def _text_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
