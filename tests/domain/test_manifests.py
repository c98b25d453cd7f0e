from __future__ import annotations

import gzip
import json
import platform
import sys
from pathlib import Path

import botocore
import pytest

from serverfull.domain.deployed_handler import DeployedHandler, ImageConfig
from serverfull.domain.manifests import Manifest, completed, function_of, parse_manifest
from serverfull.domain.runtimes import REFUSED_RUNTIMES, RUNTIMES, host_runtime
from serverfull.domain.variables import RESERVED_VARIABLES
from serverfull.errors import ManifestInvalid

WHOLE = {
    "Architectures": ["arm64"],
    "Description": "places orders",
    "Environment": {"Variables": {"STAGE": "test", "EMPTY": ""}},
    "EphemeralStorage": {"Size": 1024},
    "Handler": "orders.place",
    "Layers": ["shared", {"Arn": "arn:aws:lambda:eu-west-1:123456789012:layer:own:3", "CodeSize": 7}],
    "LoggingConfig": {
        "LogFormat": "JSON",
        "LogGroup": "/shop/orders",
        "ApplicationLogLevel": "DEBUG",
        "SystemLogLevel": "WARN",
    },
    "MemorySize": 512,
    "RecursiveLoop": "Allow",
    "ReservedConcurrentExecutions": 0,
    "Runtime": "python3.12",
    "Tags": {"team": "shop", "serverfull:execution": "process"},
    "Timeout": 30,
}


def test_every_member_is_read():
    assert parse_manifest(WHOLE, "function.json") == Manifest(
        handler="orders.place",
        runtime="python3.12",
        timeout=30,
        memory_size=512,
        environment={"STAGE": "test", "EMPTY": ""},
        layers=("shared", "arn:aws:lambda:eu-west-1:123456789012:layer:own:3"),
        description="places orders",
        ephemeral_mb=1024,
        log_format="JSON",
        log_group="/shop/orders",
        application_log_level="DEBUG",
        system_log_level="WARN",
        architecture="arm64",
        tags={"team": "shop", "serverfull:execution": "process"},
        reserved_concurrency=0,
        recursive_loop="Allow",
    )


def test_nothing_has_to_be_said():
    assert parse_manifest({}, "function.json") == Manifest()


