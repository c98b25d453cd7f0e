"""An S3 server that does what it is told, right and wrong. It looks at no signature."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from aiohttp import web

from serverfull.storage.s3 import S3Endpoint


@dataclass
class _Object:
    content: bytes
    etag: str


class S3Stub:
    """Objects by their paths, ``/bucket/key``.

    :ivar requests: method and path of each request that came.
    :ivar held: where it is cleared, no request is answered.
    :ivar failing: the status that everything is answered with; 0: as it should be.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.held = asyncio.Event()
        self.held.set()
        self.failing = 0
        self._objects: dict[str, _Object] = {}
        self._after: list[tuple[str, str, Callable[[], Any]]] = []
        self._refused: set[str] = set()
        self._cut: dict[str, int] = {}
        self._redirects: dict[str, tuple[int, str]] = {}

    def put(self, path: str, content: bytes, etag: str) -> None:
        """Put an object there."""
        self._objects[path] = _Object(content, etag)

    def content(self, path: str) -> bytes | None:
        """Give what is there."""
        found = self._objects.get(path)
        return None if found is None else found.content

    def delete(self, path: str) -> None:
        """Take an object away."""
        self._objects.pop(path, None)

    def after(self, method: str, path: str, do: Callable[[], Any]) -> None:
        """Do something, once, when such a request has been answered."""
        self._after.append((method, path, do))

    def cut_off(self, path: str, times: int) -> None:
        """End the content of an object too early, so many times."""
        self._cut[path] = times

    def refuse(self, path: str) -> None:
        """Give nobody the object."""
        self._refused.add(path)

    def redirect(self, path: str, status: int, url: str) -> None:
        """Answer that the object is elsewhere."""
        self._redirects[path] = status, url

    async def __aenter__(self) -> S3Stub:
        server = web.Server(self._answer)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.endpoint = S3Endpoint(
            url=f"http://127.0.0.1:{port}", region="us-east-1", access_key_id="id", secret_access_key="secret"
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.held.set()
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = unquote(urlsplit(str(request.rel_url)).path)
        self.requests.append((request.method, path))
        await self.held.wait()
        if self.failing:
            return _error(self.failing, {403: "AccessDenied", 503: "SlowDown"}.get(self.failing, "InternalError"))
        if path in self._refused:
            return _error(403, "AccessDenied")
        if path in self._redirects:
            status, url = self._redirects[path]
            return web.Response(status=status, headers={"Location": url})
        if "list-type" in request.query:
            return self._listing(path, request.query.get("prefix", ""))
        if request.method == "PUT":
            if "Expect" in request.headers:  # or it waits for a second
                assert request.transport is not None
                request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            content = await request.read()
            self.put(path, content, hashlib.md5(content, usedforsecurity=False).hexdigest())
            return web.Response()
        if request.method == "DELETE":
            self.delete(path)
            return web.Response(status=204)
        answer = await self._object(request, path)
        for one in [one for one in self._after if one[:2] == (request.method, path)][:1]:
            self._after.remove(one)
            one[2]()
        return answer

    async def _object(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        found = self._objects.get(path)
        if found is None:
            return _error(404, "NoSuchKey")
        if (wanted := request.headers.get("If-Match")) and wanted.strip('"') != found.etag:
            return _error(412, "PreconditionFailed")
        headers = {"ETag": f'"{found.etag}"', "Last-Modified": "Sun, 22 Nov 2026 05:00:00 GMT"}
        if request.headers.get("If-None-Match", "").strip('"') == found.etag:
            return web.Response(status=304, headers=headers)
        if request.method == "GET" and self._cut.get(path, 0) > 0:
            self._cut[path] -= 1
            answer = web.StreamResponse(headers={**headers, "Content-Length": str(len(found.content))})
            await answer.prepare(request)
            await answer.write(found.content[: len(found.content) // 2])
            assert request.transport is not None
            request.transport.close()
            return answer
        return web.Response(body=found.content, headers=headers)

    def _listing(self, path: str, prefix: str) -> web.Response:
        names = [key.removeprefix(f"{path.rstrip('/')}/") for key in self._objects if key.startswith(f"{path}/")]
        folders = sorted({prefix + name[len(prefix) :].partition("/")[0] for name in names if name.startswith(prefix)})
        found = "".join(f"<CommonPrefixes><Prefix>{folder}/</Prefix></CommonPrefixes>" for folder in folders)
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
        return web.Response(text=text, content_type="application/xml")


def _error(status: int, code: str) -> web.Response:
    text = f"<Error><Code>{code}</Code><Message>as it was told</Message></Error>"
    return web.Response(status=status, text=text, content_type="application/xml")
