"""The provider's functions, as its repository has them. Contract tests need no more of it than these annotations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from serverfull import Function


class Order(BaseModel):
    """What a caller sends."""

    item: str = Field(min_length=1)
    quantity: int = Field(default=1, ge=1, le=100)


class Receipt(BaseModel):
    """What a caller gets."""

    number: int
    total: Annotated[str, Field(pattern=r"\d+\.\d\d")] = "0.00"
    state: Literal["accepted", "waiting"]


class OutOfStock(Exception):
    """There is nothing left of it."""


def place_order(order: Order) -> Receipt:
    """Take an order. It needs a database, which a consumer's test does not have."""
    raise ConnectionError("no database here")


functions = {"place-order": Function(place_order, errors=[OutOfStock])}
