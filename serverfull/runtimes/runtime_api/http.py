"""Reads HTTP/1.1 requests out of bytes that a function's process may have made up, strictly and within limits.

`RequestReader` has no socket and no clock: it is fed with what arrives and gives whole requests, or says what is wrong.
What it knows of HTTP is what clients of the Lambda Runtime API send: bodies with a length or in chunks, trailers,
several requests in one piece. One reader serves one connection, on the host's loop.

Protocol: https://www.rfc-editor.org/rfc/rfc9112
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

LONGEST_LINE = 8_192
"""Bytes of the request line, and of a header."""

LONGEST_CAUSE = 1_048_576
"""Bytes of the one header that may be longer: the official Python client puts a whole stack trace in it for X-Ray."""

LONGEST_HEAD = LONGEST_CAUSE + 65_536
"""Bytes of the request line and all headers, or of all trailers."""

MOST_FIELDS = 100
"""Headers, or trailers."""

CHUNKS_AT_ONCE = 256
"""Chunks that are read in one go: 250 KB of chunks of one byte would keep the loop for 50 ms."""

_REQUEST_LINE = re.compile(r"([A-Z]{1,16}) (/[!-~]*) HTTP/([0-9])\.([0-9])")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*)")
_LENGTH = re.compile(r"[0-9]{1,15}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,12})[ \t]*(?:;[\t -~\x80-\xff]*)?")
_CAUSE = "lambda-runtime-function-xray-error-cause:"

# As our own client posts results. What this matches means the same to the rest of the module, which takes 7 µs more.
_RESULT = re.compile(
    rb"POST (/[!-~]+) HTTP/1\.1\r\nHost: localhost\r\nContent-Type: ([!-~]+)\r\nContent-Length: ([0-9]{1,15})\r\n\r\n"
)
_ONLY_ONCE = frozenset({"content-length", "transfer-encoding", "host", "content-type"})


class Malformed(Exception):
    """What arrived is no request that is understood here; there is nothing more to be read from that connection.

    :param status: what HTTP calls it.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class TooLong(Exception):
    """The body of a request is longer than may be; the rest of it is not read.

    :param request: without a body.
    """

    def __init__(self, request: Request) -> None:
        super().__init__()
        self.request = request


@dataclass(slots=True)
class Request:
    """A request.

    :param path: as it was sent, without the query.
    :param fields: headers by their names in lower case; of those that were sent twice, the first.
    :param length: bytes of the body, None where it comes in chunks.
    :param keep_alive: whether the client wants to send another one after the answer.
    :param trailers: as ``fields``, after a body in chunks.
    """

    method: str
    path: str
    fields: dict[str, str]
    length: int | None
    keep_alive: bool
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)


