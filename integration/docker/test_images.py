"""Functions that are container images: built as users build them, deployed with boto3 and the AWS CLI, and run."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.request
from platform import machine

import pytest
from botocore.exceptions import ClientError, WaiterError

from serverfull.domain.runtimes import architecture
from serverfull.testing.clients import lambda_client
from serverfull.testing.process import HostProcess, plain_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

HERE = architecture()
ROLE = "arn:aws:iam::123456789012:role/runner"
SHOW = """
import os, sys

def handler(event, context):
    return {"text": TEXT, "event": event, "function": context.function_name, "folder": os.getcwd(),
            "arguments": sys.argv, "memory": context.memory_limit_in_mb, "arn": context.invoked_function_arn}

def other(event, context):
    return "the other one"
"""


@pytest.fixture(scope="module")
def image(engine, build):
    """An image with a handler, and its id."""
    name = f"serverfull-test-show-{os.getpid()}:1"
    text = SHOW.replace("TEXT", "'first'")
    dockerfile = f'FROM {engine.image}\nCOPY app.py /var/task/\nCMD ["app.handler"]\n'
    return name, build(name, dockerfile, {"app.py": text})


@pytest.fixture(scope="module")
def host(engine):
    with HostProcess.start(None, "--state", "memory", env={"SERVERFULL_DOCKER__ENGINE": engine.url}) as host:
        yield host


@pytest.fixture(scope="module")
def aws_lambda(host):
    client = lambda_client(host.url, read_timeout=60)
    yield client
    client.close()


def create(client, name, uri, **options):
    options = {"Timeout": 30, "Architectures": [HERE], **options}
    made = client.create_function(FunctionName=name, PackageType="Image", Role=ROLE, Code={"ImageUri": uri}, **options)
    assert made["State"] == "Pending"
    return made


def settled(client, name):
    client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 300})
    return client.get_function_configuration(FunctionName=name)


def settled_badly(client, name):
    with pytest.raises(WaiterError):
        settled(client, name)
    return client.get_function_configuration(FunctionName=name)


def failed(client, name):
    """Wait until a function has failed: a call of it waits until it is made."""
    with pytest.raises(ClientError):
        client.invoke(FunctionName=name)
    found = client.get_function_configuration(FunctionName=name)
    assert found["State"] == "Failed"
    return found["StateReasonCode"], found["StateReason"]


def invoke(client, name, event=None, **options):
    answer = client.invoke(FunctionName=name, Payload=json.dumps(event), **options)
    payload = json.load(answer["Payload"])
    assert "FunctionError" not in answer, payload
    return payload


def test_an_image_that_was_built_here_is_pinned_and_runs(aws_lambda, image):
    name, identity = image
    create(aws_lambda, "shown", name)
    found = settled(aws_lambda, "shown")
    assert (found["State"], found["CodeSha256"]) == ("Active", identity.removeprefix("sha256:"))
    repository = name.partition(":")[0]
    assert aws_lambda.get_function(FunctionName="shown")["Code"] == {
        "RepositoryType": "ECR",
        "ImageUri": name,
        "ResolvedImageUri": f"{repository}@{identity}",
    }
    said = invoke(aws_lambda, "shown", {"item": "ƛ"})
    assert (said["text"], said["event"], said["function"]) == ("first", {"item": "ƛ"}, "shown")
    assert said["memory"] == "128"
    assert said["folder"] == "/var/task"


def test_image_config_stands_in_for_what_the_image_says(aws_lambda, image):
    name, _ = image
    config = {
        "EntryPoint": ["/usr/bin/python3", "-m", "awslambdaric"],
        "Command": ["app.other"],
        "WorkingDirectory": "/usr",
    }
    create(aws_lambda, "configured", name, ImageConfig=config, Environment={"Variables": {"PYTHONPATH": "/var/task"}})
    assert settled(aws_lambda, "configured")["State"] == "Active"
    assert invoke(aws_lambda, "configured") == "the other one"
    config["Command"] = ["app.handler"]
    aws_lambda.update_function_configuration(FunctionName="configured", ImageConfig=config)
    assert settled(aws_lambda, "configured")["LastUpdateStatus"] == "Successful"
    said = invoke(aws_lambda, "configured")
    assert said["folder"] == "/usr"
    assert said["arguments"][1:] == ["app.handler"]
    aws_lambda.update_function_configuration(FunctionName="configured", ImageConfig={})
    assert settled(aws_lambda, "configured")["LastUpdateStatus"] == "Successful"
    assert invoke(aws_lambda, "configured")["folder"] == "/var/task"


def test_a_tag_that_moves_changes_nothing_until_the_code_is_updated(aws_lambda, engine, build):
    name = f"serverfull-test-moving-{os.getpid()}"
    dockerfile = f'FROM {engine.image}\nCOPY app.py /var/task/\nCMD ["app.handler"]\n'
    build(name, dockerfile, {"app.py": SHOW.replace("TEXT", "'one'")})
    create(aws_lambda, "moving", name, Publish=True)
    settled(aws_lambda, "moving")
    build(name, dockerfile, {"app.py": SHOW.replace("TEXT", "'two'")})
    aws_lambda.update_function_configuration(FunctionName="moving", MemorySize=256)
    settled(aws_lambda, "moving")
    said = invoke(aws_lambda, "moving")
    assert (said["text"], said["memory"]) == ("one", "256")
    aws_lambda.update_function_code(FunctionName="moving", ImageUri=name)
    settled(aws_lambda, "moving")
    assert invoke(aws_lambda, "moving")["text"] == "two"
    assert invoke(aws_lambda, "moving", Qualifier="1")["text"] == "one"


def test_an_image_made_from_scratch_runs_without_a_shell(aws_lambda, engine, build):
    """As AWS's guide has it for images of one's own: everything is brought along, and the entry point is a client."""
    name = f"serverfull-test-scratch-{os.getpid()}"
    brought = ("/usr/bin/python3.11", "/usr/lib/python3.11", "/usr/local/lib/python3.11")
    dockerfile = f"""
