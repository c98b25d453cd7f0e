"""States of deployed functions on a real host: Failed where nothing here runs them; calls wait while one is Pending."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from serverfull.testing.deployments import create, deploy, invoke, wait_until_settled, zipped
from serverfull.testing.process import HostProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FILES = {"app.py": "def handler(event, context):\n    return 'Python'\n"}
PROGRAM = {"bootstrap": "#!/bin/sh\nexit 3\n"}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    folder = tmp_path_factory.mktemp("host")
    nowhere = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}  # the machine's own engine would pull images
    with HostProcess.start(None, "--state", str(folder / "state"), cwd=folder, env=nowhere) as process:
        yield process


@pytest.fixture
def client(host: HostProcess, boto: Callable[..., Any], account: str) -> Any:
    return boto(host, access_key=account, region="eu-west-1")


def test_what_nothing_here_runs_is_failed_before_anybody_calls_it(client: Any) -> None:
    create(client, "f", FILES, Runtime="java21", Handler="app.Handler::handle")
    state = wait_until_settled(client, "f")
    assert (state["State"], state["StateReasonCode"]) == ("Failed", "InvalidRuntime")
    reason = "java21 needs a container: its tag serverfull:execution can say 'docker', or execution.mode"
    assert state["StateReason"] == reason
    assert (state["LastUpdateStatus"], state["LastUpdateStatusReasonCode"]) == ("Failed", "InvalidRuntime")
    with pytest.raises(ClientError, match="java21 needs a container"):
        client.invoke(FunctionName="f")
    client.update_function_configuration(FunctionName="f", Runtime="python3.11", Handler="app.handler")
    state = wait_until_settled(client, "f")
    assert (state["State"], state["LastUpdateStatus"], state.get("StateReason")) == ("Active", "Successful", None)
    assert invoke(client, "f") == "Python"


def test_a_custom_runtime_without_its_bootstrap_is_failed_until_an_update_brings_it(client: Any) -> None:
    create(client, "f", FILES, Runtime="provided.al2023")
    state = wait_until_settled(client, "f")
    assert (state["State"], state["StateReasonCode"]) == ("Failed", "FunctionError.InvalidEntryPoint")
    assert "a file named bootstrap in the package or in a layer, and it is missing" in state["StateReason"]
    client.update_function_code(FunctionName="f", ZipFile=zipped(PROGRAM, executable=PROGRAM))
    assert wait_until_settled(client, "f")["State"] == "Active"


def test_a_layer_may_bring_the_bootstrap(client: Any) -> None:
    content = {"ZipFile": zipped(PROGRAM, executable=PROGRAM)}
    layer = client.publish_layer_version(LayerName="runtime", Content=content)["LayerVersionArn"]
    create(client, "f", FILES, Runtime="provided.al2023", Layers=[layer])
    assert wait_until_settled(client, "f")["State"] == "Active"


@pytest.mark.parametrize(
    ("tag", "runtime", "code", "reason"),
    [
        ("inprocess", "nodejs22.x", "InvalidRuntime", "nodejs22.x cannot run in the host's own process"),
        (
            "docker",
            "java25",
            "InternalError",
            "the Docker engine at unix:///nowhere/docker.sock cannot be reached (no such",
        ),
    ],
)
def test_an_execution_that_does_not_fit_is_said_before_the_first_call(
    client: Any, tag: str, runtime: str, code: str, reason: str
) -> None:
    create(client, "f", FILES, Runtime=runtime, Tags={"serverfull:execution": tag})
    state = wait_until_settled(client, "f")
    assert (state["State"], state["StateReasonCode"]) == ("Failed", code)
    assert reason in state["StateReason"]


def test_a_wrapper_is_refused_where_no_runtime_is_started(client: Any) -> None:
    variables = {"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrap"}}
    create(client, "f", FILES, Tags={"serverfull:execution": "inprocess"}, Environment=variables)
    state = wait_until_settled(client, "f")
    assert (state["State"], state["StateReasonCode"]) == ("Failed", "InvalidConfiguration")
    assert "AWS_LAMBDA_EXEC_WRAPPER names what starts a runtime" in state["StateReason"]


def test_a_tag_that_comes_later_and_does_not_fit_is_said_by_each_call(client: Any) -> None:
    made = deploy(client, "f", PROGRAM, executable=PROGRAM, Runtime="provided.al2023")
    client.tag_resource(Resource=made["FunctionArn"], Tags={"serverfull:execution": "inprocess"})
    with pytest.raises(ClientError, match="al2023 cannot run in the host's own process"):
        client.invoke(FunctionName="f")
    client.untag_resource(Resource=made["FunctionArn"], TagKeys=["serverfull:execution"])
    assert invoke(client, "f")["errorType"] == "Runtime.ExitError"


def test_container_images_are_failed_with_what_to_do(client: Any) -> None:
    client.create_function(
        FunctionName="f",
        PackageType="Image",
        Role="arn:aws:iam::123456789012:role/runner",
        Code={"ImageUri": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/app:1"},
    )
    state = wait_until_settled(client, "f")
    assert (state["State"], state["StateReasonCode"]) == ("Failed", "InternalError")
    assert "the Docker engine at unix:///nowhere/docker.sock cannot be reached (no such" in state["StateReason"]


def test_a_container_image_that_is_to_run_without_a_container_is_failed(client: Any) -> None:
    client.create_function(
        FunctionName="f",
        PackageType="Image",
        Role="arn:aws:iam::123456789012:role/runner",
        Code={"ImageUri": "app:1"},
        Tags={"serverfull:execution": "inprocess"},
    )
    state = wait_until_settled(client, "f")
    assert (state["State"], state["StateReasonCode"]) == ("Failed", "InvalidConfiguration")
    assert "Its tag serverfull:execution says 'inprocess', and it is the container image app:1" in state["StateReason"]


def test_an_update_that_nothing_here_runs_fails_and_leaves_the_function_as_it_was(client: Any) -> None:
    create(client, "f", FILES)
    assert invoke(client, "f") == "Python"
    client.update_function_configuration(FunctionName="f", Runtime="ruby3.4")
    state = wait_until_settled(client, "f")
    assert (state["State"], state["LastUpdateStatus"]) == ("Active", "Failed")
    assert "ruby3.4 needs a container" in state["LastUpdateStatusReason"]
    assert invoke(client, "f") == "Python"
    client.update_function_configuration(FunctionName="f", Runtime="python3.11")
    assert wait_until_settled(client, "f")["LastUpdateStatus"] == "Successful"
    assert invoke(client, "f") == "Python"


def test_a_call_that_comes_while_the_function_is_made_waits_for_it(client: Any) -> None:
    assert create(client, "f", FILES)["State"] == "Pending"
    assert invoke(client, "f") == "Python"
    create(client, "broken", FILES, Runtime="java21")
    with pytest.raises(ClientError, match="currently in the following state: Failed"):
        client.invoke(FunctionName="broken")
