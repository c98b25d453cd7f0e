"""Who may read the log of functions, and that reading it keeps nobody waiting."""

from __future__ import annotations

import json
import threading
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import aiohttp
import pytest
from aiohttp import web

from serverfull.api.connection import REQUEST_ID
from serverfull.api.logs import add_logs
from serverfull.invocation.recent import RecentLog
from serverfull.testing.process import HostProcess

APP = "functions = {'hello': lambda event: print('a secret')}"
SPOOFED = {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1"}


def test_other_machines_may_not_read_logs_events_and_places_whatever_they_say_of_themselves(own_address, tmp_path):
    (tmp_path / "app.py").write_text(APP)
    with HostProcess.start("app.py", "--host", "0.0.0.0", "--insecure-no-auth", cwd=tmp_path) as host:
        host.invoke("hello", b"{}")
        for path in ("logs/hello", "logs/hello?follow=1", "logs/nobody", "events", "events/1", "functions"):
            request = Request(f"http://{own_address}:{host.port}/_serverfull/{path}", headers=SPOOFED)
            with pytest.raises(HTTPError) as refused:
                urlopen(request, timeout=20)
            assert refused.value.code == 403
            assert "Only clients on this machine" in json.load(refused.value)["Message"]
        assert "a secret" in host.request("GET", "/_serverfull/logs/hello").body.decode()


class Written:
    """A sink that has written everything."""

    async def written(self, within: float) -> None:
        pass


class Watched(RecentLog):
    """Notes which thread looks through it."""

    def __init__(self):
        super().__init__()
        self.readers: list[threading.Thread] = []

    def lines(self, function, since=None):
        self.readers.append(threading.current_thread())
        return super().lines(function, since)


async def test_all_that_is_kept_is_looked_through_off_the_loop():
    recent = Watched()
    line = '{"time":"2026-01-01T00:00:00.000Z","type":"function","function":"hello","requestId":"1","message":"x"}\n'
    recent.add(line * 1_000)
    app = web.Application()

    def admit(request):
        request[REQUEST_ID] = "an id"
        return "an id"

    add_logs(app, recent, Written(), admit=admit, draining=lambda: False)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"http://127.0.0.1:{site.port}/_serverfull/logs/hello") as r,
    ):
        assert (await r.text()) == line * 1_000
    await runner.cleanup()
    assert len(recent.readers) == 1
    assert recent.readers[0] is not threading.current_thread()


def test_a_path_that_leads_out_of_the_folder_of_files_shows_nothing(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "secret.log").write_text('{"time":"2026-01-01T00:00:00.000Z","message":"a secret"}\n')
    with HostProcess.start("app.py", cwd=tmp_path, env={"SERVERFULL_LOGGING__FILES": "logs"}) as host:
        host.invoke("hello", b"{}")
        for name in ("..%2Fsecret", "..%252Fsecret", "%2Fetc%2Fpasswd", "%00", "x" * 2_000, "."):
            answer = host.request("GET", f"/_serverfull/logs/{name}")
            assert (answer.status, answer.body) in ((200, b""), (404, answer.body))
            assert b"a secret" not in answer.body
        assert b"a secret" in host.request("GET", "/_serverfull/logs/hello").body
