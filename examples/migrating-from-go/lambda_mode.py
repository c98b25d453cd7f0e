"""A switch for lambda mode: the same program, run by AWS Lambda, serves one function without the HTTP server.

``LAMBDA_MODE=1 python lambda_mode.py``, where AWS sets ``AWS_LAMBDA_RUNTIME_API``; ``MOCK_MODE=1`` mocks it as well.
"""

from __future__ import annotations

import os

from serverfull import StaticFetcher, serve, start_lambda, start_lambda_mock
from serverfull.config import load


def hello() -> str:
    return "Hello ƛ!"


fetcher = StaticFetcher({"myFunctionName": hello})


def main() -> int:
    if os.environ.get("LAMBDA_MODE"):
        start = start_lambda_mock if os.environ.get("MOCK_MODE") else start_lambda
        start(fetcher, "myFunctionName")
        return 0
    return serve(fetcher, load().settings)


if __name__ == "__main__":
    raise SystemExit(main())
