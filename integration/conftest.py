"""Clients of the host of a folder, and what they are told."""

from __future__ import annotations

import os

import pytest


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
