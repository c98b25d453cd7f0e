"""Measures the management API: what a call costs, how listings grow, and what a full state does to the start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness.deploying import ROLE, package
from benchmarks.harness.load import NotMeasured
from benchmarks.harness.machine import cores
from benchmarks.harness.servers import Contestant, Server, running, serverfull
from benchmarks.harness.starts import first_listing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serverfull.interfaces import Records

ACCOUNT, REGION = "123456789012", "us-east-1"
QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:orders"
ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}"
NAME = "f00000"
"""The function that the single-resource calls are about."""

FEW, MANY, FULL = 100, 10_000, 1_000
"""Functions of the two listings that are compared, and of the state that a start is measured with."""

Calls = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Management:
    """What the management API costs.

    :param call_us: user and system microseconds of the server for one call, by the operation's name.
    :param listing: for each round, the cost of a full page of ListFunctions with many functions to that with few.
    :param starts: for each round, the time to the first ListFunctions with a full state to that with an empty one.
    """

    call_us: Mapping[str, float]
    listing: tuple[float, ...]
    starts: tuple[float, ...]


def host(state: Path) -> Contestant:
    """Give our server over a state, without a target."""
    return serverfull("ours managing", "--state", str(state))


def fill(state: Path, functions: int) -> None:
    """Make a state with that many functions in it, as many calls of CreateFunction would have."""
    from serverfull.domain.deployed import FUNCTIONS, VERSIONS, DeployedFunction, FunctionVersion
    from serverfull.domain.records import Partition
    from serverfull.storage.state import open_state

    def work(records: Records) -> None:
        for number in range(functions):
            name = f"f{number:05}"
            records.insert(FUNCTIONS, DeployedFunction(name=name, tags={"team": "blue"}))
            version = FunctionVersion(
                function=name,
                role=ROLE,
                handler="lambda_function.handler",
                runtime="python3.12",
                environment={"TABLE": name},
                code_sha256=f"{number:064x}",
                code_size=1000,
                last_modified="2026-11-21T05:00:00.000+0000",
                revision_id=f"00000000-0000-4000-8000-{number:012}",
            )
            records.insert(VERSIONS, version)

    async def fill_it() -> None:
        opened = await open_state(state)
        await opened.write(Partition(ACCOUNT, REGION), work)
        await opened.aclose()

    asyncio.run(fill_it())


def client_of(server: Server) -> Any:
    from serverfull.testing.clients import lambda_client

    return lambda_client(f"http://127.0.0.1:{server.port}", access_key=ACCOUNT, region=REGION)


def prepare(client: Any) -> Calls:
    """Deploy one of everything, and give the reading calls about it."""
    name = "measured"
    code = {"ZipFile": package({"lambda_function.py": "def handler(event, context): return event\n"})}
    client.create_function(
        FunctionName=name, Runtime="python3.12", Role=ROLE, Handler="lambda_function.handler", Code=code
    )
    client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.1})
    client.publish_version(FunctionName=name)
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    client.add_permission(FunctionName=name, StatementId="s", Action="lambda:InvokeFunction", Principal=ACCOUNT)
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=5)
    client.publish_layer_version(LayerName="layer", Content=code)
    signing = client.create_code_signing_config(
        AllowedPublishers={"SigningProfileVersionArns": [f"arn:aws:signer:{REGION}:{ACCOUNT}:/signing-profiles/p/abc"]}
    )["CodeSigningConfig"]["CodeSigningConfigArn"]
    client.create_function_url_config(FunctionName=name, AuthType="NONE")
    client.put_function_event_invoke_config(FunctionName=name, MaximumRetryAttempts=1)
    mapping = client.create_event_source_mapping(FunctionName=name, EventSourceArn=QUEUE)["UUID"]
    one, layer = {"FunctionName": name}, {"LayerName": "layer"}
    return {
        "GetAccountSettings": {},
        "GetAlias": {**one, "Name": "live"},
        "GetCodeSigningConfig": {"CodeSigningConfigArn": signing},
        "GetEventSourceMapping": {"UUID": mapping},
        "GetFunction": one,
        "GetFunctionCodeSigningConfig": one,
        "GetFunctionConcurrency": one,
        "GetFunctionConfiguration": one,
        "GetFunctionEventInvokeConfig": one,
        "GetFunctionRecursionConfig": one,
        "GetFunctionUrlConfig": one,
        "GetLayerVersion": {**layer, "VersionNumber": 1},
        "GetLayerVersionByArn": {"Arn": f"{ARN}:layer:layer:1"},
        "GetPolicy": one,
        "GetRuntimeManagementConfig": one,
        "ListAliases": one,
        "ListCodeSigningConfigs": {},
        "ListEventSourceMappings": {},
        "ListFunctionEventInvokeConfigs": one,
        "ListFunctionUrlConfigs": one,
        "ListFunctions": {},
        "ListFunctionsByCodeSigningConfig": {"CodeSigningConfigArn": signing},
        "ListLayerVersions": layer,
        "ListLayers": {},
        "ListProvisionedConcurrencyConfigs": one,
        "ListTags": {"Resource": f"{ARN}:function:{name}"},
        "ListVersionsByFunction": one,
    }


def cost_us(server: Server, call: Callable[[], object], times: int) -> float:
    """Give the server's CPU microseconds for one call, after a few that warm it up."""
    for _ in range(5):
        call()
    before = server.cpu_seconds()
    for _ in range(times):
        call()
    return (server.cpu_seconds() - before) / times * 1e6


