"""Functions and layers that run from folders of the machine in place, on real hosts, as their developers edit them."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from serverfull.testing.deployments import PYTHON, ROLE, invoke, wait_until_ready, wait_until_settled, zipped
from serverfull.testing.process import HostProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE = 20.0
"""Seconds until a test gives up; a change is served after a tenth of one, as a rule."""

# What the developer guide's first example does, which LocalStack's page takes: https://github.com/awsdocs
SQUARE = """
import logging, math
logger = logging.getLogger()
ACTIONS = {
    "square": lambda x: x * x,
    "square root": math.sqrt,
    "increment": lambda x: x + 1,
    "decrement": lambda x: x - 1,
}
def lambda_handler(event, context):
    logger.info("Event: %s", event)
    result = ACTIONS[event["action"]](event["number"])
    response = {"result": result}
    return response
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder below which functions may run in place."""
    return tmp_path_factory.mktemp("code")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, code: Path) -> Iterator[HostProcess]:
    folder = tmp_path_factory.mktemp("host")
    settings = {
        "SERVERFULL_HOT_RELOAD__ALLOWED_PATHS": f'["{code}"]',
        "BUCKET_MARKER_LOCAL": "hot-code",
        "LAMBDA_MOUNT_CWD": str(code / "mounted"),
        "ELSEWHERE": "/etc",
        "SERVERFULL_RELOAD__BUILDS": "true",
    }
    with HostProcess.start(None, "--state", str(folder / "state"), env=settings, cwd=folder) as process:
        yield process


@pytest.fixture
def client(host: HostProcess, boto: Callable[..., Any], account: str) -> Any:
    return boto(host, access_key=account)


@pytest.fixture
def fn(code: Path, account: str) -> Path:
    """A folder of a function, new for each test."""
    (code / account).mkdir()
    return code / account


def save(file: Path, text: str) -> None:
    """Write a file as editors do, which put a new one in its place."""
    file.parent.mkdir(parents=True, exist_ok=True)
    (draft := file.with_name(f".{file.name}.sw")).write_text(text)
    draft.rename(file)


def answering(value: object) -> str:
    return f"def handler(event, context):\n    return {value!r}\n"


def create(
    client: Any, folder: Path | str, name: str = "f", bucket: str = "hot-reload", **members: Any
) -> dict[str, Any]:
    usual = {
        "Runtime": PYTHON,
        "Role": ROLE,
        "Handler": "app.handler",
        "Code": {"S3Bucket": bucket, "S3Key": str(folder)},
    }
    created: dict[str, Any] = client.create_function(FunctionName=name, **{**usual, **members})
    return created


def eventually(look: Callable[[], Any], expected: Any) -> None:
    """Wait until a call gives what is expected."""
    deadline = time.monotonic() + DEADLINE
    while (found := look()) != expected:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


def error_of(client: Any, name: str = "f") -> str | None:
    """Call a function, and give the type of its error."""
    answer = client.invoke(FunctionName=name)
    payload = json.loads(answer["Payload"].read())
    return payload["errorType"] if "FunctionError" in answer else None


def test_a_folder_that_says_how_it_is_built_is_built_before_it_is_served(client: Any, fn: Path) -> None:
    save(fn / "function.json", json.dumps({"Build": "grep -v wrong app.src > app.new && mv app.new app.py"}))
    save(fn / "app.src", answering("one"))
    create(client, fn)
    wait_until_ready(client, "f")
    assert invoke(client, "f") == "one"
    save(fn / "app.src", "wrong\n")
    save(fn / "app.src", answering("two"))
    eventually(lambda: invoke(client, "f"), "two")


def refusal(call: Callable[..., Any], *arguments: Any, **request: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(*arguments, **request)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


@pytest.mark.parametrize("mode", ["process", "inprocess"])
def test_the_square_of_localstack_is_served_as_it_is_edited(client: Any, fn: Path, mode: str) -> None:
    save(fn / "lambda_handler_basic.py", SQUARE)
    tags = {"serverfull:execution": mode}
    create(client, fn, bucket="__local__", Handler="lambda_handler_basic.lambda_handler", Tags=tags)
    payload = b'{"action": "square", "number": 3}'
    assert invoke(client, "f", Payload=payload) == {"result": 9}
    save(fn / "lambda_handler_basic.py", SQUARE.replace('"result": result', '"math_result": result'))
    eventually(lambda: invoke(client, "f", Payload=payload), {"math_result": 9})


def test_the_answers_of_the_api_are_those_of_the_ancestors(client: Any, fn: Path) -> None:
    save(fn / "app.py", answering(1))
    created = create(client, fn)
    assert (created["CodeSha256"], created["CodeSize"]) == ("hot-reloading-hash-not-available", 0)
    found = client.get_function(FunctionName="f")
    assert found["Code"] == {"RepositoryType": "S3", "Location": f"file://{fn}"}
    assert found["Configuration"]["CodeSha256"] == "hot-reloading-hash-not-available"
    assert wait_until_ready(client, "f")["State"] == "Active"


@pytest.mark.parametrize("mode", ["process", "inprocess"])
def test_mistakes_are_answered_and_the_next_good_save_heals_them(client: Any, fn: Path, mode: str) -> None:
    save(fn / "app.py", answering(1))
    create(client, fn, Tags={"serverfull:execution": mode})
    assert invoke(client, "f") == 1
    save(fn / "app.py", "def handler(event, context\n")
    eventually(lambda: error_of(client), "Runtime.UserCodeSyntaxError")
    save(fn / "app.py", "import half_written\n" + answering(1))
    eventually(lambda: error_of(client), "Runtime.ImportModuleError")
    save(fn / "half_written.py", "")
    eventually(lambda: error_of(client), None)
    assert invoke(client, "f") == 1


@pytest.mark.parametrize("mode", ["process", "inprocess"])
def test_edits_of_the_same_second_and_size_are_all_served(client: Any, fn: Path, mode: str) -> None:
    save(fn / "pkg" / "part.py", "VALUE = 0\n")
    save(fn / "app.py", "from pkg.part import VALUE\ndef handler(event, context):\n    return VALUE\n")
    create(client, fn, Tags={"serverfull:execution": mode})
    assert invoke(client, "f") == 0
    for value in range(1, 5):
        (fn / "pkg" / "part.py").write_text(f"VALUE = {value}\n")
        eventually(lambda: invoke(client, "f"), value)
    assert not list(fn.rglob("__pycache__"))


def test_a_folder_that_is_deleted_is_named_and_serves_again_when_it_is_back(client: Any, fn: Path) -> None:
    save(fn / "app.py", answering("here"))
    create(client, fn)
    assert invoke(client, "f") == "here"
    fn.rename(gone := fn.with_name(f"{fn.name}-gone"))

    def code_of_call() -> str | None:
        try:
            invoke(client, "f")
        except ClientError as failure:
            return str(failure.response["Error"]["Code"])
        return None

    eventually(code_of_call, "ResourceConflictException")
    said = refusal(client.invoke, FunctionName="f")[1]
    assert f"The folder '{fn}' cannot be run in place: there is no '{fn.name}'." in said
    gone.rename(fn)
    eventually(code_of_call, None)
    assert invoke(client, "f") == "here"


SLOW = """
import time, pathlib
def handler(event, context):
    pathlib.Path(event).touch()
    while pathlib.Path(event).exists():
        time.sleep(0.01)
    return {!r}
