"""Packages that say what they need and do not bring it, deployed to real hosts that ask an index of the test's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from serverfull.config import DependencySettings, ExecutionSettings, LoggingSettings, Settings, StateSettings
from serverfull.runtimes.process.means import probe_strict
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


@pytest.fixture(scope="module", autouse=True)
def installers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The names of what installs for Python here, with a configuration that knows of no index."""
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith(("PIP_", "UV_", "npm_config_", "NPM_CONFIG_"))]:
            environment.delenv(name)
        environment.setenv("PIP_CONFIG_FILE", os.devnull)
        environment.setenv("PIP_RETRIES", "0")
        environment.setenv("UV_HTTP_RETRIES", "0")
        environment.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        environment.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        yield ["uv", "pip"] if shutil.which("uv") else ["pip"]


@pytest.fixture
def npm(require: Require) -> None:
    require("npm", shutil.which("npm"), "install Node.js with npm")


@pytest.fixture
def index() -> Iterator[Index]:
    with serving(Index()) as index:
        index.add("greeting", "1.0", {"greeting.py": "TEXT = 'Hello!'\n"})
        yield index


Start = Callable[..., Any]
Require = Callable[[str, object, str], None]


def settings_for(
    index: Index, state: Path, execution: ExecutionSettings = ExecutionSettings(), output: str = "NULL", **more: Any
) -> Settings:
    chosen = {"install": "on", "python_index": index.simple, "node_registry": index.url, **more}
    return Settings(
        dependencies=DependencySettings(**chosen),
        execution=execution,
        logging=LoggingSettings(functions="NULL", output=output),
        state=StateSettings(path=str(state)),
    )


@pytest.fixture
def hosts() -> Iterator[list[ThreadHost]]:
    running: list[ThreadHost] = []
    yield running
    for host in running:
        host.close()


@pytest.fixture
def start(index: Index, tmp_path: Path, hosts: list[ThreadHost]) -> Start:
    """Start a host: ``start(timeout=1.0)`` gives a client for it."""

    def begin(**more: Any) -> Any:
        hosts.append(ThreadHost({}, settings=settings_for(index, tmp_path / "state", **more)))
        return hosts[-1].client()

    return begin


@dataclass
class Shared:
    """A host that many tests use, each with functions and requirements of its own, and its index."""

    client: Any
    index: Index
    state: Path

    def installed(self) -> list[str]:
        return sorted(path.name for path in (self.state / "dependencies/installed").glob("[!.]*"))


@pytest.fixture(scope="module")
def sharing(installers: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Shared]]:
    """Give the host that all share who choose an installer."""
    with ExitStack() as stack:

        @cache
        def of(installer: str) -> Shared:
            state = tmp_path_factory.mktemp("state")
            index = stack.enter_context(serving(Index()))
            host = ThreadHost({}, settings=settings_for(index, state, python_installer=installer))
            stack.callback(host.close)
            return Shared(host.client(), index, state)

        yield of


@pytest.fixture
def shared(sharing: Callable[[str], Shared]) -> Iterator[Shared]:
    found = sharing("auto")
    found.index.add("greeting", "1.0", {"greeting.py": "TEXT = 'Hello!'\n"})
    yield found
    found.index.before = lambda _path: None


@pytest.fixture(params=["uv", "pip"])
def by(
    request: pytest.FixtureRequest, installers: list[str], require: Require, sharing: Callable[[str], Shared]
) -> Shared:
    """The host that installs with each of them."""
    require("uv", request.param in installers, "pip install uv")
    return sharing(request.param)


def failure(client: Any, name: str, files: Mapping[str, str | bytes], **members: Any) -> tuple[str, str]:
    """Create a function that fails; gives the reason and its code."""
    create(client, name, files, **members)
    found = wait_until_settled(client, name)
    assert (found["State"], found["LastUpdateStatus"]) == ("Failed", "Failed"), found
    return found["StateReason"], found["StateReasonCode"]


def new_name() -> str:
    return f"f-{uuid.uuid4().hex[:8]}"


def installed(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "state/dependencies/installed").glob("[!.]*"))


