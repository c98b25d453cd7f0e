"""Terraform, with its AWS provider, manages all that a function has on a host.

The provider is 700 MB and has to be there already: the environment variable TF_PLUGIN_DIR names the folder that
``terraform init -plugin-dir`` takes. Each command takes seconds to start it, so one test goes the whole way.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from serverfull.testing.deployments import PYTHON, invoke, zipped
from serverfull.testing.process import HostProcess, plain_environment

pytestmark = [pytest.mark.real_client, pytest.mark.slow, pytest.mark.timeout(900)]

ACCOUNT = "123456789012"
UNCHANGED, ERROR, CHANGES = 0, 1, 2
"""What ``plan -detailed-exitcode`` ends with."""

CODE = """\
import os

def handler(event, context):
    return {"code": %d, "setting": os.environ["GENERATION"], "version": context.function_version}
"""


class Terraform:
    """Commands in one working directory."""

    def __init__(self, directory: Path, endpoint: str) -> None:
        self._directory = directory
        settings = directory / "settings.tfrc"
        settings.touch()
        mine = {
            "TF_CLI_CONFIG_FILE": str(settings),
            "TF_IN_AUTOMATION": "1",
            "TF_VAR_endpoint": endpoint,
            "CHECKPOINT_DISABLE": "1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        others = {name: value for name, value in plain_environment().items() if not name.startswith("TF_")}
        self._env = others | mine

    def __call__(self, *arguments: str, expected: int = 0) -> str:
        """Run a command; gives what it wrote to standard output."""
        process = subprocess.Popen(
            ["terraform", arguments[0], "-no-color", *arguments[1:]],
            cwd=self._directory,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=300)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the provider, if anything is left of it
        assert process.returncode == expected, f"terraform {' '.join(arguments)}\n{out}\n{err}"
        return out

    def apply(self, generation: int) -> str:
        return self("apply", "-auto-approve", "-input=false", f"-var=generation={generation}")

    def plan(self, generation: int, expected: int) -> str:
        return self("plan", "-detailed-exitcode", "-input=false", f"-var=generation={generation}", expected=expected)


@pytest.fixture
def plugins(require) -> str:
    folder = os.environ.get("TF_PLUGIN_DIR")
    if not folder:
        pytest.skip(
            "Terraform's AWS provider is not here: name its folder with TF_PLUGIN_DIR. "
            "It cannot be installed in CI, so this is skipped there too, even with SERVERFULL_REQUIRE_ALL=1"
        )
    require("Terraform", shutil.which("terraform"), "install terraform")
    require("the folder that TF_PLUGIN_DIR names", Path(folder).is_dir(), "correct or remove TF_PLUGIN_DIR")
    return folder


@pytest.fixture
def host(tmp_path):
    endpoint = {"SERVERFULL_DESTINATIONS__ENDPOINTS": "SQS=http://127.0.0.1:9"}  # or its queues would be refused
    with HostProcess.start(None, "--state", str(tmp_path / "state"), env=endpoint) as host:
        yield host


@pytest.fixture
def terraform(plugins, host, tmp_path) -> Terraform:
    """Terraform with the configuration and its packages in a directory of their own."""
    directory = tmp_path / "configuration"
    directory.mkdir()
    shutil.copy(Path(__file__).parent / "main.tf", directory)
    for generation in (1, 2):
        (directory / f"orders-{generation}.zip").write_bytes(zipped({"orders.py": CODE % generation}))
    (directory / "shared.zip").write_bytes(zipped({"python/shared.py": ""}))
    terraform = Terraform(directory, host.url)
    terraform("init", f"-plugin-dir={plugins}", "-input=false")
    return terraform


def test_terraform_makes_changes_in_place_and_destroys_and_plans_nothing_in_between(terraform, host, boto) -> None:
    client = boto(host, access_key=ACCOUNT)

    assert "Apply complete! Resources: 16 added, 0 changed, 0 destroyed." in terraform.apply(1)
    terraform.plan(1, UNCHANGED)
    assert invoke(client, "orders", Qualifier="live") == {"code": 1, "setting": "1", "version": "1"}
    created_at = client.get_code_signing_config(CodeSigningConfigArn=signing_config(client))["CodeSigningConfig"]

    assert "Apply complete! Resources: 0 added, 12 changed, 0 destroyed." in terraform.apply(2)
    terraform.plan(2, UNCHANGED)
    assert json.loads(terraform("output", "-json", "read")) == {
        "alias": "2",
        "functions": ["orders"],
        "result": {"code": 2, "setting": "2", "version": "$LATEST"},
        "url": "NONE",
    }
    assert invoke(client, "orders", Qualifier="live") == {"code": 2, "setting": "2", "version": "2"}
    check_changed(client)
    assert signing_config(client) == created_at["CodeSigningConfigArn"]

    client.update_alias(FunctionName="orders", Name="live", FunctionVersion="1")
    assert "aws_lambda_alias.live will be updated in-place" in terraform.plan(2, CHANGES)

    assert "Destroy complete! Resources: 16 destroyed." in terraform("destroy", "-auto-approve", "-input=false")
    check_empty(client)


HOT = """\
import os

