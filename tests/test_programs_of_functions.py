"""What runs a function on a real host: binaries in C and Rust, wrappers, clients that are chosen, other Pythons."""

from __future__ import annotations

import base64
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from serverfull.domain.variables import RESERVED_VARIABLES
from serverfull.runtimes.process.interpreters import Interpreter, Interpreters
from serverfull.testing.clients import lambda_client
from serverfull.testing.deployments import PYTHON, create, wait_until_settled, zipped
from serverfull.testing.process import HostProcess

SOURCES = Path(__file__).parent / "runtimes" / "process" / "bootstraps"
SHOW = "import os, sys\ndef handler(event, context):\n    return {expression}\n"
OTHER = "arm64" if platform.machine() == "x86_64" else "x86_64"
EXIT_3 = "#!/bin/sh\nexit 3\n"

Files = Mapping[str, str | bytes]


@dataclass(frozen=True)
class Deployed:
    """A host's functions, through boto3."""

    client: Any

    def create(
        self, name: str, files: Files, runtime: str = PYTHON, *, executable: Sequence[str] = (), **members: Any
    ) -> dict[str, Any]:
        """Create a function, and give its configuration once it is made, or has failed."""
        create(self.client, name, files, executable=executable, **{"Runtime": runtime, "Timeout": 30, **members})
        return wait_until_settled(self.client, name)

    def call(self, name: str, event: object = None) -> Any:
        """Invoke a function, and give its result."""
        return self.ask(name, event)[0]

    def ask(self, name: str, event: object = None) -> tuple[Any, str]:
        """Invoke a function, and give its answer, an error too, and its log."""
        answer = self.client.invoke(FunctionName=name, Payload=json.dumps(event), LogType="Tail")
        log = base64.b64decode(answer["LogResult"]).decode()
        return json.loads(answer["Payload"].read()), log

    def layer(self, name: str, files: Files, executable: Sequence[str] = ()) -> str:
        """Publish a layer, and give its ARN."""
        made = self.client.publish_layer_version(LayerName=name, Content={"ZipFile": zipped(files, executable)})
        arn: str = made["LayerVersionArn"]
        return arn


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("host")
    with HostProcess.start(None, "--state", str(folder / "state"), cwd=folder) as host:
        client = lambda_client(host.url, region="eu-west-1")
        yield Deployed(client)
        client.close()


# Binaries ------------------------------------------------------------------------------------------------------------


