"""Calls of one service of AWS's, or of what stands for it: through boto3, each on a thread of its own, in one attempt.

So many calls of a target run at once, and so many of the service; others wait on the loop, in the order in which they
came. A target that did not answer in time is left alone for a while, and what is meant for it fails at once, so that
those who hang take no threads from those who answer. Nothing waits here before another attempt: the queue of events
does, which keeps what is to be delivered over the end of the host.

boto3 is an extra (``destinations``), imported on such a thread by the first call. Threads are daemons: no service keeps
a host from ending.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from serverfull.errors import DeliveryFailed

if TYPE_CHECKING:
    from serverfull.destinations.endpoints import Endpoint

TRACE: ContextVar[str | None] = ContextVar("serverfull_trace", default=None)
"""The tracing header that a call sends in HTTP, where its operation has no member for it. Each call has a context.

AWS: https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader
"""

_MOST_OF_TARGET = 4
"""Calls of one target at once."""

_MOST = 16
"""Calls of a service at once."""

_CONNECT_TIMEOUT = 3.0
"""Seconds within which a connection is there, or nobody is."""

_MOST_TIMEOUTS = 4
"""Times the timeout that a call may take as a whole: it may be two requests, of which each connects and is answered."""

_ENDLESS = "the service has begun to answer, and does not come to an end"

_MOST_SILENT = 1000
"""Targets that are left alone at most; beyond it they are asked again too soon, which costs time alone."""

FINAL_CODES = frozenset(
    (
        "EntityTooLarge",
        "InvalidArgument",
        "InvalidMessageContents",
        "InvalidParameter",
        "InvalidParameterValue",
        "MalformedDetail",
        "ParameterValueInvalid",
        "RequestEntityTooLarge",
        "ValidationException",
    )
)
"""Errors that the same message would meet again: it is too large, mostly. All others may pass, also a missing target,
which somebody may make, and a missing right, which somebody may give."""


class _Unanswered(DeliveryFailed):
    """A service did not answer in time."""


class Service:
    """Clients and threads for one service. Its methods are called on the loop."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._clients: dict[str, Any] = {}
        self._making = threading.Lock()
        self._calls = asyncio.Semaphore(_MOST)
        self._of_target: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._silent: dict[str, tuple[float, str]] = {}

    async def call(self, target: str, region: str, work: Callable[[Any], None]) -> None:
        """Call the service once.

        :param target: the ARN that the call is about.
        :param region: whose endpoint and signature it needs.
        :param work: gets boto3's client, on a thread; being cancelled does not stop it.
        :raises DeliveryFailed: it did not answer, refused, or has not answered calls of that target a moment ago.
        """
        turn = self._of_target.get(target)
        if turn is None:
            turn = self._of_target[target] = asyncio.Semaphore(_MOST_OF_TARGET)
        async with turn, self._calls:
            self._check_silence(target)
            try:
                async with asyncio.timeout(_MOST_TIMEOUTS * self._endpoint.timeout):
                    await _on_thread(partial(self._call, region, work), f"serverfull-{self._endpoint.service}")
            except TimeoutError:  # it answers, in pieces that come in time: its thread is left behind
                self._leave_alone(target, _ENDLESS)
                raise DeliveryFailed(_ENDLESS) from None
            except _Unanswered as failure:
                self._leave_alone(target, failure.reason)
                raise
            self._silent.pop(target, None)

    def _check_silence(self, target: str) -> None:
        """Refuse a call of a target that is left alone; of those that come afterwards, one finds out for all."""
        if target not in self._silent:
            return
        until, reason = self._silent[target]
        now = asyncio.get_running_loop().time()
        if now < until:
            raise DeliveryFailed(reason)
        self._silent[target] = now + self._endpoint.timeout, reason

    def _leave_alone(self, target: str, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        if len(self._silent) >= _MOST_SILENT:
            self._silent = {known: until for known, until in self._silent.items() if until[0] > now}
        if len(self._silent) < _MOST_SILENT:
            self._silent[target] = now + self._endpoint.timeout, reason

    def _call(self, region: str, work: Callable[[Any], None]) -> None:
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            ConnectTimeoutError,
            ParamValidationError,
            ReadTimeoutError,
        )
        from botocore.parsers import ResponseParserError

        try:
            work(self._client(region))
        except ClientError as error:
            raise refusal(
                error.response.get("Error", {}), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            ) from None
        except (ConnectTimeoutError, ReadTimeoutError) as error:
            raise _Unanswered(str(error)) from None
        except ParamValidationError as error:
            raise DeliveryFailed(str(error), final=True) from None
        except (BotoCoreError, ResponseParserError, OSError) as error:
            raise DeliveryFailed(f"{type(error).__name__}: {error}") from None

    def _client(self, region: str) -> Any:
        with self._making:
            client = self._clients.get(region)
            if client is None:
                client = self._clients[region] = make_client(self._endpoint, region)
            return client

    def close(self) -> None:
        """Close connections that nobody uses. Closing twice is fine."""
        with self._making:
            for client in self._clients.values():
                client.close()


def refusal(error: dict[str, Any], status: int | None = None) -> DeliveryFailed:
    """Make what a service's error means for a delivery.

    :param error: with ``Code`` and ``Message``.
    :param status: of HTTP.
    """
    code = str(error.get("Code", ""))
    return DeliveryFailed(f"{code}: {error.get('Message', '')}", final=code in FINAL_CODES or status == 413)


def make_client(endpoint: Endpoint, region: str) -> Any:
    """Make boto3's client. At a URL of one's own, requests are signed by nobody where there are no credentials.

    They are signed all the same, because the signature names service and region.
    """
    from boto3.session import Session
    from botocore.config import Config

    session = Session(
        profile_name=endpoint.profile,
        region_name=region,
        aws_access_key_id=endpoint.access_key_id,
        aws_secret_access_key=endpoint.secret_access_key,
        aws_session_token=endpoint.session_token,
    )
    config = Config(
        connect_timeout=min(_CONNECT_TIMEOUT, endpoint.timeout),
        read_timeout=endpoint.timeout,
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=_MOST,
        signature_version="v4" if endpoint.service != "s3" else "s3v4",
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        ignore_configured_endpoint_urls=True,
    )
    nobody = endpoint.url is not None and session.get_credentials() is None
    keys = {"aws_access_key_id": "nobody", "aws_secret_access_key": "nobody"} if nobody else {}
    client = session.client(endpoint.service, endpoint_url=endpoint.url, config=config, **keys)
    client.meta.events.register("before-call", _add_trace)
    return client


def _add_trace(params: dict[str, Any], **_context: Any) -> None:
    """Give a request its header, as AWS's SDKs do in a function."""
    if trace := TRACE.get():
        params["headers"]["X-Amzn-Trace-Id"] = trace


async def _on_thread(work: Callable[[], None], name: str) -> None:
    """Do work on a thread that keeps nobody from ending; what it raises comes out here."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def run() -> None:
        try:
            work()
        except Exception as error:  # the thread's boundary: who waits for it is told
            failure: Exception | None = error
        else:
            failure = None
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, done, failure)

    contextvars.Context().run(threading.Thread(target=run, name=name, daemon=True).start)
    await done


def _settle(done: asyncio.Future[None], failure: Exception | None) -> None:
    if done.done():  # whoever waited has been cancelled
        return
    if failure is None:
        done.set_result(None)
    else:
        done.set_exception(failure)