FROM scratch
{chr(10).join(f"COPY --from={engine.image} {path} {path}" for path in brought)}
COPY --from={engine.image} /usr/lib/{machine()}-linux-gnu /lib/{machine()}-linux-gnu
COPY --from={engine.image} /lib64 /lib64
COPY own.py /srv/
WORKDIR /srv
ENTRYPOINT ["/usr/bin/python3.11", "-m", "awslambdaric"]
CMD ["own.handler"]
"""
    build(
        name,
        dockerfile,
        {"own.py": "import os\ndef handler(event, context):\n    return [os.getcwd(), os.listdir('/usr/bin')]\n"},
    )
    create(aws_lambda, "scratch", name)
    assert settled(aws_lambda, "scratch")["State"] == "Active"
    assert invoke(aws_lambda, "scratch") == ["/srv", ["python3.11"]]


def test_an_image_that_cannot_be_pulled_fails_the_function_with_the_reason(aws_lambda):
    # Nothing listens on port 1 of this machine, and registries there are asked without encryption.
    create(aws_lambda, "refused", "localhost:1/nothing:1")
    code, reason = failed(aws_lambda, "refused")
    assert code == "ImageAccessDenied"
    assert "localhost:1/nothing:1" in reason
    assert "connection refused" in reason


def test_an_image_for_another_architecture_than_the_function_fails_it_with_both(aws_lambda, image, build):
    name, _ = image
    other = {"x86_64": "arm64", "arm64": "x86_64"}[HERE]
    create(aws_lambda, "foreign", name, Architectures=[other])
    code, reason = failed(aws_lambda, "foreign")
    assert code == "InvalidImage"
    assert f"The image {name} is for {HERE}, and the function for {other}" in reason
    foreign = f"serverfull-test-foreign-{os.getpid()}"
    build(foreign, 'FROM scratch\nCOPY app.py /\nENTRYPOINT ["/app.py"]', {"app.py": ""}, platform="linux/s390x")
    aws_lambda.update_function_code(FunctionName="foreign", ImageUri=foreign)
    code, reason = failed(aws_lambda, "foreign")
    assert code == "InvalidImage"
    assert f"The image {foreign} is for linux/s390x, and the Docker engine runs on linux/" in reason
    aws_lambda.update_function_code(FunctionName="foreign", ImageUri=name, Architectures=[HERE])
    assert settled(aws_lambda, "foreign")["State"] == "Active"


@pytest.mark.parametrize(
    ("program", "why"), [("/no/such/program", "no such file or directory"), ("/etc/passwd", "permission denied")]
)
def test_an_entry_point_that_cannot_be_executed_is_an_error_of_the_function(aws_lambda, image, program, why):
    name, _ = image
    function = f"unstartable-{len(why)}"
    create(aws_lambda, function, name, ImageConfig={"EntryPoint": [program]})
    settled(aws_lambda, function)
    for _ in range(2):
        answer = aws_lambda.invoke(FunctionName=function, LogType="Tail")
        error = json.load(answer["Payload"])
        assert (answer["FunctionError"], error["errorType"]) == ("Unhandled", "Runtime.InvalidEntrypoint")
        assert error["errorMessage"].endswith(f" Error: fork/exec {program}: {why}")
    assert program.encode() in base64.b64decode(answer["LogResult"])


@pytest.mark.parametrize(
    ("config", "error", "said"),
    [
        # What the entry point of AWS's images, and ours as theirs, exits with where it gets no handler.
        ({"Command": ["too", "many"]}, "Runtime.ExitError", "exit status 142"),
        # What ends with the status by which shells say that there is no such program, and was there.
        ({"EntryPoint": ["/bin/sh", "-c", "exit 127"]}, "Runtime.ExitError", "exit status 127"),
        ({"WorkingDirectory": "/etc/passwd"}, "Runtime.InvalidEntrypoint", "chdir /etc/passwd: not a directory"),
        ({"WorkingDirectory": "/proc/self/%s"}, "Runtime.InvalidEntrypoint", "chdir /proc/self/%s: no such file or"),
        ({"WorkingDirectory": f"/{'a' * 300}"}, "Runtime.InvalidEntrypoint", "aaa: file name too long"),
    ],
)
def test_what_keeps_a_container_from_its_work_is_said_to_the_caller(aws_lambda, image, config, error, said):
    name, _ = image
    function = f"kept-{hash(said) % 100_000}"
    create(aws_lambda, function, name, ImageConfig=config)
    settled(aws_lambda, function)
    answer = aws_lambda.invoke(FunctionName=function)
    report = json.load(answer["Payload"])
    assert (answer["FunctionError"], report["errorType"]) == ("Unhandled", error), report
    assert said in report["errorMessage"]


WRITES = """
def handler(event, context):
    try:
        open("/data/file", "w").close()
    except OSError as error:
        return error.strerror
