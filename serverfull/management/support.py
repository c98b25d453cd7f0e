"""What this host does with each operation of AWS's Lambda API: the data, and the page ``docs/operations.md`` of it.

An operation *acts* where what it says becomes true on this host. It is *stored* where everything is checked, kept and
read back as AWS does, and the host does not follow it yet. It is *refused* where it is answered 501 with its name.
Tests compare this with the AWS model and with the operations that a control plane has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from serverfull.management.durable import HINT
from serverfull.management.durable import OPERATIONS as DURABLE

Status: TypeAlias = Literal["acts", "stored", "refused"]

_WORDS: Mapping[Status, str] = {"acts": "acts", "stored": "stored, not yet acting", "refused": "refused"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Operations of which the same is true.

    :param title: the kind of resource that they are on.
    :param remark: what a caller should know; empty: nothing beyond the status.
    """

    title: str
    status: Status
    operations: tuple[str, ...]
    remark: str = ""


GROUPS: tuple[Group, ...] = (
    Group(
        title="Invocation",
        status="acts",
        operations=("Invoke", "InvokeAsync"),
        remark="What becomes of events is on [a page of its own](events.md).",
    ),
    Group(title="Invocation", status="refused", operations=("InvokeWithResponseStream",)),
    Group(
        title="Functions",
        status="acts",
        operations=(
            "CreateFunction",
            "GetFunction",
            "GetFunctionConfiguration",
            "ListFunctions",
            "UpdateFunctionCode",
            "UpdateFunctionConfiguration",
            "DeleteFunction",
        ),
        remark="See below for members of the configuration that are only stored.",
    ),
    Group(title="Versions", status="acts", operations=("PublishVersion", "ListVersionsByFunction")),
    Group(
        title="Aliases",
        status="acts",
        operations=("CreateAlias", "GetAlias", "UpdateAlias", "DeleteAlias", "ListAliases"),
    ),
    Group(
        title="Reserved concurrency and account",
        status="acts",
        operations=(
            "PutFunctionConcurrency",
            "GetFunctionConcurrency",
            "DeleteFunctionConcurrency",
            "GetAccountSettings",
        ),
    ),
    Group(title="Tags", status="acts", operations=("TagResource", "UntagResource", "ListTags")),
    Group(
        title="Code signing",
        status="acts",
        operations=(
            "CreateCodeSigningConfig",
            "GetCodeSigningConfig",
            "UpdateCodeSigningConfig",
            "DeleteCodeSigningConfig",
            "ListCodeSigningConfigs",
            "PutFunctionCodeSigningConfig",
            "GetFunctionCodeSigningConfig",
            "DeleteFunctionCodeSigningConfig",
            "ListFunctionsByCodeSigningConfig",
        ),
        remark="The host cannot tell who signed a package: Enforce refuses every package, Warn logs each.",
    ),
    Group(
        title="Permissions",
        status="stored",
        operations=(
            "AddPermission",
            "GetPolicy",
            "RemovePermission",
            "GetResourcePolicy",
            "PutResourcePolicy",
            "DeleteResourcePolicy",
        ),
        remark="Nobody is authorised by policies, or refused.",
    ),
    Group(
        title="Layers",
        status="acts",
        operations=(
            "PublishLayerVersion",
            "GetLayerVersion",
            "GetLayerVersionByArn",
            "ListLayers",
            "ListLayerVersions",
            "DeleteLayerVersion",
            "AddLayerVersionPermission",
            "GetLayerVersionPolicy",
            "RemoveLayerVersionPermission",
        ),
        remark="Functions see their layers as `/opt`, or below another folder where the machine allows no mounts.",
    ),
    Group(
        title="Provisioned concurrency",
        status="acts",
        operations=(
            "PutProvisionedConcurrencyConfig",
            "GetProvisionedConcurrencyConfig",
            "DeleteProvisionedConcurrencyConfig",
            "ListProvisionedConcurrencyConfigs",
        ),
        remark="Environments of functions that run in processes of their own; of others the status is `FAILED`.",
    ),
    Group(
        title="Function URLs",
        status="stored",
        operations=(
            "CreateFunctionUrlConfig",
            "GetFunctionUrlConfig",
            "UpdateFunctionUrlConfig",
            "DeleteFunctionUrlConfig",
            "ListFunctionUrlConfigs",
        ),
        remark="A URL is a path of the host, `/_serverfull/urls/<url-id>/`; nothing answers there yet.",
    ),
    Group(
        title="Event invoke configs",
        status="acts",
        operations=(
            "PutFunctionEventInvokeConfig",
            "UpdateFunctionEventInvokeConfig",
            "GetFunctionEventInvokeConfig",
            "DeleteFunctionEventInvokeConfig",
            "ListFunctionEventInvokeConfigs",
        ),
        remark="Of destinations, those that the host has an endpoint for: [Destinations](destinations.md).",
    ),
    Group(
        title="Event source mappings",
        status="stored",
        operations=(
            "CreateEventSourceMapping",
            "GetEventSourceMapping",
            "UpdateEventSourceMapping",
            "DeleteEventSourceMapping",
            "ListEventSourceMappings",
        ),
        remark="No source is polled, although State says `Enabled`; filters are checked and match nothing.",
    ),
    Group(
        title="Recursive loop detection",
        status="acts",
        operations=("GetFunctionRecursionConfig", "PutFunctionRecursionConfig"),
        remark="A chain of calls that comes by a function for the 17th time is stopped, as far as callers send the "
        "tracing header along, as AWS's SDKs do.",
    ),
    Group(
        title="Runtime management",
        status="stored",
        operations=("GetRuntimeManagementConfig", "PutRuntimeManagementConfig"),
        remark="The host has one version of each runtime.",
    ),
    Group(
        title="Capacity providers",
        status="stored",
        operations=(
            "CreateCapacityProvider",
            "GetCapacityProvider",
            "UpdateCapacityProvider",
            "DeleteCapacityProvider",
            "ListCapacityProviders",
            "ListFunctionVersionsByCapacityProvider",
            "GetFunctionScalingConfig",
            "PutFunctionScalingConfig",
        ),
        remark="Functions run on this host, whatever provider they name.",
    ),
    Group(title="Durable executions", status="refused", operations=DURABLE, remark=HINT),
)

