"""What configurations are kept, echoed, changed and refused, with boto3 on a real socket."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serverfull.domain.capacity import CAPACITY_PROVIDERS, CapacityProvider
from serverfull.domain.code_signing import CODE_SIGNING_CONFIGS, CodeSigningConfig
from serverfull.domain.deployed import FUNCTIONS
from serverfull.domain.runtimes import REFUSED_RUNTIMES
from serverfull.domain.variables import RESERVED_VARIABLES
from tests.management.answers import refused

LAYER = "arn:aws:lambda:eu-west-1:123456789012:layer:known"
QUEUE = "arn:aws:sqs:eu-west-1:123456789012:failed"
KEY = "arn:aws:kms:eu-west-1:123456789012:key/1"
VPC = {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
FILES = [
    {
        "Arn": "arn:aws:elasticfilesystem:eu-west-1:123456789012:access-point/fsap-0123456789abcdef0",
        "LocalMountPath": "/mnt/data",
    }
]
CAPACITY = {
    "LambdaManagedInstancesCapacityProviderConfig": {
        "CapacityProviderArn": "arn:aws:lambda:eu-west-1:123456789012:capacity-provider:mine",
        "PerExecutionEnvironmentMaxConcurrency": 4,
    }
}
INVALID = "InvalidParameterValueException"
SIGNING = "arn:aws:lambda:eu-west-1:123456789012:code-signing-config:csc-0123456789abcdefg"


@pytest.fixture
def client(deploying):
    provider = CapacityProvider(name="mine", settings={}, last_modified="")
    deploying.plane.write(lambda records: records.insert(CAPACITY_PROVIDERS, provider))
    return deploying.plane.client()


@pytest.fixture
def lax(deploying):
    """A client that sends what boto3 itself would refuse."""
    return deploying.plane.client(parameter_validation=False)


def configuration(client, name="hello"):
    found = client.get_function_configuration(FunctionName=name)
    del found["ResponseMetadata"]
    return found


# Echo ----------------------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
VARIABLE = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{1,20}", fullmatch=True).filter(
    lambda name: name not in RESERVED_VARIABLES
)
MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "Description": TEXT,
        "Timeout": st.integers(1, 5400),
        "MemorySize": st.integers(128, 32768),
        "Architectures": st.sampled_from([["x86_64"], ["arm64"]]),
        "Environment": st.fixed_dictionaries({}, optional={"Variables": st.dictionaries(VARIABLE, TEXT, max_size=5)}),
        "TracingConfig": st.sampled_from([{"Mode": "Active"}, {"Mode": "PassThrough"}]),
        "EphemeralStorage": st.fixed_dictionaries({"Size": st.integers(512, 32768)}),
        "KMSKeyArn": st.sampled_from([KEY]),
        "DeadLetterConfig": st.sampled_from([{"TargetArn": QUEUE}]),
        "SnapStart": st.sampled_from([{"ApplyOn": "None"}]),
        "Layers": st.sampled_from([[f"{LAYER}:1"], [f"{LAYER}:1", f"{LAYER}-other:2"]]),
        "LoggingConfig": st.one_of(
            st.fixed_dictionaries({}, optional={"LogFormat": st.just("Text"), "LogGroup": st.just("/my/group")}),
            st.fixed_dictionaries(
                {"LogFormat": st.just("JSON")},
                optional={
                    "ApplicationLogLevel": st.sampled_from(["TRACE", "FATAL"]),
                    "SystemLogLevel": st.sampled_from(["DEBUG", "WARN"]),
                    "LogGroup": st.just("/my/group"),
                },
            ),
        ),
        "TenancyConfig": st.just({"TenantIsolationMode": "PER_TENANT"}),
        "CapacityProviderConfig": st.just(CAPACITY),
        "DurableConfig": st.just({"RetentionPeriodInDays": 7, "ExecutionTimeout": 60}),
        "AcceleratorConfig": st.just({"AcceleratorMemorySize": 8}),
    },
)
ALWAYS = {
    "FunctionName",
    "FunctionArn",
    "Runtime",
    "Role",
    "Handler",
    "CodeSize",
    "Description",
    "Timeout",
    "MemorySize",
    "LastModified",
    "CodeSha256",
    "Version",
    "TracingConfig",
    "RevisionId",
    "State",
    "LastUpdateStatus",
    "PackageType",
    "Architectures",
    "EphemeralStorage",
    "SnapStart",
    "RuntimeVersionConfig",
    "LoggingConfig",
}
NUMBERS = itertools.count()


def expected_of(members, name):
    """Say what a configuration shows of what CreateFunction was given."""
    expected = dict(members)
    if "Environment" in expected and not expected["Environment"].get("Variables"):
        del expected["Environment"]
    if "Layers" in expected:
        expected["Layers"] = [{"Arn": arn, "CodeSize": 7} for arn in expected["Layers"]]
    if "SnapStart" in expected:
        expected["SnapStart"] = {**expected["SnapStart"], "OptimizationStatus": "Off"}
    levels = {"ApplicationLogLevel": "INFO", "SystemLogLevel": "INFO"}
    logging = expected.get("LoggingConfig", {})
    expected["LoggingConfig"] = {
        "LogFormat": "Text",
        "LogGroup": f"/aws/lambda/{name}",
        **(levels if logging.get("LogFormat") == "JSON" else {}),
        **logging,
    }
    return expected


@pytest.mark.slow
@given(members=MEMBERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_given_is_echoed_and_nothing_else_is_there(deploying, client, members):
    name = f"f{next(NUMBERS)}"
    deploying.create(client, FunctionName=name, **members)
    found = configuration(client, name)
    expected = expected_of(members, name)
    assert {member: found.get(member) for member in expected} == expected
    assert set(found) == ALWAYS | set(expected)
    got = client.get_function(FunctionName=name)["Configuration"]
    assert got == found


@pytest.mark.slow
@given(first=MEMBERS, second=MEMBERS)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_update_changes_what_it_names_and_leaves_the_rest(deploying, client, first, second):
    for never in ("Architectures", "TenancyConfig"):
        second.pop(never, None)
    second.pop("LoggingConfig", None)
    if "CapacityProviderConfig" not in first:
        second.pop("CapacityProviderConfig", None)
    name = f"f{next(NUMBERS)}"
    deploying.create(client, FunctionName=name, **first)
    before = configuration(client, name)
    client.update_function_configuration(FunctionName=name, **second)
    deploying.settle()
    after = configuration(client, name)
    expected = before | {key: value for key, value in expected_of(second, name).items() if key != "LoggingConfig"}
    if not second.get("Environment", {"Variables": "kept"}).get("Variables"):
        expected.pop("Environment", None)
    for changed in ("RevisionId", "LastModified"):
        expected[changed] = after[changed]
    assert after == expected
    assert after["RevisionId"] != before["RevisionId"]


def test_a_vpc_is_echoed_with_the_id_that_nobody_knows_here(deploying, client):
    deploying.create(client, VpcConfig={**VPC, "Ipv6AllowedForDualStack": True}, FileSystemConfigs=FILES)
    found = configuration(client)
    assert found["VpcConfig"] == {**VPC, "VpcId": "", "Ipv6AllowedForDualStack": True}
    assert found["FileSystemConfigs"] == FILES
    client.update_function_configuration(
        FunctionName="hello", VpcConfig={"SubnetIds": [], "SecurityGroupIds": []}, FileSystemConfigs=[]
    )
    deploying.settle()
    found = configuration(client)
    assert found["VpcConfig"] == {
        "SubnetIds": [],
        "SecurityGroupIds": [],
        "VpcId": "",
        "Ipv6AllowedForDualStack": False,
    }
    assert "FileSystemConfigs" not in found


def test_what_is_emptied_is_gone(deploying, client):
    deploying.create(
        client,
        Environment={"Variables": {"AB": "c"}},
        KMSKeyArn=KEY,
        DeadLetterConfig={"TargetArn": QUEUE},
        Layers=[f"{LAYER}:1"],
    )
    client.update_function_configuration(
        FunctionName="hello",
        Environment={"Variables": {}},
        KMSKeyArn="",
        DeadLetterConfig={"TargetArn": ""},
        Layers=[],
    )
    deploying.settle()
    assert not {"Environment", "KMSKeyArn", "DeadLetterConfig", "Layers"} & set(configuration(client))


def test_log_levels_come_and_go_with_json(deploying, client):
    def logging(**given):
        client.update_function_configuration(FunctionName="hello", LoggingConfig=given)
        deploying.settle()
        return configuration(client)["LoggingConfig"]

    deploying.create(client, LoggingConfig={"LogGroup": "/my/group"})
    levels = {"ApplicationLogLevel": "INFO", "SystemLogLevel": "INFO"}
    assert logging(LogFormat="JSON") == {"LogFormat": "JSON", "LogGroup": "/my/group", **levels}
    assert logging(SystemLogLevel="WARN") == {
        "LogFormat": "JSON",
        "LogGroup": "/my/group",
        **levels,
        "SystemLogLevel": "WARN",
    }
    assert logging(LogGroup="/other") == {
        "LogFormat": "JSON",
        "LogGroup": "/other",
        **levels,
        "SystemLogLevel": "WARN",
    }
    assert logging(LogFormat="Text") == {"LogFormat": "Text", "LogGroup": "/other"}


# Refusals ------------------------------------------------------------------------------------------------------------

REFUSED = [
    (
        {"Environment": {"Variables": {"AWS_REGION": "x", "AWS_LAMBDA_RUNTIME_API": "y", "MINE": "z"}}},
        (
            "Lambda was unable to configure your environment variables because the environment variables you have "
            "provided contains reserved keys that are currently not supported for modification. "
            "Reserved keys used in this request: AWS_LAMBDA_RUNTIME_API, AWS_REGION"
        ),
    ),
    (
        {"Environment": {"Variables": {"AB": "x" * 4096}}},
        (
            "Lambda was unable to configure your environment variables because the environment variables you have "
            'provided exceeded the 4KB limit. String measured: {"AB":"xxx'
        ),
    ),
    (
        {"Runtime": "python3.7"},
        (
            "The runtime parameter of python3.7 is no longer supported for creating or updating AWS Lambda functions. "
            "We recommend you use a supported runtime while creating or updating functions."
        ),
    ),
    ({"VpcConfig": {"SubnetIds": ["subnet-1"]}}, "SubnetIds and SecurityIds must coexist or be both empty list."),
    ({"FileSystemConfigs": FILES}, "FileSystemConfigs need a VpcConfig"),
    (
        {"DeadLetterConfig": {"TargetArn": "arn:aws:s3:::bucket"}},
        "neither a standard SQS queue nor a standard SNS topic",
    ),
    ({"DeadLetterConfig": {"TargetArn": f"{QUEUE}.fifo"}}, "neither a standard SQS queue nor a standard SNS topic"),
    (
        {"DeadLetterConfig": {"TargetArn": "arn:aws:sns:eu-west-1:123456789012:dead"}},
        "its settings name no endpoint for SNS. Set destinations.endpoint_url, or destinations.endpoints",
    ),
    ({"ImageConfig": {"Command": ["x"]}}, "packageType Image only"),
    (
        {"LoggingConfig": {"LogFormat": "Text", "ApplicationLogLevel": "INFO"}},
        "ApplicationLogLevel and SystemLogLevel can only be set for functions configured to use JSON log format.",
    ),
    ({"LoggingConfig": {"SystemLogLevel": "INFO"}}, "ApplicationLogLevel and SystemLogLevel can only be set"),
    (
        {"SnapStart": {"ApplyOn": "PublishedVersions"}, "Runtime": "python3.11"},
        "python3.11 is not supported for SnapStart enabled functions.",
    ),
    ({"SnapStart": {"ApplyOn": "PublishedVersions"}, "EphemeralStorage": {"Size": 513}}, "at most 512 MB"),
    ({"Layers": [f"{LAYER}:{number}" for number in range(6)]}, "Cannot reference more than 5 layers."),
    (
        {"Layers": [f"{LAYER}:1", f"{LAYER}:2"]},
        (
            "Two different versions of the same layer are not allowed to be referenced in the same function. "
            f"{LAYER}:1 and {LAYER}:2 are versions of the same layer."
        ),
    ),
    (
        {"Layers": [LAYER.replace("eu-west-1", "us-east-1") + ":1"]},
        "Layers are not in the same region as the function. Layers are expected to be in region eu-west-1.",
    ),
    (
        {"Layers": ["arn:aws:lambda:eu-west-1:123456789012:layer:nobody:1"]},
        "Layer version arn:aws:lambda:eu-west-1:123456789012:layer:nobody:1 does not exist.",
    ),
]


@pytest.mark.parametrize(("members", "message"), REFUSED)
def test_a_configuration_that_aws_would_refuse_is_refused(deploying, client, members, message):
    assert message in refused(client.create_function, INVALID, **deploying.request(**members))
    refused(client.get_function, "ResourceNotFoundException", 404, FunctionName="hello")
    deploying.create(client)
    before = configuration(client)
    assert message in refused(client.update_function_configuration, INVALID, FunctionName="hello", **members)
    assert configuration(client) == before


CREATION = [
    ({"Runtime": None}, "Runtime and Handler are mandatory parameters for functions created with deployment packages."),
    ({"Handler": None}, "Runtime and Handler are mandatory parameters for functions created with deployment packages."),
    ({"Tags": {f"k{number}": "" for number in range(51)}}, "Number of tags exceeds resource tag limit."),
    ({"Tags": {"aws:mine": "x"}}, "aws: prefixed tag key names are not allowed for external use."),
    ({"PublishTo": "LATEST_PUBLISHED"}, "PublishTo LATEST_PUBLISHED"),
]


@pytest.mark.parametrize(("members", "message"), CREATION)
def test_a_function_that_aws_would_not_make_is_refused(deploying, client, members, message):
    assert message in refused(client.create_function, INVALID, **deploying.request(**members))


MODEL = [
    (
        {"Role": "runner"},
        "at 'role' failed to satisfy constraint: Member must satisfy regular expression pattern: arn:",
    ),
    ({"Timeout": 0}, "at 'timeout' failed to satisfy constraint: Member must have value greater than or equal to 1"),
    ({"MemorySize": 64}, "at 'memorySize' failed to satisfy constraint"),
    ({"Architectures": ["x86_64", "arm64"]}, "at 'architectures' failed to satisfy constraint"),
    ({"Architectures": ["mips"]}, "Member must satisfy enum value set: [x86_64, arm64]"),
    ({"Runtime": "cobol"}, "at 'runtime' failed to satisfy constraint: Member must satisfy enum value set"),
    ({"Handler": "two words"}, "at 'handler'"),
    ({"EphemeralStorage": {"Size": 5}}, "at 'ephemeralStorage.size'"),
    ({"Layers": ["none"]}, "at 'layers'"),
    ({"Tags": {"": "x"}}, "at 'tags'"),
    ({"Role": None}, "Value null at 'role' failed to satisfy constraint: Member must not be null"),
    ({"Environment": {"Variables": {"1A": "x"}}}, "at 'environment.variables'"),
]


@pytest.mark.parametrize(("members", "message"), MODEL)
def test_what_the_model_forbids_is_refused_in_its_words(deploying, lax, members, message):
    assert message in refused(lax.create_function, "ValidationException", **deploying.request(**members))


def test_an_update_is_checked_together_with_what_it_leaves(deploying, client):
    deploying.create(client, SnapStart={"ApplyOn": "PublishedVersions"})
    call = client.update_function_configuration
    assert "not supported for SnapStart" in refused(call, INVALID, FunctionName="hello", Runtime="python3.11")
    assert "at most 512 MB" in refused(call, INVALID, FunctionName="hello", EphemeralStorage={"Size": 1024})


def test_four_kilobytes_of_variables_are_measured_as_json(deploying, client):
    most = 4096 - len(json.dumps({"AB": ""}, separators=(",", ":")))
    deploying.create(client, Environment={"Variables": {"AB": "x" * most}})
    refused(
        client.update_function_configuration,
        INVALID,
        FunctionName="hello",
        Environment={"Variables": {"AB": "x" * (most + 1)}},
    )


@pytest.mark.parametrize("runtime", sorted(REFUSED_RUNTIMES))
def test_refused_runtimes_are_known_to_the_model(runtime):
    from botocore.loaders import Loader

    assert runtime in Loader().load_service_model("lambda", "service-2")["shapes"]["Runtime"]["enum"]


@pytest.mark.parametrize("runtime", ["python3.12", "python3.14", "java21", "java8.al2023", "dotnet8", "dotnet10"])
def test_snap_start_is_for_newer_runtimes(deploying, client, runtime):
    supported = runtime != "java8.al2023"
    members = deploying.request(Runtime=runtime, SnapStart={"ApplyOn": "PublishedVersions"})
    if supported:
        assert client.create_function(**members)["SnapStart"] == {
            "ApplyOn": "PublishedVersions",
            "OptimizationStatus": "Off",
        }
    else:
        refused(client.create_function, INVALID, **members)


# Code signing --------------------------------------------------------------------------------------------------------


def put_signing(deploying, policy):
    config = CodeSigningConfig(id=SIGNING.rpartition(":")[2], publishers=[], policy=policy, last_modified="")
    deploying.plane.write(lambda records: records.insert(CODE_SIGNING_CONFIGS, config))


def test_a_signing_config_must_be_there(deploying, client):
    refused(
        client.create_function,
        "CodeSigningConfigNotFoundException",
        404,
        **deploying.request(CodeSigningConfigArn=SIGNING),
    )


def test_unsigned_code_is_refused_where_that_is_enforced(deploying, client):
    put_signing(deploying, "Enforce")
    members = deploying.request(CodeSigningConfigArn=SIGNING)
    refused(client.create_function, "CodeVerificationFailedException", **members)
    refused(client.get_function, "ResourceNotFoundException", 404, FunctionName="hello")


def test_an_unsigned_layer_is_refused_where_signing_is_enforced(deploying, client):
    put_signing(deploying, "Enforce")
    deploying.create(client)
    signed = lambda records: replace(records.get(FUNCTIONS, "hello"), code_signing_config=SIGNING)  # noqa: E731
    deploying.plane.write(lambda records: records.replace(FUNCTIONS, signed(records)))
    call = client.update_function_configuration
    refused(call, "CodeVerificationFailedException", FunctionName="hello", Layers=[f"{LAYER}:1"])
    call(FunctionName="hello", Timeout=9)


def test_unsigned_code_is_told_to_the_operator_where_the_policy_is_to_warn(deploying, client):
    put_signing(deploying, "Warn")
    deploying.create(client, CodeSigningConfigArn=SIGNING)
    client.update_function_code(FunctionName="hello", ZipFile=deploying.other)
    warnings = [fields["function"] for level, event, fields in deploying.plane.log.lines if level == "warning"]
    assert warnings == ["hello", "hello"]
