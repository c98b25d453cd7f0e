"""What an extension asks for when it subscribes, by the Telemetry API or by the older Logs API.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/telemetry-api-reference.html and
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-logs-api.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from serverfull.domain.json_functions import loads
from serverfull.runtimes.runtime_api.extension_messages import SANDBOX_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from serverfull.runtimes.runtime_api.extension_messages import Api

TYPES = ("platform", "function", "extension")
"""The streams."""

TELEMETRY_SCHEMAS = ("2022-07-01", "2022-12-13", "2025-01-29")
LOGS_SCHEMAS = ("2020-08-15", "2021-03-18")

RESERVED_PORT = 9001
"""Where AWS's Runtime API is: nobody may listen there."""

_BOUNDS = {
    "maxItems": (1_000, 10_000, 10_000),
    "maxBytes": (262_144, 1_048_576, 262_144),
    "timeoutMs": (25, 30_000, 1_000),
}
"""For each part of the buffering, the least, the most, and what is taken where it is not said."""

_TARGET = re.compile(r"/[!-~]*")


class InvalidSubscription(Exception):
    """A subscription is not what it should be; the message says in what."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where an extension listens, on loopback.

    :param protocol: ``HTTP`` or ``TCP``.
    :param target: path and query, for HTTP.
    :param method: ``POST`` or ``PUT``, for HTTP.
    """

    protocol: str
    port: int
    target: str = "/"
    method: str = "POST"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """What an extension has asked for.

    :param api: by which it asked.
    :param schema: of the events, a date.
    :param types: the streams that it wants.
    :param most_items: events of a batch; ``most_bytes``: bytes.
    :param timeout: seconds until a batch is sent that is not full.
    """

    api: Api
    schema: str
    types: tuple[str, ...]
    destination: Destination
    most_items: int
    most_bytes: int
    timeout: float


def read_subscription(api: Api, body: bytes) -> Subscription:
    """Read the body of a request.

    :raises InvalidSubscription: something in it is wrong.
    """
    try:
        document = loads(body)
    except (ValueError, RecursionError):
        raise InvalidSubscription("The body is no JSON") from None
    if not isinstance(document, dict):
        raise InvalidSubscription("The body is no JSON object")
    buffering = document.get("buffering") or {}
    readers: dict[str, Callable[[], object]] = {
        "schema": partial(_schema, api, document.get("schemaVersion")),
        "destination": partial(_destination, document.get("destination")),
        "types": partial(_types, document.get("types")),
        "most_items": partial(_bounded, buffering, "maxItems"),
        "most_bytes": partial(_bounded, buffering, "maxBytes"),
        "timeout_ms": partial(_bounded, buffering, "timeoutMs"),
    }
    found: dict[str, Any] = {}
    wrong: list[str] = []
    for name, read in readers.items():
        try:
            found[name] = read()
        except InvalidSubscription as why:
            wrong.append(str(why))
    if wrong:
        raise InvalidSubscription("; ".join(dict.fromkeys(wrong)))
    return Subscription(api=api, timeout=found.pop("timeout_ms") / 1000.0, **found)


def _schema(api: Api, schema: Any) -> str:
    schemas = TELEMETRY_SCHEMAS if api == "telemetry" else LOGS_SCHEMAS
    if schema is None and api == "logs":
        return schemas[0]
    if schema not in schemas:
        raise InvalidSubscription(f"schemaVersion should be one of {', '.join(schemas)}")
    return str(schema)


def _types(types: Any) -> tuple[str, ...]:
    if not isinstance(types, list) or not types:
        raise InvalidSubscription("types should not be empty")
    for name in types:
        if name not in TYPES:
            raise InvalidSubscription(f"types should be among {', '.join(TYPES)}")
    return tuple(dict.fromkeys(types))


def _bounded(buffering: Any, name: str) -> int:
    if not isinstance(buffering, dict):
        raise InvalidSubscription("buffering is no JSON object")
    least, most, usual = _BOUNDS[name]
    value = buffering.get(name, usual)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidSubscription(f"{name} should be between {least} and {most}")
    return value


def _destination(destination: Any) -> Destination:
    if not isinstance(destination, dict):
        raise InvalidSubscription("destination is not provided")
    protocol = destination.get("protocol")
    if protocol == "TCP":
        port = destination.get("port")
        if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65_535:
            raise InvalidSubscription("port should be between 1 and 65535")
        return Destination("TCP", _free(port))
    if protocol != "HTTP":
        raise InvalidSubscription("protocol should be HTTP or TCP")
    if destination.get("encoding", "JSON") != "JSON":
        raise InvalidSubscription("encoding should be JSON")
    method = destination.get("method", "POST")
    if method not in {"POST", "PUT"}:
        raise InvalidSubscription("method should be POST or PUT")
    return _address(destination.get("URI"), method)


def _address(uri: Any, method: str) -> Destination:
    """Read the address of a listener: nothing but a port of the sandbox's own loopback can be named."""
    if not isinstance(uri, str):
        raise InvalidSubscription("URI is not provided")
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        raise InvalidSubscription("URI is not valid") from None
    if parts.scheme != "http" or parts.hostname not in SANDBOX_NAMES or "@" in parts.netloc:
        raise InvalidSubscription(f"URI should begin with http://{SANDBOX_NAMES[0]}")
    if not port:
        raise InvalidSubscription("URI port is not provided")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if _TARGET.fullmatch(target) is None:
        raise InvalidSubscription("URI is not valid")
    return Destination("HTTP", _free(port), target, method)


def _free(port: int) -> int:
    if port == RESERVED_PORT:
        raise InvalidSubscription(f"port {port} is reserved for the Runtime API")
    return port
