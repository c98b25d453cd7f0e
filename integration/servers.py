"""Servers of other projects, run for the tests of a folder."""

from __future__ import annotations

import re
import subprocess
import threading
from contextlib import contextmanager

import pytest

INSTALL = "make s3-servers, and put .venv-s3/servers on the PATH"


@contextmanager
def started(command, said):
    """Run a server that writes its own address once it listens; gives what the group of the pattern finds."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for line in process.stdout:
            found = re.search(said, line)
            if found:
                # What it goes on to say is read and forgotten: a full pipe would stop it.
                threading.Thread(target=process.stdout.read, daemon=True).start()
                yield found[1]
                break
        else:
            pytest.fail(f"{command[0]} ended before it listened", pytrace=False)
    finally:
        process.kill()
        process.communicate()