"""


def test_an_image_has_neither_volumes_nor_processes_of_its_engine(aws_lambda, engine, build):
    name = f"serverfull-test-volumes-{os.getpid()}"
    lines = [f"FROM {engine.image}", "RUN mkdir -m 777 /data", "COPY app.py /var/task/", 'CMD ["app.handler"]']
    held = [*lines, "VOLUME /data /tmp", "HEALTHCHECK --interval=1s CMD touch /tmp/healthy"]
    build(name, "\n".join(held), {"app.py": WRITES})
    create(aws_lambda, "volumes", name)
    settled(aws_lambda, "volumes")
    assert invoke(aws_lambda, "volumes") == "Read-only file system"
    with engine.client() as client:
        (container,) = client.containers.list(filters={"label": "serverfull.function=volumes"})
        assert {mount["Type"] for mount in container.attrs["Mounts"]} == {"bind"}
        assert "Health" not in container.attrs["State"]
    build(name, "\n".join([*lines, "RUN touch /data/file", "VOLUME /data"]), {"app.py": WRITES})
    aws_lambda.update_function_code(FunctionName="volumes", ImageUri=name)
    found = settled_badly(aws_lambda, "volumes")
    assert found["LastUpdateStatusReasonCode"] == "InvalidImage"
    assert f"The image {name} has files in /data, which it says is a volume" in found["LastUpdateStatusReason"]


def logged(host, name):
    with urllib.request.urlopen(f"{host.url}/_serverfull/logs/{name}") as answer:
        return answer.read().decode()


def test_a_function_fails_where_there_is_no_engine_and_runs_once_there_is_one(engine, image, tmp_path):
    where = tmp_path / "docker.sock"
    name, _ = image
    settings = {"SERVERFULL_DOCKER__ENGINE": f"unix://{where}", "SERVERFULL_EXECUTION__EPHEMERAL": "true"}
    with HostProcess.start(None, "--state", "memory", env=settings) as host:
        client = lambda_client(host.url, read_timeout=60)
        create(client, "early", name)
        _, reason = failed(client, "early")
        assert str(where) in reason
        assert "is it running?" in reason
        where.symlink_to(engine.url.removeprefix("unix://"))
        client.tag_resource(
            Resource=client.get_function(FunctionName="early")["Configuration"]["FunctionArn"], Tags={"a": "b"}
        )
        assert invoke(client, "early")["text"] == "first"  # the change has it tried again at once
        where.unlink()
        with pytest.raises(ClientError, match="ServiceException"):
            client.invoke(FunctionName="early")
        accepted = client.invoke(FunctionName="early", InvocationType="Event")["ResponseMetadata"]["RequestId"]
        until = time.monotonic() + 30
        while sum("container not started" in line for line in host.stderr_lines()) < 2:  # it waits, as the call did not
            assert time.monotonic() < until
            time.sleep(0.05)
        where.symlink_to(engine.url.removeprefix("unix://"))
        while f"END RequestId: {accepted}" not in (log := logged(host, "early")):
            assert time.monotonic() < until, log
            time.sleep(0.1)
        client.close()


def test_the_aws_cli_deploys_an_image(host, aws_lambda, image, require):
    require("the AWS CLI", shutil.which("aws"), "make clients")
    name, _ = image
    variables = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_ENDPOINT_URL": host.url,
    }
    command = ["aws", "lambda", "create-function", "--function-name", "by-cli", "--package-type", "Image"]
    command += ["--role", ROLE, "--code", f"ImageUri={name}", "--image-config", "Command=app.other", "--timeout", "30"]
    done = subprocess.run(command, env=plain_environment() | variables, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout or "{}").get("PackageType") == "Image", done.stderr
    settled(aws_lambda, "by-cli")
    assert invoke(aws_lambda, "by-cli") == "the other one"
