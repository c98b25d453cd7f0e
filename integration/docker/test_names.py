"""Containers of functions find this machine by name, buckets before it too; and the operator's profiles."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path

import boto3
import pytest
from boto3.session import Session
from docker.errors import APIError, NotFound

from integration.servers import INSTALL, started
from serverfull.testing.clients import lambda_client
from serverfull.testing.deployments import deploy, invoke, zipped
from serverfull.testing.process import HostDidNotStart, HostProcess

pytestmark = pytest.mark.slow

SUFFIX = "localhost.localstack.cloud"
OTHER = "localhost.example.internal"
RUNTIME = "python3.11"
ARN = "arn:aws:lambda:us-east-1:000000000000:function:look"

LOOK = """
import socket
def handler(event, context):
    found = {}
    for name in event:
        try:
            found[name] = sorted({entry[4][0] for entry in socket.getaddrinfo(name, 80)})
        except OSError as missing:
            found[name] = type(missing).__name__
    return found
"""

CALL_S3 = """
import sys
sys.path.append("/boto3")
from boto3.session import Session
from botocore.config import Config

def handler(event, context):
    s3 = Session().client("s3", config=Config(s3={"addressing_style": event}))
    s3.put_object(Bucket="my-bucket", Key="key", Body=b"from a container")
    seen = []
    s3.meta.events.register("before-send.s3", lambda request, **_: seen.append(request.url))
    return [s3.get_object(Bucket="my-bucket", Key="key")["Body"].read().decode(), *seen]
"""


@pytest.fixture(scope="module")
def gateway(engine):
    """The address of this machine in the network that containers are in unless they are told otherwise."""
    with engine.client() as client:
        return client.api.inspect_network("bridge")["IPAM"]["Config"][0]["Gateway"]


@pytest.fixture
def start(engine, tmp_path):
    def start(**settings):
        environ = {f"SERVERFULL_{name.upper()}": value for name, value in settings.items()}
        docker = {"DOCKER_HOST": engine.url, "SERVERFULL_DOCKER__IMAGES": f"{RUNTIME}={engine.image}"}
        return HostProcess.start(
            None, "--state", "memory", "--execution", "docker", env={**docker, **environ}, cwd=tmp_path
        )

    return start


def looked_up(host, *names):
    client = lambda_client(host.url)
    deploy(client, "look", {"app.py": LOOK}, Runtime=RUNTIME, Timeout=30)
    return called(host, *names)


def called(host, *names):
    return invoke(lambda_client(host.url), "look", Payload=json.dumps(names))


def test_a_container_finds_this_machine_under_its_suffixes_and_all_names_below_them(start, gateway):
    names = [SUFFIX, f"my-bucket.{SUFFIX}", f"A.b.{SUFFIX}", OTHER, f"x.{OTHER}"]
    with start(docker__dns_suffixes=f"{SUFFIX},{OTHER}") as host:
        assert looked_up(host, *names, "no-such-name.invalid") == {
            **{name: [gateway] for name in names},
            "no-such-name.invalid": "gaierror",
        }


def test_a_network_of_ones_own_keeps_the_names_of_its_containers_and_may_move(engine, start):
    name = f"my-bucket.{SUFFIX}"
    with engine.client() as client:
        network = client.networks.create("sfull-names", driver="bridge")
        made = [network]
        try:
            other = client.containers.create(
                engine.image, entrypoint=["sleep", "600"], name="neighbour", network=network.name
            )
            settings = {"docker__network": network.name, "docker__dns_suffixes": SUFFIX, "execution__ephemeral": "true"}
            try:
                other.start()
                with start(**settings) as host:
                    found = looked_up(host, "neighbour", name)
                    assert found[name] == [gateway_of(network)]
                    beside = {held["Name"]: held["IPv4Address"] for held in network.attrs["Containers"].values()}
                    assert found["neighbour"] == [beside["neighbour"].partition("/")[0]]
                    other.remove(force=True)
                    remove(network)
                    made += [client.networks.create("sfull-other"), client.networks.create("sfull-names")]
                    moved = gateway_of(made[-1])
                    assert moved != gateway_of(network)
                    assert called(host, name) == {name: [moved]}
                    client_of_aws = {"serverfull:client": "awslambdaric"}  # which is listened for there too
                    lambda_client(host.url).tag_resource(Resource=ARN, Tags=client_of_aws)
                    assert called(host, name) == {name: [moved]}
            finally:
                with suppress(NotFound):
                    other.remove(force=True)
        finally:
            for network in made:
                with suppress(NotFound):
                    remove(network)


def gateway_of(network):
    with suppress(NotFound):  # what it was is known
        network.reload()
    return network.attrs["IPAM"]["Config"][0]["Gateway"]


def remove(network):
    """Remove a network as soon as the containers of the calls before have gone."""
    deadline = time.monotonic() + 15
    while True:
        try:
            return network.remove()
        except APIError as error:
            if error.status_code != 403 or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.fixture
def s3(require, gateway):
    """An S3 server that containers reach, with a bucket; gives its port."""
    path = shutil.which("moto_server")
    require("moto's server", path, INSTALL)
    with started([path, "-H", gateway, "-p", "0"], r"Running on http://\S+:(\d+)") as port:
        with closing(
            Session("test", "test", region_name="us-east-1").client("s3", endpoint_url=f"http://{gateway}:{port}")
        ) as client:
            client.create_bucket(Bucket="my-bucket")
        yield port


def test_boto3_in_a_container_reaches_a_bucket_of_this_machine_before_the_hosts_name(start, s3):
    endpoint = f"http://{SUFFIX}:{s3}"
    packages = Path(boto3.__file__).parents[1]
    settings = {"aws__credentials": "static", "aws__endpoint_url": endpoint, "docker__dns_suffixes": SUFFIX}
    with start(**settings, docker__volumes=f"{packages}:/boto3:ro") as host:
        client = lambda_client(host.url, region="us-east-1")
        deploy(client, "f", {"app.py": CALL_S3}, Runtime=RUNTIME, Timeout=60, MemorySize=512)
        for style, url in (
            ("virtual", f"http://my-bucket.{SUFFIX}:{s3}/key"),
            ("path", f"http://{SUFFIX}:{s3}/my-bucket/key"),
        ):
            assert invoke(client, "f", Payload=json.dumps(style)) == ["from a container", url]


PROFILES = """
import os, sys
sys.path.append("/boto3")
from boto3.session import Session

