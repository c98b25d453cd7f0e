"""Layers as functions on a real host see them: below /opt, the later over the earlier one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from serverfull.testing.deployments import PYTHON, ROLE, deploy, invoke, wait_until_ready, zipped
from serverfull.testing.process import HostProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOOKING = """
import os, subprocess, sys
import shared, only_first
OPT = next(path for path in sys.path if path.endswith("/python"))[:-len("/python")]
def handler(event, context):
    try:
        open(OPT + "/note.txt", "a").close()
        writable = True
    except OSError:
        writable = False
    return {
        "shared": shared.NAME,
        "only_first": only_first.NAME,
        "tool": subprocess.run(["layer-tool"], capture_output=True, text=True, check=True).stdout.strip(),
        "note": open(OPT + "/note.txt").read(),
        "library": OPT + "/lib" in os.environ["LD_LIBRARY_PATH"].split(":") and os.listdir(OPT + "/lib"),
        "opt": OPT,
        "writable": writable,
    }
"""


def publish(client: Any, name: str, files: dict[str, str]) -> str:
    content = {"ZipFile": zipped(files, executable=["bin/layer-tool"])}
    return client.publish_layer_version(LayerName=name, Content=content)["LayerVersionArn"]


def layer(client: Any, name: str, **more: str) -> str:
    files = {
        "python/shared.py": f"NAME = {name!r}\n",
        "bin/layer-tool": f"#!/bin/sh\necho tool of {name}\n",
        "note.txt": f"note of {name}",
        f"lib/lib{name}.so": "",
        **{f"python/{module}.py": f"NAME = {name!r}\n" for module in more.values()},
    }
    return publish(client, name, files)


def look(client: Any) -> dict[str, Any]:
    answer = client.invoke(FunctionName="f")
    seen = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, seen
    return seen


@pytest.fixture(scope="module", params=["limits", "none"])
def host(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[HostProcess]:
    """Give a host whose functions have an /opt of their own where the machine can, and one that shows them a folder."""
    folder, sandbox = tmp_path_factory.mktemp("host"), {"SERVERFULL_EXECUTION__SANDBOX": request.param}
    with HostProcess.start(None, "--state", str(folder / "state"), env=sandbox, cwd=folder) as process:
        yield process


@pytest.fixture
def client(host: HostProcess, boto: Callable[..., Any], account: str) -> Any:
    return boto(host, access_key=account, region="eu-west-1")


def test_layers_are_seen_in_their_order_also_new_ones_and_deleted_ones(client: Any) -> None:
    before = sorted(Path("/opt").iterdir())
    first, second = layer(client, "first", more="only_first"), layer(client, "second")
    deploy(client, "f", {"app.py": LOOKING}, Layers=[first, second], Timeout=10)
    seen = look(client)
    assert (seen["shared"], seen["only_first"]) == ("second", "first")
    assert (seen["tool"], seen["note"]) == ("tool of second", "note of second")
    assert sorted(seen["library"]) == ["libfirst.so", "libsecond.so"]
    client.update_function_configuration(FunctionName="f", Layers=[second, first])
    wait_until_ready(client, "f")
    assert look(client)["shared"] == "first"
    client.delete_layer_version(LayerName="first", VersionNumber=1)
    client.update_function_code(FunctionName="f", ZipFile=zipped({"app.py": LOOKING + "# again\n"}))
    wait_until_ready(client, "f")
    assert look(client)["shared"] == "first"
    assert sorted(Path("/opt").iterdir()) == before


SPOILING = """
import os, shared, sys
OPT = next(path for path in sys.path if path.endswith("/python"))[:-len("/python")]
def handler(event, context):
    for folder, _, names in os.walk(OPT):
        for name in names:
            try:
                open(os.path.join(folder, name), "w").write("spoilt")
            except OSError:
                pass
    return open(OPT + "/note.txt").read()
"""


def test_a_function_that_writes_into_its_layers_spoils_those_of_no_other(client: Any) -> None:
    layers = [layer(client, "first", more="only_first")]
    for name, code in (("spoiling", SPOILING), ("f", LOOKING), ("later", LOOKING)):
        deploy(client, name, {"app.py": code}, Layers=layers, Timeout=10)
    before = look(client)
    client.invoke(FunctionName="spoiling")
    assert look(client) == before
    seen = invoke(client, "later")
    assert (seen["note"], seen["shared"]) == ("note of first", "first")


def zeros(name: str, megabytes: int) -> bytes:
    return zipped({name: bytes(megabytes * 1024 * 1024)})


def refusal(call: Any, **request: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**request)
    assert caught.value.response["Error"]["Code"] == "InvalidParameterValueException"
    return str(caught.value.response["Error"]["Message"])


@pytest.mark.parametrize("host", ["limits"], indirect=True)  # it is said before there is anything to run
def test_code_and_layers_together_are_no_larger_than_aws_lets_them_be(client: Any) -> None:
    layers = [
        client.publish_layer_version(LayerName=name, Content={"ZipFile": zeros(name, 100)})["LayerVersionArn"]
        for name in ("first", "second")
    ]
    small, large = zeros("app.py", 50), zeros("app.py", 60)
    said = (
        "Function code combined with layers exceeds the maximum allowed size of 262144000 bytes. "
        "The actual size is 272629760 bytes."
    )
    function = {"FunctionName": "f", "Runtime": "python3.11", "Handler": "app.handler", "Role": ROLE}
    assert refusal(client.create_function, **function, Code={"ZipFile": large}, Layers=layers) == said
    client.create_function(**function, Code={"ZipFile": large}, Layers=layers[:1])
    wait_until_ready(client, "f")
    assert refusal(client.update_function_configuration, FunctionName="f", Layers=layers) == said
    client.update_function_code(FunctionName="f", ZipFile=small)
    wait_until_ready(client, "f")
    client.update_function_configuration(FunctionName="f", Layers=layers)
    wait_until_ready(client, "f")
    assert refusal(client.update_function_code, FunctionName="f", ZipFile=large) == said


ORDER = """
import os, sys
import same
def handler(event, context):
    return {
        "same": same.NAME,
        "modules": sys.path[:3],
        "libraries": os.environ["LD_LIBRARY_PATH"].split(":"),
        "root": os.environ["LAMBDA_TASK_ROOT"],
    }
"""


def test_folders_are_looked_into_in_the_order_of_aws(client: Any) -> None:
    packages = f"python/lib/{PYTHON}/site-packages"
    arn = publish(
        client, "both", {f"{packages}/same.py": "NAME = 'packages'\n", "python/same.py": "NAME = 'modules'\n"}
    )
    deploy(client, "f", {"app.py": ORDER}, Layers=[arn])
    seen = look(client)
    root, opt = seen["root"], seen["modules"][-1].removesuffix("/python")
    assert seen["same"] == "packages"
    assert seen["modules"] == [root, f"{opt}/{packages}", f"{opt}/python"]
    assert seen["libraries"] == [root, f"{root}/lib", f"{opt}/lib"]
