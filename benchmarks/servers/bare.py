"""The yardstick: aiohttp on uvloop with one dynamic route and nothing else that answers the same bytes.

Started by the harness as ``python -m benchmarks.servers.bare --port N``. It reads the request body, parses nothing
unless ``--json`` is given, and has no access log. Single-threaded; ``--processes 2`` forks first and shares the port.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Awaitable, Callable

from aiohttp import web

from benchmarks.busy import busy

HELLO = b'"hello"'
ROUTE = "/2015-03-31/functions/{name}/invocations"


async def hello(body: bytes) -> bytes:
    return HELLO


async def echo(body: bytes) -> bytes:
    return body


async def echo_parsed(body: bytes) -> bytes:
    return json.dumps(json.loads(body)).encode()


async def sleep(body: bytes) -> bytes:
    await asyncio.sleep(0.005)
    return HELLO


async def cpu(body: bytes) -> bytes:
    return b"%d" % busy()


ANSWERS: dict[str, Callable[[bytes], Awaitable[bytes]]] = {
    "hello": hello,
    "log": hello,
    "echo": echo,
    "sleep": sleep,
    "cpu": cpu,
}


def application(parse_json: bool) -> web.Application:
    """Make the application; ``parse_json`` makes echo parse and serialise as a function host has to."""
    answers = {**ANSWERS, "echo": echo_parsed} if parse_json else ANSWERS

    async def invoke(request: web.Request) -> web.Response:
        answer = await answers[request.match_info["name"]](await request.read())
        return web.Response(body=answer, content_type="application/json")

    app = web.Application(client_max_size=8 * 1024 * 1024)
    app.router.add_post(ROUTE, invoke)
    return app


async def serve(port: int, parse_json: bool, share_port: bool) -> None:
    """Serve until the process is ended."""
    runner = web.AppRunner(application(parse_json), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_port=share_port).start()
    print(f"bare ready http://127.0.0.1:{port}", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--stock-loop", action="store_true", help="asyncio's own loop in place of uvloop")
    parser.add_argument("--json", action="store_true", help="echo parses and serialises the body")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    for _ in range(options.processes - 1):
        if os.fork() == 0:
            break
    main_task = serve(options.port, options.json, options.processes > 1)
    if options.stock_loop:
        asyncio.run(main_task)
        return
    import uvloop  # late, so that the stock loop is measured without it

    uvloop.run(main_task)


if __name__ == "__main__":
    main()
