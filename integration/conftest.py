"""Clients of the host of a folder, what they are told, and a Docker engine."""

from __future__ import annotations

import importlib.util
import os
import shutil

import pytest

ENGINE_WITHIN = 400
"""Seconds for the test that comes first to an engine: its image may have to be made."""


def pytest_collection_modifyitems(items):
    for item in items:
        if "engine" in getattr(item, "fixturenames", ()) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(ENGINE_WITHIN))


@pytest.fixture
def client(host, boto):
    return boto(host)


@pytest.fixture
def aws_variables(host):
    """The environment of a client of the host: all of AWS is at its address, and no file of the machine counts."""
    return {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": host.url,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


@pytest.fixture(scope="session")
def engine(require):
    """A Docker engine that runs containers, with an image to run; see `integration.engines`.

    An engine that is installed and that the kernel or the privileges of the machine do not let run is no failure even
    where every test is asked for.
    """
    require("the docker package", importlib.util.find_spec("docker"), "pip install '.[docker]'")
    from integration import base_image, engines

    machine = engines.machine_engine()
    if machine is None:
        present = shutil.which("dockerd") and shutil.which("ip") and os.geteuid() == 0
        require("a Docker engine", present, engines.INSTALL)
    require("debootstrap", base_image.obtainable(), engines.INSTALL)
    try:
        if machine is not None:
            with engines.with_image(machine) as engine:
                yield engine
        else:
            with engines.OwnEngine() as own, engines.with_image(own.url, own) as engine:
                yield engine
    except engines.EngineUnfit as unfit:
        pytest.skip(str(unfit))
