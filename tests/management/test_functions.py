"""The read operations, through the real driver and botocore's parser."""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from botocore.awsrequest import HeadersDict
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import create_parser

from serverfull.api.protocol import Protocol
from serverfull.config import FunctionSettings
from serverfull.domain.functions import Function
from serverfull.domain.names import RequestScope
from serverfull.errors import InvalidParameterValue, NotFoundError, ValidationFailed
from serverfull.interfaces import CodeStore, Fetcher, Records, StateStore
from serverfull.management.configuration import Configurations
from serverfull.management.functions import Functions
from serverfull.management.resolution import FunctionResolver
from serverfull.management.sources import read_source

SCOPE = RequestScope("123456789012", "eu-west-1", "5f0f7a5e-1b2c-4d3e-8f90-a1b2c3d4e5f6", account_known=True)
GUESSED = RequestScope("000000000000", "eu-west-1", SCOPE.request_id)
ARN = "arn:aws:lambda:eu-west-1:123456789012:function:"
MODEL = ServiceModel(Loader().load_service_model("lambda", "service-2"), "lambda")
SOURCE = b"def hello(event, context):\n    return event\n"


class Shelf(Fetcher):
    """A small fetcher with a source of its own."""

    source = "shelf"

    def __init__(self, functions: Mapping[str, Function]) -> None:
        self.functions = dict(functions)

    async def fetch(self, name, qualifier=None):
        if name not in self.functions or qualifier not in (None, "$LATEST"):
            raise NotFoundError(name)
        return self.functions[name]

    async def list(self):
        return self.functions


class NoRecords(Records):
    """Nothing was deployed."""

    def get(self, kind, *key):
        return None

    def list(self, kind, *prefix, **narrowed):
        return []

    def count(self, kind, *prefix, where=None):
        return 0

    def total(self, kind, field):
        return 0

    insert = replace = delete = None


class NoState(StateStore):
    """A state in which nothing was deployed."""

    async def read(self, partition, work):
        return work(NoRecords())

    write = everywhere = aclose = None


class NoCode(CodeStore):
    """A code store that nobody asks for anything: registered functions have no packages."""

    put = package = tree = url = sweep = aclose = None


@pytest.fixture
def source_file(tmp_path) -> Path:
    path = tmp_path / "shop.py"
    path.write_bytes(SOURCE)
    os.utime(path, (1_704_067_200.25, 1_704_067_200.25))
    return path


