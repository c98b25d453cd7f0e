"""The table of what each operation does here, against the model and against what is really there."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import boto3
import botocore
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from serverfull.api.model import read_model
from serverfull.config import LoggingSettings, Settings
from serverfull.control_plane import ControlPlane
from serverfull.fetchers.static import StaticFetcher
from serverfull.management import support
from serverfull.management.durable import OPERATIONS as DURABLE
from serverfull.observability.logger import HostLogger

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
BY_HAND = {"Invoke", "InvokeAsync"}
"""Operations that `serverfull.api.invocations` answers."""


@pytest.fixture(scope="module")
def model():
    return read_model()


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == support.markdown(), "run `make docs`"


def test_every_operation_has_one_status():
    counted = Counter(operation for group in support.GROUPS for operation in group.operations)
    assert [name for name, count in counted.items() if count > 1] == []
    assert len(support.status_of()) == 91


def test_the_model_has_every_operation_and_may_have_more(model):
    assert set(support.status_of()) - set(model["operations"]) == set()


def test_only_streaming_and_durable_executions_are_refused():
    refused = {name for name, status in support.status_of().items() if status == "refused"}
    assert refused == {"InvokeWithResponseStream", *DURABLE}
    assert len(DURABLE) == 12


async def test_a_control_plane_has_what_is_not_refused_and_what_is_refused_with_a_reason():
    plane = ControlPlane(
        StaticFetcher({}),
        Settings(),
        HostLogger(LoggingSettings(), stream=io.StringIO()),
        failure_of=lambda name: None,
        on_open=lambda deployed, changes: None,
        running=None,
        watching=lambda: None,
        calls=lambda _: 0.0,
    )
    try:
        served = set(await plane.operations())
    finally:
        await plane.aclose()
    expected = {name for name, status in support.status_of().items() if status != "refused"}
    assert served == (expected - BY_HAND) | set(DURABLE)


def test_members_that_do_not_act_are_members(model):
    members = {
        name
        for shape in ("CreateFunctionRequest", "UpdateFunctionConfigurationRequest")
        for name in model["shapes"][shape]["members"]
    }
    assert set(support.STORED_MEMBERS) - members == set()


def test_the_page_names_every_operation_with_its_status():
    page = support.markdown()
    for name, status in support.status_of().items():
        words = {"acts": "acts", "stored": "stored, not yet acting", "refused": "refused"}[status]
        assert f" | {name} | {words} | " in page
    assert max(len(line) for line in page.splitlines() if not line.startswith("|")) <= 120


@pytest.mark.parametrize("attempts", ["standard", "legacy"])
def test_an_operation_of_a_newer_botocore_is_refused_by_what_it_asks_for_and_not_tried_again(
    attempts, control_plane, tmp_path
):
    newer = read_model()
    newer["operations"]["MoveFunction"] = {
        "name": "MoveFunction",
        "http": {"method": "PUT", "requestUri": "/2031-01-01/functions/{FunctionName}/move", "responseCode": 200},
        "input": {"shape": "GetFunctionRequest"},
    }
    folder = tmp_path / "lambda" / "2015-03-31"
    folder.mkdir(parents=True)
    (folder / "service-2.json").write_text(json.dumps(newer))
    session = boto3.Session("test", "test", region_name="eu-west-1")
    session._loader.search_paths.insert(0, str(tmp_path))
    retries = Config(retries={"mode": attempts, "total_max_attempts": 3})
    client = session.client("lambda", endpoint_url=control_plane.url, config=retries)
    with pytest.raises(ClientError) as caught:
        client.move_function(FunctionName="hello")
    client.close()
    error = caught.value.response
    assert error["Error"]["Code"] == "NotImplementedException"
    assert "PUT /2031-01-01/functions/hello/move" in error["Error"]["Message"]
    assert f"botocore {botocore.__version__}" in error["Error"]["Message"]
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert error["ResponseMetadata"]["RetryAttempts"] == 0
