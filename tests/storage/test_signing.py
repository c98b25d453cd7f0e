"""The key that links to packages are signed by."""

from __future__ import annotations

import threading
from pathlib import Path

from serverfull.storage.durable import delete_leftovers, held
from serverfull.storage.signing import DownloadKey


def test_a_sweep_leaves_a_key_alone_that_is_being_written(tmp_path: Path) -> None:
    path, over = tmp_path / ".key", threading.Event()

    def sweep() -> None:
        while not over.is_set():
            with held(tmp_path, alone=True):
                delete_leftovers(tmp_path)

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        for _ in range(300):
            signature = DownloadKey(path).sign("0" * 64, 1)
            assert DownloadKey(path).verify("0" * 64, 1, signature)
            path.unlink()
    finally:
        over.set()
        sweeper.join()
