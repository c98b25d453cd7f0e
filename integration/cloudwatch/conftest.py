"""A CloudWatch Logs endpoint for this folder, moto's, and a proxy before it that can be slow or gone."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time
from contextlib import closing

import pytest
from boto3.session import Session

from integration.servers import INSTALL, started


class Endpoint:
    """moto's server: started, killed and started again, with nothing in it, on the port that it had."""

    def __init__(self, program):
        self._program = program
        self._running = contextlib.ExitStack()
        self.port = 0
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        command = [self._program, "-H", "127.0.0.1", "-p", str(self.port)]
        self.port = int(self._running.enter_context(started(command, r"Running on http://127\.0\.0\.1:(\d+)")))

    def kill(self):
        self._running.close()

    def client(self):
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        return Session(region_name="us-east-1", **keys).client("logs", endpoint_url=self.url)

    def streams(self, group="/aws/lambda/hello"):
        """Give the messages of each stream of a group."""
        with closing(self.client()) as client:
            found = {}
            try:
                for stream in client.describe_log_streams(logGroupName=group)["logStreams"]:
                    name = stream["logStreamName"]
                    found[name] = [event["message"] for event in self._events(client, group, name)]
            except client.exceptions.ResourceNotFoundException:
                return {}
            return found

    @staticmethod
    def _events(client, group, name):
        token = {}
        while True:
            page = client.get_log_events(logGroupName=group, logStreamName=name, startFromHead=True, **token)
            yield from page["events"]
            if not page["events"] or token.get("nextToken") == page["nextForwardToken"]:
                return
            token = {"nextToken": page["nextForwardToken"]}

    def messages(self, group="/aws/lambda/hello"):
        return [message for stream in self.streams(group).values() for message in stream]

    def await_messages(self, accept, group="/aws/lambda/hello", seconds=40):
        """Wait until the messages of a group are as they should be; gives them."""
        deadline = time.monotonic() + seconds
        while not accept(found := self.messages(group)):
            assert time.monotonic() < deadline, f"only these came: {found[-20:]}"
            time.sleep(0.1)
        return found


@pytest.fixture
def endpoint(require):
    program = shutil.which("moto_server")
    require("moto's server", program, INSTALL)
    started = Endpoint(program)
    yield started
    started.kill()


class Proxy:
    """Passes connections on to a port. While it is held, nothing of what comes is passed on, and nobody is told."""

    def __init__(self, port):
        self._port = port
        self._flowing = threading.Event()
        self._flowing.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self):
        self._flowing.clear()

    def release(self):
        self._flowing.set()

    def close(self):
        self._flowing.set()
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                server = socket.create_connection(("127.0.0.1", self._port))
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._flowing.wait()
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
        source.close()


@pytest.fixture
def proxy(endpoint):
    started = Proxy(endpoint.port)
    yield started
    started.close()