def test_what_requirements_name_is_installed_once_for_all_and_before_they_are_active(by: Shared) -> None:
    by.index.add("distant", "1.1", {"distant.py": "import words\nTEXT = words.TEXT\n"}, ["words>=2"])
    by.index.add("words", "2.0", {"words/__init__.py": "TEXT = 'Hello from afar!'\n"})
    code, before = GREETING.replace("greeting", "distant"), set(by.installed())

    def made(number: int) -> str:
        name = new_name()
        files = {"app.py": code, "requirements.txt": "distant\n", "number.txt": str(number)}
        assert create(by.client, name, files)["State"] == "Pending"
        return name

    with ThreadPoolExecutor(3) as pool:
        names = list(pool.map(made, range(3)))
    results = []
    for name in names:
        wait_until_ready(by.client, name)
        results.append(invoke(by.client, name))
    assert [text for text, _ in results] == ["Hello from afar!"] * 3
    assert len({Path(file).stat().st_ino for _, file in results}) == 1
    assert len(set(by.installed()) - before) == by.index.count("/simple/distant") == 1
    file = results[0][1]
    assert list((Path(file).parent / "__pycache__").glob("distant.*.pyc")), "it is compiled when it is installed"


@pytest.mark.parametrize("tags", [{"serverfull:client": "awslambdaric"}, {"serverfull:execution": "inprocess"}])
def test_other_ways_to_run_a_function_see_the_same(shared: Shared, tags: Mapping[str, str]) -> None:
    name = new_name()
    deploy(shared.client, name, APP, Tags=tags)
    assert invoke(shared.client, name)[0] == "Hello!"


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


def test_dependencies_of_a_project_are_installed(shared: Shared) -> None:
    name, project = new_name(), "[project]\nname = 'app'\nversion = '1'\ndependencies = ['greeting>=1']\n"
    deploy(shared.client, name, {"app.py": GREETING, "pyproject.toml": project})
    assert invoke(shared.client, name)[0] == "Hello!"


def test_a_functions_own_files_come_first_then_what_is_installed_then_its_layers(shared: Shared) -> None:
    names = ("own", "dependency", "layer")
    client, name = shared.client, new_name()
    shared.index.add("names", "1.0", {f"{name}.py": "FROM = 'installed'\n" for name in names[:2]})
    content = {"ZipFile": zipped({f"python/{name}.py": "FROM = 'layer'\n" for name in names})}
    layer = client.publish_layer_version(LayerName="names", Content=content)["LayerVersionArn"]
    code = "import own, dependency, layer\ndef handler(event, context):\n"
    code += "    return [own.FROM, dependency.FROM, layer.FROM]\n"
    files = {"app.py": code, "own.py": "FROM = 'own'\n", "requirements.txt": "names\n"}
    deploy(client, name, files, Layers=[layer])
    assert invoke(client, name) == ["own", "installed", "layer"]


def test_the_old_code_runs_while_an_update_is_being_installed_though_nobody_has_called_it(
    start: Start, hosts: list[ThreadHost], index: Index
) -> None:
    client, old = start(), "Hello!"
    deploy(client, "f", APP)
    for newer in ("slow", "slower"):  # by the host that it was deployed to, and by one that has never seen it
        asked, answered = threading.Event(), threading.Event()

        def before(path: str, told: threading.Event = asked, waits: threading.Event = answered) -> None:
            if newer in path:
                told.set()
                waits.wait(DEADLINE)

        index.before = before
        index.add(newer, "1.0", {f"{newer}.py": f"TEXT = 'at last {newer}'\n"})
        files = {"app.py": GREETING.replace("greeting", newer), "requirements.txt": f"{newer}\n"}
        client.update_function_code(FunctionName="f", ZipFile=zipped(files))
        try:
            assert asked.wait(DEADLINE)
            assert client.get_function_configuration(FunctionName="f")["LastUpdateStatus"] == "InProgress"
            assert invoke(client, "f")[0] == old
        finally:
            answered.set()
        wait_until_ready(client, "f")
        hosts.pop().close()
        client, old = start(), f"at last {newer}"
    assert invoke(client, "f")[0] == old


def test_a_published_version_and_an_update_of_the_code_alone_need_no_index(shared: Shared) -> None:
    client, name = shared.client, new_name()
    deploy(client, name, APP)
    del shared.index.asked[:]
    client.publish_version(FunctionName=name)
    newer = {**APP, "app.py": GREETING.replace("TEXT", "TEXT.upper()")}
    client.update_function_code(FunctionName=name, ZipFile=zipped(newer))
    wait_until_ready(client, name)
    assert (invoke(client, name)[0], invoke(client, name, Qualifier="1")[0]) == ("HELLO!", "Hello!")
    assert shared.index.asked == []


