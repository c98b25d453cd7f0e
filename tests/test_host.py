"""The composed application: extended, mounted, twice in one process, and its life from start to end."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from serverfull import Fetcher, Function, Settings, StaticFetcher, create_app, serve
from serverfull.api import app as app_module
from serverfull.config import LoggingSettings
from serverfull.errors import NotFoundError, TargetInvalid
from serverfull.host import HOST, as_fetcher
from serverfull.interfaces import Fetcher as FetcherInterface

INVOKE = "/2015-03-31/functions/{}/invocations"
QUIET = Settings(logging=LoggingSettings(functions="NULL", output="NULL"))


async def test_a_users_middleware_sees_invocations_and_may_change_their_answers(start_host: Any) -> None:
    seen: list[tuple[str, str, int]] = []

    @web.middleware
    async def watch(request: web.Request, handler: Any) -> web.StreamResponse:
        answer: web.StreamResponse = await handler(request)
        seen.append((request.method, request.match_info["FunctionName"], answer.status))
        answer.headers["X-Mine"] = "yes"
        return answer

    host = await start_host({"f": lambda event: event}, extend=lambda app: app.middlewares.append(watch))
    answer = await host.invoke("f", {"x": 1})
    assert (answer.status, answer.json(), answer.headers["x-mine"]) == (200, {"x": 1}, "yes")
    assert seen == [("POST", "f", 200)]
    assert (await host.invoke("g")).error_type == "ResourceNotFoundException"


async def test_without_middleware_the_answer_is_written_directly(
    start_host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    routed: list[int] = []

    async def answer_route(self: Any, request: web.Request) -> web.StreamResponse:
        routed.append(1)
        return web.Response()

    monkeypatch.setattr(app_module.Front, "answer_route", answer_route)
    host = await start_host({"f": lambda: 1})
    assert (await host.invoke("f")).status == 200
    assert not routed


async def test_a_middleware_that_gives_up_waiting_does_not_free_the_permit_of_a_running_handler(
    start_host: Any,
) -> None:
    go, ended = threading.Event(), threading.Event()

    @web.middleware
    async def impatient(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            async with asyncio.timeout(0.05):
                answer: web.StreamResponse = await handler(request)
                return answer
        except TimeoutError:
            return web.Response(status=504)

    def handler() -> None:
        go.wait(20)
        ended.set()

    host = await start_host(
        {"f": Function(handler, max_concurrency=1, timeout=30)},
        extend=lambda app: app.middlewares.append(impatient),
    )
    assert (await host.invoke("f")).status == 504
    assert host.host.admission.running == 1
    assert (await host.invoke("f")).status == 429
    go.set()
    await host.until(ended.is_set)
    await host.until(lambda: host.host.admission.running == 0)


async def test_a_handler_that_outlives_its_caller_still_times_out(start_host: Any) -> None:
    release = threading.Event()

    @web.middleware
    async def impatient(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            async with asyncio.timeout(0.02):
                answer: web.StreamResponse = await handler(request)
                return answer
        except TimeoutError:
            return web.Response(status=504)

    host = await start_host(
        {"f": Function(lambda: release.wait(20), timeout=0.1)},
        extend=lambda app: app.middlewares.append(impatient),
    )
    assert (await host.invoke("f")).status == 504
    try:
        await host.until(lambda: host.host.invoker._units["f"].environment.lost)
        assert host.host.admission.running == 0
    finally:
        release.set()


async def test_a_users_routes_stand_beside_the_api(start_host: Any) -> None:
    async def hello(request: web.Request) -> web.StreamResponse:
        return web.Response(text="mine")

    host = await start_host({"f": lambda: 1}, extend=lambda app: app.router.add_get("/mine", hello))
    assert (await host.request("GET", "/mine")).body == b"mine"
    assert (await host.invoke("f")).status == 200
    listed = (await host.request("GET", "/2015-03-31/functions/")).json()["Functions"]
    assert [one["FunctionName"] for one in listed] == ["f"]


async def test_an_application_below_a_prefix_serves_the_whole_api() -> None:
    site = web.Application()
    site.add_subapp("/lambda", create_app({"f": lambda event, context: context.invoked_function_arn}, QUIET))
    async with TestClient(TestServer(site)) as client:
        for name in ("f", "f:$LATEST", "arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Af"):
            answer = await client.post("/lambda" + INVOKE.format(name))
            assert answer.status == 200
            assert "function:f" in await answer.json()
        answer = await client.post("/lambda/2014-11-13/functions/f/invoke-async/", data=b"{}")
        assert answer.status == 202
        answer = await client.get("/lambda/2015-03-31/functions/")
        assert [one["FunctionName"] for one in (await answer.json())["Functions"]] == ["f"]
        missing = await client.post("/lambda" + INVOKE.format("g"))
        assert (missing.status, missing.headers["x-amzn-ErrorType"]) == (404, "ResourceNotFoundException")
        assert missing.content_type == "application/json"


async def test_two_applications_in_one_process_are_strangers() -> None:
    one, two = create_app({"f": lambda: "one"}, QUIET), create_app({"f": lambda: "two", "g": lambda: 2}, QUIET)
    async with TestClient(TestServer(one)) as first, TestClient(TestServer(two)) as second:
        assert await (await first.post(INVOKE.format("f"))).json() == "one"
        assert await (await second.post(INVOKE.format("f"))).json() == "two"
        assert (await first.post(INVOKE.format("g"))).status == 404
        assert one[HOST].metrics is not two[HOST].metrics


async def test_the_host_ends_with_its_application_and_leaves_no_threads() -> None:
    before = set(threading.enumerate())
    app = create_app({"f": lambda: 1, "own": Function(asyncio.sleep, loop="own")}, QUIET)
    async with TestClient(TestServer(app)) as client:
        assert await (await client.post(INVOKE.format("f"))).json() == 1
        await client.post(INVOKE.format("own"), data=b"0")
        assert app[HOST].state == "serving"
    assert app[HOST].state == "stopped"
    async with asyncio.timeout(10):
        while {t for t in threading.enumerate() if t.name.startswith("serverfull")} - before:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)


async def test_an_application_that_never_starts_costs_no_thread() -> None:
    before = set(threading.enumerate())
    create_app({"f": lambda: 1})
    assert set(threading.enumerate()) <= before


class Broken(Fetcher):
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        raise self.error

    async def list(self) -> Any:
        return {}


async def test_a_fetcher_that_fails_is_the_hosts_failure_and_says_nothing_secret(start_host: Any) -> None:
    host = await start_host(Broken(OSError("password=hunter2")))
    for kind in ("RequestResponse", "Event", "DryRun"):
        answer = await host.invoke("f", Invocation_Type=kind)
        assert (answer.status, answer.error_type) == (500, "ServiceException")
        assert b"hunter2" not in answer.body
    assert (await (await start_host(Broken(NotFoundError("f")))).invoke("f")).status == 404


def test_what_users_hand_in_becomes_a_fetcher() -> None:
    assert isinstance(as_fetcher({"f": print}), StaticFetcher)
    fetcher: FetcherInterface = Broken(OSError())
    assert as_fetcher(fetcher) is fetcher


@pytest.mark.parametrize("start", [create_app, serve])
def test_what_cannot_be_served_is_refused_in_words(start: Any) -> None:
    with pytest.raises(TypeError, match="functions must be a Fetcher or a mapping of names to handlers, not 5"):
        start(5)


async def test_a_host_does_not_start_with_a_fetcher_whose_listing_has_another_form(start_host: Any) -> None:
    class Wrong(StaticFetcher):
        async def list(self) -> Any:
            return ["f"]

    with pytest.raises(TargetInvalid, match=r"Wrong\.list\(\) must give a mapping"):
        await start_host(Wrong({}))


async def test_a_draining_host_answers_503_in_aws_form(start_host: Any) -> None:
    host = await start_host({"f": lambda: 1})
    host.host.state = "draining"
    answer = await host.invoke("f")
    assert (answer.status, answer.error_type) == (503, "ServiceException")
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["connection"] == "close"
    assert (await host.request("GET", "/2015-03-31/functions/")).status == 503
