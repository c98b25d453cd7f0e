"""A worker that dies again and again does not keep the machine busy."""

from __future__ import annotations

import json
import socket
import time

import pytest

from serverfull.workers.supervisor import SETTLED, _how, _Worker


@pytest.fixture
def worker():
    ours, theirs = socket.socketpair()
    worker = _Worker(0)
    worker.adopt(1, ours)
    yield worker
    ours.close()
    theirs.close()


def test_early_deaths_make_the_pause_longer_up_to_half_a_minute(worker) -> None:
    assert [worker.pause() for _ in range(8)] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_a_worker_that_served_for_a_while_is_replaced_at_once_and_its_past_is_forgotten(worker) -> None:
    worker.pause()
    worker.started_at = time.monotonic() - SETTLED
    assert worker.pause() == 0.0
    worker.started_at = time.monotonic()
    assert worker.pause() == 1.0


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "ended with status 0"),
        (3 << 8, "ended with status 3"),
        (9, "was killed by SIGKILL"),
        (64, "was killed by SIGRTMAX"),
    ],
)
def test_how_a_worker_ended_is_said_in_words(status, words) -> None:
    assert _how(status) == words


def test_reports_are_read_although_a_program_replaces_functions_of_the_json_module(
    worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker.adopt(1, ours)
        theirs.sendall(b'{"ready": true}\n')
        assert worker.hear()
        monkeypatch.setattr(json, "loads", None)
        assert worker.reports() == [{"ready": True}]
