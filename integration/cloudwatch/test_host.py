"""A host that sends the log of functions to CloudWatch Logs, and what its calls notice of that."""

from __future__ import annotations

import json
import re
import socket
import time

import pytest

from serverfull.testing.clients import lambda_client
from serverfull.testing.deployments import deploy, invoke
from serverfull.testing.process import HostProcess

APP = r"""
import sys
from serverfull import Function

def hello(event):
    print("hello", event)

def large(event):
    for number in range(event["lines"]):
        print(f"{number:06}", "x" * event["length"])

def long(event):
    sys.stdout.write("\u00e9" * event + "\n")

def flood(event):
    for _ in range(40):
        print("x" * 900_000)

functions = {
    "hello": hello,
    "large": large,
    "long": long,
    "flood": flood,
    "own": Function(hello, log_group="/shop/all", log_format="JSON"),
    "bad": Function(hello, log_group="x" * 600),
}
"""
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@pytest.fixture
def start(tmp_path):
    (tmp_path / "app.py").write_text(APP)

    def start(url, **variables):
        env = {"SERVERFULL_LOGGING__CLOUDWATCH": url, "SERVERFULL_LIMITS__LOG_BYTES": "100000000", **CREDENTIALS}
        return HostProcess.start("app.py", "--log-format", "json", cwd=tmp_path, env={**env, **variables})

    return start


def dropped(host):
    """Give how many records the sink has lost."""
    found = re.search(
        r'serverfull_log_records_dropped_total\{sink="cloudwatch"\} (\S+)',
        host.request("GET", "/metrics").body.decode(),
    )
    return float(found[1])


def await_line(host, text):
    host.wait_for_stderr(text, 30)


def test_each_environment_has_a_stream_with_its_lines_in_order(endpoint, start):
    with start(endpoint.url) as host:
        ids = [host.invoke("hello", b"%d" % number).headers["x-amzn-requestid"] for number in range(20)]
        endpoint.await_messages(lambda found: len(found) == 80)
        ((stream, messages),) = endpoint.streams().items()
        assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", stream)
        assert messages[1::4] == [f"hello {number}\n" for number in range(20)]
        for number, request_id in enumerate(ids):
            start_line, _, end, report = messages[number * 4 : number * 4 + 4]
            assert start_line == f"START RequestId: {request_id} Version: $LATEST\n"
            assert end == f"END RequestId: {request_id}\n"
            assert report.startswith(f"REPORT RequestId: {request_id}\t")
        assert dropped(host) == 0
        assert not [line for line in host.stderr_lines() if '"warning"' in line or '"error"' in line]


def test_a_function_has_the_group_that_it_was_given(endpoint, start):
    with start(endpoint.url) as host:
        host.invoke("own", b"1")
        host.invoke("hello", b"2")
        endpoint.await_messages(lambda found: len(found) == 4)
        messages = endpoint.await_messages(lambda found: len(found) == 3, "/shop/all")
    assert messages[1] == "hello 1\n"
    assert [json.loads(messages[place])["type"] for place in (0, 2)] == ["platform.start", "platform.report"]


def test_a_deployed_function_has_the_group_of_its_configuration(endpoint, start, tmp_path):
    with start(endpoint.url) as host:
        client = lambda_client(host.url)
        code = "def handler(event, context):\n    print('deployed')\n    return context.log_stream_name\n"
        deploy(client, "orders", {"app.py": code}, LoggingConfig={"LogGroup": "/orders/all"})
        stream = invoke(client, "orders")
        endpoint.await_messages(lambda found: "deployed\n" in found, "/orders/all")
        assert "deployed\n" in endpoint.streams("/orders/all")[stream]


def test_what_is_more_than_a_request_takes_is_sent_in_several(endpoint, start):
    with start(endpoint.url) as host:
        host.invoke("large", b'{"lines": 25000, "length": 100}')
        messages = endpoint.await_messages(lambda found: len(found) == 25003, "/aws/lambda/large")
        assert [message[:6] for message in messages[1:-2]] == [f"{number:06}" for number in range(25000)]
        assert dropped(host) == 0


