"""Hosts that serve the functions of a bucket: laid there by hand, and deployed to another host; on rclone and moto."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import ExitStack, suppress

import pytest
from botocore.exceptions import ClientError

from serverfull.domain.checksums import code_sha256, sha256_of
from serverfull.errors import NotFoundError
from serverfull.fetchers.s3 import S3Fetcher
from serverfull.storage.buckets import S3Bucket
from serverfull.testing.clients import lambda_client
from serverfull.testing.deployments import PYTHON, create, deploy, invoke, wait_until_ready, zipped
from serverfull.testing.process import HostProcess

BUCKET = "packages"
DEADLINE = 30.0
ACCOUNT = "123456789012"


def says(text):
    return zipped({"app.py": f"def handler(event, context):\n    return {text!r}\n"})


def variables_of(server, **settings):
    return {
        "AWS_ENDPOINT_URL_S3": server.endpoint.url,
        "AWS_ACCESS_KEY_ID": server.endpoint.access_key_id,
        "AWS_SECRET_ACCESS_KEY": server.endpoint.secret_access_key,
        **{f"SERVERFULL_S3__{name.upper()}": value for name, value in settings.items()},
    }


def put(server, key, content):
    """Put an object in place of another; rclone may hang where one is written over at once."""
    server.client.delete_object(Bucket=BUCKET, Key=key)
    server.client.put_object(Bucket=BUCKET, Key=key, Body=content)


def eventually(ask, expected):
    """Ask until the answer is as expected; an error counts as its code."""
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            answer = ask()
        except ClientError as error:
            answer = error.response["Error"]["Code"]
        if answer == expected:
            return
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["rclone", "rclone_with_etags", "moto"])
async def test_a_bucket_of_any_server_is_read_and_its_changes_are_seen(request, name):
    server = request.getfixturevalue(name)
    document = {"Handler": "app.handler", "Runtime": PYTHON, "Timeout": 5}
    server.client.put_object(Bucket=BUCKET, Key="any/f/function.json", Body=json.dumps(document))
    server.client.put_object(Bucket=BUCKET, Key="any/f/code.zip", Body=says("one"))
    fetcher = S3Fetcher(S3Bucket(BUCKET, server.endpoint), "any", refresh=0.01)
    try:
        first = await fetcher.fetch("f")
        assert (first.handler.root / "app.py").read_bytes().endswith(b"'one'\n")
        assert list(await fetcher.list()) == ["f"]
        with pytest.raises(NotFoundError):
            await fetcher.fetch("none")
        put(server, "any/f/code.zip", says("two, which is longer"))
        put(server, "any/f/function.json", json.dumps(document | {"Timeout": 10}))
        async with asyncio.timeout(DEADLINE):
            while True:
                with suppress(NotFoundError):
                    found = await fetcher.fetch("f")
                    if found.timeout == 10 and b"two" in (found.handler.root / "app.py").read_bytes():
                        break
                await asyncio.sleep(0.02)
    finally:
        await fetcher.aclose()


@pytest.fixture(scope="module")
def fleet(rclone_with_etags, tmp_path_factory):
    """A host that takes deployments and keeps them in a bucket, and two that have nothing but the bucket."""
    place = f"s3://{BUCKET}/fleet"
    folder = tmp_path_factory.mktemp("fleet")
    variables = variables_of(rclone_with_etags, refresh="100ms", absent="100ms")
    with ExitStack() as stack:
        first = HostProcess.start(None, "--state", "memory", "--code-store", place, cwd=folder, env=variables)
        hosts = [stack.enter_context(first)]
        hosts += [stack.enter_context(HostProcess.start(place, cwd=folder, env=variables)) for _ in range(2)]
        yield hosts


@pytest.fixture
def clients(fleet):
    return [lambda_client(host.url, region="eu-west-1", access_key=ACCOUNT) for host in fleet]


def test_a_fleet_serves_what_one_host_deployed_its_versions_aliases_and_layers(clients):
    owner, *others = clients
    layer = owner.publish_layer_version(LayerName="l", Content={"ZipFile": zipped({"python/common.py": "X = 'layer'"})})
    code = "import common, os\ndef handler(_, context): return [common.X, os.environ['TOLD'], context.function_version]"
    deploy(
        owner, "f", {"app.py": code}, Layers=[layer["LayerVersionArn"]], Environment={"Variables": {"TOLD": "one"}},
        Timeout=7, Tags={"team": "blue"},
    )  # fmt: skip
    owner.publish_version(FunctionName="f")
    owner.create_alias(FunctionName="f", Name="live", FunctionVersion="1", Description="what runs")
    for client in others:
        eventually(lambda client=client: invoke(client, "f", Qualifier="live"), ["layer", "one", "1"])
        assert invoke(client, "f") == ["layer", "one", "$LATEST"]
        found, told = client.get_function(FunctionName="f"), owner.get_function(FunctionName="f")
        for member in ("CodeSha256", "CodeSize", "LastModified", "Timeout", "Handler", "Runtime", "Environment"):
            assert found["Configuration"][member] == told["Configuration"][member], member
        assert found["Tags"] == {"team": "blue"}
        assert found["Code"]["RepositoryType"] == "s3"
        assert found["Code"]["Location"].startswith(f"s3://{BUCKET}/fleet/code/")
        assert [one["FunctionName"] for one in client.list_functions()["Functions"]] == ["f"]
        versions = client.list_versions_by_function(FunctionName="f")["Versions"]
        assert [one["Version"] for one in versions] == ["$LATEST", "1"]
        for listed in (
            client.list_aliases(FunctionName="f")["Aliases"][0],
            client.get_alias(FunctionName="f", Name="live"),
        ):
            assert (listed["Name"], listed["FunctionVersion"], listed["Description"]) == ("live", "1", "what runs")
        assert client.list_aliases(FunctionName="f", FunctionVersion="2")["Aliases"] == []
        first = client.list_versions_by_function(FunctionName="f", MaxItems=1)
        assert [one["Version"] for one in first["Versions"]] == ["$LATEST"]
        (second,) = client.list_versions_by_function(FunctionName="f", Marker=first["NextMarker"])["Versions"]
        assert second["Version"] == "1"
        with pytest.raises(ClientError, match="comes from the s3 fetcher"):
            client.update_function_configuration(FunctionName="f", Timeout=8)
        with pytest.raises(ClientError, match="Function not found"):
            lambda_client(client.meta.endpoint_url, region="us-east-1", access_key=ACCOUNT).invoke(FunctionName="f")
    owner.update_function_configuration(FunctionName="f", Environment={"Variables": {"TOLD": "two"}})
    wait_until_ready(owner, "f")
    owner.publish_version(FunctionName="f")
    owner.update_alias(FunctionName="f", Name="live", FunctionVersion="2")
    for client in others:
        eventually(lambda client=client: invoke(client, "f", Qualifier="live"), ["layer", "two", "2"])
        assert invoke(client, "f", Qualifier="1") == ["layer", "one", "1"]
    owner.update_function_code(FunctionName="f", ZipFile=says("new code"))
    for client in others:
        eventually(lambda client=client: invoke(client, "f"), "new code")
    owner.delete_function(FunctionName="f")
    for client in others:
        eventually(lambda client=client: invoke(client, "f"), "ResourceNotFoundException")
        assert client.list_functions()["Functions"] == []


def test_a_fleet_serves_what_is_laid_there_by_hand(fleet, clients, rclone_with_etags):
    put(rclone_with_etags, "fleet/hello/code.zip", zipped({"lambda_function.py": "def lambda_handler(e, c): return 1"}))
    anywhere = [lambda_client(host.url, region="us-east-1") for host in fleet[1:]]
    for client in anywhere:
        eventually(lambda client=client: invoke(client, "hello"), 1)
    put(rclone_with_etags, "fleet/hello/function.json", json.dumps({"Handler": "app.handler", "Timeout": 9}))
    put(rclone_with_etags, "fleet/hello/code.zip", says("two"))
    for client in (*anywhere, *clients[1:]):
        eventually(lambda client=client: invoke(client, "hello"), "two")
        told = client.get_function(FunctionName="hello")["Configuration"]
        assert (told["Timeout"], told["CodeSha256"]) == (9, code_sha256(sha256_of(says("two"))))
    put(rclone_with_etags, "fleet/hello/function.json", b'{"Timeout": "long"}')
    deadline = time.monotonic() + DEADLINE
    while not any("function in S3 refused: it stays as it was" in line for line in fleet[1].stderr_lines()):
        assert time.monotonic() < deadline
        assert invoke(anywhere[0], "hello") == "two"
    rclone_with_etags.client.delete_object(Bucket=BUCKET, Key="fleet/hello/function.json")
    rclone_with_etags.client.delete_object(Bucket=BUCKET, Key="fleet/hello/code.zip")
    eventually(lambda: invoke(anywhere[0], "hello"), "ResourceNotFoundException")


def test_what_a_bucket_has_not_may_be_deployed_beside_it(fleet, clients):
    client = clients[1]
    create(client, "own", {}, Code={"ZipFile": says("own")})
    wait_until_ready(client, "own")
    assert invoke(client, "own") == "own"
    client.delete_function(FunctionName="own")
