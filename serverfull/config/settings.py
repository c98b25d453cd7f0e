"""The settings, as one frozen dataclass per theme. Each field says its unit, what None means and why that default.

The types carry what a value may be, so that the loader checks it and the settings reference shows it. The string under
a field is its documentation: the reference is made from it.
"""

from __future__ import annotations

from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from typing import Annotated, Any, Literal, TypeAlias, dataclass_transform

from serverfull.config.values import Pattern, Range, Signal
from serverfull.domain import limits

Port: TypeAlias = Annotated[int, Range(least=0, most=65535)]
Count: TypeAlias = Annotated[int, Range(least=1)]
Seconds: TypeAlias = Annotated[float, Range(above=0)]
SecondsOrZero: TypeAlias = Annotated[float, Range(least=0)]
SignalNumber: TypeAlias = Annotated[int, Signal()]
OwnPath: TypeAlias = Annotated[
    str,
    Pattern(
        r"(?!/(metrics|_(serverfull|localstack)(/.*)?|\d{4}-\d\d-\d\d(/.*)?)$)/[A-Za-z0-9._~/-]*",
        "a path such as /up, of letters, digits and /._~-, that nothing else here has",
    ),
]
_PORT = r"([0-5]?[0-9]{1,4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
Address: TypeAlias = Annotated[str, Pattern(rf"\S*:{_PORT}", "an address written host:port")]
NoAddress: TypeAlias = Annotated[str, Pattern(rf"(\S*:{_PORT})?", "an address written host:port, or nothing")]
HostName: TypeAlias = Annotated[
    str,
    Pattern(
        r"[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\]|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*",
        "names or addresses of hosts, without port",
    ),
]
Origin: TypeAlias = Annotated[
    str, Pattern(r"[a-z][a-z0-9+.-]*://[^\s/?#*]*|null", "origins such as https://app.example, without path")
]
Region: TypeAlias = Annotated[str, Pattern(r"[a-z]+(-[a-z0-9]+)+", "an AWS region such as eu-central-1")]
Account: TypeAlias = Annotated[str, Pattern(r"\d{12}", "an account number of twelve digits, as text")]
Namespace: TypeAlias = Annotated[
    str, Pattern(r"(?!AWS/)[\w.\-/#:]{1,255}", "a CloudWatch namespace: letters, digits and ._-/#:, not AWS/")
]
CodeStoreUrl: TypeAlias = Annotated[
    str, Pattern(r"(s3://[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9](/\S*)?)?", "s3://bucket/prefix, or nothing")
]
AwsUrl: TypeAlias = Annotated[
    str, Pattern(r"(aws|https?://\S+)?", "a URL that starts with http:// or https://, aws, or nothing")
]
Url: TypeAlias = Annotated[str, Pattern(r"https?://\S+", "a URL that starts with http:// or https://")]
NoUrl: TypeAlias = Annotated[str, Pattern(r"(https?://\S+)?", "a URL that starts with http:// or https://, or nothing")]
ServiceUrl: TypeAlias = Annotated[
    str, Pattern(r"[A-Za-z0-9][\w-]*=https?://\S+", "services with their URLs, such as S3=http://localhost:9000")
]
DestinationUrl: TypeAlias = Annotated[
    str,
    Pattern(
        r"(?i:SQS|SNS|EVENTBRIDGE|S3)=(aws|https?://\S+)",
        "SQS, SNS, EVENTBRIDGE or S3 with a URL or aws, such as SQS=http://localhost:9324",
    ),
]
IndexUrl: TypeAlias = Annotated[
    str,
    Pattern(r"(https?://[^\s@]+)?", "a URL that starts with http:// or https://, with no password in it, or nothing"),
]