@contextmanager
def serving(state: Path) -> Iterator[tuple[Server, Any]]:
    """Run a host over a state; gives it with a client, once it has answered."""
    with running(host(state), "", cores()[0]) as server:
        first_listing(server)
        client = client_of(server)
        try:
            yield server, client
        finally:
            client.close()


def call_costs(folder: Path, times: int) -> Mapping[str, float]:
    """Measure every Get and List operation on a host with a hundred functions."""
    from botocore import xform_name

    fill(folder / "few", FEW)
    with serving(folder / "few") as (server, client):
        calls = prepare(client)
        return {
            name: cost_us(server, lambda name=name: getattr(client, xform_name(name))(**calls[name]), times)
            for name in calls
        }


def listing_ratios(folder: Path, rounds: int, times: int) -> tuple[float, ...]:
    """Compare pages of 50 from the middle of few functions and of many, by turns."""
    fill(folder / "listed", FEW)
    fill(folder / "crowded", MANY)

    def page(client: Any, total: int) -> Callable[[], object]:
        marker = None
        for _ in range(total // 50 // 2):
            marker = client.list_functions(**({"Marker": marker} if marker else {}))["NextMarker"]
        return lambda: client.list_functions(Marker=marker)

    with serving(folder / "listed") as (few, few_client), serving(folder / "crowded") as (many, many_client):
        small, large = page(few_client, FEW), page(many_client, MANY)
        return tuple(cost_us(many, large, times) / cost_us(few, small, times) for _ in range(rounds))


def start_ratios(folder: Path, rounds: int) -> tuple[float, ...]:
    """Compare starts over a state of a thousand functions with starts over an empty one."""
    fill(folder / "empty", 0)
    fill(folder / "full", FULL)
    taken = []
    for round_ in range(rounds + 1):  # the first one fills the caches
        seconds = {}
        for state in ("empty", "full") if round_ % 2 else ("full", "empty"):
            with running(host(folder / state), "", cores()[0]) as server:
                seconds[state] = first_listing(server)
        taken.append(seconds["full"] / seconds["empty"])
    return tuple(taken[1:])


def management(folder: Path, rounds: int, times: int, say: Callable[[str], None]) -> Management:
    """Measure all of it.

    :param times: calls in one measurement.
    :raises NotMeasured: a call fails.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        say("management: calls")
        costs = call_costs(folder, times)
        say("management: listings")
        listing = listing_ratios(folder, rounds, times)
        say("management: starts")
        return Management(call_us=costs, listing=listing, starts=start_ratios(folder, rounds))
    except (ClientError, BotoCoreError) as failure:
        raise NotMeasured(f"a management call failed: {failure}") from failure
