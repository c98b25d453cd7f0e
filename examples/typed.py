"""Typed handlers: the event is checked and converted before the handler runs, the result after it.

The annotation of the first parameter may be a pydantic model, a dataclass, a TypedDict or a builtin generic such as
``list[int]``. An event that does not fit never reaches the handler: the caller gets a function error with errorType
``ValidationError``, whose message names the fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from pydantic import BaseModel, Field


class Order(BaseModel):
    """What the caller sends: ``{"item": "tea", "quantity": 3}``."""

    item: str
    quantity: int = Field(gt=0)
    wanted_by: date | None = None


@dataclass
class Receipt:
    """What the caller gets: ``{"item": "tea", "total": "7.50"}``."""

    item: str
    total: Decimal


def order(event: Order) -> Receipt:
    """One parameter is enough where the context is not needed."""
    return Receipt(item=event.item, total=event.quantity * Decimal("2.50"))


functions = {"order": order}
