"""Extensions in layers of functions that run in containers: a real engine starts them beside the runtime."""

from __future__ import annotations

import json
import os
import time
import urllib.request
import uuid
from pathlib import Path

import pytest

from serverfull.testing.clients import lambda_client
from serverfull.testing.deployments import deploy, wait_until_settled, zipped
from serverfull.testing.process import HostProcess

pytestmark = pytest.mark.slow

WITHIN = 20.0
ROLE = "arn:aws:iam::123456789012:role/runner"
PROGRAMS = Path(__file__).parents[2] / "tests" / "extensions" / "programs"

CODE = """
import os
print("loading")
def handler(event, context):
    print("handling", event)
    if event == "end": os._exit(5)
    return event
"""

AGENT = """
extension = Extension("INVOKE", "SHUTDOWN")
port = listen()
destination = {"protocol": "HTTP", "URI": f"http://sandbox.localdomain:{port}/"}
assert subscribe(extension, types=["platform", "function"], destination=destination)[0] == 200
while True:
    event = extension.next()
    print("SAW", json.dumps(event), flush=True)
    if event["eventType"] == "SHUTDOWN":
        for batch in GATHERED:
            print("GATHERED", json.dumps(batch["events"]), flush=True)
        sys.exit(0)
"""


def python(code):
    return f"#!/usr/bin/python3\n{(PROGRAMS / 'library.py').read_text()}{(PROGRAMS / 'agent.py').read_text()}{code}"


@pytest.fixture(scope="module")
def host(engine, tmp_path_factory):
    folder = tmp_path_factory.mktemp("host")
    docker = {"DOCKER_HOST": engine.url, "SERVERFULL_DOCKER__IMAGES": f"python3.11={engine.image}"}
    with HostProcess.start(None, "--state", "memory", "--execution", "docker", env=docker, cwd=folder) as started:
        yield started


class Called:
    def __init__(self, host):
        self.host, self.client, self.name = host, lambda_client(host.url), f"f-{uuid.uuid4().hex[:8]}"

    def invoke(self, event):
        answer = self.client.invoke(FunctionName=self.name, Payload=json.dumps(event))
        return json.loads(answer["Payload"].read())

    def delete(self):
        self.client.delete_function(FunctionName=self.name)

    def lines(self, beginning, count):
        """Wait until so many lines of the log begin with a word, and give what is behind it."""
        until = time.monotonic() + WITHIN
        while True:
            with urllib.request.urlopen(f"{self.host.url}/_serverfull/logs/{self.name}") as answer:
                records = [json.loads(line)["message"] for line in answer.read().decode().splitlines()]
            log = [line for record in records for line in record.splitlines()]
            found = [line.partition(beginning)[2] for line in log if line.startswith(beginning)]
            if len(found) >= count:
                return found
            assert time.monotonic() < until, log
            time.sleep(0.05)


class Deployed(Called):
    def __init__(self, host, extensions, executable=None, **more):
        super().__init__(host)
        files = {f"extensions/{name}": text for name, text in extensions.items()}
        content = {"ZipFile": zipped(files, executable=files if executable is None else executable)}
        layer = self.client.publish_layer_version(LayerName=self.name, Content=content)["LayerVersionArn"]
        usual = {"Runtime": "python3.11", "Timeout": 20, "Layers": [layer]}
        deploy(self.client, self.name, {"app.py": CODE}, **usual, **more)


class OfImage(Called):
    def __init__(self, host, image, **more):
        super().__init__(host)
        usual = {"PackageType": "Image", "Role": ROLE, "Timeout": 20}
        self.client.create_function(FunctionName=self.name, Code={"ImageUri": image}, **usual, **more)
        found = wait_until_settled(self.client, self.name)
        assert found["State"] == "Active", found["StateReason"]


@pytest.mark.parametrize("client", ["own", "awslambdaric"])
def test_an_agent_sees_calls_gathers_telemetry_and_has_time_to_end(host, client):
    function = Deployed(host, {"agent": python(AGENT)}, Tags={"serverfull:client": client})
    assert function.invoke("hello") == "hello"
    assert json.loads(function.lines("SAW ", 1)[0])["eventType"] == "INVOKE"
    function.delete()
    shutdown = json.loads(function.lines("SAW ", 2)[1])
    assert (shutdown["eventType"], shutdown["shutdownReason"]) == ("SHUTDOWN", "spindown")
    until = time.monotonic() + WITHIN
    while True:
        events = [event for batch in function.lines("GATHERED ", 1) for event in json.loads(batch)]
        kinds = [event["type"] for event in events]
        if "platform.report" in kinds:
            break
        assert time.monotonic() < until, kinds
    assert [event["record"] for event in events if event["type"] == "function"] == ["loading", "handling hello"]
    assert function.lines("EXTENSION\t", 1) == ["Name: agent\tState: Ready\tEvents: [INVOKE, SHUTDOWN]"]


def test_a_runtime_that_ends_leaves_its_extensions_time_to_hear_of_it(host):
    function = Deployed(host, {"agent": python(AGENT)})
    assert function.invoke("end")["errorType"] == "Runtime.ExitError"
    assert json.loads(function.lines("SAW ", 2)[1])["shutdownReason"] == "failure"


@pytest.mark.parametrize(
    ("text", "executable", "error_type", "message"),
    [
        ("#!/bin/sh\nexit 3\n", None, "Extension.Crash", "exit status 3"),
        ("#!/bin/sh\n", (), "Extension.LaunchError", "fork/exec /opt/extensions/broken: permission denied"),
    ],
)
def test_an_extension_that_fails_at_its_start_fails_the_call(host, text, executable, error_type, message):
    said = Deployed(host, {"broken": text}, executable).invoke("hello")
    assert (said["errorType"], said["errorMessage"].partition("Error: ")[2]) == (error_type, message)


def test_an_image_brings_extensions_of_its_own(host, engine, build):
    name = f"serverfull-test-watched-{os.getpid()}"
    files = {"app.py": CODE, "agent": python(AGENT), "linked": python(AGENT), "no-extension": "text"}
    lines = [
        f"FROM {engine.image}",
        "COPY app.py /var/task/",
        "COPY agent /opt/extensions/",
        "COPY no-extension /opt/extensions/folder/",
        "COPY linked /opt/",
        "RUN ln -s /opt/linked /opt/extensions/linked",
        'CMD ["app.handler"]',
    ]
    build(name, "\n".join(lines), files)
    function = OfImage(host, name)
    assert function.invoke("hello") == "hello"
    assert sorted(line.split("\t")[0] for line in function.lines("EXTENSION\t", 2)) == ["Name: agent", "Name: linked"]
    assert len(function.lines("SAW ", 2)) == 2
    entry_point = {"EntryPoint": ["/no/such/program"]}  # it is executed by the shell that holds it back
    function.client.update_function_configuration(FunctionName=function.name, ImageConfig=entry_point)
    assert wait_until_settled(function.client, function.name)["LastUpdateStatus"] == "Successful"
    assert function.invoke("hello")["errorType"] == "Runtime.InvalidEntrypoint"