STORED_MEMBERS: Mapping[str, str] = {
    "AcceleratorConfig": "there are no accelerators to give",
    "Architectures": "code runs on the host's own architecture; a container image for another one is `Failed`",
    "CapacityProviderConfig": "functions run on this host",
    "DeadLetterConfig": "acts where the host has an endpoint for the target: see [Destinations](destinations.md)",
    "DurableConfig": "there are no durable executions",
    "EphemeralStorage": "acts where a process can have a `/tmp` of its own",
    "FileSystemConfigs": "no file system is mounted",
    "KMSKeyArn": "nothing is encrypted with it",
    "Layers": "functions in processes of their own see them; in the host's own process they are not there",
    "LoggingConfig": "format and levels act; in CloudWatch Logs, the log goes to LogGroup",
    "MemorySize": "processes are held to it, and the share of the CPU does not depend on it",
    "Role": "it is not assumed: no credentials come with it",
    "Runtime": "what is installed on the machine runs; a function that needs more is `Failed` with what to install",
    "RuntimeConfig": "runtimes know nothing of it",
    "SnapStart": "acts for Python in processes of their own: see [SnapStart](snapstart.md)",
    "TenancyConfig": "environments are not apart by tenant",
    "TracingConfig": "nothing is traced",
    "VpcConfig": "functions have the host's network",
}
"""Members of a function's configuration that are kept and do not act, or not as they do on AWS."""


def status_of() -> dict[str, Status]:
    """Give the status of every operation, by its name in the AWS model."""
    return {operation: group.status for group in GROUPS for operation in group.operations}


def markdown() -> str:
    """Write the page ``docs/operations.md``."""
    return "\n".join(_lines()) + "\n"


_INTRODUCTION = """\
*Acts*: what the operation says becomes true on this host. *Stored, not yet acting*: everything is checked, kept and
read back as AWS does, and the host does not follow it yet. *Refused*: answered 501 `NotImplementedException`, with the
operation's name. So is an operation of a newer botocore that serverfull does not know. One that the host's botocore
does not know either is refused by its method and path, with the version of that botocore."""

_MEMBERS = """\
`CreateFunction` and `UpdateFunctionConfiguration` check and keep all of them. These do not act, or not as they do on
AWS:"""


def _lines() -> Iterator[str]:
    counted = Counter(status_of().values())
    yield "<!-- Made by `make docs` from serverfull/management/support.py. -->"
    yield "# Operations"
    yield ""
    yield (
        f"serverfull knows the {counted.total()} operations of AWS's Lambda API: {counted['acts']} act, "
        f"{counted['stored']} are stored and do not act yet, {counted['refused']} are refused."
    )
    yield ""
    yield _INTRODUCTION
    yield ""
    yield "| resource | operation | what it does here | remark |"
    yield "|---|---|---|---|"
    for group in GROUPS:
        for operation in sorted(group.operations):
            yield f"| {group.title} | {operation} | {_WORDS[group.status]} | {group.remark} |"
    yield ""
    yield "## Members of a function's configuration"
    yield ""
    yield _MEMBERS
    yield ""
    yield "| member | why |"
    yield "|---|---|"
    for member, why in sorted(STORED_MEMBERS.items()):
        yield f"| {member} | {why} |"