def compiled(command: Sequence[str | Path], made: Path) -> bytes:
    """Run a compiler."""
    done = subprocess.run([*command, "-o", made], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0 and "cannot find" in done.stderr:
        pytest.skip(f"{command[0]} has no static libraries here")
    assert done.returncode == 0, done.stderr
    return made.read_bytes()


@pytest.fixture(scope="module")
def c_binary(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    made = tmp_path_factory.mktemp("c") / "bootstrap"
    return compiled([compiler, "-static", "-O1", SOURCES / "bootstrap.c"], made)


@pytest.fixture(scope="module")
def rust_binary(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    compiler = shutil.which("rustc") or shutil.which("rustc", path=str(Path.home() / ".cargo" / "bin"))
    if compiler is None:
        pytest.skip("there is no Rust compiler")
    made = tmp_path_factory.mktemp("rust") / "bootstrap"
    return compiled([compiler, "-O", "-C", "target-feature=+crt-static", SOURCES / "bootstrap.rs"], made)


@pytest.mark.parametrize("runtime", ["provided.al2", "provided.al2023"])
def test_a_static_binary_in_c_runs_events_and_crashes_alone(deployed: Deployed, c_binary: bytes, runtime: str) -> None:
    name = runtime.replace(".", "-")
    deployed.create(name, {"bootstrap": c_binary}, runtime, executable=["bootstrap"])
    for number in range(3):
        answer, log = deployed.ask(name, {"n": number})
        assert answer == {"C": {"n": number}}
        assert "C has 8 bytes\n" in log
    large = "x" * 400_000
    assert deployed.call(name, large) == {"C": large}
    crashed, _ = deployed.ask(name, "crash")
    assert crashed["errorType"] == "Runtime.ExitError"
    assert crashed["errorMessage"].endswith("Error: Runtime exited with error: signal: aborted")
    assert deployed.call(name, 1) == {"C": 1}


def test_a_binary_in_rust_runs_events_and_panics_alone(deployed: Deployed, rust_binary: bytes) -> None:
    deployed.create("rust", {"bootstrap": rust_binary}, "provided.al2023", executable=["bootstrap"])
    for number in range(3):
        answer, log = deployed.ask("rust", {"n": number})
        assert answer == {"Rust": {"n": number}}
        assert "Rust has 8 bytes\n" in log
    crashed, log = deployed.ask("rust", "crash")
    assert crashed["errorMessage"].endswith("Error: Runtime exited with error: exit status 101")
    assert "as asked" in log
    assert deployed.call("rust", 1) == {"Rust": 1}


def test_a_binary_for_another_architecture_is_told_while_it_is_deployed(deployed: Deployed) -> None:
    machine = {"arm64": b"\xb7\x00", "x86_64": b"\x3e\x00"}[OTHER]
    if Path("/proc/sys/fs/binfmt_misc", {"arm64": "qemu-aarch64"}.get(OTHER, "qemu-x86_64")).exists():
        pytest.skip("this machine runs binaries of both architectures")
    foreign = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + machine + bytes(100)
    state = deployed.create("foreign", {"bootstrap": foreign}, "provided.al2023", executable=["bootstrap"])
    assert (state["State"], state["StateReasonCode"]) == ("Failed", "FunctionError.InvalidEntryPoint")
    assert f"Its bootstrap is a program for {OTHER}, and this machine is" in state["StateReason"]


@pytest.mark.parametrize("where", ["package", "layer"])
def test_a_bootstrap_that_is_not_executable_is_told_as_that(deployed: Deployed, where: str) -> None:
    name, files = f"plain-{where}", {"bootstrap": EXIT_3}
    layers = [deployed.layer("plain", files)] if where == "layer" else []
    package = {"other": ""} if layers else files
    state = deployed.create(name, package, "provided.al2023", Layers=layers)
    assert (state["State"], state["StateReasonCode"]) == ("Failed", "FunctionError.InvalidEntryPoint")
    assert "it is not executable (chmod +x bootstrap" in state["StateReason"]


def test_an_executable_of_a_layer_is_taken_where_that_of_the_package_is_none(deployed: Deployed) -> None:
    layer = deployed.layer("runs", {"bootstrap": EXIT_3}, ["bootstrap"])
    deployed.create("both", {"bootstrap": "no program"}, "provided.al2023", Layers=[layer])
    assert deployed.call("both")["errorMessage"].endswith("Error: Runtime exited with error: exit status 3")


@pytest.mark.parametrize(
    ("content", "why"),
    [("#!/no/such/shell\n", "no such file or directory"), ("neither script nor binary\n", "exec format error")],
)
def test_a_bootstrap_that_the_kernel_does_not_run_is_told_in_the_words_of_aws(
    deployed: Deployed, content: str, why: str
) -> None:
    name = f"odd-{why.replace(' ', '-')}"
    deployed.create(name, {"bootstrap": content}, "provided.al2023", executable=["bootstrap"])
    answer, _ = deployed.ask(name)
    assert answer["errorType"] == "Runtime.InvalidEntrypoint"
    assert re.fullmatch(rf"RequestId: [0-9a-f-]{{36}} Error: fork/exec \S+/bootstrap: {why}", answer["errorMessage"])


# Variables and folders -----------------------------------------------------------------------------------------------

NOT_SET = {
    "AWS_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_LAMBDA_RUNTIME_API",
}
"""What the page about execution says is missing; the last one where the client is our own for Python."""


def test_a_python_function_has_all_reserved_variables_but_those_that_the_page_names(deployed: Deployed) -> None:
    deployed.create("variables", {"app.py": SHOW.format(expression="dict(os.environ)")})
    found = deployed.call("variables")
    others = {"LANG", "PATH", "LD_LIBRARY_PATH", "TZ", "AWS_XRAY_CONTEXT_MISSING"}
    assert (RESERVED_VARIABLES | others) - NOT_SET <= found.keys()
    assert not NOT_SET & found.keys()
    assert found["AWS_EXECUTION_ENV"] == f"AWS_Lambda_{PYTHON}"
    assert Path(found["LAMBDA_RUNTIME_DIR"]).is_dir()


def test_a_bootstrap_finds_the_runtime_api_and_no_name_of_a_runtime(deployed: Deployed) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    script = (
        '#!/bin/sh\nset -- "http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"\n'
        'id=$(curl -sS -D - -o /dev/null "$1/next" | tr -d "\\r" | sed -n "s/^Lambda-Runtime-Aws-Request-Id: *//Ip")\n'
        'env | tr "\\n" " " | sed "s/.*/\\"&\\"/" | curl -sS --data-binary @- "$1/$id/response"\nsleep 60\n'
    )
    deployed.create("shell", {"bootstrap": script}, "provided.al2023", executable=["bootstrap"], Handler="any.name")
    found = deployed.call("shell")
    assert "AWS_LAMBDA_RUNTIME_API=127.0.0.1:" in found
    assert "_HANDLER=any.name " in found
    assert "AWS_EXECUTION_ENV" not in found


def test_python_looks_into_the_package_then_into_the_versions_folder_of_layers_then_into_the_common_one(
    deployed: Deployed,
) -> None:
    versions = f"python/lib/{PYTHON}/site-packages"
    layer = deployed.layer(
        "modules",
        {f"{versions}/{name}.py": "WHERE = 'version'" for name in ("one", "two")}
        | {f"python/{name}.py": "WHERE = 'common'" for name in ("one", "two", "three")},
    )
    text = "import one, two, three, sys\ndef handler(event, context):\n    return [one.WHERE, two.WHERE, three.WHERE]\n"
    deployed.create("paths", {"app.py": text, "one.py": "WHERE = 'package'"}, Layers=[layer])
    assert deployed.call("paths") == ["package", "version", "common"]


def test_tmp_has_nothing_of_the_hosts(deployed: Deployed) -> None:
    deployed.create("tmp", {"app.py": SHOW.format(expression="[os.environ.get('TMPDIR'), os.listdir('/tmp')]")})
    for _ in range(2):
        folder, names = deployed.call("tmp")
        if folder is not None:
            pytest.skip("this machine gives functions no /tmp of their own")
        assert not [name for name in names if name.startswith("serverfull-")]


# Wrappers ------------------------------------------------------------------------------------------------------------

WRAPPER = '#!/bin/sh\nexport WRAPPED="by $0"\nexec "$@"\n'


@pytest.mark.parametrize("place", ["/opt/wrap", "/var/task/wrap"])
def test_a_wrapper_starts_the_runtime_of_python(deployed: Deployed, place: str) -> None:
    name = "wrapped" + place.replace("/", "-")
    layer = deployed.layer(name, {"wrap": WRAPPER}, ["wrap"])
    files = {"app.py": SHOW.format(expression="os.environ['WRAPPED'], event"), "wrap": WRAPPER}
    variables = {"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": place}}
    deployed.create(name, files, executable=["wrap"], Layers=[layer], Environment=variables)
    for number in range(2):
        wrapped, event = deployed.call(name, number)
        assert wrapped.startswith("by /")
        assert wrapped.endswith("/wrap")
        assert event == number


def test_a_wrapper_that_is_not_there_fails_each_call(deployed: Deployed) -> None:
    variables = {"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/not-there"}}
    deployed.create("unwrapped", {"app.py": SHOW.format(expression="1")}, Environment=variables)
    answer, _ = deployed.ask("unwrapped")
    assert answer["errorType"] == "Runtime.InvalidEntrypoint"
    assert answer["errorMessage"].endswith("Error: fork/exec /opt/not-there: no such file or directory")


@pytest.fixture
def node() -> str:
    """Name the runtime of the Node.js that is installed."""
    looking = Interpreters()
    for major in (26, 24, 22, 20, 18):
        if isinstance(looking.find(f"nodejs{major}.x"), Interpreter):
            return f"nodejs{major}.x"
    pytest.skip("no Node.js of an even major version is installed")


def test_a_wrapper_and_the_versions_folder_of_layers_are_there_for_node_js_too(deployed: Deployed, node: str) -> None:
    of_version = node.removesuffix(".x").replace("nodejs", "nodejs/node")
    files = {f"{of_version}/node_modules/where/index.js": "module.exports = 'version'", "wrap": WRAPPER}
    files["nodejs/node_modules/where/index.js"] = "module.exports = 'common'"
    layer = deployed.layer("node", files, ["wrap"])
    code = "const where = require('where'); exports.handler = async () => [where, process.env.WRAPPED]"
    variables = {"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrap"}}
    deployed.create("node", {"app.js": code}, node, Layers=[layer], Environment=variables)
    where, wrapped = deployed.call("node")
    assert (where, wrapped.startswith("by /")) == ("version", True)


