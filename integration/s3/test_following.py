"""Functions that follow the objects in S3 that they were made of: on a real server (rclone), and on moto."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from itertools import count

import pytest

from serverfull.testing.clients import lambda_client
from serverfull.testing.deployments import PYTHON, ROLE, create, invoke, wait_until_ready, zipped
from serverfull.testing.process import HostProcess

BUCKET = "packages"
NUMBERS = count()
DEADLINE = 30.0


def says(text):
    return zipped({"app.py": f"def handler(event, context):\n    return {text!r}\n"})


def start_on(endpoint, folder, **settings):
    variables = {
        "AWS_ENDPOINT_URL_S3": endpoint.url,
        "AWS_ACCESS_KEY_ID": endpoint.access_key_id,
        "AWS_SECRET_ACCESS_KEY": endpoint.secret_access_key,
    }
    variables |= {f"SERVERFULL_S3__{name.upper()}": value for name, value in settings.items()}
    return HostProcess.start(None, "--state", "memory", cwd=folder, env=variables)


@pytest.fixture(scope="module")
def host(rclone_with_etags, tmp_path_factory):
    """A host that looks often."""
    with start_on(rclone_with_etags.endpoint, tmp_path_factory.mktemp("host"), sync_interval="200ms") as host:
        yield host


@pytest.fixture
def client(host):
    return lambda_client(host.url, region="us-east-1")


@pytest.fixture
def key():
    return f"following/{next(NUMBERS)} ü+.zip"


def put(server, key, package):
    """Put an object in place of another; rclone may hang where one is written over at once."""
    server.client.delete_object(Bucket=BUCKET, Key=key)
    server.client.put_object(Bucket=BUCKET, Key=key, Body=package)


def follow(client, server, name, key, text="one"):
    put(server, key, says(text))
    create(client, name, {}, Code={"S3Bucket": BUCKET, "S3Key": key})
    wait_until_ready(client, name)
    assert invoke(client, name) == text


def configuration(client, name):
    found = client.get_function_configuration(FunctionName=name)
    return {member: value for member, value in found.items() if member != "ResponseMetadata"}


def wait_for_answer(client, name, expected):
    deadline = time.monotonic() + DEADLINE
    while (answer := invoke(client, name)) != expected:
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)


def logged(host, *words, times=1):
    """Wait until so many lines of the host's log have all these words."""
    deadline = time.monotonic() + DEADLINE
    while True:
        lines = [line for line in host.stderr_lines() if all(word in line for word in words)]
        if len(lines) >= times:
            return lines
        assert time.monotonic() < deadline, host.stderr_lines()
        time.sleep(0.05)


def test_a_changed_object_is_the_code_of_the_next_calls_everywhere(host, client, rclone_with_etags, key):
    elsewhere = lambda_client(host.url, access_key="210987654321", region="eu-west-1")
    follow(client, rclone_with_etags, "f", key)
    follow(elsewhere, rclone_with_etags, "f", key)
    before = [each.get_function_configuration(FunctionName="f") for each in (client, elsewhere)]
    client.publish_version(FunctionName="f")
    put(rclone_with_etags, key, says("two"))
    for each, old in zip((client, elsewhere), before, strict=True):
        wait_for_answer(each, "f", "two")
        new = wait_until_ready(each, "f")
        for member in ("CodeSha256", "RevisionId", "LastModified"):
            assert new[member] != old[member], member
    assert invoke(client, "f", Qualifier="1") == "one"


def test_a_package_that_cannot_be_used_changes_nothing_and_is_said_once(host, client, rclone_with_etags, key):
    follow(client, rclone_with_etags, "broken", key)
    before = configuration(client, "broken")
    put(rclone_with_etags, key, b"no archive at all")
    logged(host, "code in S3 refused: the function keeps what it has", "broken", "Could not unzip uploaded file")
    put(rclone_with_etags, key, b"still none")
    logged(host, "code in S3 refused", "broken", times=2)
    assert invoke(client, "broken") == "one"
    assert configuration(client, "broken") == before
    put(rclone_with_etags, key, says("healed"))
    wait_for_answer(client, "broken", "healed")
    assert len(logged(host, "code in S3 refused", "broken", times=2)) == 2


def test_an_object_that_goes_away_and_comes_back_is_said_and_the_code_stays(host, client, rclone_with_etags, key):
    follow(client, rclone_with_etags, "gone", key)
    rclone_with_etags.client.delete_object(Bucket=BUCKET, Key=key)
    logged(host, "object of functions cannot be seen", "gone", "there is no such object any more")
    assert invoke(client, "gone") == "one"
    put(rclone_with_etags, key, says("back"))
    wait_for_answer(client, "gone", "back")
    logged(host, "object of functions is seen again", "gone")


def test_code_in_a_request_ends_the_link_and_so_does_a_deletion(host, client, rclone_with_etags, key):
    follow(client, rclone_with_etags, "freed", key)
    client.update_function_code(FunctionName="freed", ZipFile=says("mine"))
    wait_until_ready(client, "freed")
    follow(client, rclone_with_etags, "deleted", key, "shared")
    client.delete_function(FunctionName="deleted")
    follow(client, rclone_with_etags, "witness", key, "shared")
    put(rclone_with_etags, key, says("new"))
    wait_for_answer(client, "witness", "new")
    assert invoke(client, "freed") == "mine"
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_function(FunctionName="deleted")


