"""Queues of SQS. The URL of a queue is asked for once, and again when there is no queue at it any more.

AWS: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from serverfull.destinations.messages import message_attributes, trace_header
from serverfull.interfaces import Deliverer

if TYPE_CHECKING:
    from serverfull.destinations.services import Service
    from serverfull.domain.events import Delivery


class Queues(Deliverer):
    """Sends messages."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._urls: dict[str, str] = {}

    async def deliver(self, delivery: Delivery) -> None:
        """Send a message.

        :raises DeliveryFailed: the queue is not there, or does not take it.
        """
        await self._service.call(delivery.target, delivery.target.split(":")[3], partial(self._send, delivery))

    def _send(self, delivery: Delivery, client: Any) -> None:
        arn = delivery.target
        url = self._urls.get(arn)
        if url is None:
            *_, account, name = arn.split(":")
            url = self._urls[arn] = client.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"]
        trace = trace_header(delivery)
        system = {"AWSTraceHeader": {"DataType": "String", "StringValue": trace}} if trace else {}
        try:
            client.send_message(
                QueueUrl=url,
                MessageBody=delivery.body.decode(),
                MessageAttributes=message_attributes(delivery),
                MessageSystemAttributes=system,
            )
        except Exception:
            self._urls.pop(arn, None)  # it may have gone, and come back somewhere else
            raise

    async def aclose(self) -> None:
        """Give back connections."""
        self._service.close()