"""


def test_a_call_that_runs_goes_on_with_the_old_code(client: Any, fn: Path) -> None:
    save(fn / "app.py", SLOW.format("old"))
    create(client, fn, Timeout=20)
    (fn / ".git").mkdir()
    flag = fn / ".git" / "running"  # where changes do not count
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(invoke, client, "f", Payload=json.dumps(str(flag)).encode())
        deadline = time.monotonic() + DEADLINE
        while not flag.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        save(fn / "app.py", answering("new"))
        eventually(lambda: invoke(client, "f", Payload=b'"/nowhere"'), "new")
        flag.unlink()
        assert running.result(DEADLINE) == "old"


LOADED = """
import pathlib
pathlib.Path(".git", "loaded-{}").touch()
def handler(event, context):
    return {}
"""


def test_the_new_code_of_a_function_in_use_is_loaded_before_it_is_called(client: Any, fn: Path) -> None:
    (fn / ".git").mkdir()  # where changes do not count
    save(fn / "app.py", LOADED.format(1, 1))
    create(client, fn)
    assert invoke(client, "f") == 1
    save(fn / "app.py", LOADED.format(2, 2))
    eventually((fn / ".git" / "loaded-2").exists, True)
    (fn / ".git" / "loaded-2").unlink()
    eventually(lambda: invoke(client, "f"), 2)


def test_a_package_makes_it_an_ordinary_function_and_a_folder_a_hot_one_again(client: Any, fn: Path) -> None:
    save(fn / "app.py", answering("folder"))
    create(client, fn)
    assert invoke(client, "f") == "folder"
    client.update_function_code(FunctionName="f", ZipFile=zipped({"app.py": answering("package")}))
    assert wait_until_ready(client, "f")["CodeSize"] > 0
    assert invoke(client, "f") == "package"
    save(fn / "app.py", answering("edited"))
    assert client.get_function(FunctionName="f")["Code"]["Location"].startswith("http")
    assert invoke(client, "f") == "package"
    client.update_function_code(FunctionName="f", S3Bucket="hot-code", S3Key=f"{fn}/")
    assert wait_until_ready(client, "f")["CodeSize"] == 0
    assert invoke(client, "f") == "edited"


def test_a_published_version_is_what_was_in_the_folder_then(client: Any, fn: Path) -> None:
    save(fn / "app.py", answering(1))
    assert create(client, fn, Publish=True)["Version"] == "1"
    wait_until_settled(client, "f", "1")
    wait_until_ready(client, "f")
    assert client.publish_version(FunctionName="f")["Version"] == "1"  # nothing has changed
    save(fn / "app.py", answering(2))
    eventually(lambda: invoke(client, "f"), 2)
    second = client.publish_version(FunctionName="f")
    assert (second["Version"], second["CodeSha256"][-1]) == ("2", "=")
    wait_until_settled(client, "f", "2")
    save(fn / "app.py", answering(3))
    eventually(lambda: invoke(client, "f"), 3)
    assert [invoke(client, "f", Qualifier=number) for number in "12"] == [1, 2]
    assert client.get_function(FunctionName="f", Qualifier="1")["Code"]["Location"].startswith("http")


def test_layers_are_hot_too_several_at_once(client: Any, fn: Path) -> None:
    arns = []
    for name in ("first", "second"):
        save(fn / "layers" / name / "python" / f"{name}.py", "VALUE = 'old'\n")
        content = {"S3Bucket": "hot-reload", "S3Key": str(fn / "layers" / name)}
        published = client.publish_layer_version(LayerName=name, Content=content)
        assert published["Content"]["Location"] == f"file://{fn}/layers/{name}"
        assert published["Content"]["CodeSha256"] == "hot-reloading-hash-not-available"
        arns.append(published["LayerVersionArn"])
    packed = client.publish_layer_version(
        LayerName="packed", Content={"ZipFile": zipped({"python/packed.py": "VALUE = 'packed'\n"})}
    )
    arns.append(packed["LayerVersionArn"])
    looking = "import first, packed, second\ndef handler(*_):\n    return [first.VALUE, second.VALUE, packed.VALUE]\n"
    client.create_function(
        FunctionName="f",
        Runtime=PYTHON,
        Role=ROLE,
        Handler="app.handler",
        Layers=arns,
        Code={"ZipFile": zipped({"app.py": looking})},
    )
    assert invoke(client, "f") == ["old", "old", "packed"]
    save(fn / "layers" / "second" / "python" / "second.py", "VALUE = 'new'\n")
    eventually(lambda: invoke(client, "f"), ["old", "new", "packed"])
    save(fn / "layers" / "first" / "python" / "first.py", "VALUE = 'new'\n")
    eventually(lambda: invoke(client, "f"), ["new", "new", "packed"])


def virtualenv(folder: Path, elsewhere: Path) -> Path:
    """Make a virtual environment as installers leave it, with a library, and an editable install of another."""
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    save(folder / "pyvenv.cfg", "home = /usr/bin\n")
    save(site / "some_lib_from_virtualenv" / "__init__.py", "NAME = 'lib'\n")
    save(site / "editable.pth", f"{elsewhere}\n")
    save(elsewhere / "edited_lib.py", "NAME = 'edited'\n")
    return site


IMPORTING = """
import some_lib_from_virtualenv, edited_lib
def handler(event, context):
    return [some_lib_from_virtualenv.NAME, edited_lib.NAME]
