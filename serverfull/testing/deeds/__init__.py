"""The function that `serverfull.testing.runtime_suite` runs: one handler that does what its event asks for.

It is here in Python (``deeds.py``), in JavaScript (``deeds.mjs``), and as a program that speaks the Runtime API by
itself (``bootstrap.py``). Whoever writes it in another language does the same:

============================= ========================================================================================
event                         what the handler does
============================= ========================================================================================
anything without ``do``       gives it back
``do: echo, value``           gives the value
``do: count``                 gives ``calls``, those of this environment with this one, and ``pid``, its process
``do: fail, message``         raises an error of the type ``Refused`` with that message
``do: unwritable``            gives what cannot be written as JSON
``do: fill, bytes``           gives a text whose JSON has so many bytes
``do: write, text``           writes ``out TEXT`` with a line end to standard output, and ``err TEXT`` without one to
                              standard error; gives null
``do: context``               gives what it knows of the call: ``request_id``, ``name``, ``version``, ``memory`` (text),
                              ``log_group``, ``log_stream``, ``arn``, ``left`` (milliseconds); of the client context
                              ``custom``, ``env`` and ``installation``; ``identity`` and ``identity_pool``; ``tenant``;
                              ``trace`` from ``_X_AMZN_TRACE_ID``. What there is not is null
``do: variables, names``      gives the values of these environment variables, null for those that are not there
``do: set, name``             sets that environment variable to ``changed``; gives null
``do: stuck, text``           writes the text without a line end to standard output, and never ends
``do: leave, status``         ends its process with that status
``do: vanish, text``          the same, and kills its process with SIGKILL instead
``do: grow``                  takes more and more memory, 4 MB in 5 ms, and uses it; gives null once it has 1 GB
``do: spawn``                 starts a process in a session of its own, which outlives the call, and gives its id
``do: meet, folder, name,     writes ``met NAME`` with a line end to standard output, makes a file of that name in the
count``                       folder, and gives the name once so many files are there
============================= ========================================================================================

While it is loaded, and where these variables are set, it writes ``DEEDS_TEXT`` with a line end to standard output, adds
a line to the file ``DEEDS_STARTS``, waits until the file ``DEEDS_WAITS`` exists, and raises an error of the type
``NotToday`` with the message ``not today`` unless the file ``DEEDS_NEEDS`` exists.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

HANDLER = "deeds.handler"
"""How the handler is called in a function's configuration, in all languages."""

_HERE = Path(__file__).parent


def write(folder: Path, kind: Literal["python", "nodejs", "provided"]) -> Path:
    """Write the function into a folder as an unpacked deployment package; gives the folder.

    :param folder: made where it is not there.
    :param kind: ``provided`` is a file ``bootstrap`` that is run by this Python, without anything that is installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = ("deeds.mjs",) if kind == "nodejs" else ("deeds.py",)
    for name in names:
        (folder / name).write_bytes((_HERE / name).read_bytes())
    if kind == "provided":
        bootstrap = folder / "bootstrap"
        bootstrap.write_text(f"#!{Path(sys.executable).resolve()} -u\n{(_HERE / 'bootstrap.py').read_text()}")
        bootstrap.chmod(0o755)
    return folder
