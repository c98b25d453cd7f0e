"""Packages that say what they need and do not bring it, deployed to real hosts that ask an index of the test's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from serverfull.config import DependencySettings, ExecutionSettings, LoggingSettings, Settings, StateSettings
from serverfull.runtimes.process.confinement import probe_strict
from serverfull.testing.clients import lambda_client
from serverfull.testing.deployments import (
    create,
    deploy,
    invoke,
    wait_until_ready,
    wait_until_settled,
    zipped,
)
from serverfull.testing.hosts import ThreadHost
from serverfull.testing.indexes import Index, module, sdist, serving, wheel
from serverfull.testing.process import HostProcess

DEADLINE = 30.0
NODE = {"Runtime": "nodejs20.x", "Handler": "index.handler"}

GREETING = "import greeting\ndef handler(event, context):\n    return [greeting.TEXT, greeting.__file__]\n"
APP = {"app.py": GREETING, "requirements.txt": "greeting\n"}


@pytest.fixture
def installers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what installs for Python here, with a configuration that knows of no index."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_", "npm_config_", "NPM_CONFIG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return ["uv", "pip"] if shutil.which("uv") else ["pip"]


@pytest.fixture
def npm(require: Require) -> None:
    require("npm", shutil.which("npm"), "install Node.js with npm")


@pytest.fixture
def index(installers: list[str]) -> Iterator[Index]:
    with serving(Index()) as index:
        index.add("greeting", "1.0", {"greeting.py": "TEXT = 'Hello!'\n"})
        yield index


Start = Callable[..., Any]
Require = Callable[[str, object, str], None]


@pytest.fixture
def hosts() -> Iterator[list[ThreadHost]]:
    running: list[ThreadHost] = []
    yield running
    for host in running:
        host.close()


@pytest.fixture
def start(index: Index, tmp_path: Path, hosts: list[ThreadHost]) -> Start:
    """Start a host: ``start(timeout=1.0)`` gives a client for it."""

    def begin(*, execution: ExecutionSettings | None = None, **dependencies: Any) -> Any:
        chosen = {"install": "on", "python_index": index.simple, "node_registry": index.url, **dependencies}
        settings = Settings(
            dependencies=DependencySettings(**chosen),
            execution=execution or ExecutionSettings(),
            logging=LoggingSettings(functions="NULL", output="NULL"),
            state=StateSettings(path=str(tmp_path / "state")),
        )
        hosts.append(ThreadHost({}, settings=settings))
        return hosts[-1].client()

    return begin


def failure(client: Any, name: str, files: Mapping[str, str | bytes], **members: Any) -> tuple[str, str]:
    """Create a function that fails; gives the reason and its code."""
    create(client, name, files, **members)
    found = wait_until_settled(client, name)
    assert (found["State"], found["LastUpdateStatus"]) == ("Failed", "Failed"), found
    return found["StateReason"], found["StateReasonCode"]


def installed(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "state/dependencies/installed").glob("[!.]*"))


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_what_requirements_name_is_installed_before_the_function_is_active(
    installer: str, installers: list[str], require: Require, start: Start, index: Index
) -> None:
    require("uv", installer in installers, "pip install uv")
    index.add("greeting", "1.1", {"greeting.py": "import words\nTEXT = words.TEXT\n"}, ["words>=2"])
    index.add("words", "2.0", {"words/__init__.py": "TEXT = 'Hello from afar!'\n"})
    client = start(python_installer=installer)
    assert create(client, "f", APP)["State"] == "Pending"
    wait_until_ready(client, "f")
    text, file = invoke(client, "f")
    assert text == "Hello from afar!"
    assert list((Path(file).parent / "__pycache__").glob("greeting.*.pyc")), "it is compiled when it is installed"


@pytest.mark.parametrize("tags", [{"serverfull:client": "awslambdaric"}, {"serverfull:execution": "inprocess"}])
def test_other_ways_to_run_a_function_see_the_same(start: Start, tags: Mapping[str, str]) -> None:
    client = start()
    deploy(client, "f", APP, Tags=tags)
    assert invoke(client, "f")[0] == "Hello!"


def test_the_walls_of_a_strict_sandbox_stand_around_what_is_installed_too(start: Start, tmp_path: Path) -> None:
    walls = probe_strict().why
    if walls:
        pytest.skip(f"this machine allows no strict sandbox: {walls}")
    client = start(execution=ExecutionSettings(sandbox="strict"))
    code = "import greeting, os\ndef handler(event, context):\n"
    code += "    return [greeting.TEXT, [path for path in event if os.path.exists(path)]]\n"
    deploy(client, "f", {**APP, "app.py": code})
    hidden = [str(tmp_path / "state" / name) for name in ("dependencies/installed", "dependencies/trees", "state.db")]
    result = invoke(client, "f", Payload=json.dumps(hidden))
    assert result[0] == "Hello!"
    assert str(tmp_path / "state/dependencies/installed") not in result[1]
    assert str(tmp_path / "state/state.db") not in result[1]


def test_dependencies_of_a_project_are_installed(start: Start) -> None:
    client = start()
    project = "[project]\nname = 'app'\nversion = '1'\ndependencies = ['greeting>=1']\n"
    deploy(client, "f", {"app.py": GREETING, "pyproject.toml": project})
    assert invoke(client, "f")[0] == "Hello!"


def test_a_functions_own_files_come_first_then_what_is_installed_then_its_layers(start: Start, index: Index) -> None:
    names = ("own", "dependency", "layer")
    index.add("names", "1.0", {f"{name}.py": "FROM = 'installed'\n" for name in names[:2]})
    client = start()
    content = {"ZipFile": zipped({f"python/{name}.py": "FROM = 'layer'\n" for name in names})}
    layer = client.publish_layer_version(LayerName="names", Content=content)["LayerVersionArn"]
    code = "import own, dependency, layer\ndef handler(event, context):\n"
    code += "    return [own.FROM, dependency.FROM, layer.FROM]\n"
    files = {"app.py": code, "own.py": "FROM = 'own'\n", "requirements.txt": "names\n"}
    deploy(client, "f", files, Layers=[layer])
    assert invoke(client, "f") == ["own", "installed", "layer"]


def test_functions_that_ask_for_the_same_share_one_installation(start: Start, index: Index, tmp_path: Path) -> None:
    client = start(python_installer="pip")
    files = [{**APP, "number.txt": str(number)} for number in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda number: create(client, f"f{number}", files[number]), range(3)))
    results = []
    for number in range(3):
        wait_until_ready(client, f"f{number}")
        results.append(invoke(client, f"f{number}"))
    assert [text for text, _ in results] == ["Hello!"] * 3
    assert len({Path(file).stat().st_ino for _, file in results}) == 1
    assert len(installed(tmp_path)) == index.count("/simple/greeting") == 1


@pytest.mark.parametrize("started_again", [False, True])
def test_the_old_code_runs_while_an_update_is_being_installed_though_nobody_has_called_it(
    start: Start, hosts: list[ThreadHost], index: Index, started_again: bool
) -> None:
    client = start()
    deploy(client, "f", APP)
    if started_again:
        hosts.pop().close()
        client = start()
    asked, answered = threading.Event(), threading.Event()

    def before(path: str) -> None:
        if "slow" in path:
            asked.set()
            answered.wait(DEADLINE)

    index.before = before
    index.add("slow", "1.0", {"slow.py": "TEXT = 'at last'\n"})
    code = "import slow\ndef handler(event, context):\n    return slow.TEXT\n"
    client.update_function_code(FunctionName="f", ZipFile=zipped({"app.py": code, "requirements.txt": "slow\n"}))
    try:
        assert asked.wait(DEADLINE)
        assert client.get_function_configuration(FunctionName="f")["LastUpdateStatus"] == "InProgress"
        assert invoke(client, "f")[0] == "Hello!"
    finally:
        answered.set()
    wait_until_ready(client, "f")
    assert invoke(client, "f") == "at last"


def test_a_published_version_and_an_update_of_the_code_alone_need_no_index(start: Start, index: Index) -> None:
    client = start()
    deploy(client, "f", APP)
    del index.asked[:]
    client.publish_version(FunctionName="f")
    newer = {**APP, "app.py": GREETING.replace("TEXT", "TEXT.upper()")}
    client.update_function_code(FunctionName="f", ZipFile=zipped(newer))
    wait_until_ready(client, "f")
    assert (invoke(client, "f")[0], invoke(client, "f", Qualifier="1")[0]) == ("HELLO!", "Hello!")
    assert index.asked == []


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_a_function_fails_with_the_installers_last_lines_and_none_of_its_secrets(
    installer: str, installers: list[str], require: Require, start: Start, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("uv", installer in installers, "pip install uv")
    with_secret = index.simple.replace("://", "://reader:s3cret-w0rd@")
    monkeypatch.setenv("PIP_INDEX_URL", with_secret)
    monkeypatch.setenv("UV_DEFAULT_INDEX", with_secret)
    client = start(python_installer=installer, python_index="")
    reason, code = failure(client, "f", {**APP, "requirements.txt": "greeting==7.7\n"})
    assert code == "DependencyError"
    assert f"Its requirements.txt could not be installed: {installer} failed" in reason
    assert "greeting==7.7" in reason
    assert "s3cret" not in reason
    assert "reader" not in reason
    assert len(reason) < 2_500
    index.add("greeting", "7.7", {"greeting.py": "TEXT = 'seven'\n"})
    client.update_function_configuration(FunctionName="f", Description="again")
    wait_until_ready(client, "f")
    assert invoke(client, "f")[0] == "seven"


def test_an_index_that_does_not_answer_is_given_up(start: Start, index: Index, tmp_path: Path) -> None:
    ended = threading.Event()
    index.before = lambda _path: ended.wait(DEADLINE) and None
    client = start(timeout=1.0)
    try:
        reason, code = failure(client, "f", APP)
    finally:
        ended.set()
    assert (code, "was not done within 1 s" in reason) == ("DependencyError", True)
    assert list((tmp_path / "state/dependencies/making").iterdir()) == []


def test_a_host_that_ends_while_it_installs_does_not_wait_for_that(
    start: Start, hosts: list[ThreadHost], index: Index, tmp_path: Path
) -> None:
    asked, ended = threading.Event(), threading.Event()

    def before(_path: str) -> None:
        asked.set()
        ended.wait(DEADLINE)

    index.before = before
    create(start(), "f", APP)
    try:
        assert asked.wait(DEADLINE)
        hosts.pop().close()
        assert list((tmp_path / "state/dependencies/making").iterdir()) == []
    finally:
        ended.set()
    client = start()
    wait_until_ready(client, "f")
    assert invoke(client, "f")[0] == "Hello!"


GARBAGE = {
    "an error": (500, "text/html", b"<h1>out of order</h1>"),
    "no index": (200, "application/octet-stream", bytes(range(256)) * 100),
    "a page without end": (200, "text/html", b"<a href='" + b"x" * 3_000_000),
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE)
def test_an_index_that_answers_garbage_is_a_failure(start: Start, index: Index, answer: tuple[int, str, bytes]) -> None:
    index.before = lambda _path: answer
    reason, code = failure(start(), "f", APP)
    assert (code, "could not be installed" in reason) == ("DependencyError", True)


def test_a_wheel_that_is_none_is_a_failure(start: Start, index: Index, tmp_path: Path) -> None:
    index.files["greeting-1.0-py3-none-any.whl"] = b"PK\x03\x04 and no more"
    reason, code = failure(start(), "f", APP)
    assert (code, installed(tmp_path)) == ("DependencyError", []), reason


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_a_wheel_whose_files_lead_elsewhere_writes_nothing_there(
    installer: str, installers: list[str], require: Require, start: Start, index: Index, tmp_path: Path
) -> None:
    require("uv", installer in installers, "pip install uv")
    places = {"../" * up + "escaped.py": "evil" for up in range(1, 9)}
    index.add("greeting", "1.0", {"greeting.py": "", **places, f"{tmp_path}/escaped.py": "evil"})
    client = start(python_installer=installer)
    create(client, "f", APP)
    wait_until_settled(client, "f")
    trees = tmp_path / "state/dependencies/trees"
    outside = [path for path in tmp_path.rglob("escaped.py") if not path.is_relative_to(trees)]
    assert [path for path in outside if "installed" not in path.parts] == []
    assert not list(Path("/").glob("escaped.py"))


@pytest.mark.parametrize("installer", ["uv", "pip"])
@pytest.mark.parametrize("way", ["of the index", "of a wheel's own"])
def test_nothing_is_ever_built_because_that_runs_code_of_packages_on_the_host(
    installer: str, way: str, installers: list[str], require: Require, start: Start, index: Index, tmp_path: Path
) -> None:
    require("uv", installer in installers, "pip install uv")
    program = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
    index.files["evil-1.0.tar.gz"] = sdist("evil", "1.0", program)
    files: dict[str, str | bytes] = {"app.py": "", "requirements.txt": "evil\n"}
    if way != "of the index":
        lure = wheel("lure", "1.0", {}, [f"evil @ {index.url}/files/evil-1.0.tar.gz"])
        files = {"app.py": "", "requirements.txt": "./lure-1.0-py3-none-any.whl\n", "lure-1.0-py3-none-any.whl": lure}
    reason, code = failure(start(python_installer=installer), "f", files)
    assert (code, (tmp_path / "ran").exists()) == ("DependencyError", False), reason


def test_what_takes_too_much_of_the_disk_is_not_kept(start: Start, index: Index, tmp_path: Path) -> None:
    index.add("greeting", "1.0", {"greeting.py": "", "large.bin": bytes(3 << 20)})
    reason, code = failure(start(max_mb=1), "f", APP)
    assert (code, "more than 1 MB (dependencies.max_mb)" in reason) == ("DependencyError", True)
    assert installed(tmp_path) == []
    assert list((tmp_path / "state/dependencies/making").iterdir()) == []


def test_what_a_package_may_not_ask_for_is_said(start: Start, index: Index) -> None:
    reason, code = failure(start(), "f", {"app.py": "", "requirements.txt": f"--index-url {index.simple}\ngreeting\n"})
    assert (code, "--index-url is not taken from a package" in reason) == ("DependencyError", True)
    assert index.asked == []


def test_an_installer_gets_nothing_of_the_hosts_environment_but_what_names_indexes(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/uv").write_text("#!/bin/sh\nenv | cut -d= -f1 | sort\nexit 1\n")
    (tmp_path / "bin/uv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    for name in ("AWS_SECRET_ACCESS_KEY", "DATABASE_PASSWORD", "SERVERFULL_X", "PYTHONPATH", "UV_PUBLISH_TOKEN"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    reason, _ = failure(start(), "f", APP)
    names = set(reason.partition("Its last lines:\n")[2].split())
    passed = {"HOME", "HTTPS_PROXY", "LANG", "PATH", "PIP_CONFIG_FILE", "PIP_RETRIES", "TMPDIR", "UV_HTTP_RETRIES"}
    of_the_shell = {"PWD", "SHLVL", "_", "OLDPWD", "LC_CTYPE"}
    of_the_machine = {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"}
    assert names - of_the_shell - of_the_machine - {"NO_PROXY", "no_proxy"} == passed


def test_a_setting_that_asks_for_uv_where_there_is_none_is_said(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    client = start(python_installer="uv")
    monkeypatch.setattr("serverfull.dependencies.installers.find_uv", lambda: None)
    reason, code = failure(client, "f", APP)
    assert (code, "python_installer is uv" in reason) == ("InvalidRuntime", True)


def test_nothing_is_installed_where_a_function_cannot_run_anyway(start: Start, index: Index) -> None:
    files = {"index.js": "", "package.json": '{"dependencies": {"left": "1"}}'}
    reason, code = failure(start(), "g", files, **NODE, Tags={"serverfull:execution": "inprocess"})
    assert (code, "cannot run in the host's own process" in reason) == ("InvalidRuntime", True)
    assert index.asked == []


def test_a_tag_takes_a_package_as_it_is(start: Start, index: Index) -> None:
    client = start()
    files = {**APP, "app.py": "def handler(event, context):\n    return 1\n"}
    deploy(client, "f", files, Tags={"serverfull:dependencies": "off"})
    assert (invoke(client, "f"), index.asked) == (1, [])


def test_what_is_gone_from_the_disk_is_installed_again_with_the_next_call(
    start: Start, hosts: list[ThreadHost], tmp_path: Path
) -> None:
    deploy(start(), "f", APP)
    hosts.pop().close()
    shutil.rmtree(tmp_path / "state/dependencies")
    assert invoke(start(), "f")[0] == "Hello!"


ON_A_SMALL_DISK = """
import asyncio, os, subprocess, sys
from pathlib import Path
from serverfull.config import DependencySettings, ExecutionSettings, LoggingSettings
from serverfull.dependencies.roots import Dependencies
from serverfull.domain.deployed import FunctionVersion
from serverfull.errors import DependenciesNotInstalled
from serverfull.observability.logger import HostLogger
from serverfull.runtimes.process.interpreters import Interpreter

