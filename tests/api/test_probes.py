"""Probes on a real server, and on a listener that answers while the server's loop stands still."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from serverfull.api.gates import Gates
from serverfull.api.probes import AdminListener, add_probes, is_local, parse_address
from serverfull.config import ServerSettings
from serverfull.errors import AddressInUse, StartupError

PATHS = ("/healthcheck", "/_serverfull/live", "/_serverfull/ready", "/_serverfull/health", "/_localstack/health",
         "/_serverfull/info", "/metrics")  # fmt: skip


@dataclass
class Stall:
    function: str = "slow"
    seconds: float = 1.25
    stack: str = "File slow.py, line 1"


@dataclass
class View:
    state: str = "serving"
    stall: Stall | None = None
    failed: dict[str, str] = field(default_factory=dict)

    def failed_functions(self) -> Mapping[str, str]:
        return self.failed

    def info(self) -> Mapping[str, Any]:
        return {"version": "1"}

    def metrics_text(self) -> tuple[bytes, str]:
        return b"serverfull_up 1\n", "text/plain; version=0.0.4; charset=utf-8"


@dataclass
class Served:
    url: str
    client: aiohttp.ClientSession

    async def get(self, path: str, **headers: str) -> tuple[int, Any, Mapping[str, str]]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.get(self.url + path, headers=named) as response:
            body = await response.text()
            parsed = json.loads(body) if response.content_type == "application/json" else body
            return response.status, parsed, response.headers


@pytest.fixture
def view() -> View:
    return View()


@pytest.fixture
async def served(view: View, serve_app: Callable[..., Any]) -> AsyncIterator[Served]:
    app = web.Application()
    add_probes(app, view, gate=Gates(ServerSettings(), "0.0.0.0").check, health_check="/healthcheck")
    async with aiohttp.ClientSession() as client:
        yield Served(await serve_app(app, "0.0.0.0"), client)


async def test_a_healthy_host_says_so_on_every_path(served: Served) -> None:
    for path in PATHS:
        status, _, headers = await served.get(path)
        assert status == 200, path
        assert len(headers["x-amzn-RequestId"]) == 36
    assert (await served.get("/healthcheck"))[1] == {"status": "ok"}
    assert (await served.get("/_localstack/health"))[1] == {"status": "ok", "services": {"lambda": "running"}}
    assert (await served.get("/_serverfull/info"))[1] == {"version": "1"}
    assert (await served.get("/metrics"))[1] == "serverfull_up 1\n"
    assert (await served.get("/metrics"))[2]["Content-Type"].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize("state", ["starting", "draining"])
async def test_a_host_that_takes_no_calls_is_alive_and_not_ready(served: Served, view: View, state: str) -> None:
    view.state = state
    status, document, headers = await served.get("/_serverfull/ready")
    assert (status, document["status"], headers["Retry-After"]) == (503, state, "1")
    assert (await served.get("/_serverfull/health"))[1]["status"] == state
    assert (await served.get("/_serverfull/live"))[0] == 200
    assert (await served.get("/healthcheck"))[0] == 200


async def test_health_names_who_stalls_the_loop_and_who_failed(served: Served, view: View) -> None:
    view.stall = Stall()
    view.failed = {"broken": "11 threads lost"}
    document = (await served.get("/_serverfull/health"))[1]
    assert document["status"] == "degraded"
    assert document["stall"] == {"function": "slow", "seconds": 1.25}
    assert document["failed_functions"] == {"broken": "11 threads lost"}


async def test_pages_of_other_sites_get_nothing(served: Served) -> None:
    for path in PATHS:
        status, document, headers = await served.get(path, Origin="http://evil.example")
        assert status == 403, path
        assert headers["x-amzn-RequestId"]
        assert "serverfull_up" not in str(document)


async def test_other_machines_get_the_bare_status(served: Served, view: View, own_address: str) -> None:
    view.stall, view.failed = Stall(), {"broken": "why"}
    far = Served(served.url.replace("127.0.0.1", own_address), served.client)
    for path in ("/metrics", "/_serverfull/info"):
        status, document, headers = await far.get(path)
        assert (status, list(document)) == (403, ["message"])
        assert headers["x-amzn-RequestId"]
    document = (await far.get("/_serverfull/health"))[1]
    assert document == {"status": "degraded", "services": {"lambda": "running"}}
    spoofed = await far.get("/metrics", X_Forwarded_For="127.0.0.1", Forwarded="for=127.0.0.1")
    assert spoofed[0] == 403


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        (("127.0.0.1", 1), True),
        (("127.9.9.9", 1), True),
        (("::1", 1, 0, 0), True),
        (("::ffff:127.0.0.1", 1, 0, 0), True),
        (("::ffff:10.0.0.1", 1, 0, 0), False),
        (("10.0.0.1", 1), False),
        (("fe80::1%eth0", 1, 0, 2), False),
        (("nonsense", 1), False),
        ("", True),
        (None, False),
    ],
)
def test_the_connections_address_says_who_is_local(peer: object, local: bool) -> None:
    transport = SimpleNamespace(get_extra_info=lambda name: {"peername": peer}[name])
    assert is_local(SimpleNamespace(transport=transport)) is local  # type: ignore[arg-type]


Listen = Callable[..., AdminListener]


@pytest.fixture
def listener(view: View, strict_log: Any) -> Listen:
    """Make listeners for the view: ``listener(address)``, on a free port where no address is given."""

    def make(address: str = "127.0.0.1:0") -> AdminListener:
        settings = ServerSettings(admin_address=address)
        return AdminListener(view, gate=Gates(settings, "127.0.0.1").check, settings=settings, logger=strict_log)

    return make


class TestAdminListener:
    async def test_it_answers_while_the_servers_loop_stands_still(self, listener: Listen, view: View) -> None:
        async with listener() as admin:
            url = f"http://127.0.0.1:{admin.port}"
            assert fetch_while_blocked(url + "/_serverfull/live") == (200, {"status": "alive"})
            view.stall = Stall()
            status, document = fetch_while_blocked(url + "/_serverfull/live")
            assert status == 503
            assert document["stall"] == {"function": "slow", "seconds": 1.25, "stack": "File slow.py, line 1"}
            assert fetch_while_blocked(url + "/_serverfull/health")[1]["status"] == "degraded"
            ready = fetch_while_blocked(url + "/_serverfull/ready")
            assert ready == (503, {"status": "stalled", "stall": {"function": "slow", "seconds": 1.25}})
            view.stall = None
            assert fetch_while_blocked(url + "/_serverfull/ready") == (200, {"status": "ready"})
            assert fetch_while_blocked(url + "/metrics")[0] == 200

    async def test_the_gate_stands_before_it_too(self, listener: Listen) -> None:
        async with listener() as admin:
            url = f"http://127.0.0.1:{admin.port}/metrics"
            assert fetch_while_blocked(url, Host="evil.example")[0] == 403

    async def test_an_address_in_use_is_said_clearly(self, listener: Listen) -> None:
        async with listener() as admin:
            with pytest.raises(AddressInUse, match=rf"127\.0\.0\.1:{admin.port} is in use"):
                await listener(f"127.0.0.1:{admin.port}").__aenter__()

    async def test_an_address_of_another_machine_is_said_clearly(self, listener: Listen) -> None:
        with pytest.raises(StartupError, match=r"192\.0\.2\.1:1"):
            await listener("192.0.2.1:1").__aenter__()

    async def test_its_thread_and_socket_end_with_it(self, listener: Listen) -> None:
        admin = listener()
        async with admin:
            assert "serverfull-admin" in {thread.name for thread in threading.enumerate()}
        assert "serverfull-admin" not in {thread.name for thread in threading.enumerate()}
        await admin.__aexit__(None, None, None)
        with pytest.raises(urllib.error.URLError):
            fetch(f"http://127.0.0.1:{admin.port}/healthcheck")

    @pytest.mark.parametrize(
        ("text", "parsed"),
        [("[::1]:90", ("::1", 90)), (":90", ("127.0.0.1", 90)), ("name:0", ("name", 0))],
    )
    def test_addresses_are_read(self, text: str, parsed: tuple[str, int]) -> None:
        assert parse_address(text) == parsed

    @pytest.mark.parametrize("text", ["", "name", "name:x", "name:70000"])
    def test_what_is_no_address_is_refused(self, text: str) -> None:
        with pytest.raises(StartupError, match="host:port"):
            parse_address(text)


def fetch(url: str, **headers: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as response:
            status, body = response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            status, body = error.code, error.read()
    return status, json.loads(body) if body.startswith(b"{") else body


def fetch_while_blocked(url: str, **headers: str) -> tuple[int, Any]:
    """Ask in the thread of the running loop, which does nothing else meanwhile."""
    assert asyncio.get_running_loop().is_running()
    return fetch(url, **headers)