"""


@pytest.mark.parametrize(
    ("name", "tags", "variables"),
    [
        (".venv", {}, {}),
        ("venv", {}, {}),
        (".venv", {"serverfull:execution": "inprocess"}, {}),
        (".venv", {"serverfull:client": "awslambdaric"}, {}),
        (".venv", {}, {"PYTHONHASHSEED": "1"}),  # for which the client starts in an interpreter of its own
    ],
    ids=["as usual", "venv", "in process", "awslambdaric", "own interpreter"],
)
def test_a_virtual_environment_beside_the_code_is_found_and_each_edit_served(
    client: Any,
    fn: Path,
    name: str,
    tags: dict[str, str],
    variables: dict[str, str],
    require: Callable[[str, object, str], None],
) -> None:
    if "serverfull:client" in tags:
        require("awslambdaric", importlib.util.find_spec("awslambdaric"), "pip install awslambdaric")
    virtualenv(fn / name, fn / "elsewhere")
    save(fn / "part.py", "VALUE = 0\n")
    save(fn / "app.py", IMPORTING.replace("edited_lib\n", "edited_lib, part\n").replace("NAME]", "NAME, part.VALUE]"))
    create(client, fn, Tags=tags, Environment={"Variables": variables}, Timeout=20)
    assert invoke(client, "f") == ["lib", "edited", 0]
    for value in (1, 2):
        (fn / "part.py").write_text(f"VALUE = {value}\n")
        eventually(lambda: invoke(client, "f"), ["lib", "edited", value])


def test_the_advice_of_localstack_for_virtual_environments_is_true_here(client: Any, fn: Path) -> None:
    site = virtualenv(fn / ".venv", fn / "elsewhere")
    (site / "editable.pth").unlink()
    advice = 'import sys, glob\nsys.path.insert(0, glob.glob(".venv/lib/python*/site-packages")[0])\n'
    using = "import some_lib_from_virtualenv\ndef handler(event, context):\n    return some_lib_from_virtualenv.NAME\n"
    save(fn / "app.py", advice + using)
    create(client, fn)
    assert invoke(client, "f") == "lib"


@pytest.mark.parametrize("mode", ["process", "inprocess"])
def test_the_python_path_of_a_function_is_looked_through(client: Any, fn: Path, mode: str) -> None:
    save(fn / "libs" / "some_lib.py", "NAME = 'some'\n")
    save(fn / "app.py", "import some_lib\ndef handler(event, context):\n    return some_lib.NAME\n")
    variables = {"Variables": {"PYTHONPATH": "libs"}}
    create(client, fn, Environment=variables, Tags={"serverfull:execution": mode})
    assert invoke(client, "f") == "some"


def test_a_deploy_tool_names_the_folder_by_a_variable_of_the_host(client: Any, fn: Path, code: Path) -> None:
    (code / "mounted").symlink_to(fn)
    save(fn / "app.py", answering("mounted"))
    kind, said = refusal(create, client, "$LAMBDA_MOUNT_CWD", bucket="hot-code")
    assert (kind, "'mounted' is a symbolic link" in said) == ("InvalidParameterValueException", True)
    (code / "mounted").unlink()
    fn.rename(code / "mounted")
    created = create(client, "${LAMBDA_MOUNT_CWD}", bucket="hot-code")
    assert created["FunctionName"] == "f"
    assert client.get_function(FunctionName="f")["Code"]["Location"] == f"file://{code}/mounted"
    assert invoke(client, "f") == "mounted"


def test_no_way_leads_to_a_folder_that_is_not_allowed(client: Any, fn: Path, code: Path) -> None:
    save(fn / "app.py", answering("mine"))
    (fn / "out").symlink_to("/etc")
    code.with_name(f"{code.name}-evil").mkdir(exist_ok=True)
    tried = [
        *(
            "/",
            "/etc",
            "etc",
            ".",
            "~",
            "$ELSEWHERE",
            "$NO_SUCH",
            f"/proc/self/root{fn}",
            "/proc/self/cwd",
            "/proc/self/fd/3",
        ),
        *(f"{code}-evil", f"{fn}/out", f"{fn}/out/ssl", f"{fn}/../../..", f"{fn}/..", f"/{fn}", f"{fn}//", f"{fn}/./"),
        *(f"{fn}\0", f"{fn}\t", f"{fn} ", f"{fn}.", str(fn).upper(), f"{fn}/app.py", f"{fn}/nope", f"file://{fn}"),
        *(f"{fn}/{'x' * 300}", f"{fn}$ELSEWHERE", f"{fn}/\u202e", f"{fn}/$(id)", f"{code}/*", f"{fn}%2f..", f"{fn};id"),
    ]
    said = [refusal(create, client, key) for key in tried]
    content = {"S3Bucket": "hot-reload", "S3Key": "/etc"}
    said.append(refusal(client.publish_layer_version, LayerName="etc", Content=content))
    create(client, fn)
    wait_until_ready(client, "f")
    said.append(refusal(client.update_function_code, FunctionName="f", S3Bucket="hot-reload", S3Key="/etc"))
    wrong = [
        one for one in said if one[0] != "InvalidParameterValueException" or "cannot be run in place" not in one[1]
    ]
    assert not wrong
    assert invoke(client, "f") == "mine"


def test_code_that_must_be_signed_is_no_folder(client: Any, fn: Path) -> None:
    profile = "arn:aws:signer:us-east-1:123456789012:/signing-profiles/p/0123456789"
    signing = client.create_code_signing_config(
        AllowedPublishers={"SigningProfileVersionArns": [profile]},
        CodeSigningPolicies={"UntrustedArtifactOnDeployment": "Enforce"},
    )["CodeSigningConfig"]["CodeSigningConfigArn"]
    assert refusal(create, client, fn, CodeSigningConfigArn=signing)[0] == "CodeVerificationFailedException"


def test_a_folder_that_is_gone_while_its_function_is_updated_serves_again_when_it_is_back(
    client: Any, fn: Path
) -> None:
    save(fn / "app.py", answering(1))
    create(client, fn)
    wait_until_ready(client, "f")
    fn.rename(gone := fn.with_name(f"{fn.name}-gone"))
    client.update_function_configuration(FunctionName="f", Timeout=5)
    wait_until_settled(client, "f")
    assert refusal(client.invoke, FunctionName="f")[0] == "ResourceConflictException"
    gone.rename(fn)
    save(fn / "app.py", answering(2))
    assert invoke(client, "f") == 2


BOOTSTRAP = """#!{python}
import os, urllib.request
base = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"] + "/2018-06-01/runtime/invocation/"
while True:
    with urllib.request.urlopen(base + "next") as call:
        request = call.headers["Lambda-Runtime-Aws-Request-Id"]
    urllib.request.urlopen(base + request + "/response", b"{value}").close()
