"""LoggerFromContext and StatFromContext: the logger and the figures of the call, wherever code needs them."""

from __future__ import annotations

from typing import TypedDict

import serverfull
from serverfull.config import load


class Order(TypedDict):
    item: str


def order(event: Order) -> str:
    serverfull.logger().info("sold", item=event["item"])
    serverfull.metrics().count("orders", item=event["item"])
    return f"one {event['item']}"


if __name__ == "__main__":
    raise SystemExit(serverfull.serve({"order": order}, load().settings))
