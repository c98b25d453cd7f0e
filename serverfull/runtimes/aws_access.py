"""What deployed functions reach AWS with, or what stands for it: credentials and endpoints, by the settings ``aws``.

A host makes one `AwsAccess` when it starts, and every runtime of deployed functions asks it for variables. A function's
own variables win over them, one by one: an empty ``AWS_ENDPOINT_URL`` takes the endpoint away from it. Nothing of this
is written anywhere: variables go to the function's environment alone, and profile files are read where they are.

AWS: https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html,
https://docs.aws.amazon.com/sdkref/latest/guide/file-location.html
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from serverfull.config.credentials import ACCESS_KEY_ID, SECRET_ACCESS_KEY, SESSION_TOKEN, host_credentials
from serverfull.errors import ConfigurationError

if TYPE_CHECKING:
    from serverfull.config import AwsSettings

CONTAINER_FOLDER = "/opt/aws-config"
"""Where a container finds profiles."""

PROFILE_FILES = ("credentials", "config")
"""What of the folder SDKs read."""

_NOTHING: Mapping[str, str] = MappingProxyType({})
_KEYS = (ACCESS_KEY_ID, SECRET_ACCESS_KEY, SESSION_TOKEN)
_FILES = dict(zip(("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"), PROFILE_FILES, strict=True))
_OTHER_CREDENTIALS = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE")
_NO_FILE = os.devnull
"""Or a process would find the files of the host's user in that user's home."""


class AwsAccess:
    """The credentials and endpoints of a host's deployed functions; without arguments none. Its repr shows nothing.

    :param keys: the variables with the credentials themselves.
    :param folder: the operator's profile files; None: functions find none.
    :param profile: of these files; empty: the SDK's default.
    :param endpoints: the variables with endpoints.
    """

    def __init__(
        self,
        *,
        keys: Mapping[str, str] = _NOTHING,
        folder: Path | None = None,
        profile: str = "",
        endpoints: Mapping[str, str] = _NOTHING,
    ) -> None:
        self._keys = keys
        self.folder = folder
        self._profile = profile
        self._endpoints = endpoints

    @classmethod
    def of(cls, settings: AwsSettings) -> AwsAccess:
        """Make it as the settings say.

        :raises ConfigurationError: what they need is missing, or they name a service that no SDK has.
        """
        endpoints = _endpoints(settings)
        if settings.credentials == "profile":
            return cls(folder=_profile_folder(settings), profile=settings.profile, endpoints=endpoints)
        if settings.credentials == "static":
            return cls(keys=_static(settings), endpoints=endpoints)
        if settings.credentials == "passthrough":
            return cls(keys=_passed_through(), endpoints=endpoints)
        return cls(endpoints=endpoints)

    def of_process(self, copies: Path | None = None) -> dict[str, str]:
        """Give the variables of a process of this machine.

        :param copies: the folder that it finds copies of the profile files in; None: it finds those of ``folder``.
        """
        if self.folder is None:
            return {**self._keys, **dict.fromkeys(_FILES, _NO_FILE), **self._endpoints}
        return {**self._files(str(copies or self.folder)), **self._endpoints}

    def of_container(self) -> dict[str, str]:
        """Give the variables of a container, which sees the files of ``folder`` at `CONTAINER_FOLDER`."""
        files = {} if self.folder is None else self._files(CONTAINER_FOLDER)
        return {**self._keys, **files, **self._endpoints}

    def of_code_in_process(self) -> dict[str, str | None]:
        """Give the variables of code in the host's own process, which sees the host's where it has none.

        None hides a variable of the host's: credentials of two origins are no credentials.
        """
        if not self._keys and self.folder is None:
            return {**self._endpoints}
        hidden: dict[str, str | None] = dict.fromkeys((*_KEYS, *_OTHER_CREDENTIALS))
        return hidden | self.of_process()

    def _files(self, folder: str) -> dict[str, str]:
        named = {variable: f"{folder}/{name}" for variable, name in _FILES.items()}
        return named | {"AWS_PROFILE": self._profile} if self._profile else named


def _static(settings: AwsSettings) -> dict[str, str]:
    if not settings.access_key_id or not settings.secret_access_key:
        raise ConfigurationError(
            "aws.credentials is 'static': aws.access_key_id and aws.secret_access_key must not be empty"
        )
    token = {SESSION_TOKEN: settings.session_token} if settings.session_token else {}
    return {ACCESS_KEY_ID: settings.access_key_id, SECRET_ACCESS_KEY: settings.secret_access_key, **token}


def _passed_through() -> dict[str, str]:
    found = host_credentials()
    missing = [name for name in (ACCESS_KEY_ID, SECRET_ACCESS_KEY) if name not in found]
    if missing:
        raise ConfigurationError(
            f"aws.credentials is 'passthrough', and the host's environment has no {' and no '.join(missing)}. Set it, "
            "or have functions read your profiles: aws.credentials = 'profile'"
        )
    return found


def _profile_folder(settings: AwsSettings) -> Path:
    folder = Path(settings.profile_folder).expanduser().absolute()
    if not folder.is_dir() or not os.access(folder, os.R_OK | os.X_OK):
        raise ConfigurationError(
            f"aws.credentials is 'profile', and aws.profile_folder, {folder}, is no folder that the host can read"
        )
    if not any((folder / name).is_file() for name in PROFILE_FILES):
        raise ConfigurationError(
            f"aws.credentials is 'profile', and aws.profile_folder, {folder}, has no file credentials and none config"
        )
    return folder


def _endpoints(settings: AwsSettings) -> dict[str, str]:
    endpoints = {"AWS_ENDPOINT_URL": settings.endpoint_url} if settings.endpoint_url else {}
    if settings.endpoints:
        from serverfull.runtimes.aws_services import variable_of

        for service, _, url in (endpoint.partition("=") for endpoint in settings.endpoints):
            variable = variable_of(service)
            if variable in endpoints:
                raise ConfigurationError(f"aws.endpoints has two URLs for {service}")
            endpoints[variable] = url
    return endpoints