def handler(event, context):
    found = Session().get_credentials()
    named = os.environ["AWS_SHARED_CREDENTIALS_FILE"]
    try:
        open(named, "a")
        writable = True
    except OSError:
        writable = False
    return [named, found.access_key, found.secret_key, writable, sorted(os.listdir(os.path.dirname(named)))]
"""


def test_profiles_of_the_operator_are_read_in_containers_and_cannot_be_written(start, tmp_path):
    folder = tmp_path / "aws"
    folder.mkdir(mode=0o700)
    credentials = folder / "credentials"
    credentials.touch(mode=0o600)
    (folder / "private").write_text("not for functions")
    settings = {"aws__credentials": "profile", "aws__profile_folder": str(folder), "aws__profile": "there"}
    packages = Path(boto3.__file__).parents[1]
    with start(**settings, docker__volumes=f"{packages}:/boto3:ro", execution__ephemeral="true") as host:
        client = lambda_client(host.url)
        layer = client.publish_layer_version(LayerName="layer", Content={"ZipFile": zipped({"note.txt": "here"})})
        for number, layers in enumerate(([], [layer["LayerVersionArn"]])):
            credentials.write_text(f"[there]\naws_access_key_id = id-{number}\naws_secret_access_key = key-{number}\n")
            name = f"f{number}"
            deploy(client, name, {"app.py": PROFILES}, Runtime=RUNTIME, Timeout=60, MemorySize=512, Layers=layers)
            found = ["/opt/aws-config/credentials", f"id-{number}", f"key-{number}", False, ["credentials"]]
            assert invoke(client, name) == found
        credentials.write_text("[there]\naws_access_key_id = newest\naws_secret_access_key = newest\n")
        assert invoke(client, "f0")[1:3] == ["newest", "newest"]


def test_a_host_whose_containers_could_not_find_it_does_not_start(start, gateway):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((gateway, 53))
        with pytest.raises(HostDidNotStart, match=rf"ended with 3\)[\s\S]*cannot listen on {gateway}:53: another name"):
            start(docker__dns_suffixes=SUFFIX)
    with pytest.raises(HostDidNotStart, match="has no network gone"):
        start(docker__dns_suffixes=SUFFIX, docker__network="gone")
    with pytest.raises(HostDidNotStart, match="dns_suffixes: there is no name server for containers, because"):
        start(docker__dns_suffixes=SUFFIX, docker__engine="unix:///nowhere/docker.sock")


READ = """
def handler(event, context):
    return [open(path).read().split() for path in ("/etc/hosts", "/etc/resolv.conf")]
"""


def test_containers_know_the_hosts_and_servers_that_the_operator_names_and_no_server_of_ours(start, gateway):
    with start(docker__extra_hosts="db.internal:host-gateway,other:192.0.2.7", docker__dns="192.0.2.53") as host:
        listening = subprocess.run(["ss", "-lnHtu"], capture_output=True, text=True).stdout
        assert f"{gateway}:53" not in listening
        client = lambda_client(host.url)
        deploy(client, "read", {"app.py": READ}, Runtime=RUNTIME, Timeout=30)
        hosts, servers = invoke(client, "read")
    assert hosts[hosts.index("db.internal") - 1] == gateway
    assert hosts[hosts.index("other") - 1] == "192.0.2.7"
    assert servers == ["nameserver", "192.0.2.53"]
