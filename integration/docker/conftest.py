"""Container runtimes for the tests, over a real engine."""

from __future__ import annotations

import io
import itertools
import os
import tarfile
from contextlib import AsyncExitStack

import pytest

from serverfull.config import DockerSettings, ExecutionSettings, LoggingSettings, Settings
from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.observability.logger import HostLogger
from serverfull.runtimes.aws_access import AwsAccess
from serverfull.runtimes.docker.launcher import make_launchers
from serverfull.runtimes.pool import PoolPolicy
from serverfull.runtimes.sandboxes.runtime import SandboxRuntime
from serverfull.testing import deeds
from serverfull.testing.runtime_kit import PYTHON_BEFORE_3_12, REGION, RuntimeKit

RUNTIMES = ("python3.11", "provided.al2023")


@pytest.fixture(scope="module")
def build(engine):
    """Build an image with ``docker build``: a Dockerfile, and files, executable where they say by what."""
    built = []

    def build(name, dockerfile, files, **options):
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as archive:
            for path, text in {"Dockerfile": dockerfile, **files}.items():
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(text.encode()), 0o755 if text.startswith("#!") else 0o644
                archive.addfile(entry, io.BytesIO(text.encode()))
        context.seek(0)
        with engine.client() as client:
            usual = {"custom_context": True, "rm": True, "forcerm": True}
            image, _ = client.images.build(fileobj=context, tag=name, **usual, **options)
        built.append(name)
        return image.id

    yield build
    with engine.client() as client:
        for name in dict.fromkeys(built):
            client.images.remove(name, force=True)


@pytest.fixture
def packages(tmp_path):
    """Make what makes functions that do the deeds; containers see their folders where the tests do."""
    numbers = itertools.count(1)
    tmp_path.chmod(0o755)
    before = os.umask(0)  # containers have a user of their own, who writes there too

    def of(runtime):
        def new_function():
            kind = "provided" if runtime.startswith("provided") else "python"
            root = deeds.write(tmp_path / f"function{next(numbers)}", kind)
            bootstrap = root / "bootstrap"
            if bootstrap.exists():
                bootstrap.write_text("#!/usr/bin/python3 -u\n" + bootstrap.read_text().partition("\n")[2])
            return DeployedHandler(deeds.HANDLER, root, runtime=runtime, region=REGION), root

        return new_function

    yield of
    os.umask(before)


@pytest.fixture
async def container_kit(engine, packages, tmp_path):
    """Make container runtimes; they end with the test, and leave no container."""
    async with AsyncExitStack() as stack:

        def make(
            runtime="python3.11",
            client="own",
            manners=PYTHON_BEFORE_3_12,
            policy=PoolPolicy(),
            sandbox="limits",
            **docker,
        ):
            volumes = (f"{tmp_path}:{tmp_path}", "/proc:/host/proc:ro")
            images = tuple(f"{name}={engine.image}" for name in RUNTIMES)
            settings = Settings(
                docker=DockerSettings(engine=engine.url, images=images, volumes=volumes, **docker),
                execution=ExecutionSettings(client=client, sandbox=sandbox),
            )
            logger = HostLogger(LoggingSettings(), stream=io.StringIO())
            made = SandboxRuntime(make_launchers(settings, AwsAccess(), logger), policy, logger)
            stack.push_async_callback(made.aclose)
            return RuntimeKit(runtime=made, new_function=packages(runtime), client=manners, close=made.aclose)

        yield make
