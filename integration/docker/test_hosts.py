"""Containers behind the whole of a host: a real process of serverfull, called by boto3."""

from __future__ import annotations

import base64
import time

import pytest

from serverfull.runtimes.docker.options import INSTANCE
from serverfull.testing.clients import lambda_client
from serverfull.testing.deployments import create, deploy, invoke, wait_until_settled, zipped
from serverfull.testing.process import HostProcess

pytestmark = pytest.mark.slow

WITHIN = 15.0

FILES = {
    "app.py": "import os, helper\ndef handler(event, context):\n"
    "    print('called')\n    return [helper.NAME, os.getcwd(), event]\n",
    "helper.py": "NAME = 'helper'\n",
}
STUCK = {"app.py": "def handler(event, context):\n    while True:\n        pass\n"}


@pytest.fixture
def start(engine, tmp_path):
    """Start hosts on the engine, with the state of those before."""
    hosts = []

    def begin(*args, **variables):
        env = {"DOCKER_HOST": engine.url, "SERVERFULL_DOCKER_IMAGES": f"python3.11={engine.image}", **variables}
        host = HostProcess.start(None, "--state", str(tmp_path / "state"), *args, cwd=tmp_path, env=env)
        hosts.append(host)
        return host, lambda_client(host.url, region="eu-west-1")

    yield begin
    for host in hosts:
        host.kill()


def instances(engine, host=None):
    """The functions that have containers, of one host or of all."""
    with engine.client() as client:
        label = INSTANCE if host is None else f"{INSTANCE}={host}"
        found = client.containers.list(all=True, filters={"label": label}, ignore_removed=True)
        return {container.labels["serverfull.function"] for container in found}


def host_of(engine, function):
    with engine.client() as client:
        found = client.containers.list(filters={"label": f"serverfull.function={function}"})
        return found[0].labels[INSTANCE]


def until(ready, within=WITHIN):
    deadline = time.monotonic() + within
    while not ready() and time.monotonic() < deadline:
        time.sleep(0.05)
    return ready()


def test_a_function_that_is_deployed_by_boto3_runs_in_a_container(start, engine):
    host, client = start("--execution", "docker")
    layer = client.publish_layer_version(
        LayerName="layer", Content={"ZipFile": zipped({"python/other.py": "WORD = 'layered'\n"})}
    )
    files = {"app.py": "import other\n" + FILES["app.py"].replace("helper.NAME", "other.WORD"), "helper.py": ""}
    create(client, "f", files, Runtime="python3.11", Layers=[layer["LayerVersionArn"]], Handler="app.handler")
    assert wait_until_settled(client, "f")["State"] == "Active"
    answer = client.invoke(FunctionName="f", Payload=b"[1]", LogType="Tail")
    assert answer["Payload"].read() == b'["layered", "/var/task", [1]]'
    assert "called\n" in base64.b64decode(answer["LogResult"]).decode()
    assert instances(engine) == {"f"}
    host.stop()
    assert instances(engine) == set()


def test_what_a_killed_host_has_left_is_gone_soon_after_the_next_one_starts(start, engine):
    host, client = start()
    tags = {"serverfull:execution": "docker"}
    create(client, "f", STUCK, Runtime="python3.11", Tags=tags, Timeout=60, Handler="app.handler")
    deploy(client, "idle", FILES, Runtime="python3.11", Tags=tags, Handler="app.handler")
    assert wait_until_settled(client, "f")["State"] == "Active"
    assert invoke(client, "idle")[1] == "/var/task"
    client.invoke(FunctionName="f", InvocationType="Event")
    assert until(lambda: instances(engine) == {"f", "idle"})
    killed = host_of(engine, "idle")
    host.kill()
    assert instances(engine, killed) == {"f", "idle"}
    start()  # nobody asks it for anything that needs a container
    assert until(lambda: not instances(engine, killed), 5.0)


def test_a_function_whose_interpreter_is_not_here_runs_in_the_image_that_is_mapped(start, engine):
    _, client = start(SERVERFULL_DOCKER_IMAGES=f"python3.15={engine.image}")
    deploy(client, "f", FILES, Runtime="python3.15", Handler="app.handler")
    if (found := invoke(client, "f"))[1] != "/var/task":
        pytest.skip(f"the machine has Python 3.15: {found}")
    deploy(client, "here", FILES, Runtime="python3.11", Handler="app.handler")
    assert invoke(client, "here")[1] != "/var/task"
