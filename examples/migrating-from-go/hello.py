"""The quick start: a function in a map, behind the Invoke API.

``python hello.py``, then ``curl --request POST localhost:8080/2015-03-31/functions/hello/invocations``
"""

from __future__ import annotations

from serverfull import StaticFetcher, serve
from serverfull.config import load


def hello() -> str:
    return "Hello ƛ!"


# The keys are the names that callers use; they need not be the names of the Python functions.
fetcher = StaticFetcher({"hello": hello})

if __name__ == "__main__":
    # load() is settings.NewEnvSource(os.Environ()): it reads the variables of serverfull (Go), too.
    raise SystemExit(serve(fetcher, load().settings))
