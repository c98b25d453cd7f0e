"""The composed application: extended, mounted, twice in one process, and its life from start to end."""

from __future__ import annotations

import asyncio
import io
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from serverfull import Fetcher, Function, Settings, StaticFetcher, create_app, serve
from serverfull.api import app as app_module
from serverfull.application import HOST, as_fetcher
from serverfull.config import LoggingSettings, StateSettings
from serverfull.errors import InternalFailure, NotFoundError, ShuttingDown, StateUnusable, TargetInvalid
from serverfull.host import Host
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


@pytest.mark.parametrize("mounted", [False, True], ids=["in the application", "in one around it"])
async def test_what_a_users_middleware_has_read_is_still_the_event(mounted: bool) -> None:
    seen: list[bytes] = []

    @web.middleware
    async def read(request: web.Request, handler: Any) -> web.StreamResponse:
        seen.append(await request.read())
        answer: web.StreamResponse = await handler(request)
        return answer

    app = create_app({"f": lambda event: event}, QUIET)
    site = web.Application(middlewares=[read]) if mounted else app
    if mounted:
        site.add_subapp("/lambda", app)
    else:
        app.middlewares.append(read)
    prefix = "/lambda" if mounted else ""
    async with TestClient(TestServer(site)) as client:
        answer = await client.post(prefix + INVOKE.format("f"), data=b'{"x": 1}')
        assert await answer.json() == {"x": 1}
        assert (await client.post(prefix + INVOKE.format("f"), data=b"{no json")).status == 400
        in_pieces = io.BytesIO(b"[" + b"1," * 100_000 + b"1]")  # sent in chunks, without a Content-Length
        answer = await client.post(prefix + INVOKE.format("f"), data=in_pieces, chunked=True)
        assert len(await answer.json()) == 100_001
        answer = await client.put(
            f"{prefix}/2017-10-31/functions/f/concurrency", json={"ReservedConcurrentExecutions": "many"}
        )
        assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (400, "SerializationException")
    assert len(seen) == 4


async def test_a_signal_of_the_application_sees_the_answers_of_invocations(start_host: Any) -> None:
    async def sign(request: web.Request, answer: web.StreamResponse) -> None:
        answer.headers["X-Mine"] = request.match_info["FunctionName"]

    host = await start_host({"f": lambda: 1}, extend=lambda app: app.on_response_prepare.append(sign))
    answer = await host.invoke("f")
    assert (answer.json(), answer.headers["x-mine"]) == (1, "f")


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
    began, go, ended = threading.Event(), threading.Event(), threading.Event()

    @web.middleware
    async def impatient(request: web.Request, handler: Any) -> web.StreamResponse:
        if began.is_set():
            answer: web.StreamResponse = await handler(request)
            return answer
        answering = asyncio.ensure_future(handler(request))
        await host.until(began.is_set)
        answering.cancel()
        await asyncio.wait([answering])
        return web.Response(status=504)

    def handler() -> None:
        began.set()
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
    began, release = threading.Event(), threading.Event()

    @web.middleware
    async def impatient(request: web.Request, handler: Any) -> web.StreamResponse:
        answering = asyncio.ensure_future(handler(request))
        await host.until(began.is_set)
        answering.cancel()
        await asyncio.wait([answering])
        return web.Response(status=504)

    def stuck() -> None:
        began.set()
        release.wait(20)

    host = await start_host({"f": Function(stuck, timeout=0.5)}, extend=lambda app: app.middlewares.append(impatient))
    assert (await host.invoke("f")).status == 504
    try:
        await host.until(lambda: host.host.invoker._units["f"].environment.lost)
        await host.until(lambda: host.host.admission.running == 0)  # a turn of the loop later
        assert not release.is_set()
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


def has_the_shape_of_awss_errors(answer: Any, document: dict[str, str]) -> bool:
    return bool(answer.headers["x-amzn-RequestId"] and answer.headers["x-amzn-ErrorType"] and document["message"])


