"""Events in, results out: the JSON of the official Python client (``awslambdaric``), which needs simplejson for it.

What simplejson does beyond the standard library (bytes as text, named tuples as objects, raw decimals) is done by
`_Writer`, in Python; results that need none of it go through the standard library's own encoder, in C.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from json import encoder as _json
from typing import Any

_PLAIN = frozenset((str, int, float, bool, type(None)))
_SPACE = " \t\n\r"
_TOO_DEEP = "maximum recursion depth exceeded while encoding a JSON object"


def _no_constant(literal: str) -> Any:
    raise ValueError(f"{literal} is not allowed in JSON")


_decoder = json.JSONDecoder(parse_constant=_no_constant)
_scan: Callable[[str, int], tuple[Any, int]] = _decoder.scan_once  # type: ignore[attr-defined]


def decode(text: str) -> Any:
    """Give the value of a JSON text.

    :raises ValueError: it is none.
    """
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        return _decoder.decode(text)  # it begins with a space, or is wrong
    if end != len(text) and text[end:].strip(_SPACE):
        return _decoder.decode(text)  # words the error
    return value


def _is_plain(value: Any) -> bool:
    """Say whether a value consists of nothing but what both encoders write alike."""
    kind = type(value)
    if kind is dict:
        items = value.values()
    elif kind is list or kind is tuple:
        items = value
    else:
        return kind in _PLAIN
    for item in items:  # noqa: SIM110 - twice as fast as all()
        if type(item) not in _PLAIN and not _is_plain(item):
            return False
    return True


class Encoder:
    """Turns results into JSON.

    :param ascii_only: escape everything else, as runtimes before Python 3.12 do.
    """

    def __init__(self, ascii_only: bool) -> None:
        self._text = _json.encode_basestring_ascii if ascii_only else _json.encode_basestring
        self._fast = self._fast_encoder()

    def _fast_encoder(self) -> Callable[[Any], str]:
        make: Any = getattr(_json, "c_make_encoder", None)
        if make is None:  # an interpreter without the C accelerator
            return self._slow
        encode = make(None, _not_plain, self._text, None, ": ", ", ", False, False, True)
        return lambda value: "".join(encode(value, 0))

    def encode(self, value: Any) -> str:
        """Give the JSON text of a value.

        :raises Exception: whatever is wrong with it, worded as simplejson does.
        """
        if type(value) is str:
            return self._text(value)
        try:
            if _is_plain(value):
                return self._fast(value)
        except (RecursionError, TypeError, ValueError):
            pass  # too deep, or a key or number that cannot be written: the writer words the error
        return self._slow(value)

    def _slow(self, value: Any) -> str:
        parts: list[str] = []
        try:
            _Writer(self._text, parts.append).write(value)
        except RecursionError:
            raise RecursionError(_TOO_DEEP) from None
        return "".join(parts)


def _not_plain(value: Any) -> Any:
    raise TypeError(type(value).__name__)


class _Writer:
    """Writes one value, piece by piece."""

    def __init__(self, text: Callable[[str], str], put: Callable[[str], None]) -> None:
        self._text = text
        self._put = put
        self._open: set[int] = set()

    def write(self, value: Any) -> None:
        scalar = self._scalar(value)
        if scalar is not None:
            self._put(scalar)
            return
        if id(value) in self._open:
            raise ValueError("Circular reference detected")
        self._open.add(id(value))
        fields = _as_dict(value)
        if fields is not None:
            self._object(fields)
        elif isinstance(value, (list, tuple)):
            self._array(value)
        elif isinstance(value, dict):
            self._object(value)
        else:
            self._other(value)
        self._open.discard(id(value))

    def _scalar(self, value: Any) -> str | None:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, bytes):
            return self._text(str(value, "utf-8"))
        if value is None:
            return "null"
        if value is True:
            return "true"
        if value is False:
            return "false"
        if isinstance(value, int):
            return int.__repr__(value)
        return _float(value) if isinstance(value, float) else None

    def _array(self, value: Any) -> None:
        separator = "["
        for item in value:
            self._put(separator)
            self.write(item)
            separator = ", "
        self._put("]" if separator == ", " else "[]")

    def _object(self, value: dict[Any, Any]) -> None:
        separator = "{"
        for key, item in value.items():
            self._put(separator)
            self._put(self._text(self._key(key)))
            self._put(": ")
            self.write(item)
            separator = ", "
        self._put("}" if separator == ", " else "{}")

    def _key(self, key: Any) -> str:
        if isinstance(key, str):
            return key
        if isinstance(key, bytes):
            return str(key, "utf-8")
        text = self._scalar(key)
        if text is None:
            raise TypeError(f"keys must be str, int, float, bool or None, not {key.__class__.__name__}")
        return text

    def _other(self, value: Any) -> None:
        from decimal import Decimal

        if not isinstance(value, Decimal):
            raise TypeError(f"Object of type {value.__class__.__name__} is not JSON serializable")
        self._put("NaN" if value.is_nan() else str(value))


def _as_dict(value: Any) -> dict[Any, Any] | None:
    """Give the fields of a named tuple, or of anything that says it can be one."""
    method = getattr(value, "_asdict", None)
    if not callable(method):
        return None
    try:
        fields = method()
    except TypeError:
        return None
    if not isinstance(fields, dict):
        raise TypeError(f"_asdict() must return a dict, not {type(fields).__name__}")
    return fields


def _float(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return float.__repr__(value)