def test_an_image_says_how_it_is_started_and_nothing_of_what_is_in_it():
    config = {"Command": ["app.handler"], "EntryPoint": [], "WorkingDirectory": "/srv"}
    read = parse_manifest({"ImageConfig": config, "Timeout": 9}, "the image", "Image")
    assert read.image_config == ImageConfig(command=("app.handler",), working_directory="/srv")
    assert read.timeout == 9
    for member, value in (("Handler", "a.b"), ("Runtime", "python3.12"), ("Layers", ["shared"])):
        with pytest.raises(ManifestInvalid, match=f"^the image: {member}: a container image says itself"):
            parse_manifest({member: value}, "the image", "Image")
    with pytest.raises(ManifestInvalid, match=r"^a zip: ImageConfig: it is for functions whose code is a container"):
        parse_manifest({"ImageConfig": config}, "a zip")


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ([], "it has to be an object, not a list"),
        (None, "it has to be an object, not null"),
        (
            {"timeout": 3},
            "timeout is no member of a function's configuration that can be set here; did you mean Timeout",
        ),
        (
            {"Zzz": 3},
            "Zzz is no member of a function's configuration that can be set here; there are Architectures, Desc",
        ),
        ({"Timeout": 0}, "Timeout: it has to be 1 to 5400, not 0"),
        ({"Timeout": 5401}, "Timeout: it has to be 1 to 5400, not 5401"),
        ({"Timeout": 2.5}, "Timeout: it has to be a whole number, 1 to 5400, not 2.5"),
        ({"Timeout": "3"}, "Timeout: it has to be a whole number, 1 to 5400, not a text"),
        ({"Timeout": True}, "Timeout: it has to be a whole number, 1 to 5400, not true or false"),
        ({"MemorySize": 127}, "MemorySize: it has to be 128 to 32768, not 127"),
        ({"ReservedConcurrentExecutions": -1}, "ReservedConcurrentExecutions: it has to be 0 or more, not -1"),
        ({"Handler": ""}, "Handler: it is empty"),
        ({"Handler": "a b"}, "Handler: it has white space in it: 'a b'"),
        ({"Handler": "a" * 129}, "Handler: it has 129 characters, and may have 128"),
        ({"Handler": None}, "Handler: it has to be a text, not null"),
        ({"Runtime": "cobol74"}, "Runtime: 'cobol74' is no runtime that this version knows"),
        ({"Runtime": "python2.7"}, "Runtime: AWS takes python2.7 no more"),
        ({"Description": "x" * 257}, "Description: it has 257 characters, and may have 256"),
        ({"Environment": {"STAGE": "test"}}, "Environment.STAGE is no member .*; there are Variables"),
        ({"Environment": {"Variables": {"A1": 1}}}, "Environment.Variables.A1: it has to be a text, not a number"),
        ({"Environment": {"Variables": {"A1": "\0"}}}, "Environment.Variables.A1: it has a null character in it"),
        ({"Environment": {"Variables": {"1A": ""}}}, "Environment.Variables: '1A' is no name of a variable"),
        ({"Environment": {"Variables": {"AWS_REGION": ""}}}, "Environment.Variables: only the runtime sets AWS_REGION"),
        (
            {"Environment": {"Variables": {"BIG": "x" * 4096}}},
            "Environment.Variables: together they are more than 4096",
        ),
        ({"Layers": "shared"}, "Layers: it has to be a list, not a text"),
        ({"Layers": ["a", "a"]}, r"Layers\[1\]: a is there twice"),
        ({"Layers": ["a", {"CodeSize": 3}]}, r"Layers\[1\]: it has to be a text, not null"),
        ({"Layers": list("abcdef")}, "Layers: a function has at most 5 layers, not 6"),
        ({"Architectures": ["x86_64", "arm64"]}, "Architectures: it has to be a list with one of x86_64 and arm64"),
        ({"Architectures": ["z80"]}, r"Architectures\[0\]: it has to be x86_64 or arm64, not 'z80'"),
        ({"EphemeralStorage": {"Size": 511}}, "EphemeralStorage.Size: it has to be 512 to 32768, not 511"),
        ({"LoggingConfig": {"LogFormat": "json"}}, "LoggingConfig.LogFormat: it has to be Text or JSON, not 'json'"),
        ({"LoggingConfig": {"LogGroup": "a b"}}, "LoggingConfig.LogGroup: 'a b' is no name of a log group"),
        (
            {"LoggingConfig": {"SystemLogLevel": "INFO"}},
            "LoggingConfig.SystemLogLevel: a log has levels where LogFormat",
        ),
        ({"RecursiveLoop": 1}, "RecursiveLoop: it has to be Terminate or Allow, not a number"),
        ({"Tags": {"": "x"}}, "the key of a tag in Tags: it is empty"),
        ({"Tags": {"a": "x" * 257}}, "Tags.a: it has 257 characters, and may have 256"),
    ],
)
def test_what_is_wrong_is_refused_by_its_name(document, why):
    with pytest.raises(ManifestInvalid, match=f"^hello/function.json: {why}") as caught:
        parse_manifest(document, "hello/function.json")
    assert caught.value.where == "hello/function.json"


def test_the_working_directory_of_an_image_is_absolute():
    with pytest.raises(ManifestInvalid, match=r"ImageConfig\.WorkingDirectory: srv is no absolute path"):
        parse_manifest({"ImageConfig": {"WorkingDirectory": "srv"}}, "it", "Image")