# Clients -------------------------------------------------------------------------------------------------------------

CLIENT = "'awslambdaric' in sys.modules"


def test_a_tag_chooses_the_client_of_one_function_and_can_be_taken_away(deployed: Deployed) -> None:
    pytest.importorskip("awslambdaric")
    made = deployed.create(
        "official", {"app.py": SHOW.format(expression=CLIENT)}, Tags={"serverfull:client": "awslambdaric"}
    )
    assert deployed.call("official") is True
    deployed.client.untag_resource(Resource=made["FunctionArn"], TagKeys=["serverfull:client"])
    assert deployed.call("official") is False


@pytest.mark.parametrize("module", ["json", "logging"])
def test_a_module_of_a_package_is_not_taken_for_one_that_the_official_client_needs(
    deployed: Deployed, module: str
) -> None:
    pytest.importorskip("awslambdaric")
    files = {
        "app.py": "import mine\ndef handler(event, context): return mine.ME",
        "mine.py": "ME = 1",
        f"{module}.py": "",
    }
    deployed.create(f"has-{module}", files, Tags={"serverfull:client": "awslambdaric"})
    assert deployed.call(f"has-{module}") == 1


def test_a_package_may_bring_the_official_client(deployed: Deployed) -> None:
    lines = (
        "import os, urllib.request",
        "from app import handler",
        "def main(args):",
        "    api = os.environ['AWS_LAMBDA_RUNTIME_API']",
    )
    text = "\n".join(
        [
            *lines,
            "    url = f'http://{api}/2018-06-01/runtime/invocation/'",
            "    while True:",
            "        call = urllib.request.urlopen(url + 'next')",
            "        told = url + call.headers['Lambda-Runtime-Aws-Request-Id'] + '/response'",
            "        urllib.request.urlopen(told, data=b'\"' + args[1].encode() + b'\"')",
        ]
    )
    files = {"app.py": SHOW.format(expression="1"), "awslambdaric/__init__.py": "", "awslambdaric/__main__.py": text}
    deployed.create("brings", files, Tags={"serverfull:client": "awslambdaric"})
    assert deployed.call("brings") == "app.handler"