disk, code, index = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=True)

async def find(runtime, tags):
    version = ".".join(map(str, sys.version_info[:3]))
    return Interpreter(runtime=runtime, kind="python", path=Path(sys.executable), version=version)

def left():
    return sorted(path.name for part in ("making", "installed") for path in (disk / "d" / part).glob("[!.]*"))

async def main():
    settings = DependencySettings(install="on", python_index=index)
    logger = HostLogger(LoggingSettings(output="NULL"))
    dependencies = Dependencies(disk / "d", settings, find, dict(os.environ), logger)
    version = FunctionVersion(
        function="f", role="", last_modified="", revision_id="", code_sha256="0" * 64, runtime="python3.x"
    )
    try:
        await dependencies.root(code, version, {}, True)
    except (DependenciesNotInstalled, OSError) as failure:
        print("No space left on device" in str(failure), left())
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    root = await dependencies.root(code, version, {}, True)
    print((root / "large.bin").stat().st_size, len(left()))
    await dependencies.aclose()

asyncio.run(main())
"""


def test_a_full_disk_is_a_failure_that_leaves_nothing_and_passes_with_it(
    index: Index, tmp_path: Path, require: Require
) -> None:
    unshare = ["unshare", "--mount", "--propagation", "private"]
    can = (
        shutil.which("unshare") and subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode == 0
    )
    require("a mount namespace", can, "run the tests as root")
    index.add("greeting", "1.0", {"greeting.py": "", "large.bin": os.urandom(3 << 20)})
    for name in ("disk", "code"):
        (tmp_path / name).mkdir()
    (tmp_path / "code/requirements.txt").write_text("greeting\n")
    command = [*unshare, sys.executable, "-c", ON_A_SMALL_DISK, str(tmp_path / "disk"), str(tmp_path / "code")]
    done = subprocess.run([*command, index.simple], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True []", f"{3 << 20} 1"]


# -------------------------------------------------------------------------------------------- hosts that end and begin


def serve(tmp_path: Path, index: Index, install: str = "on") -> HostProcess:
    variables = {
        "SERVERFULL_DEPENDENCIES__INSTALL": install,
        "SERVERFULL_DEPENDENCIES__PYTHON_INDEX": index.simple,
    }
    return HostProcess.start(None, "--state", str(tmp_path / "state"), cwd=tmp_path, env=variables)


def test_a_host_that_is_killed_while_it_installs_leaves_nothing_half_and_the_next_one_goes_on(
    index: Index, tmp_path: Path
) -> None:
    asked, answered = threading.Event(), threading.Event()

    def before(path: str) -> None:
        if path.endswith(".whl"):
            asked.set()
            answered.wait(DEADLINE)

    index.before = before
    with serve(tmp_path, index) as host:
        create(lambda_client(host.url), "f", APP)
        assert asked.wait(DEADLINE)
        host.kill()
    answered.set()
    assert installed(tmp_path) == []
    with serve(tmp_path, index) as host:
        client = lambda_client(host.url)
        wait_until_ready(client, "f")
        assert invoke(client, "f")[0] == "Hello!"


def test_an_installation_outlives_its_host_and_stays_in_use_where_no_more_is_installed(
    index: Index, tmp_path: Path
) -> None:
    with serve(tmp_path, index) as host:
        deploy(lambda_client(host.url), "f", APP)
    del index.asked[:]
    with serve(tmp_path, index, "off") as host:
        client = lambda_client(host.url)
        assert invoke(client, "f")[0] == "Hello!"
        deploy(client, "g", {**APP, "requirements.txt": "greeting  # another\n"})
        said = host.wait_for_stderr("dependencies not installed")
        assert "its package has requirements.txt and brings nothing of what that names" in said
        assert "No module named 'greeting'" in invoke(client, "g")["errorMessage"]
    assert index.asked == []


# -------------------------------------------------------------------------------------------------------- for Node.js

IMPORTING = "import left from 'left';\nexport const handler = async () => left('x');\n"
REQUIRING = "const left = require('left');\nexports.handler = async () => left('x');\n"
LEFT = {"index.js": "module.exports = (text) => `left ${text}`;\n"}


@pytest.mark.usefixtures("npm")
@pytest.mark.parametrize("code", [{"index.mjs": IMPORTING}, {"index.js": REQUIRING}], ids=["imports", "requires"])
def test_what_package_json_names_is_installed_and_no_script_of_it_runs(
    start: Start, index: Index, tmp_path: Path, code: Mapping[str, str]
) -> None:
    scripts = dict.fromkeys(("preinstall", "install", "postinstall", "prepare"), f"touch {tmp_path / 'ran'}")
    index.add_module("left", "1.0.0", LEFT, scripts=scripts, hasInstallScript=True)
    client = start()
    package = {"dependencies": {"left": "^1.0.0"}, "devDependencies": {"missing": "1"}, "scripts": scripts}
    deploy(client, "f", {**code, "package.json": json.dumps(package)}, **NODE)
    assert invoke(client, "f") == "left x"
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("npm")
def test_a_lock_file_says_the_versions_and_the_operator_the_registry(start: Start, index: Index) -> None:
    index.add_module("left", "1.0.0", LEFT)
    index.add_module("left", "1.1.0", {"index.js": "module.exports = () => 'newer';\n"})
    entry = {"version": "1.0.0", "resolved": "http://registry.invalid/left/-/left-1.0.0.tgz"}
    wanted = {"dependencies": {"left": "^1.0.0"}}
    lock = {"name": "f", "lockfileVersion": 3, "requires": True, "packages": {"": wanted, "node_modules/left": entry}}
    files = {"index.mjs": IMPORTING, "package.json": json.dumps(wanted), "package-lock.json": json.dumps(lock)}
    client = start()
    deploy(client, "f", files, **NODE)
    assert invoke(client, "f") == "left x"
    assert index.count("/left-1.0.0.tgz") == 1


@pytest.mark.usefixtures("npm")
def test_a_tarball_inside_the_package_needs_no_registry(start: Start, index: Index) -> None:
    files = {
        "index.mjs": IMPORTING,
        "package.json": json.dumps({"dependencies": {"left": "file:vendor/left-1.0.0.tgz"}}),
        "vendor/left-1.0.0.tgz": module("left", "1.0.0", LEFT),
    }
    client = start()
    deploy(client, "f", files, **NODE)
    assert (invoke(client, "f"), index.asked) == ("left x", [])


@pytest.mark.usefixtures("npm")
def test_what_npm_does_not_find_is_said(start: Start) -> None:
    files = {"index.mjs": IMPORTING, "package.json": json.dumps({"dependencies": {"left": "^1.0.0"}})}
    reason, code = failure(start(), "f", files, **NODE)
    assert (code, "npm failed" in reason, "404" in reason) == ("DependencyError", True, True)
