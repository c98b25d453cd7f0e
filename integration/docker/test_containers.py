"""What containers do that processes need not: they are held, find the host by network, and need an engine."""

from __future__ import annotations

import asyncio
import base64
import gc
import gzip
import hashlib
import json
import os
import subprocess
import sys
import time
from contextlib import suppress

import docker.errors
import pytest

from serverfull.config import DockerSettings
from serverfull.domain.deployed_handler import DeployedHandler, ImageConfig
from serverfull.domain.runtimes import architecture
from serverfull.errors import FunctionNotReady, InternalFailure, NotFoundError
from serverfull.fetchers.docker import DockerFetcher
from serverfull.runtimes.docker import syscalls
from serverfull.runtimes.docker.catalogue import EngineCatalogue
from serverfull.runtimes.docker.options import INSTANCE, OWNER
from serverfull.runtimes.sandboxes import sandbox
from serverfull.runtimes.sandboxes.leftovers import own_name
from serverfull.testing.fetcher_suite import NoLog, surroundings
from serverfull.testing.runtime_kit import BOOTSTRAP, DEADLINE, REGION, RuntimeKit, deploy, runs_here

pytestmark = pytest.mark.slow


@pytest.fixture
def code(tmp_path):
    """Make what makes functions of a text of Python."""

    def of(kit, text, **options):
        root = tmp_path / f"code{len(list(tmp_path.iterdir()))}"
        root.mkdir()
        (root / "app.py").write_text(text)
        handler = DeployedHandler("app.handler", root, runtime="python3.11", region=REGION)
        return deploy(
            RuntimeKit(runtime=kit.runtime, new_function=lambda: (handler, root), client=kit.client, close=kit.close),
            **options,
        )

    return of


@pytest.fixture
def leaks_of_the_package():
    """Where an engine ends while it is asked, the docker package forgets a socket; let that be told here, not later."""
    yield
    gc.collect()


