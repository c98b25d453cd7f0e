"""A switch for mock mode: no handler runs, and answers have the zero values of the results' types.

``MOCK_MODE=1 python mock_mode.py``
"""

from __future__ import annotations

import os

from serverfull import StaticFetcher, serve, serve_mock
from serverfull.config import load


def hello() -> str:
    return "Hello ƛ!"


fetcher = StaticFetcher({"hello": hello})

if __name__ == "__main__":
    start = serve_mock if os.environ.get("MOCK_MODE") else serve
    raise SystemExit(start(fetcher, load().settings))