def test_a_client_that_does_not_exist_and_one_that_is_not_installed_are_told_while_the_function_is_deployed(
    deployed: Deployed, tmp_path: Path
) -> None:
    files = {"app.py": SHOW.format(expression="1")}
    state = deployed.create("mistaken", files, Tags={"serverfull:client": "awslambda"})
    assert (state["State"], state["StateReasonCode"]) == ("Failed", "InvalidConfiguration")
    assert "Its tag serverfull:client says 'awslambda': there are own and awslambdaric" in state["StateReason"]
    with pytest.raises(ClientError, match="says 'awslambda'"):
        deployed.call("mistaken")
    deployed.client.tag_resource(Resource=state["FunctionArn"], Tags={"serverfull:client": "own"})
    assert deployed.call("mistaken") == 1
    bare = tmp_path / "bare"  # the same Python without anything that is installed beside it
    bare.mkdir()
    version = "{}.{}.0".format(*sys.version_info[:2])
    script = bare / "python3.15"
    answer = json.dumps(["cpython", version.replace(version, "3.15.0"), str(script)])
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *sys.implementation*) echo \'{answer}\';; *) exec {sys.executable} -S "$@";; esac\n'
    )
    script.chmod(0o755)
    path = os.pathsep.join([str(bare), os.environ["PATH"]])
    with HostProcess.start(None, "--state", "memory", env={"PATH": path}, cwd=tmp_path) as host:
        other = Deployed(lambda_client(host.url, region="eu-west-1"))
        state = other.create("absent", files, "python3.15", Tags={"serverfull:client": "awslambdaric"})
        assert (state["State"], state["StateReasonCode"]) == ("Failed", "InvalidConfiguration")
        assert state["StateReason"].endswith("/bare/python3.15 -m pip install awslambdaric")
        with pytest.raises(ClientError, match="pip install awslambdaric"):
            other.call("absent")


