"""NewFunctionWithErrors: a function says which errors it may give, and in mock mode callers can ask for them.

``MOCK_MODE=1 python errors.py``, then::

    curl --request POST -H 'X-Amz-Invocation-Type: Error' -H 'X-Error-Type: Forbidden' \\
        localhost:8080/2015-03-31/functions/hello/invocations
"""

from __future__ import annotations

import os

from serverfull import Function, StaticFetcher, serve, serve_mock
from serverfull.config import load


class Forbidden(Exception):
    """Nobody is greeted today."""


class TooLate(Exception):
    """It is night."""


def hello() -> str:
    raise TooLate("come back tomorrow")


fetcher = StaticFetcher({"hello": Function(hello, errors=[Forbidden, TooLate("after ten")])})

if __name__ == "__main__":
    start = serve_mock if os.environ.get("MOCK_MODE") else serve
    raise SystemExit(start(fetcher, load().settings))
