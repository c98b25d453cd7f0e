"""A CloudWatch Logs endpoint for this folder, moto's, and a proxy before it that can be slow or gone."""

from __future__ import annotations

import contextlib
import shutil
import time
from contextlib import closing

import pytest
from boto3.session import Session

from integration.servers import INSTALL, Proxy, started


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


@pytest.fixture
def proxy(endpoint):
    started = Proxy(endpoint.port)
    yield started
    started.close()
