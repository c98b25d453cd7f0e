"""Hosts whose functions have extensions, and a collector that these report to."""

from __future__ import annotations

import json
import os
import sys
import textwrap
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serverfull.testing.clients import lambda_client
from serverfull.testing.deployments import deploy, zipped
from serverfull.testing.process import HostProcess

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAMS = Path(__file__).parent / "programs"
DEADLINE = 30.0
"""Seconds until a test gives up waiting."""

ACCOUNT = "123456789012"


@dataclass(frozen=True)
class Report:
    """What somebody has told the collector."""

    who: str
    what: str
    body: Any


class Collector:
    """An HTTP server that keeps what is posted to ``/WHO/WHAT``, as the backend of a monitoring agent does."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self._came = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                _, who, what = self.path.split("/")
                collector._take(Report(who, what, json.loads(body) if body[:1] in b"{[" else body.decode()))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _take(self, report: Report) -> None:
        with self._came:
            self.reports.append(report)
            self._came.notify_all()

    def of(self, who: str, what: str = "event") -> list[Any]:
        return [report.body for report in list(self.reports) if (report.who, report.what) == (who, what)]

    def wait(self, fits: Callable[[], Any]) -> Any:
        """Wait until something that is asked again with each report is true, and give it."""
        found: list[Any] = []
        with self._came:
            assert self._came.wait_for(lambda: found.append(fits()) or found[-1], DEADLINE), self.reports
        return found[-1]

    def wait_for(self, who: str, what: str = "event", count: int = 1) -> list[Any]:
        """Wait until somebody has told so much, and give it."""
        found: list[Any] = self.wait(lambda: (there := self.of(who, what))[count - 1 :] and there)
        return found

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@dataclass
class Deployed:
    """A host, and functions with extensions on it."""

    host: HostProcess
    collector: Collector
    client: Any
    name: str = field(default_factory=lambda: f"f-{uuid.uuid4().hex[:8]}")

    def deploy(
        self, files: str, extensions: Mapping[str, str], *, name: str = "", mode: int | None = None, **more: Any
    ) -> None:
        """Deploy a function, whose name is in no other test's log.

        :param files: the code of its module.
        :param extensions: programs by their names; other programs by their paths in the layer, which begin with "/".
        """
        name = name or self.name
        paths = {os.path.join("/extensions", path)[1:]: text for path, text in extensions.items()}
        content = {"ZipFile": zipped(paths, executable=paths if mode is None else ())}
        layer = self.client.publish_layer_version(LayerName=f"{name}-extensions", Content=content)["LayerVersionArn"]
        variables = {"COLLECTOR": self.collector.url, **more.pop("variables", {})}
        usual = {"Layers": [layer], "Timeout": 20, "Environment": {"Variables": variables}}
        deploy(self.client, name, {"app.py": files}, **{**usual, **more})

    @staticmethod
    def program(name: str) -> str:
        """Read one of the programs."""
        return (PROGRAMS / name).read_text()

    @classmethod
    def python(cls, code: str) -> str:
        """Make a program of Python code that has the library before it."""
        interpreter = Path(sys.executable).resolve()  # a virtual environment may lie in /tmp, which is another there
        return f"#!{interpreter}\n{cls.program('library.py')}{textwrap.dedent(code)}"

    def invoke(self, name: str = "", event: Any = None) -> Any:
        answer = self.client.invoke(FunctionName=name or self.name, Payload=json.dumps(event))
        said = json.loads(answer["Payload"].read())
        return (answer["FunctionError"], said) if "FunctionError" in answer else said

    def delete(self) -> None:
        self.client.delete_function(FunctionName=self.name)

    def log(self) -> str:
        with urllib.request.urlopen(f"{self.host.url}/_serverfull/logs/{self.name}") as answer:
            lines = [json.loads(line) for line in answer.read().decode().splitlines()]
        return "\n".join(line["message"] for line in lines)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    folder = tmp_path_factory.mktemp("extensions")
    with HostProcess.start(None, "--state", "memory", cwd=folder) as host:
        yield host


@pytest.fixture
def deployed(running: HostProcess, collector: Collector, request: pytest.FixtureRequest) -> Iterator[Deployed]:
    client = lambda_client(running.url, region="eu-west-1", access_key=ACCOUNT)
    yield Deployed(running, collector, client)
    for function in client.list_functions()["Functions"]:
        client.delete_function(FunctionName=function["FunctionName"])
