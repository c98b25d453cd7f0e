"""Downloads of deployment packages over a real socket, on the host's own server and on a plain one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from serverfull.api.code import add_code_downloads
from serverfull.api.connection import REQUEST_ID, absolute_host
from serverfull.api.gates import Gates
from serverfull.config import ServerSettings
from serverfull.errors import ShuttingDown
from serverfull.storage.code import FileCodeStore

PACKAGE = bytes(range(256)) * 4000
"""Larger than a piece; whether it is a zip archive does not matter here."""


@dataclass
class Served:
    url: str
    store: FileCodeStore
    client: aiohttp.ClientSession
    draining: bool = False

    async def link(self, seconds: int = 600) -> str:
        return self.url + await self.store.url(await self.store.put(PACKAGE), seconds)


@pytest.fixture
async def served(tmp_path: Path, serve_app: Callable[..., Any]) -> AsyncIterator[Served]:
    app, gates = web.Application(), Gates(ServerSettings(), "127.0.0.1")
    store = FileCodeStore(tmp_path, recent=0)

    def admit(request: web.BaseRequest) -> str:
        request[REQUEST_ID] = "the-request-id"
        gates.check(request.headers, absolute_host(request))
        if found.draining:
            raise ShuttingDown
        return "the-request-id"

    add_code_downloads(app, store, admit=admit)
    async with aiohttp.ClientSession() as client:
        found = Served(await serve_app(app), store, client)
        yield found
    await store.aclose()


async def test_a_link_downloads_the_package(served: Served) -> None:
    async with served.client.get(await served.link()) as answer:
        assert (answer.status, await answer.read()) == (200, PACKAGE)
    assert answer.headers["Content-Type"] == "application/zip"
    assert answer.headers["Content-Length"] == str(len(PACKAGE))
    assert answer.headers["x-amzn-RequestId"] == "the-request-id"
    assert "ETag" not in answer.headers


async def test_head_gives_the_size_alone(served: Served) -> None:
    async with served.client.head(await served.link()) as answer:
        assert (answer.status, await answer.read()) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(PACKAGE))


async def refusal(served: Served, url: str, **headers: str) -> tuple[int, str, str]:
    async with served.client.get(url, headers=headers) as answer:
        document = await answer.json()
    assert answer.headers["x-amzn-RequestId"] == "the-request-id"
    return answer.status, answer.headers["x-amzn-ErrorType"], document["Message"]


async def test_a_link_whose_time_is_over_is_refused(served: Served) -> None:
    for seconds in (0, -1):
        link = await served.link(seconds)
        assert await refusal(served, link) == (403, "AccessDeniedException", "Request has expired")
    assert str(int(time.time()))[:5] in link


async def test_a_link_that_was_changed_is_refused(served: Served) -> None:
    link = await served.link()
    path, _, query = link.partition("?")
    expires, _, signature = query.partition("&")
    later = f"expires={int(expires.removeprefix('expires=')) + 1}"
    for changed in (
        path,
        f"{path}?{expires}",
        f"{path}?{later}&{signature}",
        f"{path}?expires=x&{signature}",
        f"{path}?expires={'9' * 5000}&{signature}",
        f"{path}?expires=%D9%A1&{signature}",
        f"{link}0",
        f"{path[:-1]}_?{query}",
        f"{path[:-64]}..%2F.key?{query}",
        f"{path[:-64]}{'0' * 64}?{query}",
    ):
        status, name, message = await refusal(served, changed)
        assert (status, name) == (403, "AccessDeniedException"), changed
        assert message.startswith("The request signature we calculated does not match"), changed


async def test_a_link_to_what_was_deleted_says_so(served: Served) -> None:
    link = await served.link()
    await served.store.sweep(set())
    status, name, message = await refusal(served, link)
    assert (status, name) == (404, "ResourceNotFoundException")
    assert "not kept" in message


async def test_pages_of_other_sites_and_a_draining_host_are_as_everywhere(served: Served) -> None:
    link = await served.link()
    status, name, _ = await refusal(served, link, Origin="http://evil.example")
    assert (status, name) == (403, "AccessDeniedException")
    served.draining = True
    async with served.client.get(link) as answer:
        assert answer.status == 503


async def test_a_client_that_goes_in_the_middle_harms_nobody(served: Served) -> None:
    link = await served.link()
    async with served.client.get(link) as answer:
        assert await answer.content.read(10) == PACKAGE[:10]
        answer.close()
    async with asyncio.timeout(15), served.client.get(link) as answer:
        assert await answer.read() == PACKAGE
