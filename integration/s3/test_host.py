"""A host whose packages are in S3, and one that takes packages from there, with boto3 on both sides."""

from __future__ import annotations

import json
import time
import urllib.request

import pytest
from botocore.exceptions import BotoCoreError

from serverfull.testing.clients import lambda_client
from serverfull.testing.deployments import ROLE, invoke, wait_until_ready, zipped
from serverfull.testing.process import HostProcess

BUCKET = "packages"
PACKAGE = zipped({"lambda_function.py": "def handler(event, context):\n    return 'out of S3'\n"})


@pytest.fixture
def start(rclone, tmp_path):
    """Start a host that finds the server as every AWS tool would."""
    variables = {
        "AWS_ENDPOINT_URL_S3": rclone.endpoint.url,
        "AWS_ACCESS_KEY_ID": rclone.endpoint.access_key_id,
        "AWS_SECRET_ACCESS_KEY": rclone.endpoint.secret_access_key,
    }

    def start(state, *flags):
        return HostProcess.start(None, "--state", state, *flags, cwd=tmp_path, env=variables)

    return start


def create(client, name, code):
    client.create_function(
        FunctionName=name, Runtime="python3.11", Role=ROLE, Handler="lambda_function.handler", Code=code
    )
    wait_until_ready(client, name)
    assert invoke(client, name) == "out of S3"


@pytest.mark.parametrize("state", ["memory", "state"])
def test_packages_are_kept_in_the_bucket_and_downloaded_from_there(rclone, start, state):
    with start(state, "--code-store", f"s3://{BUCKET}/hosts/{state}") as host:
        client = lambda_client(host.url)
        create(client, "f", {"ZipFile": PACKAGE})
        (kept,) = rclone.client.list_objects_v2(Bucket=BUCKET, Prefix=f"hosts/{state}/code/")["Contents"]
        assert kept["Size"] == len(PACKAGE)
        location = client.get_function(FunctionName="f")["Code"]["Location"]
        assert location.startswith(rclone.endpoint.url)
        with urllib.request.urlopen(location, timeout=10) as download:
            assert download.read() == PACKAGE


def test_a_function_is_made_from_a_package_in_a_bucket(rclone, start):
    rclone.client.put_object(Bucket=BUCKET, Key="uploads/f.zip", Body=PACKAGE)
    with start("memory") as host:
        create(lambda_client(host.url), "f", {"S3Bucket": BUCKET, "S3Key": "uploads/f.zip"})


def published(rclone, prefix, accept):
    """Wait until the document of the function satisfies a condition; None stands for no document.

    S3 replaces an object at once. rclone does not: while it is at it, the object is empty or cut off.
    """
    deadline = time.monotonic() + 20
    key = f"{prefix}/123456789012/us-east-1/f/function.json"
    while True:
        try:
            document = json.load(rclone.client.get_object(Bucket=BUCKET, Key=key)["Body"])
        except rclone.client.exceptions.NoSuchKey:
            document = None
        except (json.JSONDecodeError, BotoCoreError):
            document = "half written"
        if document != "half written" and accept(document):
            return document
        assert time.monotonic() < deadline, document
        time.sleep(0.05)


def test_what_is_deployed_is_published_beside_its_packages_and_taken_back(rclone, start):
    flags = ("--code-store", f"s3://{BUCKET}/fleet")
    with start("published", *flags) as host:
        client = lambda_client(host.url, access_key="123456789012")
        create(client, "f", {"ZipFile": PACKAGE})
        client.publish_version(FunctionName="f")
        client.create_alias(FunctionName="f", Name="live", FunctionVersion="1")
        client.tag_resource(Resource="arn:aws:lambda:us-east-1:123456789012:function:f", Tags={"team": "blue"})
        document = published(rclone, "fleet", lambda found: found and "Tags" in found and found["Aliases"])
        assert document["Aliases"]["live"]["FunctionVersion"] == "1"
        version = document["Versions"]["1"]
        assert version["Handler"] == "lambda_function.handler"
        kept = rclone.client.get_object(Bucket=BUCKET, Key=f"fleet/{version['Code']['S3Key']}")
        assert kept["Body"].read() == PACKAGE
        host.kill()
    rclone.client.delete_object(Bucket=BUCKET, Key="fleet/123456789012/us-east-1/f/function.json")
    with start("published", *flags) as host:
        client = lambda_client(host.url, access_key="123456789012")
        client.update_function_configuration(FunctionName="f", Description="new")
        published(rclone, "fleet", lambda found: found and found.get("Description") == "new")
        client.delete_function(FunctionName="f")
        published(rclone, "fleet", lambda found: found is None)
