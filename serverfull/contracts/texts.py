"""Strings of a JSON Schema: plain, with a pattern, or of one of pydantic's formats."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Mapping
from typing import Any

from serverfull.contracts import ranges
from serverfull.contracts.patterns import matching
from serverfull.contracts.schemas import HINTS

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_LONGER = 8


def text(schema: Mapping[str, Any], rng: random.Random | None) -> str:
    """Give a string of this schema: the shortest, or a random one.

    :raises NothingFits: the pattern, the format or the bounds leave none that can be found.
    """
    if (make := _FORMATS.get(str(schema.get("format")))) is not None:
        return make(schema, rng)
    least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
    if "pattern" in schema:
        return matching(schema["pattern"], least, most, rng)
    if rng is None:
        return "a" * least
    longest = least + _LONGER if most is None else min(most, least + _LONGER)
    return "".join(rng.choices(_LETTERS, k=rng.randint(least, longest)))


def _uuid(schema: Mapping[str, Any], rng: random.Random | None) -> str:
    version = schema.get(HINTS, {}).get("version") or str(schema["format"]).removeprefix("uuid") or (rng and 4) or 0
    digits = f"{rng.getrandbits(128) if rng else 0:032x}"
    variant = "8" if int(version) else digits[16]
    return f"{digits[:8]}-{digits[8:12]}-{version}{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def _url(schema: Mapping[str, Any], rng: random.Random | None) -> str:
    schemes = schema.get(HINTS, {}).get("allowed_schemes") or ["http"]
    return f"{schemes[0]}://localhost/{_word(rng)}"


def _base64(schema: Mapping[str, Any], rng: random.Random | None) -> str:
    length = int(schema.get("minLength", 0)) + (rng.randint(0, 3) if rng else 0)
    return base64.urlsafe_b64encode(_word(rng).ljust(length, "a")[:length].encode()).decode()


def _word(rng: random.Random | None) -> str:
    return "".join(rng.choices(_LETTERS[:26], k=6)) if rng else ""


def _ipv4(rng: random.Random | None) -> str:
    return f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}" if rng else "0.0.0.0"


def _ipv6(rng: random.Random | None) -> str:
    return f"fd00::{rng.randrange(1, 65536):x}" if rng else "::"


_Make = Callable[[Mapping[str, Any], "random.Random | None"], str]

_FORMATS: Mapping[str, _Make] = {
    "date": ranges.date_text,
    "date-time": ranges.datetime_text,
    "time": ranges.time_text,
    "duration": ranges.duration_text,
    **{f"uuid{version}": _uuid for version in ("", 1, 2, 3, 4, 5, 6, 7, 8)},
    "uri": _url,
    "multi-host-uri": _url,
    "email": lambda _schema, rng: f"{_word(rng) or 'a'}@example.com",
    "name-email": lambda _schema, rng: f"{_word(rng) or 'a'} <{_word(rng) or 'a'}@example.com>",
    "ipv4": lambda _schema, rng: _ipv4(rng),
    "ipv6": lambda _schema, rng: _ipv6(rng),
    "ipvanyaddress": lambda _schema, rng: _ipv4(rng),
    "ipv4network": lambda _schema, rng: f"{_ipv4(rng)}/32",
    "ipv6network": lambda _schema, rng: f"{_ipv6(rng)}/128",
    "ipvanynetwork": lambda _schema, rng: f"{_ipv4(rng)}/32",
    "ipv4interface": lambda _schema, rng: f"{_ipv4(rng)}/32",
    "ipv6interface": lambda _schema, rng: f"{_ipv6(rng)}/128",
    "ipvanyinterface": lambda _schema, rng: f"{_ipv4(rng)}/32",
    "path": lambda _schema, rng: f"/{_word(rng)}" if rng else "",
    "directory-path": lambda _schema, _rng: "/",
    "base64": _base64,
    "base64url": _base64,
    "regex": lambda _schema, rng: _word(rng),
    "complex": lambda _schema, rng: f"{rng.randrange(100)}+{rng.randrange(100)}j" if rng else "0j",
    "fraction": lambda _schema, rng: f"{rng.randrange(100)}/{rng.randrange(1, 100)}" if rng else "0",
    "zoneinfo": lambda _schema, _rng: "UTC",
}