def test_what_has_failed_is_tried_again_by_the_next_update(shared: Shared) -> None:
    client, name = shared.client, new_name()
    failure(client, name, {"app.py": GREETING.replace("greeting", "later"), "requirements.txt": "later==7.7\n"})
    shared.index.add("later", "7.7", {"later.py": "TEXT = 'seven'\n"})
    client.update_function_configuration(FunctionName=name, Description="again")
    wait_until_ready(client, name)
    assert invoke(client, name)[0] == "seven"


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
def test_an_index_that_answers_garbage_is_a_failure(shared: Shared, answer: tuple[int, str, bytes]) -> None:
    shared.index.before = lambda _path: answer
    name = new_name()  # of which no installer remembers anything
    reason, code = failure(shared.client, name, {"app.py": "", "requirements.txt": f"{name}\n"})
    assert (code, "could not be installed" in reason) == ("DependencyError", True)


def test_a_wheel_that_is_none_is_a_failure(shared: Shared) -> None:
    shared.index.files["hollow-1.0-py3-none-any.whl"] = b"PK\x03\x04 and no more"
    before = shared.installed()
    reason, code = failure(shared.client, new_name(), {"app.py": "", "requirements.txt": "hollow\n"})
    assert (code, shared.installed()) == ("DependencyError", before), reason


def test_a_wheel_whose_files_lead_elsewhere_writes_nothing_there(by: Shared, tmp_path: Path) -> None:
    places = {"../" * up + "escaped.py": "evil" for up in range(1, 9)}
    by.index.add("straying", "1.0", {"straying.py": "", **places, f"{tmp_path}/escaped.py": "evil"})
    name = new_name()
    create(by.client, name, {"app.py": "", "requirements.txt": "straying\n"})
    wait_until_settled(by.client, name)
    trees = by.state / "dependencies/trees"
    outside = [path for path in by.state.parent.rglob("escaped.py") if not path.is_relative_to(trees)]
    assert [path for path in outside if "installed" not in path.parts] == []
    assert not list(Path("/").glob("escaped.py"))


def test_nothing_is_ever_built_because_that_runs_code_of_packages_on_the_host(by: Shared, tmp_path: Path) -> None:
    program = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
    by.index.files["evil-1.0.tar.gz"] = sdist("evil", "1.0", program)
    lure = wheel("lure", "1.0", {}, [f"evil @ {by.index.url}/files/evil-1.0.tar.gz"])
    wheels = {"lure-1.0-py3-none-any.whl": lure}
    of_the_index, of_a_wheels_own = new_name(), new_name()
    create(by.client, of_the_index, {"app.py": "", "requirements.txt": "evil\n"})
    create(by.client, of_a_wheels_own, {"app.py": "", "requirements.txt": "./lure-1.0-py3-none-any.whl\n", **wheels})
    for name in (of_the_index, of_a_wheels_own):
        found = wait_until_settled(by.client, name)
        assert found["StateReasonCode"] == "DependencyError", found
    assert not (tmp_path / "ran").exists()


def test_what_takes_too_much_of_the_disk_is_not_kept(start: Start, index: Index, tmp_path: Path) -> None:
    index.add("greeting", "1.0", {"greeting.py": "", "large.bin": bytes(3 << 20)})
    reason, code = failure(start(max_mb=1), "f", APP)
    assert (code, "more than 1 MB (dependencies.max_mb)" in reason) == ("DependencyError", True)
    assert installed(tmp_path) == []
    assert list((tmp_path / "state/dependencies/making").iterdir()) == []


def test_what_a_package_may_not_ask_for_is_said(shared: Shared) -> None:
    del shared.index.asked[:]
    wanted = f"--index-url {shared.index.simple}\ngreeting\n"
    reason, code = failure(shared.client, new_name(), {"app.py": "", "requirements.txt": wanted})
    assert (code, "--index-url is not taken from a package" in reason) == ("DependencyError", True)
    assert shared.index.asked == []


def test_nothing_is_installed_where_a_function_cannot_run_anyway(shared: Shared) -> None:
    del shared.index.asked[:]
    files = {"index.js": "", "package.json": '{"dependencies": {"left": "1"}}'}
    reason, code = failure(shared.client, new_name(), files, **NODE, Tags={"serverfull:execution": "inprocess"})
    assert (code, "cannot run in the host's own process" in reason) == ("InvalidRuntime", True)
    assert shared.index.asked == []


def test_a_tag_takes_a_package_as_it_is(shared: Shared) -> None:
    del shared.index.asked[:]
    name, files = new_name(), {"app.py": "def handler(event, context):\n    return 1\n", "requirements.txt": "any\n"}
    deploy(shared.client, name, files, Tags={"serverfull:dependencies": "off"})
    assert (invoke(shared.client, name), shared.index.asked) == (1, [])


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


