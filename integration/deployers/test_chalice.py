"""AWS Chalice deploys an application without web routes, changes, invokes and deletes it."""

from __future__ import annotations

import json
import shutil

import pytest

pytestmark = [pytest.mark.real_client, pytest.mark.slow]

CODE = """\
from chalice import Chalice

app = Chalice(app_name="shop")


@app.lambda_function()
def price(event, context):
    return {"of": event["item"], "price": %d}
"""

CONFIG = {
    "version": "2.0",
    "app_name": "shop",
    "manage_iam_role": False,
    "iam_role_arn": "arn:aws:iam::000000000000:role/any",
    "stages": {"dev": {"lambda_memory_size": 256, "environment_variables": {"SHOP": "tea"}}},
}


@pytest.fixture
def chalice(run, require, tmp_path):
    """Run chalice on an application."""
    found = shutil.which("chalice")
    require("chalice", found, "make clients")
    (tmp_path / ".chalice").mkdir()
    (tmp_path / ".chalice/config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "requirements.txt").touch()
    (tmp_path / "app.py").write_text(CODE % 3)
    return lambda *arguments, **options: run(found, *arguments, **options)


def test_chalice_deploys_updates_invokes_and_deletes(chalice, client, tmp_path) -> None:
    assert "Creating lambda function: shop-dev-price" in chalice("deploy")
    configuration = client.get_function_configuration(FunctionName="shop-dev-price")
    assert (configuration["MemorySize"], configuration["Environment"]["Variables"]) == (256, {"SHOP": "tea"})
    assert client.get_function(FunctionName="shop-dev-price")["Tags"]["aws-chalice"].endswith("stage=dev:app=shop")
    assert json.loads(chalice("invoke", "-n", "price", text='{"item": "tea"}')) == {"of": "tea", "price": 3}

    (tmp_path / "app.py").write_text(CODE % 4)
    assert "Updating lambda function: shop-dev-price" in chalice("deploy")
    assert json.loads(chalice("invoke", "-n", "price", text='{"item": "tea"}')) == {"of": "tea", "price": 4}

    chalice("delete")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_function(FunctionName="shop-dev-price")
