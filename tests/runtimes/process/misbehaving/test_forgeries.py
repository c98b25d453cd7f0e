"""Functions that speak to the Runtime API themselves: they can answer for their own call, once, and for no other."""

from __future__ import annotations

from typing import Any

import pytest

GARBAGE = {
    "zeros": "bytes(4096)",
    "frames": 'b\'\\x00\\x00\\x00\\x10{"result": "forged"}\'',
    "another version of HTTP": "b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n'",
    "two lengths": "b'POST /x HTTP/1.1\\r\\nContent-Length: 1\\r\\nContent-Length: 2\\r\\n\\r\\n'",
    "a result for another call": (
        "b'POST /2018-06-01/runtime/invocation/11111111-2222-4333-8444-555555555555/response HTTP/1.1\\r\\n"
        'Host: x\\r\\nContent-Length: 8\\r\\n\\r\\n"forged"\''
    ),
    "an error of the start": (
        "b'POST /2018-06-01/runtime/init/error HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 2\\r\\n\\r\\n{}'"
    ),
    "the next call": "b'GET /2018-06-01/runtime/invocation/next HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'",
}


@pytest.mark.parametrize("garbage", list(GARBAGE.values()), ids=list(GARBAGE))
def test_what_a_function_writes_on_the_line_of_its_client_ends_its_process_and_answers_for_nobody(
    host: Any, garbage: str
) -> None:
    deed = f"""
        for number in range(3, 256):
            try: os.write(number, {garbage})
            except OSError: pass
        import time
        time.sleep(event)
        return "returned"
    """
    function = host.doing(deed)
    assert function.is_good()
    for wait in (0, 0, 1):
        reply = function.call(wait)
        assert reply.failure[0] == "Runtime.ExitError" if reply.error else reply.result == "returned"
        assert reply.error or not wait
        assert function.is_good()


def test_the_memory_of_a_process_that_is_ended_for_what_it_wrote_is_reported(host: Any) -> None:
    deed = """
        for number in range(3, 256):
            try: os.write(number, b"garbage\\r\\n\\r\\n")
            except OSError: pass
        while True: pass
    """
    reply = host.doing(deed).call()
    assert reply.failure == ("Runtime.ExitError", "Runtime exited with error: signal: killed")
    assert 5 <= reply.max_memory < 40
    assert "\tStatus: error\tError Type: Runtime.ExitError\t" in reply.log


def test_a_process_has_no_descriptor_that_leads_to_the_host_but_its_own_line(host: Any) -> None:
    deed = """
        found = {}
        for number in os.listdir("/proc/self/fd"):
            try: found[int(number)] = os.readlink("/proc/self/fd/" + number).partition(":")[0]
            except OSError: pass
        return found
    """
    found = host.doing(deed).call().result
    assert {int(number): what for number, what in found.items() if int(number) < 3} == {
        0: "/dev/null",
        1: "pipe",
        2: "pipe",
    }
    assert [what for number, what in found.items() if int(number) >= 3] == ["socket"]


SPEAKING = """#!{python}
import http.client, json, os, socket

ADDRESS = os.environ["AWS_LAMBDA_RUNTIME_API"]
BASE = "/2018-06-01/runtime"

def ask(method, path, body=None, **headers):
    line = http.client.HTTPConnection(ADDRESS, timeout=20)
    line.request(method, BASE + path, body, headers)
    answer = line.getresponse()
    return answer.status, answer.headers, answer.read()

def raw(data):
    host, _, port = ADDRESS.rpartition(":")
    with socket.create_connection((host, int(port)), 20) as line:
        line.sendall(data)
        line.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := line.recv(65536): answer += piece
        return int(answer.split()[1]) if answer else 0

last = None
while True:
    _, headers, event = ask("GET", "/invocation/next")
    own = headers["Lambda-Runtime-Aws-Request-Id"]
    said = {{}}
    if json.loads(event) != "be good":
        other = "11111111-2222-4333-8444-555555555555"
        said["another"] = ask("POST", f"/invocation/{{other}}/response", '"forged"')[0]
        said["the last"] = ask("POST", f"/invocation/{{last}}/response", '"forged"')[0]
        said["the start"] = ask("POST", "/init/error", '"forged"')[0]
        said["an error of another"] = ask("POST", f"/invocation/{{other}}/error", '"forged"')[0]
        said["escaped"] = ask("POST", "/invocation/..%2f..%2f/response", '"forged"')[0]
        said["garbage"] = raw(b"\\x16\\x03\\x01" + bytes(200) + b"\\r\\n\\r\\n")
        said["smuggled"] = raw(
            f"POST {{BASE}}/invocation/{{own}}/response HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 8\\r\\n"
            "Transfer-Encoding: chunked\\r\\n\\r\\n\\"forged\\"".encode()
        )
    result = "good" if json.loads(event) == "be good" else said
    first = ask("POST", f"/invocation/{{own}}/response", json.dumps(result))[0]
    second = ask("POST", f"/invocation/{{own}}/response", '"forged"')[0]
    third = ask("POST", f"/invocation/{{own}}/error", '"forged"')[0]
    print("SAID", first, second, third, flush=True)
    last = own
"""


def test_a_runtime_answers_for_its_own_call_and_once(host: Any) -> None:
    import sys

    bootstrap = SPEAKING.format(python=sys.executable)
    function = host.deploy({"bootstrap": bootstrap}, Runtime="provided.al2023", Handler="none")
    assert function.is_good()
    assert function.call().result == {
        "another": 400,
        "the last": 400,
        "the start": 403,
        "an error of another": 400,
        "escaped": 400,
        "garbage": 400,
        "smuggled": 400,
    }
    assert function.is_good()
    host.process.wait_for_stdout("SAID 202 403 403")
