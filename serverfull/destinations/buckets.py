"""Buckets of S3, which get an object for each record.

AWS: https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from serverfull.destinations.messages import trace_header
from serverfull.destinations.services import TRACE
from serverfull.domain.destinations import KEY
from serverfull.interfaces import Deliverer

if TYPE_CHECKING:
    from serverfull.destinations.services import Service
    from serverfull.domain.events import Delivery


class Buckets(Deliverer):
    """Puts objects. One that is put again is the same object: the delivery says what it is called."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def deliver(self, delivery: Delivery) -> None:
        """Put the record; the bucket is looked for in the function's region, as its ARN names none.

        :raises DeliveryFailed: the bucket is not there, or does not take it.
        """
        await self._service.call(delivery.target, delivery.function_arn.split(":")[3], partial(_put, delivery))

    async def aclose(self) -> None:
        """Give back connections."""
        self._service.close()


def _put(delivery: Delivery, client: Any) -> None:
    TRACE.set(trace_header(delivery))
    client.put_object(
        Bucket=delivery.target.rpartition(":")[2],
        Key=str(delivery.attributes[KEY]),
        Body=delivery.body,
        ContentType="application/json",
    )
