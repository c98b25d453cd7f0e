"""The consumer: places orders with the provider's function ``place-order``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


class SoldOut(Exception):
    """The provider has nothing left."""


class OrderFailed(Exception):
    """The provider could not take the order; the message holds why."""


@dataclass(frozen=True)
class Placed:
    """An order that the provider took.

    :param total: in euros, as a text with two decimals.
    """

    number: int
    total: str
    waiting: bool


class Shop:
    """Places orders.

    :param client: a Lambda client of boto3, for AWS or for a serverfull host.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def buy(self, item: str, quantity: int = 1) -> Placed:
        """Order something.

        :raises SoldOut: the provider has nothing left.
        :raises OrderFailed: the order could not be taken.
        """
        event = {"item": item, "quantity": quantity}
        answer = self._client.invoke(FunctionName="place-order", Payload=json.dumps(event))
        result = json.load(answer["Payload"])
        if "FunctionError" in answer:
            raise SoldOut(item) if result["errorType"] == "OutOfStock" else OrderFailed(result["errorMessage"])
        return Placed(result["number"], result["total"], waiting=result["state"] == "waiting")
