"""A control plane on a real socket, for operations that are driven with boto3.

The server runs on a thread, so tests are plain functions that call boto3's blocking clients::

    @pytest.fixture
    def client(control_plane):
        plane = control_plane
        plane.serve(Aliases(plane.state, plane.resolver, plane.changes).operations())
        return plane.client()

Each answer is compared with the AWS model on its way: a member that the model does not have, or a value of another
type, fails the call.
"""

from __future__ import annotations

import asyncio
import base64
import contextvars
import hashlib
import io
import json
import threading
import uuid
import zipfile
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from multidict import istr

from serverfull.api.app import Front, LazyProtocol, make_application
from serverfull.api.contracts import ContractDocuments
from serverfull.api.gates import Gates
from serverfull.api.invocations import InvokeFront
from serverfull.api.server import HardenedRunner
from serverfull.config import FunctionSettings, ServerSettings
from serverfull.domain.changes import Change, Changes
from serverfull.domain.concurrency import AccountLimits
from serverfull.domain.deployed import ALIASES, FUNCTIONS, VERSIONS, Alias, DeployedFunction, FunctionVersion
from serverfull.domain.layers import LayerVersion
from serverfull.domain.names import LATEST
from serverfull.domain.objects import StoredObject
from serverfull.domain.readiness import Fitness, Unfit
from serverfull.domain.records import Partition
from serverfull.errors import InvalidParameterValue, NotFoundError
from serverfull.interfaces import Fetcher
from serverfull.invocation.request_ids import RequestIds
from serverfull.invocation.requests import InvocationReader
from serverfull.management.aliases import Aliases
from serverfull.management.configuration import Configurations
from serverfull.management.deployments import Deployments
from serverfull.management.functions import Functions
from serverfull.management.packages import PackageIntake
from serverfull.management.preparation import Preparations, make_ready
from serverfull.management.resolution import FunctionResolver
from serverfull.management.versions import Versions
from serverfull.storage.code import MemoryCodeStore
from serverfull.storage.packages import check
from serverfull.storage.state import open_state
from serverfull.testing.clients import lambda_client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence

    from serverfull.domain.functions import Function
    from serverfull.interfaces import StateStore

ACCOUNT = "123456789012"
REGION = "eu-west-1"
PARTITION = Partition(ACCOUNT, REGION)
ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/runner"
DEADLINE = 20.0
"""Seconds until a test gives up waiting. Nothing takes that long."""