def handler(event, context):
    return {"edit": %d, "function": os.environ["FUNCTION_NAME"]}
"""


def test_the_configuration_of_localstack_for_folders_in_place_is_applied_once_and_its_code_edited(
    plugins, tmp_path, boto
) -> None:
    code, jar = tmp_path / "build" / "hot", tmp_path / "all.jar"
    code.mkdir(parents=True)
    jar.write_bytes(b"built")
    (code / "app.py").write_text(HOT % 1)
    allowed = {"SERVERFULL_HOT_RELOAD__ALLOWED_PATHS": str(tmp_path / "build")}
    with HostProcess.start(None, "--state", "memory", env=allowed) as host:
        client = boto(host)
        terraform = Terraform(
            Path(shutil.copytree(Path(__file__).parent / "hot", tmp_path / "configuration")), host.url
        )
        terraform("init", f"-plugin-dir={plugins}", "-input=false")
        settings = ["-input=false", "-var=STAGE=local", f"-var=LAMBDA_MOUNT_CWD={code}", f"-var=JAR_PATH={jar}"]
        settings.append(f"-var=runtime={PYTHON}")
        assert "1 added, 0 changed, 0 destroyed" in terraform("apply", "-auto-approve", *settings)
        assert invoke(client, "ExampleFunctionOne") == {"edit": 1, "function": "functionOne"}
        (code / "app.py").write_text(HOT % 2)
        deadline = time.monotonic() + 20
        while invoke(client, "ExampleFunctionOne")["edit"] != 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "1 destroyed" in terraform("destroy", "-auto-approve", *settings)
        check_empty(client)


def signing_config(client: Any) -> str:
    return client.get_function_code_signing_config(FunctionName="orders")["CodeSigningConfigArn"]


def check_changed(client: Any) -> None:
    """Look at what Terraform cannot see wrong: what it reads back is what the host says."""
    configuration = client.get_function_configuration(FunctionName="orders")
    assert (configuration["MemorySize"], configuration["Timeout"]) == (256, 20)
    assert client.get_function_concurrency(FunctionName="orders")["ReservedConcurrentExecutions"] == 10
    assert client.list_tags(Resource=configuration["FunctionArn"])["Tags"] == {"generation": "2", "second": ""}
    assert client.get_function_url_config(FunctionName="orders", Qualifier="live")["Cors"]["MaxAge"] == 120
    invoke_config = client.get_function_event_invoke_config(FunctionName="orders", Qualifier="live")
    assert invoke_config["MaximumRetryAttempts"] == 1
    canary = client.get_alias(FunctionName="orders", Name="canary")
    assert (canary["FunctionVersion"], canary["RoutingConfig"]) == ("2", {"AdditionalVersionWeights": {"1": 0.25}})
    provisioned = client.get_provisioned_concurrency_config(FunctionName="orders", Qualifier="live")
    assert (provisioned["Status"], provisioned["AvailableProvisionedConcurrentExecutions"]) == ("READY", 2)
    mappings = client.list_event_source_mappings()["EventSourceMappings"]
    assert {mapping["EventSourceArn"].split(":")[2]: mapping["State"] for mapping in mappings} == {
        "sqs": "Disabled",
        "kinesis": "Enabled",
    }


def check_empty(client: Any) -> None:
    assert client.list_functions()["Functions"] == []
    assert client.list_event_source_mappings()["EventSourceMappings"] == []
    assert client.list_layers()["Layers"] == []
    assert client.list_code_signing_configs()["CodeSigningConfigs"] == []
    limit = client.get_account_settings()["AccountLimit"]
    assert limit["UnreservedConcurrentExecutions"] == limit["ConcurrentExecutions"]
