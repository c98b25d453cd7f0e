"""Every paginator and every waiter that boto3 has for Lambda, against a host with three of everything."""

from __future__ import annotations

import pytest
from boto3.session import Session
from botocore import xform_name

from serverfull.testing.deployments import deploy, wait_until_ready, zipped

ACCOUNT = "444455556666"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/any"
PROFILE = f"arn:aws:signer:us-east-1:{ACCOUNT}:/signing-profiles/ours/1234567890"
PROVIDER = {
    "VpcConfig": {"SubnetIds": ["subnet-1234567890abcdef0"], "SecurityGroupIds": ["sg-1234567890abcdef0"]},
    "PermissionsConfig": {"CapacityProviderOperatorRoleArn": ROLE},
}
FILES = {"app.py": "def handler(event, context): ...\n"}
EMPTY = {"list_function_versions_by_capacity_provider"}
"""Functions on capacity providers are another subject; here their list has one page, and nothing on it."""

LAMBDA = Session().client("lambda", "us-east-1", aws_access_key_id="any", aws_secret_access_key="any")
PAGINATORS = [
    name
    for name in map(xform_name, LAMBDA.meta.service_model.operation_names)
    if LAMBDA.can_paginate(name) and "durable" not in name
]


@pytest.fixture(scope="module")
def client(fresh_host):
    made = Session().client(
        "lambda", "us-east-1", endpoint_url=fresh_host.url, aws_access_key_id=ACCOUNT, aws_secret_access_key="any"
    )
    yield made
    made.close()


@pytest.fixture(scope="module")
def lists(client) -> dict[str, dict[str, str]]:
    """Three of everything; gives what paginators have to be told, by their names."""
    signing = [
        client.create_code_signing_config(AllowedPublishers={"SigningProfileVersionArns": [PROFILE]}) for _ in range(3)
    ]
    config = signing[0]["CodeSigningConfig"]["CodeSigningConfigArn"]
    for number in range(3):
        deploy(client, f"f{number}", FILES, CodeSigningConfigArn=config)
        client.publish_layer_version(LayerName="layer", Content={"ZipFile": zipped(FILES)})
        client.publish_layer_version(LayerName=f"layer{number}", Content={"ZipFile": zipped(FILES)})
        client.create_capacity_provider(CapacityProviderName=f"provider{number}", **PROVIDER)
    for number in range(1, 4):
        wait_until_ready(client, "f0")
        qualifier = {"FunctionName": "f0", "Qualifier": client.publish_version(FunctionName="f0")["Version"]}
        client.create_alias(FunctionName="f0", Name=f"a{number}", FunctionVersion=qualifier["Qualifier"])
        client.put_function_event_invoke_config(**qualifier, MaximumRetryAttempts=1)
        client.put_provisioned_concurrency_config(**qualifier, ProvisionedConcurrentExecutions=1)
        client.create_function_url_config(FunctionName="f0", Qualifier=f"a{number}", AuthType="NONE")
        client.create_event_source_mapping(
            FunctionName="f0", EventSourceArn=f"arn:aws:sqs:us-east-1:{ACCOUNT}:q{number}"
        )
        client.update_function_configuration(FunctionName="f0", Description=str(number))
    return {
        "list_functions_by_code_signing_config": {"CodeSigningConfigArn": config},
        "list_layer_versions": {"LayerName": "layer"},
        "list_function_versions_by_capacity_provider": {"CapacityProviderName": "provider0"},
    }


def items(pages) -> list[list[object]]:
    return [next(value for value in page.values() if isinstance(value, list)) for page in pages]


@pytest.mark.parametrize("name", PAGINATORS)
def test_a_paginator_gives_everything_once_however_it_is_cut(client, lists, name: str) -> None:
    model = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[name])
    named = {"FunctionName": "f0"} if "FunctionName" in model.input_shape.required_members else {}
    paginator, members = client.get_paginator(name), lists.get(name, named)
    (whole,) = items(paginator.paginate(**members))
    pages = items(paginator.paginate(**members, PaginationConfig={"PageSize": 2}))
    assert [item for page in pages for item in page] == whole
    if name not in EMPTY:
        assert len(whole) >= 3
        assert [len(page) for page in pages[:-1]] == [2] * (len(pages) - 1)


@pytest.mark.parametrize("name", LAMBDA.waiter_names)
def test_a_waiter_ends_where_there_is_nothing_to_wait_for(client, lists, name: str) -> None:
    qualifier = {"Qualifier": "1"} if name.startswith("published_version") else {}
    client.get_waiter(name).wait(FunctionName="f1" if not qualifier else "f0", **qualifier, WaiterConfig={"Delay": 0.1})