"""


def test_a_program_that_is_built_into_the_folder_later_runs_as_soon_as_it_is_there(client: Any, fn: Path) -> None:
    create(client, fn, Runtime="provided.al2023", Timeout=20)
    assert wait_until_settled(client, "f")["State"] == "Failed"
    for value in (1, 2):
        draft = fn / ".bootstrap.sw"
        draft.write_text(BOOTSTRAP.format(python=sys.executable, value=value))
        draft.chmod(0o755)
        draft.rename(fn / "bootstrap")
        eventually(lambda: called(client), value)


def called(client: Any) -> object:
    """Call a function that may not be ready; gives None then."""
    try:
        return invoke(client, "f")
    except ClientError:
        return None


def test_what_would_not_act_is_refused(client: Any, fn: Path) -> None:
    for member, value in (("S3ObjectVersion", "1"), ("SourceKMSKeyArn", "arn:aws:kms:us-east-1:123456789012:key/k")):
        source = {"S3Bucket": "hot-reload", "S3Key": str(fn), member: value}
        kind, said = refusal(create, client, fn, Code=source)
        assert (kind, member in said) == ("InvalidParameterValueException", True)


class NoSuchBucket(BaseHTTPRequestHandler):
    """An S3 server without buckets."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        body = b"<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>"
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def s3_server() -> Iterator[tuple[dict[str, str], list[str]]]:
    """Give the variables by which a host finds it, and the paths that it is asked for."""
    with ThreadingHTTPServer(("127.0.0.1", 0), NoSuchBucket) as server:
        server.asked = asked = []  # type: ignore[attr-defined]
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        yield {"AWS_ENDPOINT_URL_S3": url, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}, asked
        server.shutdown()


def test_without_the_setting_these_are_buckets_and_folders_run_no_more(
    tmp_path: Path, boto: Callable[..., Any]
) -> None:
    save(tmp_path / "code" / "app.py", answering("hot"))
    state = ("--state", str(tmp_path / "state"))
    allowed = {"SERVERFULL_HOT_RELOAD__ALLOWED_PATHS": str(tmp_path)}
    with HostProcess.start(None, *state, env=allowed, cwd=tmp_path) as host:
        create(boto(host), tmp_path / "code")
        assert invoke(boto(host), "f") == "hot"
    with s3_server() as (s3, asked), HostProcess.start(None, *state, env=s3, cwd=tmp_path) as host:
        client = boto(host)
        for bucket in ("hot-reload", "__local__"):
            kind, said = refusal(create, client, tmp_path / "code", name="g", bucket=bucket)
            assert (kind, "NoSuchBucket" in said) == ("InvalidParameterValueException", True), said
        assert [path.split("/")[1].split(".")[0] for path in asked] == ["hot-reload", "__local__"]
        kind, said = refusal(client.invoke, FunctionName="f")
        assert (kind, "hot reload is off on this host" in said) == ("ResourceConflictException", True), said
