"""A small client of a running host, on the standard library. The commands in `calling` use it, one call at a time."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import quote, urlsplit

from serverfull.errors import ServerfullError

_API = "/2015-03-31/functions"


class NoAnswer(ServerfullError):
    """No host answers at the endpoint, or not in time."""


class ApiError(ServerfullError):
    """The host answered with an error of the API."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def function_error(self) -> str | None:
        """Say how the handler failed, or None where it did not."""
        return self.headers.get("x-amz-function-error")

    @property
    def log_tail(self) -> bytes:
        """Give the last 4 KB of the log, where they were asked for."""
        return base64.b64decode(self.headers.get("x-amz-log-result", ""))


@dataclass(frozen=True, slots=True)
class Client:
    """Calls one host.

    :param endpoint: its URL.
    :param timeout: seconds to wait for an answer.
    """

    endpoint: str
    timeout: float

    def invoke(self, name: str, payload: bytes, qualifier: str | None, headers: Mapping[str, str]) -> Answer:
        """Invoke a function.

        :raises ApiError: the function could not be run; a handler that fails is an answer.
        :raises NoAnswer: no host answers.
        """
        query = f"?Qualifier={quote(qualifier, safe='')}" if qualifier else ""
        path = f"{_API}/{quote(name, safe='')}/invocations{query}"
        return _checked(self.call("POST", path, payload, {"Content-Type": "application/json", **headers}))

    def functions(self) -> list[dict[str, Any]]:
        """Give the configuration of every function, all pages of it.

        :raises ApiError: the host refuses.
        :raises NoAnswer: no host answers.
        """
        found: list[dict[str, Any]] = []
        marker = ""
        while True:
            query = f"?Marker={quote(marker, safe='')}" if marker else ""
            page = self.document(f"{_API}{query}")
            found += page.get("Functions", [])
            marker = page.get("NextMarker") or ""
            if not marker:
                return found

    def document(self, path: str, unless: int | None = None) -> dict[str, Any]:
        """Get a JSON object.

        :param unless: a status that gives an empty object.
        :raises ApiError: the host refuses, or the answer is none.
        :raises NoAnswer: no host answers.
        """
        answer = self.call("GET", path)
        if answer.status == unless:
            return {}
        try:
            document = json.loads(_checked(answer).body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise ApiError(f"{self.endpoint}{path} answers with something else than JSON; is a serverfull host there?")
        return document

    def call(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """Send a request and read the whole answer.

        :raises NoAnswer: no host answers, or not in time.
        """
        address = urlsplit(self.endpoint)
        kind = HTTPSConnection if address.scheme == "https" else HTTPConnection
        try:
            connection = kind(address.hostname or "", address.port, timeout=self.timeout)
        except ValueError as wrong:
            raise NoAnswer(f"{self.endpoint} is no endpoint: {wrong}") from None
        try:
            connection.request(method, address.path.rstrip("/") + path, body or None, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        except TimeoutError:
            raise NoAnswer(f"no answer from {self.endpoint} within {self.timeout:g} s") from None
        except (OSError, HTTPException) as failure:
            reason = getattr(failure, "strerror", None) or str(failure) or type(failure).__name__
            raise NoAnswer(f"no host answers at {self.endpoint}: {reason}") from None
        finally:
            connection.close()


def _checked(answer: Answer) -> Answer:
    if answer.status < 300:
        return answer
    name = answer.headers.get("x-amzn-errortype", f"HTTP {answer.status}").partition(":")[0]
    raise ApiError(f"{name}: {_message(answer.body)}")


def _message(body: bytes) -> str:
    try:
        document = json.loads(body)
    except ValueError:
        return body[:200].decode(errors="replace") or "no message"
    found = (document.get("Message") or document.get("message")) if isinstance(document, dict) else document
    return str(found)