def test_a_host_that_is_killed_while_it_installs_leaves_nothing_half_and_the_next_one_goes_on(
    start: Start, index: Index, tmp_path: Path
) -> None:
    asked, answered = threading.Event(), threading.Event()

    def before(path: str) -> None:
        if path.endswith(".whl"):
            asked.set()
            answered.wait(DEADLINE)

    index.before = before
    variables = {
        "SERVERFULL_DEPENDENCIES__INSTALL": "on",
        "SERVERFULL_DEPENDENCIES__PYTHON_INDEX": index.simple,
    }
    with HostProcess.start(None, "--state", str(tmp_path / "state"), cwd=tmp_path, env=variables) as host:
        create(lambda_client(host.url), "f", APP)
        assert asked.wait(DEADLINE)
        host.kill()
    answered.set()
    assert installed(tmp_path) == []
    client = start()
    wait_until_ready(client, "f")
    assert invoke(client, "f")[0] == "Hello!"


def test_an_installation_outlives_its_host_stays_in_use_where_no_more_is_installed_and_is_made_again_where_it_is_gone(
    start: Start, hosts: list[ThreadHost], index: Index, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    deploy(start(), "f", APP)
    hosts.pop().close()
    del index.asked[:]
    client = start(install="off", output="STDERR")
    assert invoke(client, "f")[0] == "Hello!"
    deploy(client, "g", {**APP, "requirements.txt": "greeting  # another\n"})
    assert "No module named 'greeting'" in invoke(client, "g")["errorMessage"]
    assert "its package has requirements.txt and brings nothing of what that names" in capfd.readouterr().err
    assert index.asked == []
    hosts.pop().close()
    shutil.rmtree(tmp_path / "state/dependencies")
    assert invoke(start(), "f")[0] == "Hello!"


# -------------------------------------------------------------------------------------------------------- for Node.js

IMPORTING = "import left from 'left';\nexport const handler = async () => left('x');\n"
REQUIRING = "const left = require('left');\nexports.handler = async () => left('x');\n"
LEFT = {"index.js": "module.exports = (text) => `left ${text}`;\n"}


@pytest.mark.usefixtures("npm")
def test_what_package_json_names_is_installed_for_all_kinds_of_modules_and_no_script_of_it_runs(
    shared: Shared, tmp_path: Path
) -> None:
    scripts = dict.fromkeys(("preinstall", "install", "postinstall", "prepare"), f"touch {tmp_path / 'ran'}")
    shared.index.add_module("left", "1.0.0", LEFT, scripts=scripts, hasInstallScript=True)
    package = {"dependencies": {"left": "^1.0.0"}, "devDependencies": {"missing": "1"}, "scripts": scripts}
    for code in ({"index.mjs": IMPORTING}, {"index.js": REQUIRING}):
        name = new_name()
        deploy(shared.client, name, {**code, "package.json": json.dumps(package)}, **NODE)
        assert invoke(shared.client, name) == "left x"
    assert shared.index.count("/left-1.0.0.tgz") == 1
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("npm")
def test_a_lock_file_says_the_versions_the_operator_the_registry_and_a_tarball_inside_the_package_needs_none(
    shared: Shared,
) -> None:
    shared.index.add_module("right", "1.0.0", LEFT)
    shared.index.add_module("right", "1.1.0", {"index.js": "module.exports = () => 'newer';\n"})
    wanted = {"dependencies": {"right": "^1.0.0", "own": "file:vendor/own-1.0.0.tgz"}}
    entries = {
        "node_modules/right": {"version": "1.0.0", "resolved": "http://registry.invalid/right/-/right-1.0.0.tgz"},
        "node_modules/own": {"version": "1.0.0", "resolved": "file:vendor/own-1.0.0.tgz"},
    }
    lock = {"name": "f", "lockfileVersion": 3, "requires": True, "packages": {"": wanted, **entries}}
    code = (
        "import right from 'right';\nimport own from 'own';\nexport const handler = async () => [right(1), own(2)];\n"
    )
    files = {
        "index.mjs": code,
        "package.json": json.dumps(wanted),
        "package-lock.json": json.dumps(lock),
        "vendor/own-1.0.0.tgz": module("own", "1.0.0", LEFT),
    }
    name = new_name()
    deploy(shared.client, name, files, **NODE)
    assert invoke(shared.client, name) == ["left 1", "left 2"]
    assert (shared.index.count("/right-1.0.0.tgz"), shared.index.count("own")) == (1, 0)


@pytest.mark.usefixtures("npm")
def test_what_npm_does_not_find_is_said(shared: Shared) -> None:
    files = {"index.mjs": IMPORTING, "package.json": json.dumps({"dependencies": {"not-there": "^1.0.0"}})}
    reason, code = failure(shared.client, new_name(), files, **NODE)
    assert (code, "npm failed" in reason, "404" in reason) == ("DependencyError", True, True)
