"""The settings, as one frozen dataclass per theme. Each field says its unit, what None means and why that default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where the host listens and how long it waits for clients."""

    host: str = "127.0.0.1"
    """Address to bind. Loopback, because the host runs code for whoever reaches it."""
    port: int = 8080
    """TCP port; 0 lets the system choose and the ready line tells which."""
    insecure_no_auth: bool = False
    """Allow a bind that other machines can reach although nothing authenticates them."""
    health_check: str = "/healthcheck"
    """Path that always answers 200 while the host serves."""
    allowed_hosts: tuple[str, ...] = ()
    """Host header values (names without port) accepted besides loopback names and the bind address."""
    allowed_origins: tuple[str, ...] = ()
    """Exact Origin values of web pages that may call; none by default, because a browser is an attacker on loopback."""
    header_timeout: float = 10.0
    """Seconds within which a request's headers must have arrived."""
    body_timeout: float = 30.0
    """Seconds within which a request's body must have arrived."""
    idle_timeout: float = 60.0
    """Seconds that a connection may stay open between requests."""
    write_timeout: float = 30.0
    """Seconds within which a client must take the bytes of an answer."""
    max_connections: int = 8192
    """Open connections; at the limit the longest idle one is closed."""
    max_connections_per_client: int = 4096
    """Open connections from one remote address; half of the whole, so that no single client takes it all."""
    shutdown_timeout: float = 30.0
    """Seconds that a drain waits for calls in flight, as in serverfull (Go)."""
    admin_address: str = ""
    """``host:port`` of a second listener for health, metrics and info, in a thread of its own, so that it answers
    even while a handler blocks the server's loop. Empty: those paths are on the main port alone."""
    workers: int = 1
    """Processes that share the port. More than one needs functions known at start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionSettings:
    """Defaults of functions that do not say otherwise."""

    timeout: float = 3.0
    """Seconds, as AWS's default."""
    memory_size: int = 128
    """MB, as AWS's default."""
    region: str = "us-east-1"
    """Region for requests that carry no credential scope."""
    account: str = "000000000000"
    """Account for requests whose access key id is not twelve digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """How much may happen at once."""

    max_concurrency: int = 1000
    """Invocations of all functions at once, as AWS's default for an account and region."""
    max_lost_threads: int = 10
    """Threads that a function may have stuck beyond their timeout before it is marked Failed."""
    event_backlog: int = 10_000
    """Event invocations waiting; beyond it callers get 429."""
    loop_stall: float = 0.25
    """Seconds without a heartbeat of the server's loop after which the watchdog reports a stall."""
    log_bytes: int = 1_048_576
    """Bytes of log that one invocation may write; what is over is counted and dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingSettings:
    """The host's own log (standard error) and the functions' log (standard output)."""

    level: Literal["DEBUG", "INFO", "WARN", "ERROR"] = "INFO"
    """Least level of the host's own log."""
    output: Literal["STDOUT", "STDERR", "NULL"] = "STDERR"
    """Where the host's own log goes. STDERR, because standard output is the functions'."""
    format: Literal["auto", "console", "json"] = "auto"
    """``auto``: console on a terminal, JSON otherwise."""
    functions: Literal["STDOUT", "STDERR", "NULL"] = "STDOUT"
    """Where the functions' log goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsSettings:
    """DogStatsD output beside Prometheus."""

    output: Literal["NULLSTAT", "DATADOG"] = "NULLSTAT"
    datadog_address: str = "localhost:8125"
    datadog_packetsize: int = 32768
    """Bytes of one UDP packet at most."""
    datadog_flushinterval: float = 10.0
    """Seconds between flushes."""
    datadog_tags: tuple[str, ...] = ()
    """Tags (``name:value``) added to every figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalSettings:
    """Which signals end the host."""

    installed: tuple[str, ...] = ("OS",)
    """``OS``: the signals below are handled; empty: none are, for hosts embedded in another program."""
    os_signals: tuple[int, ...] = (15, 2)
    """Signal numbers that start a drain; the second one ends at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be configured."""

    server: ServerSettings = field(default_factory=ServerSettings)
    functions: FunctionSettings = field(default_factory=FunctionSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    logging: LoggingSettings = field(default_factory=LoggingSettings)
    stats: StatsSettings = field(default_factory=StatsSettings)
    signals: SignalSettings = field(default_factory=SignalSettings)
