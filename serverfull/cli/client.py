"""A small client of a running host, on the standard library. Commands use it, one call at a time."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

from serverfull.errors import ServerfullError

FUNCTIONS = "/2015-03-31/functions"


def path_of(name: str) -> str:
    """Give the path of a function, which is named by its name or its ARN."""
    return f"{FUNCTIONS}/{quote(name, safe='')}"


class NoAnswer(ServerfullError):
    """No host answers at the endpoint, or not in time."""


class ApiError(ServerfullError):
    """The host answered with an error of the API.

    :param name: AWS's name of the error, where the answer had one.
    """

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name


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
    :param account: where the calls go; empty leaves it to the host, unless they name a region.
    :param region: likewise.
    """

    endpoint: str
    timeout: float
    account: str = ""
    region: str = ""

    def invoke(self, name: str, payload: bytes, qualifier: str | None, headers: Mapping[str, str]) -> Answer:
        """Invoke a function.

        :raises ApiError: the function could not be run; a handler that fails is an answer.
        :raises NoAnswer: no host answers.
        """
        query = f"?Qualifier={quote(qualifier, safe='')}" if qualifier else ""
        path = f"{path_of(name)}/invocations{query}"
        return _checked(self.call("POST", path, payload, {"Content-Type": "application/json", **headers}))

    def function(self, name: str) -> dict[str, Any]:
        """Give what GetFunction gives.

        :raises ApiError: the host refuses, or is none.
        :raises NoAnswer: no host answers.
        """
        found = self.document(path_of(name))
        if "Configuration" not in found:
            raise self._foreign(path_of(name))
        return found

    def functions(self) -> list[dict[str, Any]]:
        """Give the configuration of every function, all pages of it.

        :raises ApiError: the host refuses.
        :raises NoAnswer: no host answers.
        """
        return self.pages(FUNCTIONS, "Functions")

    def survey(self) -> list[dict[str, Any]]:
        """Give what the host tells of where its functions come from; nothing where it does not tell.

        :raises NoAnswer: no host answers.
        """
        with suppress(ApiError):  # an older host, or one that tells it to its own machine alone
            return list(self.document("/_serverfull/functions").get("Functions", ()))
        return []

    def pages(self, path: str, member: str) -> list[dict[str, Any]]:
        """Give what all pages of a list have under one member; as `send`."""
        found: list[dict[str, Any]] = []
        marker = ""
        while True:
            query = f"?Marker={quote(marker, safe='')}" if marker else ""
            page = self.document(f"{path}{query}")
            if member not in page:
                raise self._foreign(path)
            found += page[member]
            marker = page.get("NextMarker") or ""
            if not marker:
                return found

    def document(self, path: str, unless: int | None = None) -> dict[str, Any]:
        """Get a JSON object; as `send`.

        :param unless: a status that gives an empty object.
        :raises ApiError: the host refuses, or the answer is none.
        :raises NoAnswer: no host answers.
        """
        return self.send("GET", path, unless=unless)

    def send(
        self, method: str, path: str, members: Mapping[str, Any] | BinaryIO | None = None, unless: int | None = None
    ) -> dict[str, Any]:
        """Call an operation whose answer is a JSON object or nothing.

        :param members: of the request, or a stream of JSON that can be sought.
        :param unless: a status that gives an empty object.
        :raises ApiError: the host refuses, or the answer is none.
        :raises NoAnswer: no host answers.
        """
        body = json.dumps(members).encode() if isinstance(members, Mapping) else members or b""
        answer = self.call(method, path, body, {"Content-Type": "application/json"} if body else None)
        if answer.status == unless:
            return {}
        content = _checked(answer).body
        try:
            document = json.loads(content) if content or method == "GET" else {}
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise self._foreign(path)
        return document

    def _foreign(self, path: str) -> ApiError:
        return ApiError(
            f"{self.endpoint}{path} answers with something else than a host would; is a serverfull host there?"
        )

    def call(
        self, method: str, path: str, body: bytes | BinaryIO = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request and read the whole answer.

        :raises NoAnswer: no host answers, or not in time.
        """
        with self._asked(method, path, body, headers or {}) as response:
            return _answer(response)

    def lines(self, path: str) -> Iterator[bytes]:
        """Get an answer of lines, as they come.

        :raises ApiError: the host refuses.
        :raises NoAnswer: no host answers, or nothing more in time.
        """
        with self._asked("GET", path, b"", {}) as response:
            if response.status >= 300:
                _checked(_answer(response))
            yield from response

    @contextmanager
    def _asked(
        self, method: str, path: str, body: bytes | BinaryIO, headers: Mapping[str, str]
    ) -> Iterator[HTTPResponse]:
        """Send a request; give the response, whose body is not read."""
        address = urlsplit(self.endpoint)
        kind = HTTPSConnection if address.scheme == "https" else HTTPConnection
        try:
            connection = kind(address.hostname or "", address.port, timeout=self.timeout)
        except ValueError as wrong:
            raise NoAnswer(f"{self.endpoint} is no endpoint: {wrong}") from None
        everything = {**self._identity(), **_length(body), **headers}
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # who refuses what is too large does not read it all
                connection.request(method, address.path.rstrip("/") + path, body or None, everything)
            yield connection.getresponse()
        except TimeoutError:
            raise NoAnswer(f"no answer from {self.endpoint} within {self.timeout:g} s") from None
        except (OSError, HTTPException) as failure:
            reason = getattr(failure, "strerror", None) or str(failure) or type(failure).__name__
            raise NoAnswer(f"no host answers at {self.endpoint}: {reason}") from None
        finally:
            connection.close()

    def _identity(self) -> dict[str, str]:
        """Name account and region as SDKs do; the host takes them from there, and asks for no signature."""
        if not self.region:
            return {}
        credential = f"{self.account or 'serverfull'}/20150331/{self.region}/lambda/aws4_request"
        return {"Authorization": f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=none"}


def _length(body: bytes | BinaryIO) -> dict[str, str]:
    if isinstance(body, bytes):
        return {}
    length = body.seek(0, 2)
    body.seek(0)
    return {"Content-Length": str(length)}


def _answer(response: HTTPResponse) -> Answer:
    return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


def _checked(answer: Answer) -> Answer:
    if answer.status < 300:
        return answer
    name = answer.headers.get("x-amzn-errortype", f"HTTP {answer.status}").partition(":")[0]
    raise ApiError(f"{name}: {_message(answer.body)}", name)


def _message(body: bytes) -> str:
    try:
        document = json.loads(body)
    except ValueError:
        return body[:200].decode(errors="replace") or "no message"
    found = (document.get("Message") or document.get("message")) if isinstance(document, dict) else document
    return str(found)
