"""All example functions under one roof: what ``make run`` serves.

The keys are the names that clients use; they need not be the names of the Python functions.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # the examples are single files and no package

import async_handler
import errors
import hello
import typed


def echo(event: Any) -> Any:
    """Give back what came."""
    return event


functions = {
    "echo": echo,
    **hello.functions,
    **typed.functions,
    **async_handler.functions,
    **errors.functions,
}
