"""Which services a host has endpoints of, and who it is there."""

from __future__ import annotations

import importlib.util

import pytest

from serverfull.config import DestinationSettings
from serverfull.destinations.endpoints import Endpoint, endpoints_of
from serverfull.destinations.services import make_client
from serverfull.errors import ConfigurationError, ExtraMissing


def test_without_settings_there_is_no_service() -> None:
    assert endpoints_of(DestinationSettings()) == {}


def test_one_endpoint_may_stand_for_all_services_and_single_ones_win() -> None:
    found = endpoints_of(DestinationSettings(endpoint_url="http://all", endpoints=("sqs=http://queues", "S3=aws")))
    assert {kind: endpoint.url for kind, endpoint in found.items()} == {
        "sqs": "http://queues",
        "sns": "http://all",
        "events": "http://all",
        "s3": None,
    }
    assert set(endpoints_of(DestinationSettings(endpoints=("EVENTBRIDGE=aws",)))) == {"events"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"endpoints": ("SQS=aws", "sqs=http://h")}, "two URLs for SQS"),
        ({"access_key_id": "me"}, "are set together"),
        ({"secret_access_key": "secret"}, "are set together"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        endpoints_of(DestinationSettings(**settings))


def test_without_boto3_there_are_no_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert endpoints_of(DestinationSettings()) == {}
    with pytest.raises(ExtraMissing, match=r"pip install 'serverfull\[destinations\]'"):
        endpoints_of(DestinationSettings(endpoint_url="aws"))


def test_secrets_are_not_shown() -> None:
    settings = DestinationSettings(access_key_id="me", secret_access_key="canary", session_token="canary")
    assert "canary" not in f"{settings!r} {endpoints_of(DestinationSettings(endpoint_url='aws'))!r}"


def test_what_the_environment_says_for_programs_that_call_a_host_is_not_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:8080")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:8080")
    keys = {"access_key_id": "me", "secret_access_key": "secret"}
    client = make_client(Endpoint(service="sqs", url=None, **keys), "eu-west-1")
    assert client.meta.endpoint_url == "https://sqs.eu-west-1.amazonaws.com"
    client = make_client(Endpoint(service="sqs", url="http://127.0.0.1:9324", **keys), "eu-west-1")
    assert client.meta.endpoint_url == "http://127.0.0.1:9324"
