"""A host behind HTTP: an aiohttp application that answers the Lambda API, and what else a host is asked over it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from serverfull.api.app import Front, LazyProtocol, make_application
from serverfull.api.code import add_code_downloads
from serverfull.api.contracts import ContractDocuments
from serverfull.api.event_views import OwnEvents
from serverfull.api.events import add_events
from serverfull.api.gates import Gates
from serverfull.api.invocations import InvokeFront
from serverfull.api.logs import LogReader, LogWriter, add_logs
from serverfull.api.notifications import add_notifications
from serverfull.api.probes import add_probes
from serverfull.api.survey import add_survey
from serverfull.fetchers.static import StaticFetcher
from serverfull.host import Host
from serverfull.interfaces import Fetcher

if TYPE_CHECKING:
    from serverfull.config import Settings
    from serverfull.domain.functions import Function, Handler
    from serverfull.fetchers.answers import MockAnswers
    from serverfull.host import Sharing

HOST: web.AppKey[Host] = web.AppKey("serverfull_host", Host)
"""Where an application made by `create_app` keeps its host."""

FRONT: web.AppKey[Front] = web.AppKey("serverfull_front", Front)
"""Where an application made by `create_app` keeps what answers the Lambda API."""


def create_app(
    fetcher: Fetcher | Mapping[str, Function | Handler],
    settings: Settings | None = None,
    *,
    logger: Any = None,
    sharing: Sharing | None = None,
    mock: MockAnswers | None = None,
) -> web.Application:
    """Build an aiohttp application that serves functions behind the Lambda API.

    Add middlewares and routes to it, mount it with ``add_subapp``, or give it to `serve`. The host behind it starts and
    ends with the application.

    :param fetcher: resolves names to functions; a mapping is served by a `StaticFetcher`.
    :param settings: None means all defaults.
    :param logger: takes the host's own log instead of what the settings say; structlog's loggers fit.
    :param sharing: what the host shares with other processes; made by `serve` where there are several workers.
    :param mock: answers without running handlers, from there. None: the handlers run, or the settings say otherwise.
    """
    host = Host(as_fetcher(fetcher), settings, logger, sharing, mock)
    gates = Gates(host.settings.server, host.settings.server.host)
    front = Front(
        invoke=_invoke_front(host),
        management=LazyProtocol(host.control.operations),
        contracts=ContractDocuments(host.registered),
        reader=host.reader,
        request_ids=host.request_ids,
        gates=gates,
        draining=lambda: host.draining,
        logger=host.logger,
    )
    app = make_application(front)
    add_probes(
        app,
        host,
        gate=gates.check,
        health_check=host.settings.server.health_check,
        new_request_id=host.request_ids.new,
    )
    add_code_downloads(app, host.control, admit=front.admit)
    add_notifications(app, host.control.notice, admit=front.admit)
    own_events = OwnEvents(lambda: host.events)
    add_events(app, sharing.events.view(own_events) if sharing else own_events, admit=front.admit)
    add_logs(app, *_kept_log(host), admit=front.admit, draining=lambda: host.draining)
    add_survey(app, host.survey, reader=host.reader, admit=front.admit)
    app[HOST] = host
    app[FRONT] = front

    async def run_host(_app: web.Application) -> AsyncIterator[None]:
        async with host:
            yield

    app.cleanup_ctx.append(run_host)
    return app


def _invoke_front(host: Host) -> InvokeFront:
    if host.settings.reload.generation_header:
        from serverfull.api.generations import GenerationFront

        return GenerationFront(host.front, host.reader)
    return InvokeFront(host.front, host.reader)


def as_fetcher(functions: Fetcher | Mapping[str, Function | Handler]) -> Fetcher:
    """Give a fetcher for what users hand in.

    :raises TypeError: it is nothing of the kind.
    """
    if isinstance(functions, Fetcher):
        return functions
    if not isinstance(functions, Mapping):
        raise TypeError(f"functions must be a Fetcher or a mapping of names to handlers, not {functions!r}")
    return StaticFetcher(functions)


def _kept_log(host: Host) -> tuple[LogReader, LogWriter | None]:
    """Give what the log can be read from, and what writes that: files, of all workers, or this process's memory."""
    if "files" in host.sinks:
        from serverfull.invocation.files import FileLog

        return FileLog(Path(host.settings.logging.files)), host.sinks["files"]
    return host.recent, None if host.sharing else host.sinks.get("stream")
