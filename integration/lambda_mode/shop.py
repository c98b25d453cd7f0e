"""What the artifacts of these tests run; it imports a module of its own folder and reads a file beside it."""

import asyncio
import time
from pathlib import Path
from typing import Any

import prices

import serverfull
from serverfull import Function

print("cold start")
calls = []


def order(event: dict[str, Any], context) -> dict[str, Any]:
    calls.append(event)
    item = event["item"]
    if item == "slow":
        time.sleep(60)
    serverfull.logger().info("sold", item=item)
    serverfull.metrics().count("orders")
    note = Path(__file__).with_name("note.txt").read_text()
    return {"price": prices.of(item), "calls": len(calls), "function": context.function_name, "note": note}


async def later():
    await asyncio.sleep(0)
    return "later"


functions = {"order": Function(order, errors=[prices.NoPriceError]), "later": later}
