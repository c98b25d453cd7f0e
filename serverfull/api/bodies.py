"""JSON bodies, also such as carry a package of 50 MB, read without keeping the interpreter from the event loop.

`serverfull.api.wire` calls it, for large bodies on a thread. The functions of the json module read a body in one go,
and nothing else of the host runs meanwhile: 0.2 s for a package. So a text as long as that is taken out of the body
before, with a stand-in left in its place, and is decoded in pieces. Nothing is changed by a request for good, and
requests do not wait for each other.
"""

from __future__ import annotations

import base64
import secrets
from io import BytesIO
from typing import Any, NoReturn

from serverfull.domain.json_functions import loads
from serverfull.domain.names import shown
from serverfull.errors import SerializationFailed

LONG = 1 << 18
"""Bytes of a text that is taken out; shorter ones are read with the rest."""

_PIECE = 1 << 17
"""Bytes that are decoded or looked through at once; a multiple of four."""

_MOST_TEXTS = 1_000
"""Texts of a body that are looked at, and escaped quotes of a text: what has more is read in one go."""


def read_json(body: bytes) -> Any:
    """Read a JSON body as strictly as AWS does: UTF-8, no NaN, nesting within reason.

    A long text that is a member of an object comes as the memoryview of its bytes, not looked at yet: `text_of` and
    `decode_base64` do.

    :raises SerializationFailed: it is no JSON.
    """
    if len(body) <= LONG:
        return _loads(body, {})
    long: dict[str, memoryview] = {}
    rest = _take_out(body, long)
    document = _loads(rest, long)
    # A stand-in that is no member, because it is in a list or a name, was not put back.
    return _loads(body, {}) if long else document


def text_of(long: memoryview) -> str:
    """Read a long text as what it is in JSON.

    :raises SerializationFailed: it is none.
    """
    text: str = _loads(b'"' + bytes(long) + b'"', {})
    return text


def decode_base64(text: str | memoryview) -> bytes:
    """Decode base64 in pieces: in one call a package of 50 MB holds the interpreter, and so the loop, for 0.2 s.

    :raises ValueError: it is no base64, or not padded.
    """
    encoded = memoryview(text.encode("ascii")) if isinstance(text, str) else text
    if len(encoded) <= _PIECE:
        return base64.b64decode(encoded, validate=True)
    decoded = BytesIO()  # which gives what was written without copying it
    for at in range(0, len(encoded), _PIECE):
        piece = bytes(encoded[at : at + _PIECE])
        if at + _PIECE < len(encoded) and piece.endswith(b"="):
            raise ValueError("padding before the end")
        decoded.write(base64.b64decode(piece, validate=True))
    return decoded.getvalue()


def _loads(body: bytes, long: dict[str, memoryview]) -> Any:
    """Read JSON, and put long texts in the places of their stand-ins; those are taken from the mapping."""

    def put_back(members: dict[str, Any]) -> dict[str, Any]:
        for name, value in members.items():
            if isinstance(value, str) and value in long:
                members[name] = long.pop(value)
        return members

    try:
        return loads(body.decode(), parse_constant=_refuse_constant, object_hook=put_back if long else None)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        what = "it is nested too deeply" if isinstance(error, RecursionError) else shown(str(error))
        raise SerializationFailed(f"Could not parse request body into json: {what}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _take_out(body: bytes, long: dict[str, memoryview]) -> bytes:
    """Give a body with stand-ins for its long texts, and put these into the mapping.

    Texts with a backslash stay: they are not what they look like.
    """
    view = memoryview(body)
    kept: list[bytes | memoryview] = []
    at = begin = 0
    for _ in range(_MOST_TEXTS):
        opening = _find(body, b'"', at)
        closing = _closing(body, opening + 1) if opening >= 0 else -1
        if closing < 0:
            break
        at = closing + 1
        if closing - opening > LONG and _find(body, b"\\", opening + 1, closing) < 0:
            stand_in = secrets.token_hex(16)  # which nobody can have guessed
            long[stand_in] = view[opening + 1 : closing]
            kept += (view[begin : opening + 1], stand_in.encode())
            begin = closing
    return b"".join((*kept, view[begin:])) if long else body


def _closing(body: bytes, at: int) -> int:
    """Give where the text that begins here ends, -1 where it does not or that is not soon found."""
    for _ in range(_MOST_TEXTS):
        quote = _find(body, b'"', at)
        before = body[max(at, quote - _MOST_TEXTS) : max(quote, 0)]
        backslashes = len(before) - len(before.rstrip(b"\\"))
        if quote < 0 or backslashes == _MOST_TEXTS:
            return -1
        if backslashes % 2 == 0:
            return quote
        at = quote + 1
    return -1


def _find(body: bytes, wanted: bytes, at: int, stop: int | None = None) -> int:
    """Find a byte as ``bytes.find`` does, and let others have the interpreter meanwhile."""
    stop = len(body) if stop is None else stop
    for start in range(at, stop, _PIECE):
        found = body.find(wanted, start, min(start + _PIECE, stop))
        if found >= 0:
            return found
    return -1
