"""The consumer's contract: what it sends, and what it makes of every answer that the provider may give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from shop import OrderFailed, Shop, SoldOut

PROVIDER = Path(__file__).with_name("app.py")


@pytest.fixture
def client(serverfull_host):
    """A client of ``serverfull serve app.py:functions --mock``."""
    return serverfull_host(f"{PROVIDER}:functions", mock=True).client()


def ask_for(client, **headers):
    """Let the next calls ask for something of mock mode."""

    def add(request, **_):
        for name, value in headers.items():
            del request.headers[name.replace("_", "-")]
            request.headers[name.replace("_", "-")] = value

    client.meta.events.register("before-sign.lambda.Invoke", add)


def test_an_order_is_one_that_the_provider_takes(client):
    placed = Shop(client).buy("tea", 2)
    assert (placed.number, placed.total, placed.waiting) == (0, "0.00", False)


def test_every_receipt_can_be_read(serverfull_host):
    host = serverfull_host(f"{PROVIDER}:functions", "--mock-answers", "random", "--mock-seed", "1", mock=True)
    shop = Shop(host.client())
    placed = [shop.buy("tea") for _ in range(20)]
    assert {each.waiting for each in placed} == {True, False}
    assert all(re.fullmatch(r"\d+\.\d\d", each.total) for each in placed)


def test_an_order_that_breaks_the_contract_is_refused(client):
    with pytest.raises(OrderFailed, match="quantity"):
        Shop(client).buy("tea", 101)


def test_an_error_that_the_provider_declares_is_understood(client):
    ask_for(client, X_Amz_Invocation_Type="Error", X_Error_Type="OutOfStock")
    with pytest.raises(SoldOut, match="coffee"):
        Shop(client).buy("coffee")


def test_a_throttled_call_is_the_callers_to_handle(client):
    ask_for(client, X_Serverfull_Mock_Throttle="CallerRateLimitExceeded")
    with pytest.raises(ClientError, match="Rate Exceeded"):
        Shop(client).buy("tea")


def test_what_is_sent_is_what_was_agreed(serverfull_host):
    from app import functions

    host = serverfull_host(functions, mock=True)  # in this process, where calls are recorded
    Shop(host.client()).buy("tea", 3)
    (call,) = host.calls
    assert (call.function, call.event) == ("place-order", {"item": "tea", "quantity": 3})