def test_a_notification_of_aws_or_minio_has_the_host_look_at_once_and_nothing_else(rclone_with_etags, tmp_path, key):
    with start_on(rclone_with_etags.endpoint, tmp_path, sync_interval="1h", sync_idle_interval="1h") as host:
        client = lambda_client(host.url, region="us-east-1")
        follow(client, rclone_with_etags, "pushed", key)
        quoted = key.replace(" ", "+").replace("ü+", "%C3%BC%2B")
        record = {"s3": {"bucket": {"name": BUCKET}, "object": {"key": quoted, "eTag": "no-truth-in-it"}}}
        aws = {"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", **record}]}
        minio = {"EventName": "s3:ObjectCreated:Put", "Key": f"{BUCKET}/{quoted}", "Records": [record]}
        for text, document in (("by aws", aws), ("by minio", minio)):
            put(rclone_with_etags, key, says(text))
            assert notify(host, document) == {"Objects": 1}
            wait_for_answer(client, "pushed", text)
        assert notify(host, {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": BUCKET}) == {"Objects": 0}
        unknown = {"s3": {"bucket": {"name": "else"}, "object": {"key": quoted}}}
        assert notify(host, {"Records": [unknown]}) == {"Objects": 0}
        before = configuration(client, "pushed")
        assert notify(host, aws) == {"Objects": 1}  # of nothing
        for wrong in ([], {"Records": 1}, {"Records": [1]}, {"Records": [{"s3": {}}]}, {"Records": [record] * 1001}):
            with pytest.raises(urllib.error.HTTPError, match="400"):
                notify(host, wrong)
        assert configuration(client, "pushed") == before


def notify(host, document):
    asked = urllib.request.Request(f"{host.url}/_serverfull/s3/notifications", json.dumps(document).encode())
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return json.load(answer)


def test_a_version_of_an_object_is_not_followed_and_a_host_may_follow_none(moto, tmp_path):
    moto.client.create_bucket(Bucket="pinned")
    moto.client.put_bucket_versioning(Bucket="pinned", VersioningConfiguration={"Status": "Enabled"})
    version = moto.client.put_object(Bucket="pinned", Key="f.zip", Body=says("one"))["VersionId"]
    place = {"S3Bucket": "pinned", "S3Key": "f.zip"}
    with start_on(moto.endpoint, tmp_path, sync_interval="100ms") as host:
        client = lambda_client(host.url, region="us-east-1")
        create(client, "pinned", {}, Code={**place, "S3ObjectVersion": version})
        create(client, "follows", {}, Code=place)
        for name in ("pinned", "follows"):
            wait_until_ready(client, name)
        moto.client.put_object(Bucket="pinned", Key="f.zip", Body=says("two"))
        wait_for_answer(client, "follows", "two")
        assert invoke(client, "pinned") == "one"
    with start_on(moto.endpoint, tmp_path, sync_interval="100ms", sync="false") as host:
        client = lambda_client(host.url, region="us-east-1")
        create(client, "still", {}, Code=place)
        wait_until_ready(client, "still")
        record = {"s3": {"bucket": {"name": "pinned"}, "object": {"key": "f.zip"}}}
        assert notify(host, {"Records": [record]}) == {"Objects": 0}


def test_the_four_steps_of_flocis_example(rclone_with_etags, host, tmp_path, require):
    aws = shutil.which("aws")
    require("the AWS CLI", aws, "make clients")
    rclone_with_etags.client.put_object(Bucket=BUCKET, Key="function.zip", Body=says("before"))
    (tmp_path / "updated-function.zip").write_bytes(says("after"))
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": rclone_with_etags.endpoint.access_key_id,
        "AWS_SECRET_ACCESS_KEY": rclone_with_etags.endpoint.secret_access_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": host.url,
        "AWS_ENDPOINT_URL_S3": rclone_with_etags.endpoint.url,
    }

    def run(command):
        words = [aws, *command.replace("my-bucket", BUCKET).split()[1:]]
        subprocess.run(words, env=environment, cwd=tmp_path, check=True, capture_output=True, timeout=60)

    run(
        "aws lambda create-function --function-name my-function --code S3Bucket=my-bucket,S3Key=function.zip "
        f"--runtime {PYTHON} --role {ROLE} --handler app.handler"
    )
    run("aws lambda wait function-active-v2 --function-name my-function")
    run("aws lambda invoke --function-name my-function out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == "before"
    rclone_with_etags.client.delete_object(Bucket=BUCKET, Key="function.zip")  # see `put`
    run("aws s3 cp updated-function.zip s3://my-bucket/function.zip")
    wait_for_answer(lambda_client(host.url, region="us-east-1"), "my-function", "after")
    run("aws lambda invoke --function-name my-function out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == "after"
