"""Runs functions with our runtime client, in a process that a zygote has forked, and with the official one."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serverfull.runtimes.process.orders import Order
from serverfull.runtimes.process.zygotes import Zygote
from serverfull.runtimes.runtime_api.api import Answer, RuntimeApi, Work

if TYPE_CHECKING:
    from collections.abc import Sequence

DEADLINE = 30.0
ARN = "arn:aws:lambda:us-east-1:000000000000:function:f"


class Gone(Exception):
    """The process has ended."""


@dataclass
class Call:
    """An invocation, by what a test may say of it."""

    payload: bytes = b"{}"
    request_id: str = "11111111-2222-3333-4444-555555555555"
    trace_id: str = "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=0"
    client_context: str | None = None
    cognito_identity: str | None = None
    tenant_id: str | None = None

    def work(self) -> Work:
        return Work(
            request_id=self.request_id,
            payload=self.payload,
            deadline_ms=int((time.time() + 60) * 1000),
            arn=ARN,
            trace_id=self.trace_id,
            client_context=self.client_context,
            cognito_identity=self.cognito_identity,
            tenant_id=self.tenant_id,
        )


@dataclass
class Ran:
    """What came of it.

    :param init: what the runtime posted instead of asking for an invocation.
    :param answers: one for each call; None where the process ended instead.
    :param status: as `os.waitpid` gives it; None where the process was alive in the end.
    """

    log: str = ""
    init: Answer | None = None
    answers: list[Answer | None] = field(default_factory=list)
    status: int | None = None


@dataclass(frozen=True)
class Runner:
    """Runs functions in the module ``name`` of a folder."""

    folder: Path

    async def ours(
        self, handler: str, calls: Sequence[Call], interpreter: Path | None = None, **environment: str
    ) -> Ran:
        """Run them in a forked child."""
        zygote = Zygote(interpreter or Path(sys.executable), _Silent())
        api = await RuntimeApi.open(socket=self.folder / "api")
        log = self.folder / "ours.log"
        try:
            with log.open("wb") as output:
                order = Order(
                    environment=_environment(environment),
                    cwd=self.folder,
                    client={
                        "socket": api.address,
                        "handler": handler,
                        "root": str(self.folder),
                        "path": [str(self.folder)],
                    },
                    log=output.fileno(),
                )
                launched = await zygote.launch(order)
            launched.exited.add_done_callback(lambda _: api.end(Gone()))
            ran = await _run(api, calls)
            if None in ran.answers or ran.init is not None:
                ran.status = (await asyncio.wait_for(launched.exited, DEADLINE)).status
            ran.log = log.read_text("utf-8", "replace")
        finally:
            await api.aclose()
            await zygote.aclose()
        return ran

    async def official(self, handler: str, calls: Sequence[Call], **environment: str) -> Ran:
        """Run them with the official client."""
        api = await RuntimeApi.open()
        log = self.folder / "official.log"
        environment = {**_environment(environment), "AWS_LAMBDA_RUNTIME_API": api.address}
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "awslambdaric", handler),
                cwd=self.folder,
                env=environment,
                stdout=output,
                stderr=output,
            )
        ended = asyncio.create_task(process.wait())
        ended.add_done_callback(lambda _: api.end(Gone()))
        try:
            ran = await _run(api, calls)
            if None in ran.answers or ran.init is not None:
                code = await asyncio.wait_for(asyncio.shield(ended), DEADLINE)
                ran.status = -code if code < 0 else code << 8
            ran.log = log.read_text("utf-8", "replace")
        finally:
            if process.returncode is None:
                process.kill()
            await ended
            await api.aclose()
        return ran


async def _run(api: RuntimeApi, calls: Sequence[Call]) -> Ran:
    ran = Ran()
    async with asyncio.timeout(DEADLINE):
        try:
            ran.init = await api.initialised()
        except Gone:
            ran.answers.append(None)
            return ran
        if ran.init is not None:
            return ran
        for call in calls:
            try:
                ran.answers.append(await api.run(call.work()))
            except Gone:
                ran.answers.append(None)
                break
    return ran


def _environment(more: dict[str, str]) -> dict[str, str]:
    known = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {"LANG": "C.UTF-8", "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13", **known, **more}


class _Silent:
    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


@pytest.fixture(scope="session")
def call() -> type[Call]:
    return Call


@pytest.fixture(scope="session")
def make_runner() -> type[Runner]:
    return Runner


INTERPRETERS = [
    path
    for path in (Path("~/.pyenv/versions").expanduser() / version / "bin/python" for version in ("3.8.18", "3.13.0"))
    if path.exists()
]


@pytest.fixture(params=[*INTERPRETERS, Path(sys.executable)], ids=lambda path: path.parent.parent.name)
def interpreter(request: pytest.FixtureRequest) -> Path:
    return request.param