class RequestReader:
    """Makes requests of the bytes of one connection.

    :param limit: bytes of a body, at most.
    :ivar waiting: bytes that wait to be read.
    :ivar known: a request without a body, and its words, which a runtime repeats for each invocation.
    :ivar unfinished: `read` gave None although there is more to do; call it again soon.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = self.waiting = bytearray()
        self._seen = 0  # bytes that have been searched for the end of the head
        self._request: Request | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._in_trailers = False
        self._told = False
        self.known: tuple[bytes, Request] | None = None
        self.unfinished = False

    @property
    def in_head(self) -> bool:
        """Whether there is a part of a request, and its headers are not all here."""
        return self._request is None and bool(self._bytes)

    @property
    def incomplete(self) -> Request | None:
        """The request whose body is not all here."""
        return self._request

    def wants_go_ahead(self) -> bool:
        """Say, once for a request, whether the client sends the body only after it was told to go on."""
        request = self._request
        if request is None or self._told or self._bytes or "expect" not in request.fields:
            return False
        self._told = True
        return True

    def turn(self, data: bytes, expected: bytes) -> tuple[bytes, Request] | None:
        """Take a result apart that comes with the known request behind it, as our own client sends them, in one piece.

        What this takes means the same to `read`, which needs five times as long for it.

        :param expected: how it begins, up to its length.
        :return: its body, and the known request; None: this is something else, and to be fed.
        """
        if self.known is None or not data.startswith(expected):
            return None
        words, request = self.known
        if not data.endswith(words):
            return None
        start = len(expected)
        end = data.find(b"\r\n\r\n", start, start + 19)
        digits = data[start:end] if end > 0 else b""
        if not digits.isdigit():
            return None
        begin, end = end + 4, len(data) - len(words)
        return (data[begin:end], request) if end - begin == int(digits) <= self._limit else None

    def feed(self, data: bytes) -> None:
        """Take what has arrived."""
        self._bytes += data

    def read(self) -> Request | None:
        """Give the next request if it is all here.

        :raises Malformed: it is none.
        :raises TooLong: its body is over the limit.
        """
        self.unfinished = False
        if self._request is None and not self._read_head():
            return None
        request = self._request
        assert request is not None
        if not (self._read_length(request) if request.length is not None else self._read_chunks(request)):
            return None
        self._request = None
        return request

    # -------------------------------------------------------------------------------------------------------- the head

    def _read_head(self) -> bool:
        waiting = self._bytes
        if not waiting:
            return False
        if self.known is not None and waiting.startswith(self.known[0]):
            words, self._request = self.known
            del waiting[: len(words)]
            self._seen = 0
            return True
        # A head that comes in pieces is none of our client's, and looked at once only: by each byte of it this would
        # go over all that is here.
        request = (None if self._seen else self._take_result()) or self._take_request()
        if request is None:
            return False
        self._request = request
        if request.length is not None and request.length > self._limit:
            raise TooLong(request)
        return True

    def _take_result(self) -> Request | None:
        result = _RESULT.match(self._bytes, 0, LONGEST_LINE)
        if result is None:
            return None
        path, content_type, length = result[1].decode(), result[2].decode(), result[3].decode()
        del self._bytes[: result.end()]
        self._seen = 0
        fields = {"host": "localhost", "content-type": content_type, "content-length": length}
        return Request("POST", path.partition("?")[0] if "?" in path else path, fields, int(length), True)

    def _take_request(self) -> Request | None:
        head = self._take_head()
        if head is None:
            return None
        request = self._request_of(head)
        if request.length == 0 and len(head) <= LONGEST_LINE:
            self.known = head + b"\r\n\r\n", request
        self._pieces, self._size, self._in_trailers, self._told = [], 0, False, False
        return request

    @staticmethod
    def _request_of(head: bytes) -> Request:
        lines = head.decode("latin-1").split("\r\n")
        if len(lines[0]) > LONGEST_LINE:
            raise Malformed("The request target is too long.", 414)
        line = _REQUEST_LINE.fullmatch(lines[0])
        if line is None:
            raise Malformed("The first line is no request line of HTTP/1.1.")
        method, target, major, minor = line.groups()
        if major != "1" or minor not in "01":
            raise Malformed("Only HTTP/1.1 is spoken here.", 505)
        fields = read_fields(lines, 1)
        if minor == "1" and "host" not in fields:
            raise Malformed("The header Host is missing.")
        length, keep_alive = _body_length(fields, minor), _keeps_alive(fields.get("connection"), minor)
        return Request(method, target.partition("?")[0], fields, length, keep_alive)

    def _take_head(self) -> bytes | None:
        """Take the request line and the headers, or the trailers, without the empty line after them."""
        waiting = self._bytes
        end = waiting.find(b"\r\n\r\n", max(0, self._seen - 3))
        if (end if end >= 0 else len(waiting)) > LONGEST_HEAD:
            raise Malformed("The headers are too long.", 431)
        if end < 0:
            self._look_for_bare_line_ends(self._seen)
            self._seen = len(waiting)
            return None
        head = bytes(waiting[:end])
        del waiting[: end + 4]
        self._seen = 0
        return head

    def _look_for_bare_line_ends(self, start: int) -> None:
        """Complain about line feeds alone, or a client would wait for an answer to lines that never end."""
        at = self._bytes.find(b"\n", start)
        while at >= 0:
            if at == 0 or self._bytes[at - 1] != 0x0D:
                raise Malformed("Lines end with a carriage return and a line feed.")
            at = self._bytes.find(b"\n", at + 1)

    # -------------------------------------------------------------------------------------------------------- the body

    def _read_length(self, request: Request) -> bool:
        length, waiting = request.length, self._bytes
        if length:
            if len(waiting) < length:
                return False
            if len(waiting) == length:
                request.body = bytes(waiting)
                waiting.clear()
            else:
                request.body = bytes(waiting[:length])
                del waiting[:length]
        return True

    def _read_chunks(self, request: Request) -> bool:
        for _ in range(CHUNKS_AT_ONCE):
            if self._in_trailers:
                return self._read_trailers(request)
            if not self._read_chunk(request):
                return False
        self.unfinished = True
        return False

    def _read_chunk(self, request: Request) -> bool:
        waiting = self._bytes
        end = waiting.find(b"\r\n", 0, LONGEST_LINE)
        if end < 0:
            if len(waiting) > LONGEST_LINE:
                raise Malformed("The size of a chunk is too long.")
            self._look_for_bare_line_ends(0)
            return False
        matched = _CHUNK_SIZE.fullmatch(waiting, 0, end)
        if matched is None:
            raise Malformed("The size of a chunk is no hexadecimal number.")
        size, start = int(matched[1], 16), end + 2
        if size == 0:
            del waiting[:start]
            self._in_trailers = True
            return True
        if self._size + size > self._limit:
            raise TooLong(request)
        after = start + size
        if len(waiting) < after + 2:
            return False
        if waiting[after : after + 2] != b"\r\n":
            raise Malformed("A chunk is longer than it says.")
        self._pieces.append(bytes(waiting[start:after]))
        self._size += size
        del waiting[: after + 2]
        return True

    def _read_trailers(self, request: Request) -> bool:
        if self._bytes[:2] == b"\r\n":
            del self._bytes[:2]
        elif len(self._bytes) < 2:
            return False
        else:
            lines = self._take_head()
            if lines is None:
                return False
            request.trailers = read_fields(lines.decode("latin-1").split("\r\n"), 0)
        request.body = b"".join(self._pieces)
        self._pieces = []
        return True


def read_fields(lines: list[str], first: int) -> dict[str, str]:
    """Read headers.

    :param lines: without their ends.
    :param first: the index of the first one.
    :raises Malformed: one of them is none, is too long, or came twice and must not.
    """
    if len(lines) - first > MOST_FIELDS:
        raise Malformed(f"There are more than {MOST_FIELDS} headers.", 431)
    fields: dict[str, str] = {}
    for line in lines[first:]:
        if len(line) > LONGEST_LINE:
            if line[: len(_CAUSE)].lower() == _CAUSE:
                continue  # nobody here has a use for it
            raise Malformed("A header is too long.", 431)
        matched = _FIELD.fullmatch(line)
        if matched is None:
            raise Malformed("A header is malformed.")
        name = matched[1].lower()
        if name not in fields:
            fields[name] = matched[2].rstrip(" \t")
        elif name in _ONLY_ONCE:
            raise Malformed(f"The header {name} came twice.")
    return fields


def _body_length(fields: dict[str, str], minor: str) -> int | None:
    """Give the length of the body; None: it comes in chunks."""
    length, coding = fields.get("content-length"), fields.get("transfer-encoding")
    if fields.get("expect", "100-continue").lower() != "100-continue":
        raise Malformed("The only expectation that is met is 100-continue.", 417)
    if coding is not None:
        if length is not None or minor == "0":
            raise Malformed("The length of the body is given in two ways, or in one that HTTP/1.0 does not have.")
        if coding.lower() != "chunked":
            raise Malformed("The only transfer coding that is understood is chunked.", 501)
        return None
    if length is None:
        return 0
    if _LENGTH.fullmatch(length) is None:
        raise Malformed("The content length is no number.")
    return int(length)


def _keeps_alive(connection: str | None, minor: str) -> bool:
    if connection is None:
        return minor == "1"
    options = {option.strip() for option in connection.lower().split(",")}
    return "keep-alive" in options if minor == "0" else "close" not in options
