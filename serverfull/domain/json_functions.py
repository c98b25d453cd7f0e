"""The functions of the json module as they were at the start, for modules that are imported later.

A handler may replace those of the module itself (``json.dumps = …``). What is imported at the start binds them by
``from json import …``; what is imported at the first request that needs it takes them from here.
"""

from __future__ import annotations

from json import dumps, loads
from json.encoder import encode_basestring_ascii as quoted

__all__ = ["dumps", "loads", "quoted"]