AWAY = (
    pytest.mark.usefixtures("leaks_of_the_package"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
)


def away(test):
    for mark in AWAY:
        test = mark(test)
    return test


def containers(client, instance=None):
    label = INSTANCE if instance is None else f"{INSTANCE}={instance}"
    return client.containers.list(all=True, filters={"label": label}, ignore_removed=True)


@pytest.mark.parametrize("client", ["own", "awslambdaric"])
async def test_a_log_is_whole_and_in_order_when_the_answer_is_there(container_kit, code, client):
    text = (
        "import os, sys\ndef handler(event, context):\n"
        "    if 'bytes' in event:\n        return os.write(1, b'\\xff' * event['bytes'])\n"
        "    for i in range(2000):\n        print('line', i, file=(sys.stdout, sys.stderr)[i % 2], flush=True)\n"
        "    return 1\n"
    )
    function = code(container_kit(client=client), text)
    for _ in range(3):
        ran = await function.do("anything")
        assert ran.result == 1
        assert ran.log.text.replace("\r", "\n").splitlines() == [f"line {i}" for i in range(2000)]
    flood = await function.do("", bytes=16 << 20)  # one line of no characters
    assert flood.result == 16 << 20
    assert set(flood.log.text.strip()) == {"\N{REPLACEMENT CHARACTER}"}


async def test_a_bootstrap_of_the_package_finds_the_host_by_the_network(container_kit):
    function = deploy(container_kit("provided.al2023", manners=BOOTSTRAP))
    assert (await function.do("echo", value=[1, "ü"])).result == [1, "ü"]
    assert (await function.do("write", text="words")).log.text == "out words\nerr words"
    assert (await function.do("leave", status=3)).reason == (
        "Runtime.ExitError",
        "Runtime exited with error: exit status 3",
    )
    assert await function.count() == 1


async def test_nothing_of_the_api_decides_how_a_container_is_held(container_kit, engine):
    function = deploy(container_kit(), memory_size=300)
    await function.count()
    with engine.client() as client:
        (container,) = containers(client, own_name())
        held, config = container.attrs["HostConfig"], container.attrs["Config"]
        assert config["User"] == "993:990"
        labels = {INSTANCE: own_name(), OWNER: str(os.geteuid()), "serverfull.function": function.identity.name}
        assert config["Labels"] == labels
        assert not held["Privileged"]
        assert held["ReadonlyRootfs"]
        assert held["CapDrop"] == ["ALL"]
        assert not held["CapAdd"]
        assert held["SecurityOpt"] == [*syscalls.HERE]
        assert held["SecurityOpt"][0] == "no-new-privileges"
        assert held["PidsLimit"] == 1024
        assert held["Memory"] == held["MemorySwap"] == (300 + 512) << 20
        assert (held["NetworkMode"], held["IpcMode"], held["PidMode"]) == ("bridge", "private", "")
        assert {(limit["Name"], limit["Hard"]) for limit in held["Ulimits"]} == {("nofile", 1024), ("core", 0)}
        mounts = {mount["Destination"]: mount["RW"] for mount in container.attrs["Mounts"]}
        assert {place for place, writable in mounts.items() if writable} == {str(function.folder.parent)}
        assert not any("docker" in mount["Source"].rsplit("/", 1)[-1] for mount in container.attrs["Mounts"])


HELD = """
import os, socket
def open_files():
    held = []
    try:
        while True:
            held.append(open("/dev/null"))
    except OSError as error:
        return [len(held) > 900, error.strerror]
    finally:
        for file in held:
            file.close()
def attempt(deed):
    try:
        deed()
    except OSError as error:
        return error.strerror or str(error)
    return "done"
def handler(event, context):
    with open("/proc/self/status") as file:
        status = dict(line.split(":\\t") for line in file.read().splitlines() if ":\\t" in line)
    return {
        "uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(),
        "effective": int(status["CapEff"], 16), "bounding": int(status["CapBnd"], 16),
        "promises": int(status["NoNewPrivs"]), "seccomp": int(status["Seccomp"]),
        "root": attempt(lambda: open("/x", "w")), "task": attempt(lambda: open("/var/task/x", "w")),
        "tmp": attempt(lambda: open("/tmp/x", "w")), "mb": os.statvfs("/tmp").f_blocks >> 8,
        "full": attempt(lambda: open("/tmp/y", "wb").write(bytes(600 << 20)) if event.get("fill") else None),
        "hidden": attempt(lambda: os.chmod("/run/serverfull/host/log", 0o777)),
        "interfaces": sorted(name for _, name in socket.if_nameindex()),
        "here": os.getcwd(), "files": open_files(),
    }
"""


async def test_a_function_has_no_rights_and_writes_nowhere_but_in_tmp(container_kit, code):
    seen = (await code(container_kit(), HELD, memory_size=1024).do("look", fill=True)).result
    interfaces = seen.pop("interfaces")
    assert "eth0" in interfaces
    assert seen == {
        "uid": 993,
        "gid": 990,
        "groups": [990],
        "effective": 0,
        "bounding": 0,
        "promises": 1,
        "seccomp": 2,
        "root": "Read-only file system",
        "task": "Read-only file system",
        "tmp": "done",
        "mb": 512,
        "full": "No space left on device",
        "hidden": "Read-only file system",
        "here": "/var/task",
        "files": [True, "Too many open files"],
    }


@pytest.mark.parametrize("held", [{"network": "none"}, {"sandbox": "strict"}])
async def test_without_a_network_python_runs_and_what_needs_one_is_refused(container_kit, code, held):
    kit = container_kit(**held)
    assert (await code(kit, HELD).do("look")).result["interfaces"] == ["lo"]
    unfit = await kit.runtime.unfit(deploy(container_kit("provided.al2023", **held)).identity)
    assert unfit is not None
    assert "docker.network is 'none', or empty while execution.sandbox is 'strict'" in unfit.reason


async def test_a_host_behind_walls_gives_containers_the_network_that_is_named(container_kit, code):
    kit = container_kit(sandbox="strict", network="bridge")
    assert "eth0" in (await code(kit, HELD).do("look")).result["interfaces"]


FORKS = """
import os, time
def handler(event, context):
    for count in range(5000):
        try:
            pid = os.fork()
        except OSError as error:
            return [count, error.strerror]
        if not pid:
            time.sleep(1000)
"""


async def test_a_function_that_forks_without_end_comes_to_the_limit_of_its_container(container_kit, code):
    function = code(container_kit(), FORKS, memory_size=2048)
    count, why = (await function.do("")).result
    assert 500 < count < 1024
    assert why == "Resource temporarily unavailable"
    assert (await function.do("")).result == [0, why]
    await function.kit.close()


SPEAKS = """
import http.client, os, socket
def handler(event, context):
    if "tell" in event:
        return os.environ["AWS_LAMBDA_RUNTIME_API"]
    if "line" in event:
        line = socket.socket(socket.AF_UNIX)
        line.connect("/run/serverfull/host/api")
        body = b'"forged"'
        path = "/2018-06-01/runtime/invocation/" + event["line"].replace("ID", context.aws_request_id)
        line.sendall(f"POST {path} HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n".encode() + body)
        return line.recv(4096).decode()
    api = http.client.HTTPConnection(event["api"], timeout=5)
    try:
        api.request("GET", "/2018-06-01/runtime/invocation/next")
        return api.getresponse().read().decode()
    except OSError as error:
        return type(error).__name__
"""


async def test_a_container_reaches_no_runtime_api_but_its_own(container_kit, code):
    kit = container_kit(client="awslambdaric")
    victim, thief = code(kit, SPEAKS), code(kit, SPEAKS)
    address = (await victim.do("", tell=True)).result
    assert (await thief.do("", tell=True)).result != address
    assert (await thief.do("", api=address)).result in {"ConnectionResetError", "RemoteDisconnected"}
    assert (await victim.do("", tell=True)).result == address


ABUSES = """
import http.client, json, os
def handler(event, context):
    api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    own, seen = f"invocation/{context.aws_request_id}/", {}
    for what, path, size in (
        ("another's", "invocation/11111111-2222-4333-8444-555555555555/response", 2),
        ("no id", "invocation/..%2f..%2fx/response", 2),
        ("begin again", "init/error", 2),
        ("too large", own + "response", 7 << 20),
        ("second", own + "response", 2),
    ):
        api.request("POST", "/2018-06-01/runtime/" + path, b"1" * size)
        answer = api.getresponse()
        answer.read()
        seen[what] = answer.status
    with open(event["file"], "w") as file:
        json.dump(seen, file)
"""


async def test_a_function_that_abuses_its_own_runtime_api_has_one_answer(container_kit, code, tmp_path):
    told = tmp_path / "told"
    told.touch(0o666)
    function = code(container_kit(client="awslambdaric"), ABUSES)
    ran = await function.do("", file=str(told))
    assert ran.reason[0] == "Function.ResponseSizeTooLarge"
    await function.do("", file=str(told))  # lets it go on, which stands still once it has answered
    assert json.loads(told.read_text()) == {
        "another's": 400,
        "no id": 400,
        "begin again": 403,
        "too large": 413,
        "second": 403,
    }


DIES = """
import ctypes, os
def handler(event, context):
    if "signal" in event:
        os.kill(os.getpid(), event["signal"])
    ctypes.string_at(0)
"""


async def test_a_function_that_dies_of_a_signal_is_told_so(container_kit, code):
    function = code(container_kit(), DIES)
    for event, why in (({"signal": 6}, "aborted"), ({"signal": 9}, "killed"), ({}, "segmentation fault")):
        ran = await function.do("", **event)
        assert ran.reason == ("Runtime.ExitError", f"Runtime exited with error: signal: {why}")


async def test_a_container_that_never_asks_for_an_invocation_has_its_time_and_no_more(
    container_kit, engine, monkeypatch
):
    monkeypatch.setattr(sandbox, "INIT_TIMEOUT", 0.5)
    kit = container_kit()
    function = deployed_image(kit, engine.image, timeout=1, entry_point=("/bin/sleep", "1000"))
    assert (await function.do("")).reason == ("Sandbox.Timedout", "Task timed out after 1.00 seconds")
    await kit.close()
    with engine.client() as client:
        assert not containers(client, own_name())


async def test_what_speaks_on_the_line_of_our_client_is_killed(container_kit, code):
    function = code(container_kit(), SPEAKS)
    ran = await function.do("", line="no-such-id/response")
    assert ran.reason == ("Runtime.ExitError", "Runtime exited with error: signal: killed")
    assert (await function.do("", line="no-such-id/response")).reason == ran.reason  # and the next one is answered


async def test_a_container_is_killed_at_its_deadline_whatever_it_does(container_kit, code):
    text = "import os, signal, time\ndef handler(event, context):\n    while True:\n        pass\n"
    stubborn = "import signal\nfor number in (1, 2, 15):\n    signal.signal(number, signal.SIG_IGN)\n"
    function = code(container_kit(), stubborn + text, timeout=1)
    began = time.monotonic()
    ran = await function.do("")
    assert ran.reason == ("Sandbox.Timedout", "Task timed out after 1.00 seconds")
    loading = ran.outcome.init_seconds
    assert 1 <= time.monotonic() - began - loading < 2


async def test_an_idle_container_stands_still_and_goes_on_with_the_next_call(container_kit, code):
    counting = """
import mmap, os, threading, time
ticks = memoryview(mmap.mmap(-1, 16)).cast("Q")  # of a thread, and of a process that has left its group
def tick(which):
    while True:
        ticks[which] += 1
        time.sleep(0.001)
threading.Thread(target=tick, args=[0], daemon=True).start()
if not os.fork():
    os.setsid()
    tick(1)
def handler(event, context):
    time.sleep(0.05)
    return list(ticks)
"""
    function = code(container_kit(), counting)
    before = (await function.do("")).result
    pool = function.environment._pool
    async with asyncio.timeout(DEADLINE):
        while not pool._idle[0][1].frozen:  # noqa: ASYNC110 (a timer of the pool)
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    after = (await function.do("")).result
    assert all(had < has < had + 300 for had, has in zip(before, after, strict=True))


def labelled(client):
    return {(container.labels[INSTANCE], int(container.labels[OWNER])) for container in containers(client)}


async def test_containers_of_hosts_that_are_gone_are_removed_and_those_of_others_are_not(container_kit, engine):
    command = [sys.executable, "-c", "from serverfull.runtimes.sandboxes import leftovers; print(leftovers.own_name())"]
    gone = (await asyncio.to_thread(subprocess.check_output, command, text=True)).strip()
    elsewhere = "serverfull-1-1-1"
    with engine.client() as client:
        for name, user in ((gone, os.geteuid()), (own_name(), os.geteuid()), (elsewhere, os.geteuid()), (gone, 12345)):
            labels = {INSTANCE: name, OWNER: str(user)}
            client.containers.run(
                engine.image, entrypoint=["sleep", "100"], labels=labels, detach=True, network_mode="none"
            )
        try:
            began = time.monotonic()
            await deploy(container_kit()).count()
            while (gone, os.geteuid()) in (left := await asyncio.to_thread(labelled, client)):
                assert time.monotonic() - began < 5
            assert {(own_name(), os.geteuid()), (elsewhere, os.geteuid()), (gone, 12345)} <= left
        finally:
            for name in (gone, own_name(), elsewhere):
                for container in containers(client, name):
                    with suppress(docker.errors.APIError):  # the host removes some of them at the same time
                        container.remove(force=True)


async def test_ended_containers_are_kept_as_many_as_the_operator_wants(container_kit, engine):
    kit = container_kit(keep=1)
    functions = [deploy(kit) for _ in range(2)]
    names = set()
    with engine.client() as client:
        for function in functions:
            assert (await function.do("leave", status=1)).reason[0] == "Runtime.ExitError"
            names |= {container.name for container in containers(client, own_name())}
        await kit.close()
        (kept,) = containers(client, own_name())
        assert len(names) == 2
        assert kept.status == "exited"
        assert kept.labels["serverfull.function"] == functions[1].identity.name
        kept.remove(force=True)


@away
async def test_an_engine_that_is_gone_fails_new_environments_and_is_used_again_when_it_is_back(container_kit, engine):
    if engine.own is None:
        pytest.skip("the engine is the machine's")
    function = deploy(container_kit())
    pid = await function.pid()
    await asyncio.to_thread(engine.own.stop)
    try:
        assert not runs_here(pid)
        began = time.monotonic()
        with pytest.raises(InternalFailure):
            await function.do("echo", value=1)
        assert time.monotonic() - began < 5
        unfit = await function.kit.runtime.unfit(function.identity)
        assert unfit is not None
        assert "cannot be reached" in unfit.reason
    finally:
        engine.own.start()  # not on a thread, which it would end with
    assert (await function.do("count")).result["calls"] == 1


@away
async def test_an_engine_that_hangs_takes_nothing_from_environments_that_run(container_kit, engine):
    if engine.own is None:
        pytest.skip("the engine is the machine's")
    kit = container_kit()
    kit.runtime._launchers.site.engine.patience = 3.0
    function, other = deploy(kit, timeout=1), deploy(kit)
    pid = await function.pid()
    with engine.own.paused():
        assert (await function.count()) == 2
        assert (await function.do("stuck", text="words")).reason[0] == "Sandbox.Timedout"
        assert await kit.ended(pid)
        for most in (9, 2.5):  # the second one need not find out
            began = time.monotonic()
            with pytest.raises(InternalFailure):
                await other.do("echo", value=1)
            assert time.monotonic() - began < most
    assert (await other.do("echo", value=1)).result == 1


async def test_an_image_that_is_not_there_makes_a_function_unfit(container_kit, tmp_path):
    kit = container_kit("python3.12", pull="never")
    unfit = await kit.runtime.unfit(deploy(kit).identity)
    assert unfit is not None
    assert unfit.code == "InvalidImage"
    assert "The Docker engine has no image public.ecr.aws/lambda/python:3.12" in unfit.reason


async def test_an_image_that_is_always_to_be_pulled_is_not_taken_from_the_engine(container_kit, engine):
    local = "localhost:1/local:1"  # where no registry is
    with engine.client() as client:
        client.images.get(engine.image).tag(local)
        try:
            kit = container_kit(pull="always")
            function = deployed_image(kit, local)
            unfit = await kit.runtime.unfit(function.identity)
            assert "connection refused" in unfit.reason
            assert unfit.reason.endswith("which docker.pull = 'missing' takes, and 'always' does not")
            pinned = deployed_image(kit, f"{local.rpartition(':')[0]}@{client.images.get(local).id}")
            assert await kit.runtime.unfit(pinned.identity) is None
        finally:
            client.images.remove(local)


def answers(status, **headers):
    async def answer(reader, writer):
        first = await reader.readexactly(1)
        if first == b"\x16":  # TLS, which is tried before
            writer.close()
            return
        seen.append(first + await reader.readuntil(b"\r\n\r\n"))
        body = json.dumps({"errors": [{"code": "X", "message": "manifest unknown" if status == 404 else "denied"}]})
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close"]
        lines += ["Content-Type: application/json", *(f"{name}: {value}" for name, value in headers.items())]
        writer.write("\r\n".join([*lines, "", body]).encode())
        await writer.drain()
        writer.close()

    seen = []
    return answer, seen


def deployed_image(kit, image_uri, entry_point=None, **options):
    config = ImageConfig(entry_point=entry_point)
    here = {"image_uri": image_uri, "image_config": config, "architecture": architecture(), "region": REGION}
    handler = DeployedHandler("", None, **here)
    return deploy(
        RuntimeKit(runtime=kit.runtime, new_function=lambda: (handler, None), client=kit.client, close=kit.close),
        **options,
    )


async def test_no_registry_is_asked_but_those_that_the_operator_names(container_kit):
    answer, seen = answers(404)
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    uri = f"127.0.0.1:{server.sockets[0].getsockname()[1]}/app:1"
    kit = container_kit(registries=("public.ecr.aws",))
    unfit = await kit.runtime.unfit(deployed_image(kit, uri).identity)
    server.close()
    assert unfit.code == "ImageAccessDenied"
    assert unfit.reason.endswith(f"come from {uri.partition('/')[0]}, which is not among docker.registries")
    assert seen == []


@pytest.mark.parametrize(
    ("status", "code"), [(401, "ImageAccessDenied"), (404, "InvalidImage"), (0, "ImageAccessDenied")]
)
async def test_what_a_registry_answers_is_the_reason_of_a_function_that_failed(container_kit, status, code):
    answer, _ = answers(status)
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    if not status:
        server.close()
        await server.wait_closed()
    kit = container_kit()
    function = deployed_image(kit, f"127.0.0.1:{port}/app:1")
    unfit = await kit.runtime.unfit(function.identity)
    server.close()
    assert unfit is not None
    assert unfit.code == code
    assert f"127.0.0.1:{port}/app:1" in unfit.reason


def registry_of_one_image():
    """What a registry has of an image of nothing but an entry point, by path; and the digest of the image."""

    def digest(data):
        return f"sha256:{hashlib.sha256(data).hexdigest()}"

    files = bytes(10_240)  # a tar of none
    layer = gzip.compress(files)
    system = {"os": "linux", "architecture": {"x86_64": "amd64"}.get(architecture(), architecture())}
    root = {"type": "layers", "diff_ids": [digest(files)]}
    config = json.dumps({**system, "config": {"Entrypoint": ["/program"]}, "rootfs": root}).encode()
    kind = "application/vnd.docker."
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}distribution.manifest.v2+json",
        "config": {"mediaType": f"{kind}container.image.v1+json", "size": len(config), "digest": digest(config)},
        "layers": [{"mediaType": f"{kind}image.rootfs.diff.tar.gzip", "size": len(layer), "digest": digest(layer)}],
    }
    whole = json.dumps(manifest).encode()
    names = ["1", digest(whole)]
    return {
        "/v2/": ("application/json", b"{}"),
        **{f"/v2/app/manifests/{name}": (manifest["mediaType"], whole) for name in names},
        **{f"/v2/app/blobs/{digest(blob)}": ("application/octet-stream", blob) for blob in (config, layer)},
    }, digest(whole)


