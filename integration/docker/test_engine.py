"""What container tests stand on: an engine that runs containers which reach the machine, and that can go away."""

from __future__ import annotations

import socket

import pytest

from integration.engines import reached

pytestmark = pytest.mark.slow


def test_a_container_runs_the_official_runtime_client_and_reaches_the_machine_by_the_bridge(engine):
    with engine.client() as client, socket.create_server(("0.0.0.0", 0)) as server:
        server.settimeout(20)
        container = client.containers.create(
            engine.image,
            ["missing.handler"],
            environment={"AWS_LAMBDA_RUNTIME_API": f"host.docker.internal:{server.getsockname()[1]}"},
            extra_hosts={"host.docker.internal": "host-gateway"},
        )
        try:
            container.start()
            connection, _ = server.accept()
            with connection:
                connection.settimeout(20)
                # The image has no such module, and its runtime client says so where it was told to.
                assert connection.recv(4096).startswith(b"POST /2018-06-01/runtime/init/error ")
        finally:
            container.remove(force=True)


def test_an_engine_of_the_tests_can_be_stopped_and_started_and_knows_its_images_again(engine):
    if engine.own is None:
        pytest.skip("the engine is the machine's")
    engine.own.stop()
    try:
        with pytest.raises(OSError):
            reached(engine.url)
    finally:
        engine.own.start()
    with engine.client() as client:
        assert client.images.get(engine.image)
