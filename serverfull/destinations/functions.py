"""Functions of this host, which get the record as an event: by the host's own queue, and not over the network.

A chain of functions that comes by one of them too often ends here: what would be refused when it runs, and told to the
next destination then, would go in circles for ever.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from serverfull.domain.invocations import Invocation
from serverfull.domain.limits import ASYNC_PAYLOAD_BYTES
from serverfull.domain.names import parse_function_reference
from serverfull.errors import DeliveryFailed, InvalidRequestContent, RecursiveInvocation, RequestError
from serverfull.interfaces import Deliverer

if TYPE_CHECKING:
    from serverfull.domain.events import Delivery


class Functions(Deliverer):
    """Lets functions of this host have records.

    :param accept: takes an event to run it later, as Invoke does; raises RecursiveInvocation where the function would
        be refused it.
    """

    def __init__(self, accept: Callable[[Invocation], Awaitable[None]]) -> None:
        self._accept = accept

    async def deliver(self, delivery: Delivery) -> None:
        """Let the host accept an event. It has the delivery's id: two that have the same are one that came twice.

        :raises DeliveryFailed: there is no such function, or the host takes no events now.
        """
        if len(delivery.body) > ASYNC_PAYLOAD_BYTES:
            raise DeliveryFailed(
                f"the record has {len(delivery.body)} bytes, and an event {ASYNC_PAYLOAD_BYTES} at most", final=True
            )
        function = parse_function_reference(delivery.target)
        invocation = Invocation(
            request_id=delivery.id,
            name=function.name,
            qualifier=function.qualifier,
            account=str(function.account),
            region=str(function.region),
            payload=delivery.body,
            invocation_type="Event",
            trace_id=delivery.trace_id,
        )
        try:
            await self._accept(invocation)
        except (RecursiveInvocation, InvalidRequestContent) as refused:
            raise DeliveryFailed(refused.message, final=True) from None
        except RequestError as refused:
            raise DeliveryFailed(f"{type(refused).__name__}: {refused.message}") from None

    async def aclose(self) -> None:
        """Do nothing: the queue is the host's."""