class Log:
    """Keeps what the server and its operations log."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append(("warning", event, fields))

    def error(self, event: str, **fields: Any) -> None:
        self.lines.append(("error", event, fields))


class NoInvocations:
    """Stands where invocations go: there are none."""

    async def invoke(self, invocation: Any) -> Any:
        raise NotFoundError(invocation.function)


class ControlPlane:
    """State, what operations need besides, and a server for them.

    :param registered: the operator's own functions; tests add to it.
    """

    def __init__(self) -> None:
        self.registered: dict[str, Function] = {}
        self.fetcher = _Registered(self.registered)
        self.changes = Changes()
        self.published: list[Change] = []
        self.changes.subscribe(self.published.append)
        self.log = Log()
        self.state: StateStore
        self.resolver = FunctionResolver(self.fetcher)
        self._operations: dict[str, Callable[..., Awaitable[Any]]] = {}
        self._closing: list[Callable[[], Awaitable[None]]] = []
        self._clients: list[Any] = []
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="control-plane")
        contextvars.Context().run(self._thread.start)
        assert self._ready.wait(DEADLINE)

    def serve(self, operations: Mapping[str, Callable[..., Awaitable[Any]]]) -> None:
        """Add operations; before the first request."""
        self._operations.update(operations)

    def at_end(self, close: Callable[[], Awaitable[None]]) -> None:
        """Close something on the loop when the test is over."""
        self._closing.append(close)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the loop of the server, and give its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE)

    def write(self, work: Callable[[Any], Any], partition: Partition = PARTITION) -> Any:
        """Do work with the records in a transaction."""
        return self.run(self.state.write(partition, work))

    def client(self, account: str = ACCOUNT, region: str = REGION, **config: Any) -> Any:
        """Make a boto3 client; ``parameter_validation=False`` lets it send what boto3 itself would refuse."""
        client = lambda_client(self.url, access_key=account, region=region, **config)
        client.meta.events.register("response-received.lambda", _check_modelled)
        self._clients.append(client)
        return client

    def put_function(self, name: str, *versions: int, partition: Partition = PARTITION, **members: Any) -> None:
        """Put a function into the state: ``$LATEST`` and these versions. Members are those of FunctionVersion."""
        latest = FunctionVersion(
            function=name,
            **{
                "role": ROLE,
                "handler": "app.handler",
                "runtime": "python3.12",
                "code_sha256": "ab" * 32,
                "code_size": 100,
                "last_modified": "2026-01-01T00:00:00.000+0000",
                "revision_id": str(uuid.uuid4()),
                **members,
            },
        )

        def work(records: Any) -> None:
            records.insert(FUNCTIONS, DeployedFunction(name=name, last_version=max(versions, default=0)))
            for number in (0, *versions):
                records.insert(VERSIONS, replace(latest, number=number))

        self.write(work, partition)

    def put_alias(self, function: str, name: str, version: str = "1") -> None:
        """Put an alias into the state."""
        alias = Alias(function=function, name=name, version=version, revision_id=str(uuid.uuid4()))
        self.write(lambda records: records.insert(ALIASES, alias))

    def close(self) -> None:
        """End everything."""
        for client in self._clients:
            client.close()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()

    async def _give_operations(self) -> Mapping[str, Callable[..., Awaitable[Any]]]:
        return self._operations

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.state = await open_state(None)
        settings = ServerSettings(port=0)
        reader = InvocationReader("000000000000", "us-east-1", istr)
        front = Front(
            invoke=InvokeFront(NoInvocations(), reader),
            management=LazyProtocol(self._give_operations),
            contracts=ContractDocuments(self.fetcher),
            reader=reader,
            request_ids=RequestIds(),
            gates=Gates(settings, "127.0.0.1"),
            draining=lambda: False,
            logger=self.log,
        )
        runner = HardenedRunner(make_application(front), settings=settings, logger=self.log)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site.port}"
        self._ready.set()
        await self._stop.wait()
        runner.abort()
        await runner.cleanup()
        for close in reversed(self._closing):
            await close()
        await self.state.aclose()


class _Registered(Fetcher):
    """The operator's functions."""

    source = "static"

    def __init__(self, functions: Mapping[str, Function]) -> None:
        self.functions = functions

    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        if name not in self.functions or qualifier not in (None, LATEST):
            raise NotFoundError(name)
        return self.functions[name]

    async def list(self) -> Mapping[str, Function]:
        return self.functions


@pytest.fixture
def control_plane() -> Iterator[ControlPlane]:
    """Give a control plane without operations, with an empty state in memory."""
    plane = ControlPlane()
    yield plane
    plane.close()
    failures = [fields for level, _, fields in plane.log.lines if level == "error"]
    assert not failures, failures


@pytest.fixture
def client(plane: ControlPlane) -> Any:
    """Give a client for the control plane of a module, its fixture ``plane``; it sends what boto3 would refuse."""
    return plane.client(parameter_validation=False)


@pytest.fixture
def lambda_client_for(control_plane: ControlPlane) -> Callable[..., Any]:
    """Serve operations and give a client for them: ``lambda_client_for(Tags(...).operations())``."""

    def make(operations: Mapping[str, Callable[..., Awaitable[Any]]], **config: Any) -> Any:
        control_plane.serve(operations)
        return control_plane.client(**config)

    return make


