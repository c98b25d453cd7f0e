"""Topics of SNS. The tracing header of a message is that of the request: a topic passes it on to who has subscribed.

AWS: https://docs.aws.amazon.com/sns/latest/api/API_Publish.html and
https://docs.aws.amazon.com/xray/latest/devguide/xray-services-sns.html
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from serverfull.destinations.messages import message_attributes, trace_header
from serverfull.destinations.services import TRACE
from serverfull.interfaces import Deliverer

if TYPE_CHECKING:
    from serverfull.destinations.services import Service
    from serverfull.domain.events import Delivery


class Topics(Deliverer):
    """Publishes messages."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def deliver(self, delivery: Delivery) -> None:
        """Publish a message.

        :raises DeliveryFailed: the topic is not there, or does not take it.
        """
        await self._service.call(delivery.target, delivery.target.split(":")[3], partial(_publish, delivery))

    async def aclose(self) -> None:
        """Give back connections."""
        self._service.close()


def _publish(delivery: Delivery, client: Any) -> None:
    TRACE.set(trace_header(delivery))
    client.publish(
        TopicArn=delivery.target, Message=delivery.body.decode(), MessageAttributes=message_attributes(delivery)
    )