async def test_a_private_registry_gives_its_images_to_who_has_logged_in(container_kit, engine, tmp_path, monkeypatch):
    kept, digest = registry_of_one_image()
    secret = base64.b64encode(b"user:secret").decode()

    async def answer(reader, writer):
        first = await reader.readexactly(1)
        if first != b"\x16":  # TLS, which is tried before
            method, path, *rest = (first + await reader.readuntil(b"\r\n\r\n")).decode().split(maxsplit=2)
            known = f"authorization: basic {secret}".lower() in rest[0].lower()
            unknown = ("application/json", b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}')
            kind, body = kept.get(path, unknown) if known else ("text/plain", b"")
            status = 401 if not known else 200 if path in kept else 404
            head = [
                f"HTTP/1.1 {status} X",
                f"Content-Type: {kind}",
                f"Content-Length: {len(body)}",
                "Connection: close",
            ]
            head += [] if known else ['WWW-Authenticate: Basic realm="r"']
            head += [f"Docker-Content-Digest: {digest}"] if "/manifests/" in path else []
            writer.write("\r\n".join([*head, "", ""]).encode() + (b"" if method == "HEAD" else body))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    registry = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    kit = container_kit()
    refused = await kit.runtime.unfit(deployed_image(kit, f"{registry}/app:1").identity)
    assert refused.code == "ImageAccessDenied"
    (tmp_path / "config.json").write_text(json.dumps({"auths": {registry: {"auth": secret}}}))
    missing = await kit.runtime.unfit(deployed_image(kit, f"{registry}/app:2").identity)
    assert missing.code == "InvalidImage"
    function = deployed_image(kit, f"{registry}/app:1")
    assert await kit.runtime.unfit(function.identity) is None
    assert function.identity.function.handler.image_found == f"{registry}/app@{digest}"
    ran = await function.do("")
    assert ran.reason == ("Runtime.InvalidEntrypoint", "fork/exec /program: no such file or directory")

    catalogue = EngineCatalogue(DockerSettings(engine=engine.url), NoLog())
    for known in (True, False):
        with engine.client() as client:
            client.images.remove(f"{registry}/app:1", force=True)
        fetcher = DockerFetcher(template=f"{registry}/{{name}}:{{qualifier}}")
        await fetcher.open(surroundings(catalogue=catalogue))
        if known:
            assert (await fetcher.fetch("app", "1")).handler.image_uri == f"{registry}/app@{digest}"
            with pytest.raises(NotFoundError):
                await fetcher.fetch("app", "2")
            (tmp_path / "config.json").unlink()
        else:
            with pytest.raises(FunctionNotReady, match=r"may not be pulled.*log in with docker login"):
                await fetcher.fetch("app", "1")
    await catalogue.aclose()
    server.close()