def zipped(**files: str) -> bytes:
    """Make a package: ``zipped(app="...")`` has ``app.py``. The same files give the same bytes."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.py"), text)
    return made.getvalue()


def sha256_of(package: bytes) -> str:
    """Give the CodeSha256 of a package."""
    return base64.b64encode(hashlib.sha256(package).digest()).decode()


PACKAGE = zipped(app="def handler(event, context): return event")
OTHER = zipped(app="def handler(event, context): return 2")


class Preparing:
    """Prepares versions as a host does, when the test lets it; everything can be run.

    :ivar images: the digests that images have, by their URIs.
    """

    def __init__(self, code: Any) -> None:
        self.images: dict[str, str] = {}
        self.failure: Exception | None = None
        self.fails: Callable[[Any], bool] = lambda version: True
        self.holds: Callable[[Any], bool] = lambda version: True
        self.begun: list[Any] = []
        self._code = code
        self._may = threading.Event()
        self._may.set()

    def hold(self) -> None:
        """Let nothing come to its end from now on."""
        self._may.clear()

    def release(self) -> None:
        """Let everything come to its end."""
        self._may.set()

    async def __call__(self, partition: Any, version: Any) -> Fitness:
        self.begun.append(version)
        async with asyncio.timeout(DEADLINE):
            while not self._may.is_set() and self.holds(version):  # noqa: ASYNC110 - the event is of another thread
                await asyncio.sleep(0.005)
        if self.failure is not None and self.fails(version):
            raise self.failure
        return await make_ready(self._code, self._examine, partition, version)

    async def _examine(self, partition: Any, version: Any) -> Fitness:
        if version.image_uri is None or version.resolved_image is not None:
            return Fitness(image=version.resolved_image)
        if (digest := self.images.get(version.image_uri)) is None:
            return Fitness(Unfit(f"There is no image {version.image_uri}", "InvalidImage"))
        return Fitness(image=f"{version.image_uri.rpartition(':')[0]}@sha256:{digest}")


class Deploying:
    """The operations, and everything that they need, as a host wires them.

    :ivar objects: what S3 has, by bucket, key and version.
    """

    package = property(lambda self: PACKAGE)
    other = property(lambda self: OTHER)
    zipped = staticmethod(zipped)
    sha256_of = staticmethod(sha256_of)

    def __init__(self, plane: Any, limits: AccountLimits, *, fetch: bool = True) -> None:
        self.plane = plane
        self.objects: dict[tuple[str, str, str | None], bytes] = {}
        self.code = plane.run(self._store())
        self.preparing = Preparing(self.code)
        self.preparations = self.make_preparations()
        plane.at_end(self.code.aclose)
        plane.at_end(self._close)
        configurations = Configurations(FunctionSettings(), {}.get)
        common = plane.state, plane.resolver, plane.changes
        functions = Functions(
            plane.state, plane.resolver, registered=plane.fetcher, code=self.code, configurations=configurations
        )
        self.packages = PackageIntake(
            self.code, check_package=partial(asyncio.to_thread, check), fetch_object=self._fetch if fetch else None
        )
        plane.serve(functions.operations())
        plane.serve(Aliases(*common).operations())
        versions = Versions(
            *common,
            configurations=configurations,
            functions=functions,
            packages=self.packages,
            preparations=self.preparations,
            limits=limits,
        )
        plane.serve(versions.operations())
        self.deployments = Deployments(
            *common,
            configurations=configurations,
            packages=self.packages,
            preparations=self.preparations,
            find_layers=find_layers,
            limits=limits,
            reachable=("lambda", "sqs"),
            logger=plane.log,
        )
        plane.serve(self.deployments.operations())

    def request(self, **members: Any) -> dict[str, Any]:
        """Give what CreateFunction needs, with these members instead; None takes one away."""
        request = {
            "FunctionName": "hello",
            "Runtime": "python3.12",
            "Role": ROLE,
            "Handler": "app.handler",
            "Code": {"ZipFile": PACKAGE},
            **members,
        }
        return {member: value for member, value in request.items() if value is not None}

    def create(self, client: Any, **members: Any) -> dict[str, Any]:
        """Create a function and wait until it is Active."""
        created = client.create_function(**self.request(**members))
        self.settle()
        return created

    def make_preparations(self) -> Preparations:
        """Make what prepares versions, as a host does at its start."""
        return Preparations(self.plane.state, self.plane.changes, self.preparing, self.plane.log)

    def settle(self, left: int = 0) -> None:
        """Wait until no more than so many versions are being prepared."""
        self.plane.run(self._settled(left))

    async def _settled(self, left: int) -> None:
        async with asyncio.timeout(DEADLINE):
            while len(self.preparations._tasks) > left:
                await asyncio.wait(self.preparations._tasks, return_when=asyncio.FIRST_COMPLETED)

    async def _store(self) -> MemoryCodeStore:
        return MemoryCodeStore()

    async def _close(self) -> None:
        self.preparing.release()
        await self.preparations.aclose()

    async def _fetch(self, bucket: str, key: str, version: str | None) -> StoredObject:
        try:
            content = self.objects[bucket, key, version]
            return StoredObject(content, f'"{sha256_of(content)}"')
        except KeyError:
            raise InvalidParameterValue(
                "Error occurred while GetObject. S3 Error Code: NoSuchKey. "
                "S3 Error Message: The specified key does not exist."
            ) from None


def find_layers(records: Any, scope: Any, arns: Sequence[str]) -> list[LayerVersion]:
    """Know the layers whose names begin with ``known``."""
    for arn in arns:
        if ":layer:known" not in arn:
            raise InvalidParameterValue(f"Layer version {arn} does not exist.")
    return [
        LayerVersion(
            layer=arn.split(":")[6], number=int(arn.split(":")[7]), code_sha256="ab" * 32, code_size=7, created=""
        )
        for arn in arns
    ]


@pytest.fixture
def limits() -> AccountLimits:
    """What accounts may have: as much as on AWS; tests set other limits."""
    return AccountLimits()


@pytest.fixture
def deploying(control_plane: ControlPlane, limits: AccountLimits) -> Deploying:
    """Give a control plane that functions can be deployed to; ``deploying.plane.client()`` makes clients."""
    return Deploying(control_plane, limits)


@cache
def _model() -> Any:
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    return ServiceModel(Loader().load_service_model("lambda", "service-2"), "lambda")


def _check_modelled(response_dict: Any, event_name: str, **_: Any) -> None:
    """Fail where an answer is not what the AWS model says."""
    if response_dict is None or response_dict["status_code"] >= 300 or not response_dict["body"]:
        return
    shape = _model().operation_model(event_name.rpartition(".")[2]).output_shape
    if shape is not None:
        payload = shape.serialization.get("payload")
        shape = shape if payload is None else shape.members[payload]
        check_shape(shape, json.loads(response_dict["body"]), shape.name)


def check_shape(shape: Any, value: Any, path: str) -> None:
    """Compare a JSON value with a shape of botocore's model."""
    kinds = {"structure": dict, "map": dict, "list": list, "boolean": bool, "integer": int, "long": int}
    expected = kinds.get(shape.type_name)
    if expected is not None:
        assert type(value) is expected, f"{path} is {value!r}, not a {shape.type_name}"
    if shape.type_name == "structure":
        members = {member.serialization.get("name", name): member for name, member in shape.members.items()}
        assert not set(value) - set(members), f"{path} has members that the model has not: {set(value) - set(members)}"
        for name, held in value.items():
            check_shape(members[name], held, f"{path}.{name}")
    elif shape.type_name == "list":
        for held in value:
            check_shape(shape.member, held, f"{path}[]")
    elif shape.type_name == "map":
        for held in value.values():
            check_shape(shape.value, held, f"{path}{{}}")
    elif shape.type_name == "string":
        assert isinstance(value, str), path
        known = not shape.enum or value in shape.enum or (path.endswith("ReasonCode") and value == "Creating")  # AWS's
        assert known, f"{path} is {value!r}, none of {shape.enum}"
    elif shape.type_name == "timestamp":
        assert isinstance(value, (int, float)), path