@pytest.fixture
def handler(source_file):
    spec = importlib.util.spec_from_file_location("shop", source_file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.hello


@pytest.fixture
def full(handler) -> Function:
    return Function(
        handler,
        timeout=2.5,
        memory_size=512,
        environment={"STAGE": "test"},
        description="greets",
        max_concurrency=0,
        log_format="JSON",
        tags={"team": "shop"},
    )


class Client:
    """Calls operations as boto3 does, without the network."""

    def __init__(self, functions: Mapping[str, Function], failed: Mapping[str, str] | None = None) -> None:
        self.shelf = Shelf(functions)
        functions = Functions(
            NoState(),
            FunctionResolver(self.shelf),
            registered=self.shelf,
            code=NoCode(),
            configurations=Configurations(FunctionSettings(), (failed or {}).get),
        )
        self.protocol = Protocol.load(functions.operations())

    async def call(self, operation, path, scope=SCOPE, **query):
        answer = await self.protocol.handle("GET", "/2015-03-31/functions" + path, urlencode(query), {}, b"", scope)
        response = {"status_code": answer.status, "headers": HeadersDict(answer.headers), "body": answer.body}
        read = create_parser("rest-json").parse(response, MODEL.operation_model(operation).output_shape)
        assert set(json.loads(answer.body)) == set(read) - {"ResponseMetadata"}, "all that goes out is modelled"
        del read["ResponseMetadata"]
        return read

    async def list(self, scope=SCOPE, **query):
        return await self.call("ListFunctions", "", scope, **query)

    async def get(self, name, scope=SCOPE, **query):
        return await self.call("GetFunction", "/" + quote(name, safe=""), scope, **query)

    async def configuration(self, name, scope=SCOPE, **query):
        path = f"/{quote(name, safe='')}/configuration"
        return await self.call("GetFunctionConfiguration", path, scope, **query)


async def test_a_configuration_is_the_whole_that_aws_answers(full, source_file):
    configuration = await Client({"hello": full}).configuration("hello")
    assert len(configuration.pop("RevisionId")) == 36
    assert configuration.pop("RuntimeVersionConfig")["RuntimeVersionArn"].startswith(
        "arn:aws:lambda:eu-west-1::runtime:"
    )
    assert configuration == {
        "FunctionName": "hello",
        "FunctionArn": ARN + "hello",
        "Runtime": f"python3.{sys.version_info.minor}",
        "Role": "arn:aws:iam::123456789012:role/serverfull",
        "Handler": "shop.hello",
        "CodeSize": len(SOURCE),
        "CodeSha256": base64.b64encode(hashlib.sha256(SOURCE).digest()).decode(),
        "Description": "greets",
        "Timeout": 3,
        "MemorySize": 512,
        "LastModified": "2024-01-01T00:00:00.250+0000",
        "Version": "$LATEST",
        "Environment": {"Variables": {"STAGE": "test"}},
        "TracingConfig": {"Mode": "PassThrough"},
        "State": "Active",
        "LastUpdateStatus": "Successful",
        "PackageType": "Zip",
        "Architectures": [{"aarch64": "arm64"}.get(platform.machine(), platform.machine())],
        "EphemeralStorage": {"Size": 512},
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        "LoggingConfig": {
            "LogFormat": "JSON",
            "LogGroup": "/aws/lambda/hello",
            "ApplicationLogLevel": "INFO",
            "SystemLogLevel": "INFO",
        },
    }


async def test_a_plain_function_has_the_defaults_of_the_host(handler):
    configuration = await Client({"hello": Function(handler)}).configuration("hello")
    assert (configuration["Timeout"], configuration["MemorySize"], configuration["Description"]) == (3, 128, "")
    assert configuration["LoggingConfig"] == {"LogFormat": "Text", "LogGroup": "/aws/lambda/hello"}
    assert "Environment" not in configuration


async def test_a_function_shows_the_log_group_that_it_was_given(handler):
    configuration = await Client({"hello": Function(handler, log_group="/shop/all")}).configuration("hello")
    assert configuration["LoggingConfig"] == {"LogFormat": "Text", "LogGroup": "/shop/all"}


async def test_get_function_tells_code_tags_and_concurrency(full, source_file):
    client = Client({"hello": full})
    response = await client.get("hello")
    assert response["Configuration"] == await client.configuration("hello")
    assert response["Code"] == {"RepositoryType": "shelf", "Location": source_file.as_uri()}
    assert response["Tags"] == {"team": "shop"}
    assert response["Concurrency"] == {"ReservedConcurrentExecutions": 0}


async def test_what_a_function_does_not_have_is_left_out(handler):
    assert set(await Client({"hello": Function(handler)}).get("hello")) == {"Configuration", "Code"}


async def test_a_failed_function_says_why(handler):
    client = Client({"hello": Function(handler), "fine": Function(handler)}, {"hello": "11 threads were lost"})
    configuration = await client.configuration("hello")
    assert configuration["State"] == "Failed"
    assert configuration["StateReason"] == "11 threads were lost"
    assert configuration["StateReasonCode"] in MODEL.shape_for("StateReasonCode").enum
    assert (await client.configuration("fine"))["State"] == "Active"


@pytest.mark.parametrize("name", ["hello", "123456789012:function:hello", ARN + "hello"])
async def test_every_form_of_a_name_finds_the_function(handler, name):
    client = Client({"hello": Function(handler)})
    assert (await client.configuration(name))["FunctionArn"] == ARN + "hello"


async def test_a_qualifier_qualifies_the_arn(handler):
    client = Client({"hello": Function(handler)})
    assert (await client.configuration("hello:$LATEST"))["FunctionArn"] == ARN + "hello:$LATEST"
    assert (await client.get("hello", Qualifier="$LATEST"))["Configuration"]["FunctionArn"] == ARN + "hello:$LATEST"


@pytest.mark.parametrize(("name", "arn"), [("nobody", ARN + "nobody"), ("hello:7", ARN + "hello:7")])
async def test_an_unknown_function_or_version_is_named_by_its_arn(handler, name, arn):
    client = Client({"hello": Function(handler)})
    for operation in (client.get, client.configuration):
        with pytest.raises(NotFoundError) as caught:
            await operation(name)
        assert caught.value.message == f"Function not found: {arn}"


async def test_two_qualifiers_must_agree(handler):
    with pytest.raises(InvalidParameterValue, match="derived qualifier"):
        await Client({"hello": Function(handler)}).get("hello:$LATEST", Qualifier="1")


async def test_functions_of_another_region_or_account_are_out_of_reach(handler):
    client = Client({"hello": Function(handler)})
    with pytest.raises(NotFoundError, match="are not reachable in this region"):
        await client.get("arn:aws:lambda:us-east-1:123456789012:function:hello")
    with pytest.raises(NotFoundError, match="Function not found"):
        await client.get("arn:aws:lambda:eu-west-1:999999999999:function:hello")


async def test_an_account_that_was_only_assumed_refuses_nobody(handler):
    configuration = await Client({"hello": Function(handler)}).configuration(ARN + "hello", GUESSED)
    assert configuration["FunctionArn"] == ARN + "hello"
    assert configuration["Role"] == "arn:aws:iam::123456789012:role/serverfull"


async def test_arns_carry_the_partition_of_the_region(handler):
    scope = RequestScope("123456789012", "cn-north-1", "id")
    configuration = await Client({"hello": Function(handler)}).configuration("hello", scope)
    assert configuration["FunctionArn"] == "arn:aws-cn:lambda:cn-north-1:123456789012:function:hello"
    assert configuration["Role"].startswith("arn:aws-cn:iam::")


async def test_a_list_is_sorted_and_leaves_out_what_aws_leaves_out(full, handler):
    listed = (await Client({"b": full, "c": Function(handler), "a": full}).list())["Functions"]
    assert [function["FunctionName"] for function in listed] == ["a", "b", "c"]
    assert listed[0]["FunctionArn"] == ARN + "a"
    assert "CodeSha256" in listed[0]
    assert not {"State", "StateReason", "LastUpdateStatus", "RuntimeVersionConfig"} & set(listed[0])


async def test_an_empty_host_lists_nothing():
    assert await Client({}).list() == {"Functions": []}


async def test_pages_follow_each_other_to_the_end(handler):
    names = [f"f{number:03}" for number in range(120)]
    client = Client({name: Function(handler) for name in reversed(names)})
    seen, page = [], await client.list()
    assert len(page["Functions"]) == 50
    while True:
        seen += [function["FunctionName"] for function in page["Functions"]]
        if "NextMarker" not in page:
            break
        page = await client.list(Marker=page["NextMarker"], MaxItems=7)
        assert len(page["Functions"]) <= 7
    assert seen == names


async def test_a_page_ends_at_fifty_whatever_is_asked(handler):
    client = Client({f"f{number:03}": Function(handler) for number in range(51)})
    page = await client.list(MaxItems=10_000)
    assert len(page["Functions"]) == 50
    assert [f["FunctionName"] for f in (await client.list(Marker=page["NextMarker"]))["Functions"]] == ["f050"]


async def test_a_full_last_page_has_no_marker(handler):
    client = Client({"a": Function(handler), "b": Function(handler)})
    assert "NextMarker" not in await client.list(MaxItems=2)


async def test_a_marker_outlives_the_function_that_it_names(handler):
    client = Client({name: Function(handler) for name in "abcd"})
    marker = (await client.list(MaxItems=2))["NextMarker"]
    del client.shelf.functions["b"]
    assert [f["FunctionName"] for f in (await client.list(Marker=marker))["Functions"]] == ["c", "d"]


@pytest.mark.parametrize(
    "marker",
    ["x", "b", "\u00e9", "e30=", "W10=", "eyJhZnRlciI6MX0=", "WyJhIl0=", "bnVsbA==", "x" * 5000, "W1tbW1tb" * 40_000],
)
async def test_a_marker_that_was_never_given_is_refused(handler, marker):
    with pytest.raises(InvalidParameterValue, match="Marker"):
        await Client({"a": Function(handler)}).list(Marker=marker)


async def test_all_versions_are_the_latest_ones_with_qualified_arns(handler):
    listed = await Client({"a": Function(handler)}).list(FunctionVersion="ALL")
    assert [f["FunctionArn"] for f in listed["Functions"]] == [ARN + "a:$LATEST"]


async def test_there_are_no_replicas_of_edge_functions(handler):
    client = Client({"a": Function(handler)})
    assert await client.list(FunctionVersion="ALL", MasterRegion="us-east-1") == {"Functions": []}
    with pytest.raises(InvalidParameterValue, match="FunctionVersion must be set to ALL"):
        await client.list(MasterRegion="us-east-1")


@pytest.mark.parametrize("query", [{"MaxItems": 0}, {"MaxItems": 10_001}, {"FunctionVersion": "1"}])
async def test_parameters_are_checked_against_the_model(handler, query):
    with pytest.raises(ValidationFailed):
        await Client({"a": Function(handler)}).list(**query)


async def test_a_revision_follows_code_and_configuration_and_nothing_else(handler, source_file):
    async def revision(function, scope=SCOPE):
        return (await Client({"a": function}).configuration("a", scope))["RevisionId"]

    first = await revision(Function(handler))
    assert await revision(Function(handler)) == first
    assert await revision(Function(handler), RequestScope("111111111111", "us-east-1", "id")) == first
    assert await revision(Function(handler, timeout=9)) != first
    assert await revision(Function(handler, environment={"A": "b"})) != first
    os.utime(source_file)
    assert await revision(Function(handler)) == first
    source_file.write_bytes(SOURCE + b"# more\n")
    assert await revision(Function(handler)) != first


async def test_source_files_are_read_once(handler, source_file):
    client = Client({"a": Function(handler)})
    first = await client.configuration("a")
    source_file.unlink()
    assert await client.configuration("a") == first
    assert (await client.list())["Functions"][0]["CodeSha256"] == first["CodeSha256"]


async def test_source_files_are_read_off_the_loop(handler, monkeypatch):
    import threading

    import serverfull.management.functions as module

    threads = []

    def spy(function):
        threads.append(threading.current_thread())
        return read_source(function)

    monkeypatch.setattr(module, "read_source", spy)
    await Client({"a": Function(handler)}).list()
    assert threads
    assert threading.main_thread() not in threads


class Callable:
    def __call__(self, event):
        return event

    def method(self, event):
        return event


def wrapped(function):
    @functools.wraps(function)
    def inner(*args):
        return function(*args)

    return inner


@pytest.mark.parametrize(
    "make",
    [
        lambda handler: handler,
        lambda handler: functools.partial(handler, {}),
        wrapped,
    ],
    ids=["function", "partial", "decorated"],
)
def test_the_file_of_every_kind_of_handler_is_found(make, handler, source_file):
    assert read_source(Function(make(handler))).location == source_file.as_uri()


@pytest.mark.parametrize("handler", [Callable(), Callable().method, Callable], ids=["object", "method", "class"])
def test_the_file_of_objects_is_that_of_their_class(handler):
    assert read_source(Function(handler)).location == Path(__file__).as_uri()


@pytest.mark.parametrize(
    "made", [len, eval("lambda event: event"), functools.partial(len)], ids=["C", "eval", "partial"]
)
def test_a_handler_without_a_file_stands_for_itself(made):
    source = read_source(Function(made))
    assert source.location.startswith("module:")
    assert source.size_bytes == 0
    assert len(base64.b64decode(source.sha256)) == 32


async def test_a_handler_without_a_file_can_be_described():
    configuration = await Client({"a": Function(len)}).configuration("a")
    assert configuration["Handler"] == "builtins.len"
    assert configuration["LastModified"] == "1970-01-01T00:00:00.000+0000"
