"""Container images as functions that nobody has deployed: found by labels, templates and names, and run."""

from __future__ import annotations

import json
import os
import time

import pytest

from serverfull.testing.clients import lambda_client
from serverfull.testing.process import HostProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SHOW = """
import os

def handler(event, context):
    return {"text": TEXT, "stage": os.environ.get("STAGE"), "memory": context.memory_limit_in_mb,
            "version": context.function_version}
"""
REPOSITORY = f"serverfull-test-fetched-{os.getpid()}"
DOCKERFILE = """
FROM {image}
LABEL serverfull.function={name}
LABEL serverfull.timeout=30 serverfull.memory-size=256 serverfull.environment.STAGE=test
COPY app.py /var/task/
CMD ["app.handler"]
"""


@pytest.fixture(scope="module")
def show(engine, build):
    """Build an image that says which function it is."""

    def show(name, text, tag="1"):
        dockerfile = DOCKERFILE.format(image=engine.image, name=name)
        return build(f"{REPOSITORY}/{name}:{tag}", dockerfile, {"app.py": SHOW.replace("TEXT", repr(text))})

    return show


def call(client, name, **options):
    answer = client.invoke(FunctionName=name, **options)
    payload = json.load(answer["Payload"])
    assert "FunctionError" not in answer, payload
    return payload


def test_labels_make_an_image_a_function_and_a_new_image_of_its_name_a_new_one(engine, show):
    identity = show("labelled", "first")
    with HostProcess.start("docker://", env={"SERVERFULL_DOCKER__ENGINE": engine.url}) as host:
        client = lambda_client(host.url, read_timeout=60)
        assert call(client, "labelled") == {"text": "first", "stage": "test", "memory": "256", "version": "$LATEST"}
        assert call(client, "labelled", Qualifier="1")["version"] == "1"
        found = client.get_function(FunctionName="labelled")
        image = f"{REPOSITORY}/labelled"
        assert found["Code"] == {
            "RepositoryType": "docker",
            "ImageUri": f"{image}:1",
            "ResolvedImageUri": f"{image}@{identity}",
        }
        configuration = found["Configuration"]
        assert (configuration["PackageType"], configuration["Timeout"], configuration["MemorySize"]) == (
            "Image",
            30,
            256,
        )
        assert configuration["CodeSize"] > 0
        with pytest.raises(client.exceptions.ResourceNotFoundException):
            client.invoke(FunctionName="labelled", Qualifier="2")

        show("labelled", "second")
        until = time.monotonic() + 60
        while call(client, "labelled")["text"] != "second":
            assert time.monotonic() < until
        client.close()


def test_a_template_and_a_mapping_name_images_too(engine, show):
    show("templated", "one", "latest")
    show("templated", "two", "prod")
    targets = f"docker://{REPOSITORY}/{{name}}:{{qualifier}}", f"docker://other={REPOSITORY}/templated:prod"
    environment = {"SERVERFULL_DOCKER__ENGINE": engine.url, "SERVERFULL_DOCKER__PULL": "never"}
    with HostProcess.start(targets[0], targets[1], env=environment) as host:
        client = lambda_client(host.url, read_timeout=60)
        assert call(client, "templated")["text"] == "one"
        assert call(client, "templated", Qualifier="prod")["text"] == "two"
        assert call(client, "other")["text"] == "two"
        with pytest.raises(client.exceptions.ResourceNotFoundException):
            client.invoke(FunctionName="nobody")
        listed = [function["FunctionName"] for function in client.list_functions()["Functions"]]
        assert listed == ["other", "templated"]
        client.close()


def test_an_engine_that_is_away_is_said_by_calls_and_not_at_the_start(tmp_path):
    with HostProcess.start("docker://", env={"SERVERFULL_DOCKER__ENGINE": f"unix://{tmp_path}/none"}) as host:
        answer = host.invoke("hello", b"{}")
        assert answer.status == 500
        assert "cannot be reached" in answer.body.decode()
