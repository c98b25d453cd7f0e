"""What ``serverfull deploy`` does with a package and a configuration: whatever calls bring the host to have them.

What is as it should be is left alone, so that deploying the same twice changes nothing. Calls come one after the other,
and each change is waited for: a host takes no other change of a function meanwhile.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from typing import Any, BinaryIO, TypeAlias
from urllib.parse import quote

from serverfull.cli.client import FUNCTIONS, ApiError, Client, path_of
from serverfull.errors import ServerfullError

_TAGS = "/2017-03-31/tags"
_PAUSE = 0.05

Upload: TypeAlias = Callable[[bytes], BinaryIO]
"""Makes a stream of a request's body, which may show how far it has been read."""


class DeployFailed(ServerfullError):
    """The host took the function and cannot run it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What should be there afterwards.

    :param package: the zip archive.
    :param members: the configuration, by the names that the API has for it; what is not in it stays as it is.
    :param defaults: what of it a function that does not exist yet gets besides.
    :param publish: make a version of it.
    :param alias: names that version.
    """

    name: str
    package: bytes
    members: Mapping[str, Any]
    defaults: Mapping[str, Any]
    tags: Mapping[str, str]
    publish: bool = False
    alias: str | None = None

    @property
    def code_sha256(self) -> str:
        """The checksum of the package as the API writes it."""
        return base64.b64encode(sha256(self.package).digest()).decode()


@dataclass(slots=True)
class Result:
    """What was done.

    :ivar done: in words, in their order; empty where all was as it should be.
    :ivar configuration: of the function as it is now.
    """

    done: list[str] = field(default_factory=list)
    configuration: dict[str, Any] = field(default_factory=dict)
    version: str | None = None


def find(client: Client, name: str) -> dict[str, Any]:
    """Give what GetFunction gives; nothing where there is no such function.

    :raises ApiError: the host refuses.
    """
    try:
        return client.function(name)
    except ApiError as error:
        if error.name != "ResourceNotFoundException":
            raise
        return {}


class Deployment:
    """Brings one function to what is wished for.

    :param upload: is given the bodies that carry packages.
    """

    def __init__(self, client: Client, wish: Wish, upload: Upload = BytesIO) -> None:
        self._client = client
        self._wish = wish
        self._path = path_of(wish.name)
        self._upload = upload
        self._result = Result()

    def run(self, present: Mapping[str, Any]) -> Result:
        """Do it.

        :param present: what `find` gave.
        :raises ApiError: the host refuses something.
        :raises DeployFailed: the host cannot prepare the code, or not in time.
        """
        if present:
            self._update(present)
        else:
            self._create()
        if self._wish.publish or self._wish.alias:
            self._publish()
        if self._wish.alias:
            self._point(self._wish.alias)
        self._result.configuration = self._client.document(f"{self._path}/configuration")
        return self._result

    def _create(self) -> None:
        wish = self._wish
        members = {**wish.defaults, **wish.members, "FunctionName": wish.name}
        if wish.tags:
            members["Tags"] = dict(wish.tags)
        self._send_code("POST", FUNCTIONS, {**members, "Code": {"ZipFile": self._encoded()}})
        self._settle()
        self._result.done.append("created")

    def _update(self, present: Mapping[str, Any]) -> None:
        wish = self._wish
        configuration = present["Configuration"]
        if _in_progress(configuration):
            configuration = self._wait()
        if configuration.get("CodeSha256") != wish.code_sha256:
            self._send_code("PUT", f"{self._path}/code", {"ZipFile": self._encoded()})
            self._settle()
            self._result.done.append("updated code")
        changed = _changed(wish.members, configuration)
        if changed:
            self._client.send("PUT", f"{self._path}/configuration", changed)
            self._settle()
            self._result.done.append(f"updated {' and '.join(changed)}")
        tags = {key: value for key, value in wish.tags.items() if present.get("Tags", {}).get(key) != value}
        if tags:
            arn = quote(configuration["FunctionArn"], safe="")
            self._client.send("POST", f"{_TAGS}/{arn}", {"Tags": tags})
            self._result.done.append("updated tags")

    def _encoded(self) -> str:
        return base64.b64encode(self._wish.package).decode()

    def _send_code(self, method: str, path: str, members: Mapping[str, Any]) -> None:
        with self._upload(json.dumps(members).encode()) as body:
            self._client.send(method, path, body)

    def _settle(self) -> None:
        """Wait until the last change has been prepared.

        :raises DeployFailed: it cannot be.
        """
        now = self._wait()
        for status, reason in (("State", "StateReason"), ("LastUpdateStatus", "LastUpdateStatusReason")):
            if now.get(status) == "Failed":
                raise DeployFailed(
                    f"{self._wish.name} is deployed and cannot run: {now.get(reason) or 'no reason given'}"
                )

    def _wait(self) -> dict[str, Any]:
        deadline = time.monotonic() + self._client.timeout
        while True:
            now = self._client.document(f"{self._path}/configuration")
            if not _in_progress(now):
                return now
            if time.monotonic() > deadline:
                raise DeployFailed(f"{self._wish.name} is not ready after {self._client.timeout:g} s")
            time.sleep(_PAUSE)

    def _publish(self) -> None:
        before = {version["Version"] for version in self._client.pages(f"{self._path}/versions", "Versions")}
        version = str(self._client.send("POST", f"{self._path}/versions", {})["Version"])
        self._result.version = version
        if version not in before:
            self._result.done.append(f"published version {version}")

    def _point(self, alias: str) -> None:
        path = f"{self._path}/aliases"
        own = f"{path}/{quote(alias, safe='')}"
        version = self._result.version
        present = self._client.document(own, unless=404)
        if not present:
            self._client.send("POST", path, {"Name": alias, "FunctionVersion": version})
        elif present["FunctionVersion"] != version:
            self._client.send("PUT", own, {"FunctionVersion": version})
        else:
            return
        self._result.done.append(f"{alias} is version {version}")


def _in_progress(configuration: Mapping[str, Any]) -> bool:
    return configuration.get("State") == "Pending" or configuration.get("LastUpdateStatus") == "InProgress"


def _changed(members: Mapping[str, Any], configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Give the members that are not in a configuration as they should be."""
    empty = {"Environment": {"Variables": {}}, "Description": ""}
    return {member: value for member, value in members.items() if configuration.get(member, empty.get(member)) != value}
