"""NewRouter: the application with the Lambda API on it, a health check of one's own, a middleware and another route."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web
from aiohttp.typedefs import Handler

from serverfull import StaticFetcher, create_app, serve
from serverfull.config import load


def hello() -> str:
    return "Hello ƛ!"


async def version(request: web.Request) -> web.Response:
    return web.json_response({"version": 7})


@web.middleware
async def stamped(request: web.Request, handler: Handler) -> web.StreamResponse:
    answer = await handler(request)
    answer.headers["X-Stamp"] = "serverfull"
    return answer


def router() -> web.Application:
    settings = load().settings
    # RouterConfig.HealthCheck, RouterConfig.Fetcher; loggers and figures need no functions to be found by.
    settings = replace(settings, server=replace(settings.server, health_check="/alive"))
    app = create_app(StaticFetcher({"hello": hello}), settings)
    app.middlewares.append(stamped)
    app.router.add_get("/version", version)
    return app


if __name__ == "__main__":
    raise SystemExit(serve(router()))
