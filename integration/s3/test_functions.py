"""Functions that call S3 with boto3, by the endpoints and credentials that their host gives them."""

from __future__ import annotations

import json

import pytest

from serverfull.testing.clients import lambda_client
from serverfull.testing.deployments import deploy, invoke
from serverfull.testing.process import HostProcess

pytestmark = pytest.mark.slow

NOBODY = "http://127.0.0.1:9"
"""The endpoint of a service that is not there."""

CODE = """
from boto3.session import Session
from botocore.config import Config

def handler(event, context):
    session = Session()
    config = Config(request_checksum_calculation="when_required", response_checksum_validation="when_required",
                    retries={"total_max_attempts": 1}, connect_timeout=5)
    if event.get("ask") == "endpoints":
        return {name: session.client(name, config=config).meta.endpoint_url for name in event["services"]}
    s3 = session.client("s3", config=config)
    s3.put_object(Bucket="packages", Key=event["key"], Body=b"from a function")
    return s3.get_object(Bucket="packages", Key=event["key"])["Body"].read().decode()
"""


@pytest.fixture(params=["process", "inprocess"])
def start(request, tmp_path):
    """Start a host with settings of the group aws; the functions run in processes, and then in the host's."""

    def start(aws, **environ):
        settings = {f"SERVERFULL_AWS__{name.upper()}": value for name, value in aws.items()}
        return HostProcess.start(
            None, "--state", "memory", "--execution", request.param, cwd=tmp_path, env={**settings, **environ}
        )

    return start


def put(host, rclone, key, **variables):
    """Have a new function put an object into the bucket, and see that it is there."""
    client = lambda_client(host.url, region="us-east-1")
    name = key.replace("/", "-")
    deploy(client, name, {"app.py": CODE}, Timeout=30, MemorySize=512, Environment={"Variables": variables})
    answer = client.invoke(FunctionName=name, Payload=json.dumps({"key": key}))
    said = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, said
    assert said == "from a function"
    assert rclone.client.get_object(Bucket="packages", Key=key)["Body"].read() == b"from a function"
    return client, name


def keys_of(rclone):
    return {
        "access_key_id": rclone.endpoint.access_key_id,
        "secret_access_key": rclone.endpoint.secret_access_key,
        "session_token": "",
    }


def test_static_credentials_and_an_endpoint_are_what_boto3_takes(rclone, start):
    with start({"credentials": "static", "endpoint_url": rclone.endpoint.url, **keys_of(rclone)}) as host:
        put(host, rclone, "by/static")


def test_credentials_of_the_hosts_own_environment_are_passed_through(rclone, start):
    keys = {
        "AWS_ACCESS_KEY_ID": rclone.endpoint.access_key_id,
        "AWS_SECRET_ACCESS_KEY": rclone.endpoint.secret_access_key,
    }
    with start({"credentials": "passthrough", "endpoint_url": rclone.endpoint.url}, **keys) as host:
        put(host, rclone, "by/passthrough")


def test_profiles_are_read_from_the_operators_files_and_functions_choose_among_them(rclone, start, tmp_path):
    folder = tmp_path / "aws"
    folder.mkdir()
    (folder / "credentials").write_text(
        "[default]\naws_access_key_id = an-id\naws_secret_access_key = wrong\n"
        f"[right]\naws_access_key_id = {rclone.endpoint.access_key_id}\n"
        f"aws_secret_access_key = {rclone.endpoint.secret_access_key}\n"
    )
    (folder / "config").write_text(
        f"[profile right]\nservices = here\n[services here]\ns3 =\n  endpoint_url = {rclone.endpoint.url}\n"
    )
    settings = {"credentials": "profile", "profile_folder": str(folder)}
    # Keys of the host's own would win over every profile if a function found them.
    host_keys = {"AWS_ACCESS_KEY_ID": "the-hosts", "AWS_SECRET_ACCESS_KEY": "the-hosts", "AWS_PROFILE": "none-such"}
    with start(settings, **host_keys) as host:
        put(host, rclone, "by/profile", AWS_PROFILE="right")
    with start(settings | {"profile": "right"}, **host_keys) as host:
        client, _ = put(host, rclone, "by/profile-of-the-host")
        deploy(
            client,
            "wrong",
            {"app.py": CODE},
            Timeout=30,
            Environment={"Variables": {"AWS_PROFILE": "default", "AWS_ENDPOINT_URL_S3": rclone.endpoint.url}},
        )
        assert "SignatureDoesNotMatch" in json.dumps(invoke(client, "wrong", Payload=json.dumps({"key": "no"})))


def test_the_endpoint_of_a_service_wins_and_a_functions_own_variables_win_over_both(rclone, start):
    settings = {"endpoint_url": NOBODY, "endpoints": f"s3={rclone.endpoint.url} CloudWatch-Logs=http://127.0.0.1:7"}
    with start({"credentials": "static", **settings, **keys_of(rclone)}) as host:
        client, name = put(host, rclone, "by/service")
        asking = json.dumps({"ask": "endpoints", "services": ["s3", "sqs", "logs"]})
        assert invoke(client, name, Payload=asking) == {
            "s3": rclone.endpoint.url,
            "sqs": NOBODY,
            "logs": "http://127.0.0.1:7",
        }
        variables = {"AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": "http://127.0.0.1:6"}
        deploy(client, "own", {"app.py": CODE}, Timeout=30, MemorySize=512, Environment={"Variables": variables})
        assert invoke(client, "own", Payload=asking) == {
            "s3": rclone.endpoint.url,
            "sqs": "https://sqs.us-east-1.amazonaws.com",
            "logs": "http://127.0.0.1:6",
        }
