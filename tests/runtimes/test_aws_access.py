"""What functions get to reach AWS with, by the settings alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from serverfull.config import AwsSettings
from serverfull.errors import ConfigurationError
from serverfull.runtimes.aws_access import AwsAccess
from serverfull.runtimes.aws_services import variable_of

if TYPE_CHECKING:
    from pathlib import Path

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_SESSION_TOKEN": "test"}
NO_FILES = {"AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_CONFIG_FILE": "/dev/null"}


def access(**settings: Any) -> AwsAccess:
    return AwsAccess.of(AwsSettings(**settings))


def refusal(**settings: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        access(**settings)
    return str(caught.value)


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    (tmp_path / "credentials").write_text("[default]\n")
    return tmp_path


def test_without_settings_a_function_finds_no_credentials_and_no_endpoint() -> None:
    found = access()
    assert found.of_process() == NO_FILES  # nor does it find those of the host's user in that user's home
    assert found.of_container() == {}
    assert found.of_code_in_process() == {}


def test_static_credentials_are_those_that_every_imitation_takes_unless_others_are_set() -> None:
    found = access(credentials="static")
    assert found.of_process() == KEYS | NO_FILES
    assert found.of_container() == KEYS
    own = access(credentials="static", access_key_id="id", secret_access_key="key", session_token="")
    assert own.of_container() == {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}


def test_code_in_the_hosts_process_finds_no_credentials_of_two_origins() -> None:
    found = access(credentials="static", session_token="").of_code_in_process()
    assert found["AWS_ACCESS_KEY_ID"] == "test"
    assert found["AWS_SESSION_TOKEN"] is None
    assert found["AWS_PROFILE"] is None


def test_credentials_of_the_host_are_passed_on_and_nothing_else_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_PROFILE": "p"}.items():
        monkeypatch.setenv(name, value)
    assert access(credentials="passthrough").of_container() == {
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "key",
    }
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    assert access(credentials="passthrough").of_process()["AWS_SESSION_TOKEN"] == "token"


def test_a_host_without_credentials_cannot_pass_them_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "has no AWS_ACCESS_KEY_ID and no AWS_SECRET_ACCESS_KEY. Set it" in refusal(credentials="passthrough")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "")
    assert "has no AWS_SECRET_ACCESS_KEY. Set it" in refusal(credentials="passthrough")


def test_profiles_are_where_the_operator_has_them_and_in_containers_at_one_place(profiles: Path) -> None:
    found = access(credentials="profile", profile_folder=str(profiles))
    assert found.of_process() == {
        "AWS_SHARED_CREDENTIALS_FILE": f"{profiles}/credentials",
        "AWS_CONFIG_FILE": f"{profiles}/config",
    }
    assert found.folder == profiles
    assert found.of_container() == {
        "AWS_SHARED_CREDENTIALS_FILE": "/opt/aws-config/credentials",
        "AWS_CONFIG_FILE": "/opt/aws-config/config",
    }
    assert found.of_code_in_process()["AWS_ACCESS_KEY_ID"] is None  # it would win over every profile
    named = access(credentials="profile", profile_folder=str(profiles), profile="test")
    assert named.of_container()["AWS_PROFILE"] == "test"


def test_the_folder_of_profiles_may_begin_at_home(profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(profiles.parent))
    assert access(credentials="profile", profile_folder=f"~/{profiles.name}").folder == profiles


def test_a_folder_without_profiles_is_refused(tmp_path: Path) -> None:
    missing = refusal(credentials="profile", profile_folder=str(tmp_path / "gone"))
    assert f"aws.profile_folder, {tmp_path}/gone, is no folder" in missing
    assert "has no file credentials and none config" in refusal(credentials="profile", profile_folder=str(tmp_path))


def test_static_credentials_are_not_empty() -> None:
    assert "must not be empty" in refusal(credentials="static", secret_access_key="")


@pytest.mark.parametrize(
    ("service", "variable"),
    [
        ("S3", "AWS_ENDPOINT_URL_S3"),
        ("s3", "AWS_ENDPOINT_URL_S3"),
        ("DynamoDB", "AWS_ENDPOINT_URL_DYNAMODB"),
        ("cloudwatch_logs", "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS"),
        ("CloudWatch-Logs", "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS"),
        ("elastic_beanstalk", "AWS_ENDPOINT_URL_ELASTIC_BEANSTALK"),
    ],
)
def test_services_are_called_as_sdks_call_them(service: str, variable: str) -> None:
    assert variable_of(service) == variable
    assert access(endpoints=(f"{service}=http://there",)).of_container() == {variable: "http://there"}


def test_the_names_of_services_are_those_that_botocore_reads() -> None:
    from botocore.session import Session

    for name in ("s3", "sqs", "logs", "stepfunctions", "elbv2", "bedrock-runtime"):
        model = Session().get_service_model(name)
        assert variable_of(str(model.service_id)) == f"AWS_ENDPOINT_URL_{model.service_id.upper().replace(' ', '_')}"


@pytest.mark.parametrize(
    ("service", "hint"), [("CLOUDWATCHLOGS", "did you mean CLOUDWATCH_LOGS?"), ("bananas", "'bananas'")]
)
def test_a_service_that_no_sdk_asks_for_is_refused(service: str, hint: str) -> None:
    assert hint in refusal(endpoints=(f"{service}=http://there",))


def test_a_service_has_one_endpoint() -> None:
    assert "two URLs for s3" in refusal(endpoints=("S3=http://there", "s3=http://elsewhere"))


def test_nothing_that_is_printed_for_debugging_shows_secrets() -> None:
    settings = AwsSettings(credentials="static", secret_access_key="canary", session_token="canary")
    assert "canary" not in repr(settings)
    assert "canary" not in repr(AwsAccess.of(settings))
    assert "credentials='static'" in repr(settings)