def test_a_line_that_is_longer_than_an_event_becomes_several(endpoint, start):
    with start(endpoint.url) as host:
        host.invoke("long", b"300000")
        messages = endpoint.await_messages(lambda found: any("REPORT" in one for one in found), "/aws/lambda/long")
        pieces = messages[1:-2]
        assert "".join(pieces) == "\u00e9" * 300_000 + "\n"
        assert all(len(piece.encode()) + 26 <= 262_144 for piece in pieces)
        assert len(pieces) == 3


def test_what_is_there_when_the_host_ends_is_sent(endpoint, start):
    with start(endpoint.url) as host:
        host.invoke("hello", b'"last"')
        assert host.stop(timeout=20) == 0
    assert "hello last\n" in endpoint.messages()


def test_an_endpoint_that_ends_and_comes_back_gets_what_was_written_meanwhile(endpoint, start):
    with start(endpoint.url) as host:
        host.invoke("hello", b'"before"')
        endpoint.await_messages(lambda found: len(found) == 4)
        endpoint.kill()
        for number in range(10):
            host.invoke("hello", b"%d" % number)
        await_line(host, "log of functions does not get to CloudWatch Logs")
        endpoint.start()  # without the group and the stream that it had
        messages = endpoint.await_messages(lambda found: len(found) == 40)
        assert messages[1::4] == [f"hello {number}\n" for number in range(10)]
        await_line(host, "log of functions gets to CloudWatch Logs again")
        assert dropped(host) == 0
        warnings = [line for line in host.stderr_lines() if '"warning"' in line]
        assert len(warnings) == 1  # although it tried more often


def fastest(host, count):
    """Give the median time of calls, in seconds."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        assert host.invoke("hello", b"1").status == 200
        times.append(time.perf_counter() - began)
    return sorted(times)[count // 2]


def test_an_endpoint_that_does_not_answer_slows_no_call_and_holds_no_memory(proxy, start):
    with start(proxy.url, SERVERFULL_LOGGING__FUNCTIONS="NULL") as host:
        usual = fastest(host, 200)
        proxy.hold()
        for _ in range(5):
            assert host.invoke("flood", b"{}").status == 200
        deadline = time.monotonic() + 30
        while dropped(host) < 50 or not proxy.connections:  # 180 MB were written, and 32 are kept
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert fastest(host, 200) < max(3 * usual, 0.02)
        began = time.monotonic()
        assert host.stop(timeout=20) == 0
        assert time.monotonic() - began < 10
        assert [line for line in host.stderr_lines() if "log of functions is lost" in line]


def test_a_slow_endpoint_gets_everything_in_the_end(endpoint, proxy, start):
    with start(proxy.url) as host:
        proxy.hold()
        for number in range(50):
            host.invoke("hello", b"%d" % number)
        deadline = time.monotonic() + 20
        while not proxy.connections:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        proxy.release()
        messages = endpoint.await_messages(lambda found: len(found) == 200)
        assert messages[1::4] == [f"hello {number}\n" for number in range(50)]
        assert dropped(host) == 0


def test_without_anybody_there_calls_are_answered_and_the_host_ends_at_once(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with start(f"http://127.0.0.1:{port}") as host:
        for number in range(5):
            assert host.invoke("hello", b"%d" % number).status == 200
        await_line(host, "log of functions does not get to CloudWatch Logs")
        began = time.monotonic()
        assert host.stop(timeout=20) == 0
        assert time.monotonic() - began < 4
        assert not [line for line in host.stderr_lines() if "Traceback" in line]


def test_a_group_that_is_refused_costs_its_own_log_alone(endpoint, start):
    with start(endpoint.url) as host:
        assert host.invoke("bad", b"1").status == 200
        host.invoke("hello", b"2")
        endpoint.await_messages(lambda found: "hello 2\n" in found)
        deadline = time.monotonic() + 30
        while not dropped(host):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for number in range(3, 6):  # and is said once
            assert host.invoke("bad", b"1").status == 200
            host.invoke("hello", b"%d" % number)
            endpoint.await_messages(lambda found, number=number: f"hello {number}\n" in found)
        assert len([line for line in host.stderr_lines() if "CloudWatch Logs" in line]) == 1


def test_where_there_are_no_credentials_an_endpoint_of_ones_own_is_called_without(endpoint, start):
    none = {
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with start(endpoint.url, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", **none) as host:
        host.invoke("hello", b"1")
        endpoint.await_messages(lambda found: "hello 1\n" in found)
