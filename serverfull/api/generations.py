"""Invoke as a developer sees it: each answer says which generation of the function's code has given it.

Put before the ordinary front where ``reload.generation_header`` asks for it, so that the hot path knows nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from serverfull.api.invocations import InvokeFront, InvokeRoute

if TYPE_CHECKING:
    from serverfull.api.invocations import Invocations
    from serverfull.domain.invocations import Invocation, Outcome
    from serverfull.invocation.requests import InvocationReader

HEADER = "X-Serverfull-Code-Generation"


class GenerationFront(InvokeFront):
    """Answers invocations, with a header more.

    :param invoker: gives outcomes that have a ``generation``; one without gets no header.
    """

    def __init__(self, invoker: Invocations, reader: InvocationReader) -> None:
        super().__init__(invoker, reader)
        self._inner = invoker

    async def answer(
        self, request: web.BaseRequest, route: InvokeRoute, request_id: str, *, direct: bool
    ) -> web.StreamResponse:
        """Answer one invocation, always as a response with headers of its own."""
        once = _Once(self._inner)
        response = await InvokeFront(once, self._reader).answer(request, route, request_id, direct=False)
        generation = getattr(once.outcome, "generation", None)
        if generation is not None:
            response.headers[HEADER] = str(generation)
        return response


class _Once:
    """Passes one invocation on, and keeps how it ended."""

    def __init__(self, inner: Invocations) -> None:
        self._inner = inner
        self.outcome: Outcome | None = None
        self.accept_event = inner.accept_event
        self.check = inner.check

    async def invoke(self, invocation: Invocation, /) -> Outcome:
        self.outcome = outcome = await self._inner.invoke(invocation)
        return outcome