@pytest.mark.parametrize("prefix", ["", "/lambda"])
async def test_on_a_users_own_server_what_is_unknown_is_answered_in_aws_form_too(prefix: str) -> None:
    async def page(request: web.Request) -> web.StreamResponse:
        if request.match_info["name"] == "none":
            raise web.HTTPNotFound(text="a page of the user's")
        if request.match_info["name"] == "moved":
            raise web.HTTPFound("/")
        return web.Response(text="mine")

    seen: list[int] = []

    @web.middleware
    async def watch(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            answer: web.StreamResponse = await handler(request)
        except web.HTTPException as error:
            seen.append(error.status)
            raise
        answer.headers["X-Mine"] = "yes"
        return answer

    app = create_app({"f": lambda: 1}, QUIET)
    app.router.add_get("/pages/{name}", page)
    app.middlewares.append(watch)
    site = app
    if prefix:
        site = web.Application()
        site.add_subapp(prefix, app)
    async with TestClient(TestServer(site)) as client:
        for method, path, status, kind in (
            ("GET", "/nothing/here", 404, "UnknownOperationException"),
            ("POST", "/pages/one/two", 404, "UnknownOperationException"),
            ("DELETE", "/pages/one", 405, "MethodNotAllowedException"),
            ("POST", "/healthcheck", 405, "MethodNotAllowedException"),
        ):
            answer = await client.request(method, prefix + path)
            assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (status, kind)
            assert has_the_shape_of_awss_errors(answer, await answer.json())
            assert ("GET" in answer.headers.get("Allow", "")) is (status == 405)
        assert seen == [404, 404, 405, 405]
        answer = await client.get(prefix + "/pages/one")
        assert (await answer.text(), answer.headers["X-Mine"]) == ("mine", "yes")
        assert await (await client.get(prefix + "/pages/none")).text() == "a page of the user's"
        assert (await client.get(prefix + "/pages/moved", allow_redirects=False)).status == 302
        answer = await client.post(prefix + INVOKE.format("f"))
        assert (answer.status, answer.headers["X-Mine"]) == (200, "yes")


async def figures_of(host: Any) -> dict[str, float]:
    text = (await host.request("GET", "/metrics")).body.decode()
    rows = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


async def test_the_age_of_events_is_shown_once_they_start_to_run(start_host: Any) -> None:
    go, waited = asyncio.Event(), 'serverfull_async_event_age_seconds_%s{function="f"}'
    host = await start_host({"f": Function(go.wait, max_concurrency=1)})
    await host.invoke("f", Invocation_Type="Event")
    await host.until(lambda: host.host.admission.running == 1)
    assert (await figures_of(host))[waited % "count"] == 1  # the handler is not at its end
    await host.invoke("f", Invocation_Type="Event")
    assert (await host.invoke("f")).status == 429
    await asyncio.sleep(0.15)  # the second event grows old behind the limit
    assert (await figures_of(host))[waited % "count"] == 1
    go.set()
    await host.until(lambda: host.host.admission.running == 0 and not host.host.events.waiting)
    assert (await host.invoke("f")).json() is True
    figures = await figures_of(host)
    assert figures[waited % "count"] == 2  # of the events alone, and each of them once
    assert figures[waited % "sum"] > 0.15


async def test_functions_with_a_limit_of_their_own_are_not_among_the_unreserved_executions(start_host: Any) -> None:
    go = asyncio.Event()
    host = await start_host({"limited": Function(go.wait, max_concurrency=5), "free": Function(go.wait)})
    calls = [asyncio.create_task(host.invoke(name)) for name in ("limited", "limited", "free")]
    await host.until(lambda: host.host.admission.running == 3)
    figures = await figures_of(host)
    assert figures["serverfull_account_concurrent_executions"] == 3
    assert figures["serverfull_unreserved_concurrent_executions"] == 1
    go.set()
    await asyncio.gather(*calls)


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


async def test_a_start_that_fails_leaves_no_threads_and_no_state_behind(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    settings = replace(QUIET, state=StateSettings(path=str(tmp_path)))
    (tmp_path / "code").write_text("in the place of a folder")
    with pytest.raises(StateUnusable, match="cannot keep code"):
        await Host(StaticFetcher({}), settings).__aenter__()
    assert set(threading.enumerate()) <= before
    (tmp_path / "code").unlink()
    async with Host(StaticFetcher({}), settings) as host:
        assert host.state == "serving"


async def test_a_host_that_fails_after_its_state_was_opened_lets_others_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(QUIET, state=StateSettings(path=str(tmp_path)))
    broken = Host(StaticFetcher({}), settings)
    monkeypatch.setattr(broken, "runtime", Unstartable())
    with pytest.raises(OSError, match="no more threads"):
        await broken.__aenter__()
    async with Host(StaticFetcher({}), settings):
        pass


async def test_a_state_that_is_being_opened_when_the_host_ends_is_closed_too() -> None:
    before = set(threading.enumerate())
    async with Host(StaticFetcher({}), QUIET) as host:
        opening = asyncio.create_task(host.control.operations())
        await asyncio.sleep(0)
    await opening
    with pytest.raises(ShuttingDown):
        await host.control.operations()
    assert "serverfull-state" not in {thread.name for thread in set(threading.enumerate()) - before}


async def test_on_a_users_own_server_other_machines_may_read_and_not_deploy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with TestClient(TestServer(create_app({"f": lambda: 1}, QUIET))) as client:
        layer = "/2018-10-31/layers/l/versions"
        assert "Could not unzip" in (await (await client.post(layer, json={"Content": {"ZipFile": "eA=="}})).text())
        monkeypatch.setattr(app_module, "is_local", lambda request: False)
        refused = await client.post(layer, json={"Content": {"ZipFile": "eA=="}})
        assert refused.status == 409
        assert "no deployments from other machines" in await refused.text()
        assert (await client.get("/2015-03-31/functions/")).status == 200
        assert (await client.post(INVOKE.format("f"))).status == 200


class Unstartable:
    def check(self, function: Function) -> None:
        pass

    async def __aenter__(self) -> None:
        raise OSError("no more threads")

    async def __aexit__(self, *exc: object) -> None:
        pass


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


def test_an_application_that_holds_a_host_only_below_a_path_is_refused_in_words() -> None:
    site = web.Application()
    site.add_subapp("/lambda", create_app({"f": lambda: 1}, QUIET))
    with pytest.raises(TypeError, match=r"aiohttp\.web\.run_app\(application\)"):
        serve(site)


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


async def test_a_failure_that_the_host_names_itself_is_in_its_log_with_the_cause(start_host: Any) -> None:
    class Broken(FetcherInterface):
        async def fetch(self, name: str, qualifier: str | None = None) -> Function:
            raise InternalFailure from OSError("the disk is gone")

        async def list(self) -> dict[str, Function]:
            return {}

    host = await start_host(Broken())
    for path in ("/2015-03-31/functions/f/invocations", "/2015-03-31/functions/f"):
        answer = await host.request("POST" if path.endswith("s") else "GET", path)
        assert (answer.status, answer.error_type) == (500, "ServiceException")
        assert "disk" not in answer.body.decode()
        (logged,) = [fields for _, event, fields in host.log.lines if event == "request failed"]
        assert str(logged["exc_info"].__cause__) == "the disk is gone"
        assert logged["request_id"] == answer.request_id
        host.log.lines.clear()
