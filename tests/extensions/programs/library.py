"""What the Python extensions of these tests begin with: calls of the Extensions API, and of the test's collector."""

import http.client
import json
import os
import sys
import time  # noqa: F401 - for what comes behind this

API = os.environ["AWS_LAMBDA_RUNTIME_API"]
NAME = os.path.basename(sys.argv[0])


def ask(method, path, body=None, to=API, **headers):
    line = http.client.HTTPConnection(to, timeout=60)
    line.request(
        method, path, body=body if body is None or isinstance(body, bytes) else json.dumps(body), headers=headers
    )
    answer = line.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


def tell(what, body):
    ask("POST", f"/{NAME}/{what}", body, os.environ["COLLECTOR"].removeprefix("http://"))


class Extension:
    def __init__(self, *events, name=NAME):
        names = {"Lambda-Extension-Name": name}
        status, headers, self.introduction = ask("POST", "/2020-01-01/extension/register", {"events": events}, **names)
        assert status == 200, self.introduction
        self.headers = {"Lambda-Extension-Identifier": headers["Lambda-Extension-Identifier"]}

    def next(self):
        status, _, body = ask("GET", "/2020-01-01/extension/event/next", **self.headers)
        assert status == 200, body
        return json.loads(body)

    def report(self, which, error_type):
        headers = {**self.headers, "Lambda-Extension-Function-Error-Type": error_type}
        return ask("POST", f"/2020-01-01/extension/{which}/error", {}, **headers)[0]