@pytest.mark.parametrize("where", ["package", "layer"])
def test_the_client_of_npm_runs_where_a_package_or_a_layer_brings_it(deployed: Deployed, node: str, where: str) -> None:
    path = "node_modules/aws-lambda-ric/bin/index.mjs"
    brought = """
        const api = `http://${process.env.AWS_LAMBDA_RUNTIME_API}/2018-06-01/runtime/invocation`;
        for (;;) {
            const call = await fetch(`${api}/next`);
            const id = call.headers.get('Lambda-Runtime-Aws-Request-Id');
            const body = JSON.stringify([process.argv[1], process.argv[2], await call.json()]);
            await fetch(`${api}/${id}/response`, { method: 'POST', body });
        }
    """
    name, files = f"npm-{where}", {"app.js": ""}
    layers = [deployed.layer(name, {f"nodejs/{path}": brought})] if where == "layer" else []
    package = files if layers else {**files, path: brought}
    deployed.create(name, package, node, Layers=layers, Tags={"serverfull:client": "awslambdaric"})
    program, handler, event = deployed.call(name, {"n": 1})
    assert program.endswith(path)
    assert (handler, event) == ("app.handler", {"n": 1})


# The flag ------------------------------------------------------------------------------------------------------------


def test_the_flag_says_how_functions_run_over_the_environment_and_tags_over_it(tmp_path: Path) -> None:
    env = {"SERVERFULL_EXECUTION__MODE": "process"}
    arguments = ("--state", str(tmp_path / "state"), "--execution", "inprocess")
    with HostProcess.start(None, *arguments, env=env, cwd=tmp_path) as host:
        deployed = Deployed(lambda_client(host.url, region="eu-west-1"))
        files = {"app.py": SHOW.format(expression="os.getpid()")}
        deployed.create("inside", files)
        assert deployed.call("inside") == host.process.pid
        deployed.create("apart", files, Tags={"serverfull:execution": "process"})
        assert deployed.call("apart") != host.process.pid
        started, first = (line for line in said(host) if "sandbox" in line)
        assert (started["execution"], started["sandbox"]) == ("inprocess", "limits")
        assert (first["event"], first["sandbox"], first["level"]) == ("sandboxes", "limits", "info")
        assert "memory" in first["means"]


def test_a_host_that_keeps_deployments_says_at_its_start_what_holds_them(tmp_path: Path) -> None:
    with HostProcess.start(None, "--state", str(tmp_path / "state"), cwd=tmp_path) as host:
        line = json.loads(host.wait_for_stderr('"sandboxes"', 30))
    assert line["sandbox"] == "limits"
    assert all(what in line["means"] for what in ("memory", "processes", "/tmp", "/opt"))


def said(host: HostProcess) -> list[dict[str, Any]]:
    """End a host, and give the lines of its own log."""
    host.stop()
    return [json.loads(line) for line in host.stderr_lines() if line.startswith("{")]


def test_an_execution_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serverfull", "serve", "--port", "0", "--execution", "threads"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "'threads' is not one of 'auto', 'inprocess', 'process', 'docker'" in done.stderr
