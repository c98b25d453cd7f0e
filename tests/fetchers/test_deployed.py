"""Deployed functions by account, region, version and alias, out of a real state."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from serverfull.domain.changes import Changes, FunctionChanged
from serverfull.domain.deployed import ALIASES, FUNCTIONS, VERSIONS, Alias, DeployedFunction, FunctionVersion
from serverfull.domain.deployed_handler import ImageConfig
from serverfull.domain.records import Partition
from serverfull.errors import FunctionNotReady, InternalFailure, NotFoundError
from serverfull.fetchers.chain import ChainFetcher
from serverfull.fetchers.deployed import DeployedFetcher
from serverfull.fetchers.static import StaticFetcher
from serverfull.storage.code import MemoryCodeStore
from serverfull.storage.state import open_state
from serverfull.testing.deployments import zipped
from serverfull.testing.fetcher_suite import FetcherSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from serverfull.interfaces import Fetcher

HOME = Partition("111122223333", "eu-west-1")


class Deployments:
    """A state with functions in it, and the fetcher over it."""

    def __init__(self, state: Any, code: Any) -> None:
        self.state, self.code, self.changes = state, code, Changes()
        self.fetcher = DeployedFetcher(self.changes, patience=0.2)
        self.fetcher.read_from(state, code)

    async def deploy(self, name: str, text: str = "x = 1", partition: Partition = HOME, **fields: Any) -> None:
        sha256 = await self.code.put(zipped({"lambda_function.py": text}))
        given: dict[str, Any] = {"handler": "lambda_function.handler", "runtime": "python3.11", "role": "arn"}
        given = given | {"code_sha256": sha256} | fields
        version = FunctionVersion(function=name, last_modified="", revision_id="", **given)

        def work(records: Any) -> None:
            if records.get(FUNCTIONS, name) is None:
                records.insert(FUNCTIONS, DeployedFunction(name=name))
            if records.get(VERSIONS, name, version.number) is None:
                records.insert(VERSIONS, version)
            else:
                records.replace(VERSIONS, version)

        await self.state.write(partition, work)
        self.changes.publish(FunctionChanged(partition, name))

    async def alias(self, name: str, alias: str, version: str, **weights: float) -> None:
        routed = {number.removeprefix("v"): weight for number, weight in weights.items()}
        record = Alias(function=name, name=alias, version=version, weights=routed, revision_id="")
        await self.state.write(HOME, lambda records: records.insert(ALIASES, record))
        self.changes.publish(FunctionChanged(HOME, name))

    async def update(self, name: str, **fields: Any) -> None:
        def work(records: Any) -> None:
            records.replace(FUNCTIONS, replace(records.get(FUNCTIONS, name), **fields))

        await self.state.write(HOME, work)
        self.changes.publish(FunctionChanged(HOME, name))

    async def delete(self, name: str, kind: Any, *key: Any, deleted: bool = False) -> None:
        await self.state.write(HOME, lambda records: records.delete(kind, name, *key))
        self.changes.publish(FunctionChanged(HOME, name, deleted=deleted))

    async def fetch(self, name: str, qualifier: str | None = None, partition: Partition = HOME) -> Any:
        return await self.fetcher.at(partition).fetch(name, qualifier)


class Stumbling:
    """A state whose reads fail once, after as many more as it is told."""

    def __init__(self, state: Any) -> None:
        self._state = state
        self.until_failure = -1

    async def read(self, partition: Partition, work: Any) -> Any:
        self.until_failure -= 1
        if self.until_failure == -1:
            raise InternalFailure
        return await self._state.read(partition, work)


@pytest.fixture
async def deployments() -> AsyncIterator[Deployments]:
    state, code = await open_state(None), MemoryCodeStore()
    yield Deployments(state, code)
    await code.aclose()
    await state.aclose()


async def test_accounts_and_regions_see_their_own_functions(deployments: Deployments) -> None:
    there = Partition(HOME.account, "us-east-1")
    await deployments.deploy("f", "x = 1")
    await deployments.deploy("f", "x = 2", there)
    here, elsewhere = await deployments.fetch("f"), await deployments.fetch("f", None, there)
    assert here.handler.root != elsewhere.handler.root
    with pytest.raises(NotFoundError):
        await deployments.fetch("f", None, Partition("999999999999", HOME.region))
    assert list(await deployments.fetcher.at(HOME).list()) == ["f"]
    assert await deployments.fetcher.list() == {}


async def test_the_same_function_is_the_same_object_until_it_changes(deployments: Deployments) -> None:
    await deployments.deploy("f", environment={"A": "1"}, timeout=7, memory_size=256)
    first = await deployments.fetch("f")
    assert await deployments.fetch("f", "$LATEST") is first
    assert (first.timeout, first.memory_size, first.environment["A"], first.version) == (7, 256, "1", "$LATEST")
    await deployments.update("f", reserved_concurrency=3)
    limited = await deployments.fetch("f")
    assert limited is not first
    assert limited.max_concurrency == 3
    assert limited.handler is first.handler  # so that the code is not loaded again
    await deployments.deploy("f", environment={"A": "2"})
    assert (await deployments.fetch("f")).handler is not first.handler


async def test_versions_are_found_by_number_and_aliases_lead_to_them(deployments: Deployments) -> None:
    await deployments.deploy("f", "latest = 1")
    await deployments.deploy("f", "one = 1", number=1)
    await deployments.alias("f", "live", "1")
    await deployments.alias("f", "next", "$LATEST")
    one = await deployments.fetch("f", "1")
    assert one.version == "1"
    assert await deployments.fetch("f", "live") is one
    assert (await deployments.fetch("f", "next")).version == "$LATEST"
    for unknown in ("2", "0", "gone"):
        with pytest.raises(NotFoundError):
            await deployments.fetch("f", unknown)


async def test_weights_of_an_alias_spread_the_calls(deployments: Deployments) -> None:
    for number in (1, 2):
        await deployments.deploy("f", f"x = {number}", number=number)
    await deployments.deploy("f")
    await deployments.alias("f", "live", "1", v2=0.25)
    seen = Counter([(await deployments.fetch("f", "live")).version for _ in range(2000)])
    assert set(seen) == {"1", "2"}
    assert 350 < seen["2"] < 650  # expected 500, with a standard deviation of 19


@pytest.mark.parametrize("state", ["Pending", "Failed"])
async def test_functions_that_are_not_ready_say_their_state(deployments: Deployments, state: str) -> None:
    await deployments.deploy("f", state=state, state_reason="The disk is full")
    with pytest.raises(FunctionNotReady, match=state):
        await deployments.fetch("f")
    assert await deployments.fetcher.at(HOME).list() == {}


async def test_a_call_waits_for_a_function_that_is_being_made_until_the_change_that_tells_how_it_went(
    deployments: Deployments,
) -> None:
    deployments.fetcher = DeployedFetcher(deployments.changes, patience=20.0)
    deployments.fetcher.read_from(deployments.state, deployments.code)
    for name, state in (("good", "Active"), ("bad", "Failed")):
        await deployments.deploy(name, state="Pending")
        calls = [asyncio.create_task(deployments.fetch(name)) for _ in range(3)]
        await asyncio.sleep(0)
        await deployments.deploy(name, state="Pending")  # a change that is not the one
        done, _ = await asyncio.wait(calls, timeout=0.05)
        assert not done
        await deployments.deploy(name, state=state, state_reason="No such runtime")
        if state == "Active":
            assert len(set(map(id, await asyncio.gather(*calls)))) == 1
        else:
            with pytest.raises(FunctionNotReady, match="Failed"):
                await asyncio.gather(*calls)
            await asyncio.wait(calls)


async def test_an_image_is_given_with_its_digest_and_its_configuration(deployments: Deployments) -> None:
    image = {"package_type": "Image", "runtime": None, "handler": None, "code_sha256": "", "image_uri": "app:1"}
    config = {"Command": ["a.handler"], "EntryPoint": [], "WorkingDirectory": "/srv"}
    await deployments.deploy("f", settings={"ImageConfig": config}, **image)
    named = (await deployments.fetch("f")).handler
    assert (named.image_uri, named.layers, named.runtime) == ("app:1", (), "")
    assert named.image_config == ImageConfig(command=("a.handler",), working_directory="/srv")
    await deployments.deploy("f", settings={"ImageConfig": config}, resolved_image="app@sha256:12", **image)
    pinned = (await deployments.fetch("f")).handler
    assert pinned is not named
    assert pinned.image_uri == "app@sha256:12"
    await deployments.deploy("f", resolved_image="app@sha256:12", **image)
    assert (await deployments.fetch("f")).handler.image_config == ImageConfig()


async def test_a_chain_shows_each_account_the_operators_functions_and_its_own(deployments: Deployments) -> None:
    await deployments.deploy("mine")
    await deployments.deploy("both")
    static = StaticFetcher({"static": lambda: 1, "both": lambda: 2})
    chain = ChainFetcher(static, deployments.fetcher).at(HOME)
    assert set(await chain.list()) == {"static", "both", "mine"}
    assert (await chain.fetch("both")) is (await static.fetch("both"))
    assert chain.source_of("mine") == "deployed"
    assert ChainFetcher(static).at(HOME).source == "chain"


class TestView(FetcherSuite):
    @pytest.fixture
    async def fetcher(self, deployments: Deployments) -> Fetcher:
        await deployments.deploy("f")
        await deployments.deploy("g")
        return deployments.fetcher.at(HOME)


async def test_calls_that_come_together_share_one_handler_so_that_the_code_is_loaded_once(
    deployments: Deployments,
) -> None:
    await deployments.deploy("f", number=1)
    await deployments.deploy("f")
    fetched = await asyncio.gather(*(deployments.fetch("f", "1") for _ in range(8)))
    assert len({id(function.handler) for function in fetched}) == 1


async def test_what_was_loaded_of_a_deleted_function_or_version_is_let_go(deployments: Deployments) -> None:
    await deployments.deploy("f", number=1)
    await deployments.deploy("f")
    loaded = [weakref.ref((await deployments.fetch("f", qualifier)).handler) for qualifier in ("1", None)]
    await deployments.delete("f", VERSIONS, 1)
    await deployments.fetch("f")
    gc.collect()
    assert [handler() is None for handler in loaded] == [True, False]
    await deployments.delete("f", FUNCTIONS, deleted=True)
    gc.collect()
    assert loaded[1]() is None


async def test_reservations_are_summed_and_read_again_after_a_change(deployments: Deployments) -> None:
    for name in ("f", "g", "h"):
        await deployments.deploy(name)
    await deployments.update("f", reserved_concurrency=3)
    await deployments.update("g", reserved_concurrency=4)
    await deployments.fetch("h")
    assert deployments.fetcher.reserved(HOME) == 7
    await deployments.update("f", reserved_concurrency=None)
    await deployments.update("g", reserved_concurrency=5)
    await deployments.fetch("h")
    assert deployments.fetcher.reserved(HOME) == 5


async def test_reservations_that_could_not_be_read_are_read_by_the_next_call(deployments: Deployments) -> None:
    state: Any = Stumbling(deployments.state)
    deployments.fetcher.read_from(state, deployments.code)
    await deployments.deploy("f")
    for reserved in (3, 4):  # all of the partition's at first, then those that have changed
        await deployments.update("f", reserved_concurrency=reserved)
        state.until_failure = 1  # the function is read, and its partition's reservations are not
        with pytest.raises(InternalFailure):
            await deployments.fetch("f")
        await deployments.fetch("f")
        assert deployments.fetcher.reserved(HOME) == reserved


async def test_without_stores_there_is_nothing() -> None:
    fetcher = DeployedFetcher(Changes())
    with pytest.raises(NotFoundError):
        await fetcher.at(HOME).fetch("f")
    assert await fetcher.at(HOME).list() == {}


async def test_a_function_stays_as_it_was_while_an_update_is_in_progress_except_for_its_limits(
    deployments: Deployments,
) -> None:
    await deployments.deploy("f", "x = 1", timeout=3)
    before = await deployments.fetch("f")
    await deployments.deploy("f", "x = 2", timeout=5, last_update_status="InProgress")
    meanwhile = await deployments.fetch("f")
    assert (meanwhile.handler, meanwhile.timeout) == (before.handler, 3)
    await deployments.update("f", reserved_concurrency=0)
    assert (await deployments.fetch("f")).max_concurrency == 0
    await deployments.deploy("f", "x = 2", timeout=5)
    after = await deployments.fetch("f")
    assert after.handler.root != before.handler.root
    assert after.timeout == 5


async def test_the_package_that_runs_on_after_an_update_that_failed_is_in_use(deployments: Deployments) -> None:
    await deployments.deploy("f", "x = 1")
    old = (await deployments.fetch("f")).handler.root
    await deployments.deploy("f", "x = 2", last_update_status="Failed")
    assert (await deployments.fetch("f")).handler.root == old
    assert deployments.fetcher.packages_in_use() == {old.name}
    await deployments.deploy("f", "x = 2")
    new = (await deployments.fetch("f")).handler.root
    assert deployments.fetcher.packages_in_use() == {new.name} != {old.name}


async def test_what_is_loaded_before_an_update_is_given_during_it_though_nobody_has_called_it(
    deployments: Deployments,
) -> None:
    await deployments.deploy("f", "x = 1")
    await deployments.fetcher.load(HOME, "f")
    await deployments.fetcher.load(HOME, "missing")
    await deployments.deploy("f", "x = 2", last_update_status="InProgress")
    assert ((await deployments.fetch("f")).handler.root / "lambda_function.py").read_text() == "x = 1"
