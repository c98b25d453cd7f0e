"""The tracing header, and in it the lineage of a call: how often the chain of calls has come by each function.

A function gets the header of its own call in ``_X_AMZN_TRACE_ID``, and AWS's SDKs send it along with whatever they ask
for. So a function that calls itself, also through others, is seen to do so.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html
"""

from __future__ import annotations

import hashlib
import random
import re
import time

MOST_TIMES = 16
"""Times that a chain may come by a function, as on AWS."""

_MOST_FUNCTIONS = 64
"""Functions of a chain that are remembered: headers have an end."""

_LINEAGE = re.compile(r";?Lineage=([^;]*)")
_ENTRY = re.compile(r"([0-9a-f]{8}):(\d{1,4})")


def new_trace() -> str:
    """Make the tracing header of a call that came without: a trace that is not sampled.

    AWS: https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader
    """
    chance = f"{random.getrandbits(160):040x}"
    return f"Root=1-{int(time.time()):08x}-{chance[:24]};Parent={chance[24:]};Sampled=0"


def mark_of(function: str) -> str:
    """Give what stands for a function in lineages.

    :param function: its name, with account and region where names are not unique.
    """
    return hashlib.sha256(function.encode()).hexdigest()[:8]


def times(trace: str, mark: str) -> int:
    """Say how often a chain of calls has come by a function."""
    return _entries(trace).get(mark, 0) if "Lineage=" in trace else 0


def extended(trace: str, mark: str) -> str:
    """Give the header of a call to a function, whose own calls will bring it along."""
    if "Lineage=" not in trace:
        return f"{trace};Lineage=1:{mark}:1"
    entries = _entries(trace)
    entries[mark] = entries.pop(mark, 0) + 1
    newest = list(entries.items())[-_MOST_FUNCTIONS:]
    calls = sum(count for _, count in newest)
    text = "|".join(f"{known}:{count}" for known, count in newest)
    return f"{_LINEAGE.sub('', trace)};Lineage={calls}:{text}"


def _entries(trace: str) -> dict[str, int]:
    found = _LINEAGE.search(trace)
    # Some SDKs send a bar as a percent sign and its number.
    return {mark: int(count) for mark, count in _ENTRY.findall(found[1].replace("%7C", "|"))} if found else {}