@pytest.mark.parametrize(
    ("said", "names", "runtime", "handler"),
    [
        (Manifest(), ["lambda_function.py"], host_runtime(), "lambda_function.lambda_handler"),
        (Manifest(handler="a.b"), ["a.py", "bootstrap"], host_runtime(), "a.b"),
        (Manifest(), ["bootstrap", "lib"], "provided.al2023", "bootstrap"),
        (Manifest(runtime="nodejs22.x"), ["index.mjs"], "nodejs22.x", "index.handler"),
        (Manifest(runtime="ruby3.4"), [], "ruby3.4", "lambda_function.lambda_handler"),
    ],
)
def test_what_is_not_said_is_told_by_the_code(said, names, runtime, handler):
    whole = completed(said, names, "it")
    assert (whole.runtime, whole.handler) == (runtime, handler)


def test_what_only_the_owner_knows_is_asked_for():
    with pytest.raises(ManifestInvalid, match=r"^it: Runtime: say which one runs it"):
        completed(Manifest(), ["index.js"], "it")
    with pytest.raises(ManifestInvalid, match=r"^it: Handler: say what java21 is to call"):
        completed(Manifest(runtime="java21"), [], "it")


def test_the_function_is_what_the_manifest_says():
    function = function_of(
        parse_manifest(WHOLE, "it"), Path("/code"), [Path("/layer")], region="eu-west-1", version="3", generation="g"
    )
    handler = function.handler
    assert isinstance(handler, DeployedHandler)
    assert (handler.name, handler.root, handler.layers) == ("orders.place", Path("/code"), (Path("/layer"),))
    assert (handler.runtime, handler.architecture, handler.ephemeral_mb) == ("python3.12", "arm64", 1024)
    assert (handler.region, handler.generation, handler.image_uri) == ("eu-west-1", "g", "")
    assert (function.timeout, function.memory_size, function.version) == (30, 512, "3")
    assert (function.max_concurrency, function.recursive_loop) == (0, "Allow")
    assert (function.log_format, function.log_group) == ("JSON", "/shop/orders")
    assert (function.application_log_level, function.system_log_level) == ("DEBUG", "WARN")
    assert dict(function.environment) == {"STAGE": "test", "EMPTY": ""}
    assert function.description == "places orders"
    assert dict(function.tags) == {"team": "shop", "serverfull:execution": "process"}


def test_what_is_left_out_is_the_hosts_default():
    function = function_of(Manifest(), Path(), region="eu-west-1", image_uri="shop/orders:1")
    assert (function.timeout, function.memory_size, function.max_concurrency) == (None, None, None)
    assert isinstance(function.handler, DeployedHandler)
    assert function.handler.image_uri == "shop/orders:1"
    here = {"amd64": "x86_64", "aarch64": "arm64"}
    assert function.handler.architecture == here.get(platform.machine().lower(), platform.machine().lower())
    assert host_runtime() == f"python3.{sys.version_info.minor}"


def test_limits_and_names_are_those_of_awss_model():
    file = Path(botocore.__file__).parent / "data/lambda/2015-03-31/service-2.json.gz"
    shapes = json.loads(gzip.decompress(file.read_bytes()))["shapes"]
    for member, shape in (("Timeout", "Timeout"), ("MemorySize", "MemorySize")):
        least, most = shapes[shape]["min"], shapes[shape]["max"]
        for value in (least, most):
            parse_manifest({member: value}, "it")
        for value in (least - 1, most + 1):
            with pytest.raises(ManifestInvalid):
                parse_manifest({member: value}, "it")
    size = shapes["EphemeralStorageSize"]
    for value in (size["min"], size["max"]):
        assert parse_manifest({"EphemeralStorage": {"Size": value}}, "it").ephemeral_mb == value
    for runtime in shapes["Runtime"]["enum"]:
        if runtime in REFUSED_RUNTIMES or runtime == "custom":
            continue
        assert runtime in RUNTIMES
        assert parse_manifest({"Runtime": runtime}, "it").runtime == runtime
    members = {*shapes["CreateFunctionRequest"]["members"], "RecursiveLoop", "ReservedConcurrentExecutions"}
    assert WHOLE.keys() <= members
    for name in sorted(RESERVED_VARIABLES):
        with pytest.raises(ManifestInvalid):
            parse_manifest({"Environment": {"Variables": {name: ""}}}, "it")
