"""Images as functions, over a catalogue in memory; `integration/docker/test_fetching.py` has a real engine."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any

import pytest

from serverfull.config import FunctionSettings, Settings
from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.domain.functions import Function
from serverfull.domain.images import ImageFacts
from serverfull.domain.source_code import SourceCode
from serverfull.errors import FunctionNotReady, ImageUnavailable, InternalFailure, NotFoundError, TargetNotFound
from serverfull.fetchers import docker
from serverfull.fetchers.docker import DockerFetcher
from serverfull.fetchers.targets import load_targets
from serverfull.interfaces import Catalogue
from serverfull.testing.fetcher_suite import FetcherSuite, surroundings
from serverfull.wiring.targets import ELSEWHERE

FUNCTION = "serverfull.function"


class Shelf(Catalogue):
    """Images of this machine, and of registries."""

    def __init__(self) -> None:
        self.here: dict[str, ImageFacts] = {}
        self.elsewhere: dict[str, ImageFacts] = {}
        self.asked: list[tuple[str, bool]] = []
        self.denied: set[str] = set()
        self.gone = False
        self.pulls = asyncio.Event()
        self.pulls.set()

    def build(self, name: str, text: str = "", at: float = 1.0, **labels: str) -> ImageFacts:
        told = {f"serverfull.{label}": value for label, value in labels.items()}
        digest = hashlib.sha256(f"{name} {text} {told}".encode()).hexdigest()
        repository = name.rpartition(":")[0]
        image = ImageFacts(name, f"{repository}@sha256:{digest}", (name,), told, "x86_64", 100, at)
        self.here[name] = image
        return image

    async def find(self, name: str, *, here: bool) -> ImageFacts | None:
        self.asked.append((name, here))
        self._check()
        if name in self.here or here:
            return self.here.get(name)
        await self.pulls.wait()
        if name in self.denied:
            raise ImageUnavailable(f"The image {name} may not be pulled: denied", missing=False)
        if name not in self.elsewhere:
            raise ImageUnavailable(f"There is no image {name}", missing=True)
        self.here[name] = self.elsewhere[name]
        return self.here[name]

    async def labelled(self, label: str = "") -> Sequence[ImageFacts]:
        self._check()
        return [image for image in self.here.values() if not label or label in image.labels]

    def _check(self) -> None:
        if self.gone:
            raise InternalFailure("The Docker engine cannot be reached.")

    async def aclose(self) -> None:
        """There is nothing to give back."""


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))


@pytest.fixture
async def shelf() -> Shelf:
    return Shelf()


async def opened(fetcher: DockerFetcher, shelf: Shelf, **options: Any) -> DockerFetcher:
    await fetcher.open(surroundings(catalogue=shelf, **options))
    return fetcher


def handler_of(function: Function) -> DeployedHandler:
    assert isinstance(function.handler, DeployedHandler)
    return function.handler


class _Suite(FetcherSuite):
    """The suite opens some of its fetchers again, with an engine that has nothing: not these."""

    @pytest.fixture
    def shelf(self) -> Shelf:
        shelf = Shelf()
        shelf.build("shop/hello:1", function="hello")
        shelf.build("shop/other:latest", function="other")
        return shelf


class Lasting(DockerFetcher):
    """Stays with the engine that it was opened with first."""

    async def open(self, surroundings: Any) -> None:
        if self._catalogue is None:
            await super().open(surroundings)


class TestMappedImages(_Suite):
    @pytest.fixture
    async def fetcher(self, shelf: Shelf) -> DockerFetcher:
        return await opened(Lasting(images={"hello": "shop/hello:1", "away": "shop/away:1"}), shelf)


class TestImagesByATemplate(_Suite):
    @pytest.fixture
    async def fetcher(self, shelf: Shelf) -> DockerFetcher:
        return await opened(Lasting(template="shop/{name}:{qualifier}", age=0.0), shelf)


class TestLabelledImages(_Suite):
    @pytest.fixture
    async def fetcher(self, shelf: Shelf) -> DockerFetcher:
        return await opened(Lasting(), shelf)


async def test_labels_are_the_configuration(shelf: Shelf) -> None:
    labels = {"environment.STAGE": "test", "tags.team": "shop", "description": ""}
    more = {"log-format": "JSON", "log-group": "/shop", "application-log-level": "DEBUG", "system-log-level": "WARN"}
    image = shelf.build(
        "shop/hello:1",
        **{"function": "hello", "timeout": "30", "memory-size": "512", "ephemeral-storage": "1024", **labels, **more},
        **{"reserved-concurrency": "2", "recursive-loop": "Allow"},
    )
    settings = Settings(functions=FunctionSettings(region="eu-north-1"))
    function = await (await opened(DockerFetcher(), shelf, settings=settings)).fetch("hello")
    handler = handler_of(function)
    assert (handler.image_uri, handler.region, handler.ephemeral_mb) == (image.pinned, "eu-north-1", 1024)
    assert (handler.name, handler.runtime, handler.architecture) == ("", "", "x86_64")
    assert isinstance(handler.source, SourceCode)
    assert (handler.source.location, handler.source.size_bytes) == ("shop/hello:1", 100)
    assert (function.timeout, function.memory_size, function.max_concurrency) == (30, 512, 2)
    assert (dict(function.environment), dict(function.tags)) == ({"STAGE": "test"}, {"team": "shop"})
    assert (function.log_format, function.log_group, function.recursive_loop) == ("JSON", "/shop", "Allow")
    assert (function.application_log_level, function.system_log_level) == ("DEBUG", "WARN")
    assert (function.version, function.generation) == ("$LATEST", 1)


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (
            {"time": "3"},
            "the label serverfull.time of the image shop/hello:1: there is none of that name; there are",
        ),
        ({"environment.": "3"}, "the label serverfull.environment. of the image shop/hello:1: there is none of that"),
        ({"timeout": "3s"}, "the label serverfull.timeout of the image shop/hello:1: it has to be a whole number, not"),
        (
            {"timeout": "9" * 5000},
            "the label serverfull.timeout of the image shop/hello:1: it has to be a whole number",
        ),
        ({"timeout": "0"}, "the labels of the image shop/hello:1: Timeout: it has to be 1 to 5400, not 0"),
        (
            {"environment.AWS_REGION": "x"},
            "the labels of the image shop/hello:1: Environment.Variables: only the run",
        ),
    ],
)
async def test_labels_that_are_wrong_fail_that_function_alone(shelf: Shelf, labels: dict[str, str], why: str) -> None:
    shelf.build("shop/hello:1", function="hello", **labels)
    shelf.build("shop/other:1", function="other")
    log = Log()
    fetcher = await opened(DockerFetcher(), shelf, logger=log)
    with pytest.raises(FunctionNotReady) as refused:
        await fetcher.fetch("hello")
    assert refused.value.why.startswith(why)
    assert [(found.name, (found.failure or "")[: len(why)]) for found in await fetcher.survey()] == [
        ("hello", why),
        ("other", ""),
    ]
    assert list(await fetcher.list()) == ["other"]
    ((event, fields),) = log.lines
    assert (event, fields["function"]) == ("function cannot be served", "hello")


async def test_a_label_means_the_latest_tag_or_the_newest_image_and_a_qualifier_its_tag(shelf: Shelf) -> None:
    one, two = (shelf.build(f"shop/hello:{tag}", at=at, function="hello") for tag, at in (("1", 1.0), ("2", 2.0)))
    fetcher = await opened(DockerFetcher(age=0.0), shelf)
    assert handler_of(await fetcher.fetch("hello")).image_uri == two.pinned
    first = await fetcher.fetch("hello", "1")
    assert (handler_of(first).image_uri, first.version) == (one.pinned, "1")
    latest = shelf.build("shop/hello:latest", at=0.0, function="hello")
    assert handler_of(await fetcher.fetch("hello")).image_uri == latest.pinned
    with pytest.raises(NotFoundError):
        await fetcher.fetch("hello", "3")
    shelf.build("other/hello:1", function="hello")
    with pytest.raises(FunctionNotReady, match=r"other/hello:1 and .*they say of themselves that they are the"):
        await fetcher.fetch("hello")


async def test_a_template_makes_the_name_of_the_image(shelf: Shelf) -> None:
    shelf.elsewhere["reg:5000/shop/hello:latest"] = shelf.build("reg:5000/shop/hello:latest")
    shelf.elsewhere["reg:5000/shop/hello:prod"] = shelf.build("reg:5000/shop/hello:prod")
    shelf.here.clear()
    fetcher = await opened(DockerFetcher(template="reg:5000/shop/{name}:{qualifier}"), shelf)
    assert await fetcher.list() == {}
    assert handler_of(await fetcher.fetch("hello")).image_uri.startswith("reg:5000/shop/hello@sha256:")
    assert (await fetcher.fetch("hello", "prod")).version == "prod"
    assert list(await fetcher.list()) == ["hello"]
    for name in ("HELLO", "none"):
        for _ in range(3):
            with pytest.raises(NotFoundError):
                await fetcher.fetch(name)
        assert fetcher.lacks(name)
    assert [name for name, _ in shelf.asked].count("reg:5000/shop/none:latest") == 1
    with pytest.raises(NotFoundError):
        await (await opened(DockerFetcher(template="reg:5000/shop/{name}"), shelf)).fetch("hello", "prod")


async def test_an_image_that_may_not_be_pulled_says_so_and_is_not_asked_for_again_at_once(shelf: Shelf) -> None:
    shelf.denied.add("shop/hello:latest")
    fetcher = await opened(DockerFetcher(template="shop/{name}:{qualifier}"), shelf)
    for _ in range(3):
        with pytest.raises(FunctionNotReady, match="The image shop/hello:latest may not be pulled: denied"):
            await fetcher.fetch("hello")
    assert len(shelf.asked) == 1
    mapped = await opened(DockerFetcher(images={"hello": "shop/none:1"}), shelf)
    with pytest.raises(FunctionNotReady, match="There is no image shop/none:1"):
        await mapped.fetch("hello")


async def test_a_call_does_not_wait_for_a_pull_for_long(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "PATIENCE", 0.01)
    shelf.elsewhere["shop/hello:1"] = shelf.build("shop/hello:1")
    shelf.here.clear()
    shelf.pulls.clear()
    fetcher = await opened(DockerFetcher(images={"hello": "shop/hello:1"}), shelf)
    for _ in range(2):
        with pytest.raises(FunctionNotReady, match="Its image is being pulled") as refused:
            await fetcher.fetch("hello")
        assert refused.value.state == "Pending"
    shelf.pulls.set()
    monkeypatch.setattr(docker, "PATIENCE", 20.0)
    assert await fetcher.fetch("hello")
    assert len(shelf.asked) == 1
    shelf.pulls.clear()
    shelf.here.clear()
    closing = await opened(DockerFetcher(images={"hello": "shop/hello:1"}), shelf)
    call = asyncio.create_task(closing.fetch("hello"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await closing.aclose()
    with pytest.raises(NotFoundError):
        await call


async def test_an_image_that_is_built_anew_is_another_function(shelf: Shelf) -> None:
    shelf.build("shop/hello:1", function="hello")
    changed: list[str] = []
    fetcher = await opened(DockerFetcher(age=0.0), shelf, changed=changed.append)
    before = await fetcher.fetch("hello")
    shelf.here["shop/hello:1"] = shelf.here["shop/hello:1"]._replace(names=("shop/hello:1", "shop/hello:2"))
    assert await fetcher.fetch("hello") is before
    shelf.build("shop/hello:1", "new", function="hello")
    after = await fetcher.fetch("hello")
    assert after is not before
    assert (after.generation, changed) == (2, ["hello"])
    del shelf.here["shop/hello:1"]
    with pytest.raises(NotFoundError):
        await fetcher.fetch("hello")
    assert changed == ["hello", "hello"]


async def test_an_image_that_was_removed_here_is_pulled_again(shelf: Shelf) -> None:
    shelf.elsewhere["shop/hello:1"] = shelf.build("shop/hello:1")
    fetcher = await opened(DockerFetcher(images={"hello": "shop/hello:1"}, age=0.0), shelf)
    before = await fetcher.fetch("hello")
    shelf.here.clear()
    assert await fetcher.list() == {}
    assert handler_of(await fetcher.fetch("hello")).image_uri == handler_of(before).image_uri
    shelf.here.clear()
    await fetcher.fetch("hello")
    assert shelf.asked[-1] == ("shop/hello:1", False)


async def test_what_was_seen_is_served_while_the_engine_is_away(shelf: Shelf) -> None:
    shelf.build("shop/hello:1")
    log = Log()
    fetcher = await opened(DockerFetcher(images={"hello": "shop/hello:1"}, age=0.0), shelf, logger=log)
    shelf.gone = True
    with pytest.raises(InternalFailure, match="cannot be reached"):
        await fetcher.fetch("hello")
    shelf.gone = False
    before = await fetcher.fetch("hello")
    shelf.gone = True
    assert await fetcher.fetch("hello") is before
    assert log.lines[-1][0] == "image not looked at"


async def test_the_engine_is_asked_once_for_all_and_then_for_a_while_not_again(shelf: Shelf) -> None:
    shelf.build("shop/hello:1")
    fetcher = await opened(DockerFetcher(images={"hello": "shop/hello:1"}, age=3600.0), shelf)
    functions = await asyncio.gather(*(fetcher.fetch("hello") for _ in range(20)))
    assert len({id(function) for function in functions}) == 1
    assert shelf.asked == [("shop/hello:1", False)]


async def test_names_that_callers_choose_do_not_fill_the_memory(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "_MOST_MISSING", 10)
    shelf.build("shop/hello:latest")
    fetcher = await opened(DockerFetcher(template="shop/{name}:{qualifier}"), shelf)
    before = await fetcher.fetch("hello")
    for number in range(100):
        with pytest.raises(NotFoundError):
            await fetcher.fetch(f"name{number}")
    assert len(fetcher._known) <= 11
    assert await fetcher.fetch("hello") is before


async def test_without_a_host_there_is_no_engine() -> None:
    with pytest.raises(InternalFailure, match="no host has opened this fetcher"):
        await DockerFetcher().fetch("hello")


@pytest.mark.parametrize(
    ("target", "image"),
    [
        ("docker://", "shop/hello:1"),
        ("docker://shop/{name}:1", "shop/hello:1"),
        ("docker://shop/{name}:{qualifier}", "shop/hello:latest"),
        ("docker://hello=shop/hello:1, other=shop/other", "shop/hello:1"),
    ],
)
async def test_a_target_says_how_images_are_found(shelf: Shelf, target: str, image: str) -> None:
    shelf.build(image, function="hello")
    fetcher = load_targets([target], elsewhere=ELSEWHERE)
    assert isinstance(fetcher, DockerFetcher)
    assert handler_of(await (await opened(fetcher, shelf)).fetch("hello")).image_uri == shelf.here[image].pinned


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("docker://hello", "'hello' makes no name of an image: write registry/{name}:{qualifier}"),
        ("docker://Shop/X/{name}", "makes no name of an image"),
        ("docker://hello=", "hello= does not name a function and its image"),
        ("docker://a b=shop/hello", "a b=shop/hello does not name a function and its image"),
        ("podman://x", "'podman://x' names nothing: of URLs, a TARGET can be docker:// and s3://"),
    ],
)
def test_a_target_that_names_no_image_is_refused(target: str, why: str) -> None:
    with pytest.raises(TargetNotFound) as refused:
        load_targets([target], elsewhere=ELSEWHERE)
    assert why in str(refused.value)
    with pytest.raises(ValueError, match="not both"):
        DockerFetcher(images={}, template="{name}")