EngineUrl: TypeAlias = Annotated[str, Pattern(r"[a-z]+://\S+", "the URL of a socket, such as unix:///run/docker.sock")]
ImageMapping: TypeAlias = Annotated[
    str, Pattern(r"[a-z][a-z0-9.]*=[^\s,=]+", "runtimes and their images, such as python3.13=registry.example/python:3")
]
RegistryName: TypeAlias = Annotated[
    str, Pattern(r"[A-Za-z0-9.-]+(:\d+)?|\[[0-9A-Fa-f:]+\](:\d+)?", "hosts, such as public.ecr.aws or localhost:5000")
]
NetworkName: TypeAlias = Annotated[
    str, Pattern(r"((?!(host|default)$)[A-Za-z0-9][A-Za-z0-9_.-]*)?", "the name of a network of the engine, not host")
]
HostMapping: TypeAlias = Annotated[
    str, Pattern(r"[A-Za-z0-9_.-]+:(host-gateway|[0-9A-Fa-f.:]+)", "names and addresses, such as db:192.0.2.7")
]
IpAddress: TypeAlias = Annotated[str, Pattern(r"[0-9.]+|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*", "IP addresses")]
_LABEL = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
DomainName: TypeAlias = Annotated[
    str,
    Pattern(rf"(?![0-9.]*$)(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*", "names such as localhost.localstack.cloud"),
]
FolderPath: TypeAlias = Annotated[
    str, Pattern(r"(/(?!\.{1,2}(/|$))[^/\x00]+)+/?", "absolute paths of folders, such as /home/me/projects, not of /")
]
BucketName: TypeAlias = Annotated[str, Pattern(r"[A-Za-z0-9._-]{0,63}", "the name of a bucket, or nothing")]
UserNumbers: TypeAlias = Annotated[str, Pattern(r"\d+:\d+", "a user and a group as numbers, such as 993:990")]
VolumeMapping: TypeAlias = Annotated[
    str, Pattern(r"/[^:,]*:/[^:,]+(:ro)?", "folders here and there, such as /srv/data:/data:ro")
]


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
class _Theme:
    """A frozen dataclass that inherits its methods, each field of which has a default.

    The methods that `dataclass` compiles for each class took 5 ms of every start, and settings are neither made nor
    compared so often that they would be worth it.
    """

    def __init_subclass__(cls) -> None:
        dataclass(init=False, repr=False, eq=False, match_args=False)(cls)

    def __init__(self, **values: Any) -> None:
        for known in fields(self):  # type: ignore[arg-type]  # each subclass is a dataclass, made here
            if known.name in values:
                value = values.pop(known.name)
            else:
                value = known.default if known.default_factory is MISSING else known.default_factory()
            self.__dict__[known.name] = value
        if values:
            raise TypeError(f"{type(self).__name__} has no {', '.join(values)}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.values()))

    def __repr__(self) -> str:
        shown = (known.name for known in fields(self) if known.repr)  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{name}={self.__dict__[name]!r}' for name in shown)})"


class ServerSettings(_Theme):
    """Where the host listens and how long it waits for clients."""

    host: str = "127.0.0.1"
    """Address to bind. Loopback, because the host runs code for whoever reaches it."""
    port: Port = 8080
    """TCP port; 0 lets the system choose and the ready line tells which."""
    insecure_no_auth: bool = False
    """Allow a bind that other machines can reach although nothing authenticates them."""
    health_check: OwnPath = "/healthcheck"
    """Path that always answers 200 while the host serves. ``/metrics``, ``/_serverfull/…`` and the API's are taken."""
    allowed_hosts: tuple[HostName, ...] = ()
    """Host header values (names without port) accepted besides loopback names and the bind address."""
    allowed_origins: tuple[Origin, ...] = ()
    """Exact Origin values of web pages that may call; none by default, because a browser is an attacker on loopback."""
    header_timeout: Seconds = 10.0
    """Seconds within which a request's headers must have arrived."""
    body_timeout: Seconds = 30.0
    """Seconds within which a request's body must have arrived, beside those that ``body_min_rate`` gives it."""
    body_min_rate: Count = 16_384
    """Bytes a second. Each such number of bytes of a body that has arrived gives its client a second more than
    ``body_timeout``, so that large uploads have the time that they need and clients that send next to nothing do not.
    128 kbit/s: slower links are not worth a connection for as long as they would take."""
    idle_timeout: Seconds = 60.0
    """Seconds that a connection may stay open between requests."""
    write_timeout: Seconds = 30.0
    """Seconds within which a client must take the bytes of an answer."""
    max_connections: Count = 8192
    """Open connections; at the limit the longest idle one is closed."""
    max_connections_per_client: Count = 4096
    """Open connections from one remote address; half of the whole, so that no single client takes it all."""
    shutdown_timeout: SecondsOrZero = 30.0
    """Seconds that a drain waits for calls in flight, as in serverfull (Go)."""
    admin_address: NoAddress = ""
    """``host:port`` of a second listener for health, metrics and info, in a thread of its own, so that it answers
    even while a handler blocks the server's loop. Whoever reaches that address may read all of it. Empty: those paths
    are on the main port alone."""
    workers: Count = 1
    """Processes that share the port. More than one needs functions known at start, and ``serverfull serve`` imports
    them in each. Limits of concurrency and of lost threads hold for all processes together. ``max_connections``,
    ``max_connections_per_client``, ``event_backlog`` and ``function_event_backlog`` are divided among them,
    ``admin_address`` is the first one's. One that dies is replaced. ``/metrics`` has the figures of all, whichever
    answers; those of connections, look-ups and processes that it gets from the others are up to a second old."""

    @property
    def on_loopback(self) -> bool:
        """Whether the bind address is reachable from this machine alone."""
        import ipaddress

        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False


class FunctionSettings(_Theme):
    """Defaults of functions that do not say otherwise."""

    timeout: Annotated[float, Range(above=0, most=limits.MAX_TIMEOUT)] = limits.DEFAULT_TIMEOUT
    """Seconds, as AWS's default."""
    memory_size: Annotated[int, Range(least=limits.MIN_MEMORY_MB, most=limits.MAX_MEMORY_MB)] = limits.DEFAULT_MEMORY_MB
    """MB, as AWS's default."""
    region: Region = "us-east-1"
    """Region for requests that carry no credential scope."""
    account: Account = "000000000000"
    """Account for requests whose access key id is not twelve digits."""


class LimitSettings(_Theme):
    """How much may happen at once."""

    max_concurrency: Count = 1000
    """Invocations of all functions at once, as AWS's default for an account and region."""
    max_lost_threads: Annotated[int, Range(least=0)] = 10
    """Threads that a function may have stuck beyond their timeout before it is marked Failed."""
    event_backlog: Count = 100_000
    """Event invocations waiting, those that wait for a retry among them; beyond it callers get 429."""
    function_event_backlog: Count = 50_000
    """The same of one function, in an account and region: half, so that none takes all of it."""
    loop_stall: Seconds = 0.25
    """Seconds without a heartbeat of the server's loop after which the watchdog reports a stall."""
    log_bytes: Annotated[int, Range(least=0)] = 1_048_576
    """Bytes of log that one invocation may write; what is over is counted and dropped."""
    account_concurrency: Count = 1000
    """Executions at once that an account has in a region, as GetAccountSettings shows them: what its deployed functions
    can reserve."""
    minimum_unreserved: Annotated[int, Range(least=0)] = 100
    """Executions of these that deployed functions cannot reserve."""
    account_code_bytes: Count = 80_530_636_800
    """Bytes of packages that an account may keep in a region, as GetAccountSettings shows them: each version of a
    function or layer takes as many as its package has. 75 GB, as on AWS."""


class StateSettings(_Theme):
    """Where what is deployed through the management API is kept."""

    path: str = ""
    """A directory, or ``memory`` for until the host ends. Nothing: the directory ``.serverfull`` where ``serve`` has no
    TARGET, memory where it has one."""
    code_store: CodeStoreUrl = ""
    """``s3://bucket/prefix``: deployment packages are kept there. Nothing: they are kept beside the state."""


class S3Settings(_Theme):
    """How the host follows code that lies in S3. ``docs/s3.md`` has the whole."""

    sync: bool = True
    """Whether a function that was made of an object (``S3Bucket`` and ``S3Key``, without ``S3ObjectVersion``) gets its
    code again when the object changes. AWS never does that; whoever edits a function and uploads it is glad of it."""
    sync_interval: Seconds = 2.0
    """Seconds between two looks at the object of a function that was called in the last minute. Each is a request to
    S3."""
    sync_idle_interval: Seconds = 30.0
    """The same of other functions. A call makes the host look at once where there has been none for a minute."""
    refresh: Seconds = 2.0
    """Seconds for which a function of a TARGET in S3 is called as it was seen. The next call then has it looked at
    again, in the background."""
    absent: Seconds = 2.0
    """Seconds for which a name is taken to be none that was not there."""
    max_age: Seconds = 60.0
    """Seconds after which a function is not called any more before it was looked at, unless S3 does not answer."""


class EventSettings(_Theme):
    """What becomes of ``Event`` invocations between the 202 and the function. ``docs/events.md`` has the whole."""

    path: str = ""
    """A directory that keeps events until they have run, or ``memory`` for until the host ends. Nothing: the folder
    ``events`` of ``state.path``, or memory where that names none. One host at a time has it."""
    synchronous: Literal["full", "normal"] = "full"
    """``full``: the 202 is sent when the event is on the disk, so that it survives a power loss. ``normal``: when the
    system has it, which survives the end of the host, however it ends, but neither a power loss nor a crash of the
    system. It takes a fraction of the time."""
    base_delay: SecondsOrZero = 60.0
    """Seconds before a function that has failed is tried again; before the second time it is twice as long. As on
    AWS."""
    keep: Seconds = 1_209_600.0
    """Seconds that events stay for the operator which were given up and had no destination and no dead-letter queue, or
    could not be delivered to them. Two weeks, as long as a dead-letter queue keeps them at most."""


class ExecutionSettings(_Theme):
    """How the code of deployed functions is run. So is that of TARGETs but those in
    Python, which run in the host's process."""

    mode: Literal["auto", "inprocess", "process", "docker"] = "auto"
    """``process``: in processes of their own; ``inprocess``: in the host's, where nothing holds them; ``docker``: in
    containers. ``auto``: in processes, but for functions that are container images, and those whose interpreter is not
    here and that ``docker.images`` has an image for. A function's tag ``serverfull:execution`` chooses for that
    function."""
    other_python: Literal["use", "error"] = "use"
    """For functions whose Python is not on this machine: ``use`` the host's own Python and say so in the log, or take
    that for an ``error``. ``serverfull doctor`` shows which there are."""
    client: Literal["own", "awslambdaric"] = "own"
    """What connects a handler with the host: our ``own`` runtime client, which is faster, or AWS's ``awslambdaric``,
    which that Python, the function's package or one of its layers has to have; for Node.js it is npm's
    ``aws-lambda-ric``, in the package or a layer. A function's tag ``serverfull:client`` chooses for that function."""
    sandbox: Literal["none", "limits", "strict"] = "limits"
    """``limits``: a process has the memory, files, processes and ``/tmp`` of its function and no more, and ends with
    the host. ``strict``: besides it sees no file of the machine but programs and its own code, no other process and no
    network, and the kernel refuses it what could lead out; where the machine cannot do that, the host does not start.
    ``none``: it has what the host's user has."""
    idle_timeout: Seconds = 300.0
    """Seconds without an invocation after which an environment ends. AWS says no figure; five minutes are about what is
    seen there."""
    snapshot_idle_timeout: Seconds = 3600.0
    """Seconds after which the snapshot of a version with SnapStart, of which no environment was made, gives back its
    memory; the next environment waits until it is made again. An hour, because one costs what the loaded code takes.
    0: never."""
    max_environments: Annotated[int, Range(least=0)] = 0
    """Environments of one function at once, beyond which callers get 429; 0: as many as its concurrency allows."""
    ephemeral: bool = False
    """A new environment for each invocation, so that none sees what another one left behind."""
    recycle_after: Annotated[int, Range(least=0)] = 0
    """Invocations after which an environment is replaced, for code that leaks; 0: never."""
    recycle_mb: Annotated[int, Range(least=0)] = 0
    """MB of memory after which an environment is replaced, once its invocation is over; 0: never."""


class AwsSettings(_Theme):
    """What deployed functions reach AWS with, or what stands for it. A function's own variables win over all of it."""

    credentials: Literal["none", "static", "passthrough", "profile"] = "none"
    """``none``: a function finds no credentials but those that it brings, because a host must not lend its own unasked.
    ``static``: the three values that follow. ``passthrough``: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY`` and
    ``AWS_SESSION_TOKEN`` of the host's own environment. ``profile``: the files in ``profile_folder``, and no keys."""
    access_key_id: str = "test"
    """The access key id of ``static``. Services that imitate AWS's take anything."""
    secret_access_key: str = field(default="test", repr=False)
    """The secret access key of ``static``."""
    session_token: str = field(default="test", repr=False)
    """The session token of ``static``. Nothing: functions find none."""
    profile_folder: str = "~/.aws"
    """The folder whose files ``credentials`` and ``config`` functions read with ``profile``: for processes
    ``AWS_SHARED_CREDENTIALS_FILE`` and ``AWS_CONFIG_FILE`` name them."""
    profile: str = ""
    """``AWS_PROFILE`` of functions with ``profile``. Nothing: SDKs take the profile ``default``."""
    endpoint_url: NoUrl = ""
    """``AWS_ENDPOINT_URL`` of functions: what SDKs call instead of AWS. Nothing: SDKs call AWS."""
    endpoints: tuple[ServiceUrl, ...] = ()
    """What SDKs call for single services: ``S3=URL`` is ``AWS_ENDPOINT_URL_S3`` of functions, which wins over
    ``endpoint_url``. The names are those of SDKs, such as ``DYNAMODB`` or ``CLOUDWATCH_LOGS``; others are refused."""


class DestinationSettings(_Theme):
    """Where the services are that destinations and dead-letter queues of asynchronous invocations are at, and who the
    host is there. ``docs/destinations.md`` has the whole; what functions themselves call is ``aws``."""

    endpoint_url: AwsUrl = ""
    """The URL of a server that stands for SQS, SNS, EventBridge and S3, or ``aws`` for AWS's own. Nothing: what has no
    endpoint in ``endpoints`` either is refused as a destination, because a host must not send events anywhere, nor use
    the credentials of its user, unasked. Functions of this host are destinations without any of this."""
    endpoints: tuple[DestinationUrl, ...] = ()
    """The same for single services, which wins: ``SQS=http://localhost:9324``, ``S3=aws``. The names are ``SQS``,
    ``SNS``, ``EVENTBRIDGE`` and ``S3``."""
    profile: str = ""
    """The profile that the host has credentials from. Nothing: they are those of ``access_key_id``, or else those that
    AWS's tools find on this machine; a server that is not AWS's is called without where there are none."""
    access_key_id: str = ""
    """The access key id of the host, with ``secret_access_key``."""
    secret_access_key: str = field(default="", repr=False)
    """The secret access key of the host."""
    session_token: str = field(default="", repr=False)
    """The session token that goes with them, if there is one."""
    timeout: Seconds = 10.0
    """Seconds that a service may take to answer; the delivery is tried again later then, and what else is meant for
    that target is left for as long."""


class DependencySettings(_Theme):
    """What is done where an uploaded package says what it needs, and does not bring it. ``docs/dependencies.md`` has
    the whole."""

    install: Literal["off", "on"] = "off"
    """``on``: what ``requirements.txt``, ``pyproject.toml`` or ``package.json`` of a package names is installed when
    the function is deployed. ``off``, because the host then fetches what whoever deploys names, and because AWS does
    not do it."""
    timeout: Seconds = 300.0
    """Seconds that an installation may take before it is ended and the function is Failed."""
    python_installer: Literal["auto", "uv", "pip"] = "auto"
    """What installs for Python. ``pip`` is that of the Python which runs the function. ``auto``: uv where the host's
    PATH has it, which is several times as fast, else pip."""
    python_index: IndexUrl = ""
    """URL of the package index for Python, such as ``https://pypi.example/simple``. Nothing: the one that pip or uv is
    configured to ask on this machine. Credentials belong into their configuration or into ``.netrc``."""
    node_registry: IndexUrl = ""
    """URL of the registry for Node.js. Nothing: the one that npm is configured to ask on this machine."""
    max_mb: Count = 250
    """MB that what is installed for a function may have; four times that while it is being installed. As many as a
    package and its layers may have together on AWS."""
    keep: Seconds = 604_800.0
    """Seconds that an installation stays after the last function that used it is gone. A week, so that one that is
    deployed again needs no index."""
    cache_mb: Annotated[int, Range(least=0)] = 1024
    """MB of what installers have fetched that are kept for the next installation; it is emptied when it has more."""


class HotReloadSettings(_Theme):
    """Functions and layers that run in place, from folders of this machine. ``docs/hot-reload.md`` has the whole."""

    allowed_paths: tuple[FolderPath, ...] = ()
    """Folders below which a deployment may name one as its code, by the bucket ``hot-reload`` or ``__local__`` and its
    path as the key. A path with a space in it is written as JSON. Empty: none, and these are buckets like all others,
    because whoever deploys would choose what of the machine a function runs. Needs ``serverfull[reload]``."""
    marker: BucketName = ""
    """One more bucket that means a folder, such as ``hot-code``, for tools that take no other name. Nothing: there is
    none."""


class DockerSettings(_Theme):
    """How containers are made, for functions that run in Docker. Needs ``serverfull[docker]``."""

    engine: EngineUrl = "unix:///var/run/docker.sock"
    """The Unix socket of the Docker engine, which has to be on this machine: containers see folders of it."""
    images: tuple[ImageMapping, ...] = ()
    """``RUNTIME=IMAGE`` for each runtime that has another image than AWS's own, ``public.ecr.aws/lambda/…``. With
    ``execution.mode`` ``auto``, functions run in these where their interpreter is not on this machine."""
    pull: Literal["missing", "always", "never"] = "missing"
    """When the engine pulls the image of a function that is deployed: where it has none, ``always``, or ``never``. With
    ``always`` an image that no registry has fails its function, as one does that was built on this machine. The
    credentials are those of ``docker login`` of the host's user."""
    registries: tuple[RegistryName, ...] = ()
    """Registries that the engine may be sent to for an image, as they stand in names of images: ``public.ecr.aws``,
    ``localhost:5000``; ``docker.io`` is that of names without one. Empty: all, and so any address that a deployment
    names, as seen from this machine."""
    network: NetworkName = ""
    """The engine's network that containers are in, which has to be a bridge of this machine; or ``none``: only Python
    functions run then, by our own client. Empty: ``bridge``, but ``none`` where ``execution.sandbox`` is ``strict``, as
    code has no network then unless it is given one here. Never the host's own network."""
    extra_hosts: tuple[HostMapping, ...] = ()
    """``NAME:ADDRESS`` of hosts that containers know beside those of their name servers; the address
    ``host-gateway`` is this machine's."""
    dns: tuple[IpAddress, ...] = ()
    """Addresses of the name servers that containers ask. Empty: those that the engine gives them."""
    dns_suffixes: tuple[DomainName, ...] = ()
    """Names that are this machine to containers, with all names below them: ``localhost.localstack.cloud`` also stands
    for ``bucket.localhost.localstack.cloud``. A name server of the host's own says so, on port 53 of this machine's
    address in ``network``; everything else it asks those of ``dns``, or of this machine. Empty: there is none."""
    user: UserNumbers = "993:990"
    """User and group of containers, as numbers: those of AWS, which own nothing: files of a package have to be readable
    for all, as there."""
    volumes: tuple[VolumeMapping, ...] = ()
    """``/HERE:/THERE`` or ``/HERE:/THERE:ro``: folders of this machine that all containers see. What is in them is
    open to every function."""
    keep: Annotated[int, Range(least=0)] = 0
    """Containers that are kept when they have ended, for ``docker inspect`` and ``docker cp``; older ones are removed,
    and all of them when the next host finds that this one is gone."""


class ReloadSettings(_Theme):
    """How changes of code that is served from folders are noticed. Needs ``serverfull[reload]``."""

    debounce_ms: Annotated[int, Range(least=1, most=10_000)] = 30
    """Milliseconds without a further change after which a burst of changes is over and taken up; one that does not end
    is taken up after ten times as many. Editors and tools write several files in a few milliseconds."""
    include: tuple[str, ...] = ()
    """Patterns as in ``.gitignore`` of files that count, such as ``*.py``. Empty: all files."""
    exclude: tuple[str, ...] = (
        ".git",
        ".hg",
        ".svn",
        "__pycache__",
        "node_modules",
        ".venv",
        "venv",
        ".tox",
        ".nox",
        ".*_cache",
        ".idea",
        ".vscode",
        ".serverfull",
        ".terraform",
        "*.py[co]",
        "*.sw[a-p]",
        "*~",
        ".#*",
        ".*.kate-swp",
        ".goutputstream-*",
        "*___jb_*___",
        "4913",
        ".DS_Store",
    )
    """Patterns as in ``.gitignore`` of what does not count and is not looked into: what tools and editors write beside
    the code, and what is large and seldom changed by hand."""
    gitignore: bool = True
    """What ``.gitignore`` files in a watched folder and below it leave out does not count. Those above it do not
    matter, so that a folder of built code may be watched."""
    polling: bool = False
    """Look at all files every ``poll_interval`` instead of having the kernel tell: for network mounts, where it hears
    nothing of other machines. Done by itself, with a line in the log, where the kernel refuses to watch so much."""
    poll_interval: Seconds = 1.0
    """Seconds between two such looks."""
    builds: bool = False
    """Run the build commands that functions in served folders have (``Build`` in ``function.json``) when their sources
    change. Off by default, as they run outside of every sandbox, as the host's user."""
    build_timeout: Seconds = 300.0
    """Seconds that a build command may take before all that it has started is killed."""
    generation_header: bool = False
    """Say with the header ``X-Serverfull-Code-Generation`` of each answer to Invoke which generation of the function's
    code has given it: 1 at first, one more with each change that the host has noticed. For development: answers
    without it are faster."""


class MockSettings(_Theme):
    """Mock mode: typed answers without running any handler, for the tests of those who call the functions."""

    enabled: bool = False
    """Answer without running handlers."""
    answers: str = "zero"
    """``zero``: the zero value of each result's type; ``random``: random values that are valid; anything else is the
    path of a JSON file with an answer under each function's name, or of a folder with a file ``NAME.json`` for each."""
    seed: int = 0
    """Makes random answers repeatable: with the same seed, each function gives the same sequence of answers. With
    several workers each of them gives that sequence."""


class LoggingSettings(_Theme):
    """The host's own log (standard error) and the functions' log (standard output)."""

    level: Literal["DEBUG", "INFO", "WARN", "ERROR"] = "INFO"
    """Least level of the host's own log."""
    output: Literal["STDOUT", "STDERR", "NULL"] = "STDERR"
    """Where the host's own log goes. STDERR, because standard output is the functions'."""
    format: Literal["auto", "console", "json"] = "auto"
    """``auto``: console on a terminal, JSON otherwise."""
    functions: Literal["STDOUT", "STDERR", "NULL"] = "STDOUT"
    """Where the functions' log goes, beside the files and CloudWatch Logs."""
    files: str = ""
    """A directory: the functions' log is kept there too, in a file for each function, where ``serverfull logs`` finds
    it again after a restart. Nothing: no files."""
    files_size: Annotated[int, Range(least=4096)] = 10_000_000
    """Bytes after which a function's file is full, and the next one begins."""
    files_count: Annotated[int, Range(least=2)] = 5
    """How many files are kept of each function, the newest included."""
    cloudwatch: AwsUrl = ""
    """The URL of a CloudWatch Logs endpoint, or ``aws`` for AWS's own: the functions' log is sent there too, in the
    background. Needs ``serverfull[cloudwatch]``. Nothing: it is not."""
    color: bool = True
    """Colours where the host's log goes to a terminal. ``NO_COLOR`` in the environment switches them off."""


class StatsSettings(_Theme):
    """DogStatsD output beside Prometheus."""

    output: Literal["NULLSTAT", "DATADOG"] = "NULLSTAT"
    """``DATADOG`` sends every figure there too; ``NULLSTAT`` sends nothing."""
    datadog_address: Address = "localhost:8125"
    """``host:port`` of the agent; UDP, so nothing waits for it and nothing fails where there is none. A name that means
    no address is said in the host's log."""
    datadog_packetsize: Count = 32768
    """Bytes of one UDP packet at most."""
    datadog_flushinterval: Seconds = 10.0
    """Seconds between flushes."""
    datadog_tags: tuple[str, ...] = ()
    """Tags (``name:value``) added to every figure."""


class SignalSettings(_Theme):
    """Which signals end the host."""

    installed: tuple[Literal["OS"], ...] = ("OS",)
    """``OS``: the signals below are handled; empty: none are, for hosts embedded in another program."""
    os_signals: tuple[SignalNumber, ...] = (15, 2)
    """Signal numbers that start a drain; the second one ends at once."""


class ConnstateSettings(_Theme):
    """The figures about client connections: how often they are reported and what they are called."""

    reportinterval: Seconds = 5.0
    """Seconds between reports of the gauges."""
    hijackedcounter: str = "http.server.connstate.hijacked"
    """Name of the counter of connections that became upgraded away from HTTP."""
    closedcounter: str = "http.server.connstate.closed"
    """Name of the counter of connections that became closed."""
    idlecounter: str = "http.server.connstate.idle"
    """Name of the counter of connections that became idle."""
    activecounter: str = "http.server.connstate.active"
    """Name of the counter of connections that became active."""
    newcounter: str = "http.server.connstate.new"
    """Name of the counter of connections that became new."""
    idlegauge: str = "http.server.connstate.idle.gauge"
    """Name of the gauge of connections that are idle now."""
    activegauge: str = "http.server.connstate.active.gauge"
    """Name of the gauge of connections that are active now."""
    newgauge: str = "http.server.connstate.new.gauge"
    """Name of the gauge of connections that are new now."""


class ExpvarSettings(_Theme):
    """The figures about the process: how often they are reported and what they are called.

    The names are those of serverfull (Go), whose dashboards keep working. Where CPython has no such figure, the text
    says which one stands for it.
    """

    reportinterval: Seconds = 5.0
    """Seconds between reports."""
    alloc: str = "go_expvar.memstats.alloc"
    """Name of the figure: bytes allocated and in use."""
    frees: str = "go_expvar.memstats.frees"
    """Name of the figure: number of frees."""
    heapalloc: str = "go_expvar.memstats.heap_alloc"
    """Name of the figure: bytes allocated on the heap."""
    heapidle: str = "go_expvar.memstats.heap_idle"
    """Name of the figure: heap bytes that hold nothing."""
    heapinuse: str = "go_expvar.memstats.heap_inuse"
    """Name of the figure: heap bytes in use."""
    heapobject: str = "go_expvar.memstats.heap_objects"
    """Name of the figure: number of objects on the heap."""
    heaprealeased: str = "go_expvar.memstats.heap_released"
    """Name of the figure: bytes given back to the system (spelt as in Go)."""
    heapstats: str = "go_expvar.memstats.heap_sys"
    """Name of the figure: heap bytes taken from the system."""
    lookups: str = "go_expvar.memstats.lookups"
    """Name of the figure: number of pointer lookups."""
    mallocs: str = "go_expvar.memstats.mallocs"
    """Name of the figure: number of allocations."""
    numgc: str = "go_expvar.memstats.num_gc"
    """Name of the figure: number of garbage collections."""
    pausens: str = "go_expvar.memstats.pause_ns"
    """Name of the figure: length of the last garbage collection, in nanoseconds."""
    pausetotalns: str = "go_expvar.memstats.pause_total_ns"
    """Name of the figure: time spent in garbage collections, in nanoseconds."""
    totalalloc: str = "go_expvar.memstats.total_alloc"
    """Name of the figure: bytes ever allocated."""
    goroutinesexists: str = "go_expvar.goroutines.exists"
    """Name of the figure: number of asyncio tasks and threads."""


class ClientSettings(_Theme):
    """What the commands that call a host talk to, such as ``serverfull invoke`` and ``serverfull deploy``."""

    endpoint: Url = "http://127.0.0.1:8080"
    """Where the host listens. The environment's AWS_ENDPOINT_URL_LAMBDA and AWS_ENDPOINT_URL count too, as for SDKs."""
    timeout: Seconds = 60.0
    """Seconds to wait for an answer, as the AWS CLI does."""


class LambdaModeSettings(_Theme):
    """What runs as a native Lambda. There only the environment counts, and no file."""

    target: str = ""
    """TARGET, as ``serverfull serve`` takes it, where a Lambda-managed runtime names
    ``serverfull.lambda_mode.handler.handler`` as its handler. Empty: what ``serverfull build`` put into the
    artifact."""
    function: str = ""
    """The function of TARGET that is run. Empty: the only one."""
    metrics_namespace: Namespace = "serverfull"
    """CloudWatch namespace of the figures that handlers make with ``serverfull.metrics()``."""


class Settings(_Theme):
    """Everything that can be configured."""

    server: ServerSettings = field(default_factory=ServerSettings)
    functions: FunctionSettings = field(default_factory=FunctionSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    state: StateSettings = field(default_factory=StateSettings)
    s3: S3Settings = field(default_factory=S3Settings)
    events: EventSettings = field(default_factory=EventSettings)
    execution: ExecutionSettings = field(default_factory=ExecutionSettings)
    aws: AwsSettings = field(default_factory=AwsSettings)
    destinations: DestinationSettings = field(default_factory=DestinationSettings)
    dependencies: DependencySettings = field(default_factory=DependencySettings)
    hot_reload: HotReloadSettings = field(default_factory=HotReloadSettings)
    docker: DockerSettings = field(default_factory=DockerSettings)
    reload: ReloadSettings = field(default_factory=ReloadSettings)
    mock: MockSettings = field(default_factory=MockSettings)
    logging: LoggingSettings = field(default_factory=LoggingSettings)
    stats: StatsSettings = field(default_factory=StatsSettings)
    signals: SignalSettings = field(default_factory=SignalSettings)
    connstate: ConnstateSettings = field(default_factory=ConnstateSettings)
    expvar: ExpvarSettings = field(default_factory=ExpvarSettings)
    client: ClientSettings = field(default_factory=ClientSettings)
    lambda_mode: LambdaModeSettings = field(default_factory=LambdaModeSettings)
