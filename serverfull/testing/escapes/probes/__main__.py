"""Tries everything outside a function: the first argument says the baits, as JSON, and what came of it is printed."""

from __future__ import annotations

import json
import os
import sys

from . import handler

if __name__ == "__main__":
    os.environ.setdefault("LAMBDA_TASK_ROOT", os.path.dirname(os.path.abspath(__file__)))
    sys.stdout.write(json.dumps(handler({"bait": json.loads(sys.argv[1])}, None)))
