"""Functions that run in containers from folders in place, as they are edited, by a whole host and a real engine."""

from __future__ import annotations

import os
import time

import pytest
from botocore.exceptions import ClientError

from serverfull.domain.hot_paths import FolderIdentity
from serverfull.runtimes.docker.starting import PackageReplaced, start
from serverfull.testing.clients import lambda_client
from serverfull.testing.deployments import ROLE, invoke
from serverfull.testing.process import HostProcess

pytestmark = pytest.mark.slow

WITHIN = 20.0

CODE = """
import os, some_lib
def handler(event, context):
    try:
        open("/var/task/written", "w").close()
        writable = True
    except OSError:
        writable = False
    return {"value": {value}, "lib": some_lib.NAME, "root": os.environ["LAMBDA_TASK_ROOT"], "writable": writable}
"""


def save(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    (draft := file.with_name(f".{file.name}.sw")).write_text(text)
    draft.rename(file)


def eventually(look, expected):
    deadline = time.monotonic() + WITHIN
    while (found := look()) != expected:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def create(client, name, folder, **members):
    code = {"S3Bucket": "hot-reload", "S3Key": str(folder)}
    usual = {"Runtime": "python3.11", "Role": ROLE, "Handler": "app.handler", "Timeout": 20}
    client.create_function(FunctionName=name, Code=code, **{**usual, **members})


def test_a_folder_is_mounted_read_only_and_each_save_is_served(engine, tmp_path):
    tmp_path.chmod(0o755)
    fn, layer = tmp_path / "code" / "fn", tmp_path / "code" / "layer"
    save(fn / "app.py", CODE.replace("{value}", "1"))
    save(fn / ".venv" / "lib" / "python3.11" / "site-packages" / "some_lib.py", "NAME = 'installed'\n")
    save(layer / "python" / "layered.py", "NAME = 'old'\n")
    env = {
        "DOCKER_HOST": engine.url,
        "SERVERFULL_DOCKER_IMAGES": f"python3.11={engine.image}",
        "SERVERFULL_HOT_RELOAD__ALLOWED_PATHS": str(tmp_path / "code"),
    }
    state = ("--state", str(tmp_path / "state"), "--execution", "docker")
    with HostProcess.start(None, *state, cwd=tmp_path, env=env) as host:
        client = lambda_client(host.url, region="eu-west-1")
        create(client, "f", fn)
        expected = {"value": 1, "lib": "installed", "root": "/var/task", "writable": False}
        assert invoke(client, "f") == expected
        for value in (2, 3):
            save(fn / "app.py", CODE.replace("{value}", str(value)))
            eventually(lambda: invoke(client, "f"), {**expected, "value": value})
        arn = client.publish_layer_version(LayerName="l", Content={"S3Bucket": "hot-reload", "S3Key": str(layer)})[
            "LayerVersionArn"
        ]
        save(fn / "other.py", "import layered\ndef handler(event, context):\n    return layered.NAME\n")
        create(client, "g", fn, Handler="other.handler", Layers=[arn])
        assert invoke(client, "g") == "old"
        save(layer / "python" / "layered.py", "NAME = 'new'\n")
        eventually(lambda: invoke(client, "g"), "new")
        (tmp_path / "secret").mkdir()
        fn.rename(tmp_path / "code" / "before")
        fn.symlink_to(tmp_path / "secret")

        def refusal():
            try:
                invoke(client, "f")
            except ClientError as failure:
                return failure.response["Error"]["Code"]
            return None

        eventually(refusal, "ResourceConflictException")


def test_a_container_that_has_another_folder_than_it_was_to_have_does_not_live(engine, tmp_path):
    meant, evil = tmp_path / "meant", tmp_path / "evil"
    meant.mkdir()
    evil.mkdir()
    mount = {"Type": "bind", "Source": str(evil), "Target": "/var/task", "ReadOnly": True}
    body = {"Image": engine.image, "Entrypoint": ["sleep"], "Cmd": ["60"], "HostConfig": {"Mounts": [mount]}}
    with engine.client() as client:
        for folder, refused in ((evil, False), (meant, True)):
            found = os.stat(folder)
            package = FolderIdentity(found.st_dev, found.st_ino)
            name = f"hot-{folder.name}"
            try:
                started = start(client.api, name, body, "sleep", lambda _: None, package)
            except PackageReplaced:
                assert refused
                assert not client.containers.list(all=True, filters={"name": name})
            else:
                assert not refused
                started.vitals.kill()
                started.vitals.close()
                client.containers.get(name).remove(force=True)
