"""Servers of other projects, run for the tests of a folder."""

from __future__ import annotations

import contextlib
import re
import socket
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


class Proxy:
    """Passes connections on to a port. While it is held, nothing of what comes is passed on, and nobody is told."""

    def __init__(self, port):
        self._port = port
        self._flowing = threading.Event()
        self._flowing.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self):
        self._flowing.clear()

    def release(self):
        self._flowing.set()

    def close(self):
        self._flowing.set()
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                server = socket.create_connection(("127.0.0.1", self._port))
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._flowing.wait()
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
        source.close()
