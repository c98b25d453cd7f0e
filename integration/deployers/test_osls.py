"""osls, the open fork of the Serverless Framework, invokes a function and deploys its code anew.

``osls deploy`` itself works through CloudFormation, which this host is not. The tool has a hundred megabytes, so that
``make test-osls`` installs it and runs this, and nothing else does.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serverfull.testing.deployments import deploy, wait_until_ready

OSLS = Path(__file__).parent / "osls/node_modules/.bin/osls"

pytestmark = [
    pytest.mark.real_client,
    pytest.mark.skipif(
        not OSLS.exists(), reason="osls is not here: make test-osls (skipped even with SERVERFULL_REQUIRE_ALL=1)"
    ),
]

CONFIG = """\
service: shop
provider:
  name: aws
  runtime: python3.12
  region: us-east-1
functions:
  price:
    name: shop-price
    handler: shop.price
    memorySize: 256
"""

CODE = """\
def price(event, context):
    return {"of": event["item"], "price": %d}
"""


@pytest.fixture
def osls(run, client, tmp_path):
    """Run osls on a service whose function is on the host already."""
    (tmp_path / "serverless.yml").write_text(CONFIG)
    (tmp_path / "shop.py").write_text(CODE % 4)
    deploy(client, "shop-price", {"shop.py": CODE % 3}, Runtime="python3.12", Handler="shop.price")
    return lambda *arguments: run(OSLS, *arguments)


def test_osls_invokes_a_function_and_deploys_its_code(osls, client) -> None:
    assert json.loads(osls("invoke", "-f", "price", "-d", '{"item": "tea"}')) == {"of": "tea", "price": 3}
    osls("deploy", "function", "-f", "price")
    assert wait_until_ready(client, "shop-price")["MemorySize"] == 256
    assert json.loads(osls("invoke", "-f", "price", "-d", '{"item": "tea"}')) == {"of": "tea", "price": 4}
