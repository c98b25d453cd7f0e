from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from serverfull.config import Settings, load
from serverfull.config.names import go_variables, setting_keys
from serverfull.errors import ConfigurationError

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, text: str) -> Path:
        (tmp_path / name).write_text(dedent(text))
        return tmp_path / name

    return write


def get(settings: Settings, key: str) -> Any:
    group, field = key.split(".")
    return getattr(getattr(settings, group), field)


def test_without_any_source_all_values_are_defaults(tmp_path: Path) -> None:
    loaded = load({}, {}, tmp_path)
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}
    assert len(loaded.origins) == sum(len(fields(group.default_factory)) for group in fields(Settings))


def test_a_flag_beats_the_environment_which_beats_a_file_which_beats_the_default(tmp_path: Path, write: Write) -> None:
    write("serverfull.toml", "[server]\nport = 1\nworkers = 2\nmax_connections = 3\n")
    environ = {"SERVERFULL_SERVER__PORT": "11", "SERVERFULL_SERVER__WORKERS": "12"}
    loaded = load({"server.port": 21}, environ, tmp_path)
    server = loaded.settings.server
    assert (server.port, server.workers, server.max_connections, server.idle_timeout) == (21, 12, 3, 60.0)
    assert [loaded.origins[f"server.{name}"] for name in ("port", "workers", "max_connections", "idle_timeout")] == [
        "flag --port",
        "environment SERVERFULL_SERVER__WORKERS",
        "serverfull.toml: server.max_connections",
        "default",
    ]


def test_a_flag_that_was_not_given_is_no_value(tmp_path: Path) -> None:
    assert load({"server.port": None, "config": None}, {}, tmp_path).origins["server.port"] == "default"


@pytest.mark.parametrize(
    ("environ", "key", "value"),
    [
        ({"SERVERFULL_SERVER__HOST": "::1"}, "server.host", "::1"),
        ({"SERVERFULL_SERVER__INSECURE_NO_AUTH": "yes"}, "server.insecure_no_auth", True),
        (
            {"SERVERFULL_SERVER__ALLOWED_HOSTS": "a.example, b.example"},
            "server.allowed_hosts",
            ("a.example", "b.example"),
        ),
        ({"SERVERFULL_SERVER__ALLOWED_HOSTS": '["a.example"]'}, "server.allowed_hosts", ("a.example",)),
        ({"SERVERFULL_SERVER__SHUTDOWN_TIMEOUT": "1m30s"}, "server.shutdown_timeout", 90.0),
        ({"SERVERFULL_SERVER__SHUTDOWN_TIMEOUT": "0"}, "server.shutdown_timeout", 0.0),
        ({"SERVERFULL_FUNCTIONS__TIMEOUT": "250ms"}, "functions.timeout", 0.25),
        ({"SERVERFULL_LOGGING__LEVEL": "debug"}, "logging.level", "DEBUG"),
        ({"SERVERFULL_FUNCTIONS__ACCOUNT": "123456789012"}, "functions.account", "123456789012"),
        ({"SERVERFULL_SIGNALS__INSTALLED": ""}, "signals.installed", ()),
        ({"SERVERFULL_ENDPOINT": "http://h:1"}, "client.endpoint", "http://h:1"),
        ({"PORT": "9000"}, "server.port", 9000),
        ({"PORT": ""}, "server.port", 8080),
        ({"AWS_REGION": "eu-west-1"}, "functions.region", "eu-west-1"),
        ({"AWS_DEFAULT_REGION": "eu-west-2"}, "functions.region", "eu-west-2"),
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"}, "functions.region", "eu-west-1"),
        ({"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_LAMBDA": "http://b"}, "client.endpoint", "http://b"),
        ({"AWS_ENDPOINT_URL_LAMBDA": "http://b", "SERVERFULL_ENDPOINT": "http://c"}, "client.endpoint", "http://c"),
        ({"NO_COLOR": "1"}, "logging.color", False),
        ({"NO_COLOR": ""}, "logging.color", True),
    ],
)
def test_the_environment_is_read(tmp_path: Path, environ: Mapping[str, str], key: str, value: object) -> None:
    found = get(load({}, environ, tmp_path).settings, key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("number", [9, 19, 0, -1, 33, 64_000])
def test_a_number_that_is_no_signal_or_one_that_nobody_can_handle_is_refused(tmp_path: Path, number: int) -> None:
    name = "SERVERFULL_RUNTIME_SIGNALS_OS_SIGNALS"
    with pytest.raises(ConfigurationError, match=f"{name}: '15 {number}' is not .* signals that can be handled"):
        load({}, {name: f"15 {number}"}, tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "key", "value"),
    [
        ("LOGGER_LEVEL", "WARN", "logging.level", "WARN"),
        ("LOGGING_LEVEL", "ERROR", "logging.level", "ERROR"),
        ("LOGGER_OUTPUT", "NULL", "logging.output", "NULL"),
        ("STATS_OUTPUT", "DATADOG", "stats.output", "DATADOG"),
        ("STATS_DATADOG_ADDRESS", "agent:9125", "stats.datadog_address", "agent:9125"),
        ("STATS_DATADOG_ADDRESS", "[::1]:65535", "stats.datadog_address", "[::1]:65535"),
        ("STATS_DATADOG_PACKETSIZE", "1432", "stats.datadog_packetsize", 1432),
        ("STATS_DATADOG_FLUSHINTERVAL", "500ms", "stats.datadog_flushinterval", 0.5),
        ("STATS_DATADOG_TAGS", "env:prod team:a", "stats.datadog_tags", ("env:prod", "team:a")),
        ("SIGNALS_INSTALLED", "OS", "signals.installed", ("OS",)),
        ("SIGNALS_OS_SIGNALS", "1 15", "signals.os_signals", (1, 15)),
        ("CONNSTATE_REPORTINTERVAL", "7s", "connstate.reportinterval", 7.0),
        ("CONNSTATE_HIJACKEDCOUNTER", "x", "connstate.hijackedcounter", "x"),
        ("CONNSTATE_IDLEGAUGE", "x", "connstate.idlegauge", "x"),
        ("EXPVAR_REPORTINTERVAL", "1m", "expvar.reportinterval", 60.0),
        ("EXPVAR_HEAPREALEASED", "x", "expvar.heaprealeased", "x"),
        ("EXPVAR_GOROUTINESEXISTS", "x", "expvar.goroutinesexists", "x"),
    ],
)
def test_the_names_of_the_ancestor_are_honoured(tmp_path: Path, name: str, text: str, key: str, value: object) -> None:
    loaded = load({}, {f"SERVERFULL_RUNTIME_{name}": text}, tmp_path)
    assert get(loaded.settings, key) == value
    assert loaded.origins[key] == f"environment SERVERFULL_RUNTIME_{name}"


@pytest.mark.parametrize("path", ["/", "/up", "/v1/status", "/health.json", "/metrics-of-mine", "/2015"])
def test_the_health_check_may_have_any_path_that_is_free(tmp_path: Path, path: str) -> None:
    assert load({}, {"SERVERFULL_SERVER__HEALTH_CHECK": path}, tmp_path).settings.server.health_check == path


@pytest.mark.parametrize(
    "path",
    [
        "up",
        "/metrics",
        "/_serverfull/ready",
        "/_localstack/health",
        "/2015-03-31/functions",
        "/2015-03-31/functions/hello/invocations",
        "/{anything}",
        "/{",
        "/up?really=1",
        "/up#there",
        "/%75p",
    ],
)
def test_a_health_check_where_something_else_answers_or_nobody_would_find_it_is_refused(
    tmp_path: Path, path: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"SERVER__HEALTH_CHECK: .* is not a path such as /up"):
        load({}, {"SERVERFULL_SERVER__HEALTH_CHECK": path}, tmp_path)


@pytest.mark.parametrize(
    "names", ["lambda.example.com", "LAMBDA", "10.0.0.7", "::1", "::ffff:10.0.0.7", "a.example. b_1"]
)
def test_names_and_addresses_of_hosts_may_be_allowed(tmp_path: Path, names: str) -> None:
    found = load({}, {"SERVERFULL_SERVER__ALLOWED_HOSTS": names}, tmp_path).settings.server.allowed_hosts
    assert found == tuple(names.split())


@pytest.mark.parametrize("name", ["*", "*.example.com", "lambda.example.com:8080", "http://lambda.example.com", "a/b"])
def test_an_allowed_host_that_no_request_could_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"__ALLOWED_HOSTS: .* is not a list of names or addresses of hosts"):
        load({}, {"SERVERFULL_SERVER__ALLOWED_HOSTS": name}, tmp_path)


@pytest.mark.parametrize(
    "origin", ["https://app.example", "http://localhost:3000", "http://[::1]:3000", "null", "file://", "app+x://id"]
)
def test_origins_may_be_allowed(tmp_path: Path, origin: str) -> None:
    found = load({}, {"SERVERFULL_SERVER__ALLOWED_ORIGINS": origin}, tmp_path).settings.server.allowed_origins
    assert found == (origin,)


@pytest.mark.parametrize("origin", ["*", "https://*.example", "https://app.example/", "app.example", "HTTPS://a"])
def test_an_allowed_origin_that_no_browser_could_send_is_refused(tmp_path: Path, origin: str) -> None:
    with pytest.raises(ConfigurationError, match=r"__ALLOWED_ORIGINS: .* is not a list of origins such as https://app"):
        load({}, {"SERVERFULL_SERVER__ALLOWED_ORIGINS": origin}, tmp_path)


ANCESTOR = """
    HTTPSERVER_ADDRESS=:8080 CONNSTATE_REPORTINTERVAL=5s CONNSTATE_HIJACKEDCOUNTER=http.server.connstate.hijacked
    CONNSTATE_CLOSEDCOUNTER=http.server.connstate.closed CONNSTATE_IDLEGAUGE=http.server.connstate.idle.gauge
    CONNSTATE_IDLECOUNTER=http.server.connstate.idle CONNSTATE_ACTIVEGAUGE=http.server.connstate.active.gauge
    CONNSTATE_ACTIVECOUNTER=http.server.connstate.active CONNSTATE_NEWGAUGE=http.server.connstate.new.gauge
    CONNSTATE_NEWCOUNTER=http.server.connstate.new EXPVAR_ALLOC=go_expvar.memstats.alloc
    EXPVAR_FREES=go_expvar.memstats.frees EXPVAR_HEAPALLOC=go_expvar.memstats.heap_alloc
    EXPVAR_HEAPIDLE=go_expvar.memstats.heap_idle EXPVAR_HEAPINUSE=go_expvar.memstats.heap_inuse
    EXPVAR_HEAPOBJECT=go_expvar.memstats.heap_objects EXPVAR_HEAPREALEASED=go_expvar.memstats.heap_released
    EXPVAR_HEAPSTATS=go_expvar.memstats.heap_sys EXPVAR_LOOKUPS=go_expvar.memstats.lookups
    EXPVAR_MALLOCS=go_expvar.memstats.mallocs EXPVAR_NUMGC=go_expvar.memstats.num_gc
    EXPVAR_PAUSENS=go_expvar.memstats.pause_ns EXPVAR_PAUSETOTALNS=go_expvar.memstats.pause_total_ns
    EXPVAR_TOTALALLOC=go_expvar.memstats.total_alloc EXPVAR_GOROUTINESEXISTS=go_expvar.goroutines.exists
    EXPVAR_REPORTINTERVAL=5s STATS_OUTPUT=NULLSTAT STATS_DATADOG_PACKETSIZE=32768 STATS_DATADOG_TAGS=
    STATS_DATADOG_FLUSHINTERVAL=10s STATS_DATADOG_ADDRESS=localhost:8125 SIGNALS_INSTALLED=OS LOGGER_LEVEL=INFO
"""


def test_the_documented_environment_of_the_ancestor_gives_our_defaults(tmp_path: Path) -> None:
    environ = dict(f"SERVERFULL_RUNTIME_{pair}".split("=") for pair in ANCESTOR.split())
    environ["SERVERFULL_RUNTIME_SIGNALS_OS_SIGNALS"] = "15 2"
    assert load({}, environ, tmp_path).settings == Settings()
    unset = set(go_variables()) - set(environ)
    assert unset == {"SERVERFULL_RUNTIME_LOGGING_LEVEL", "SERVERFULL_RUNTIME_LOGGER_OUTPUT"}


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [(":9000", "127.0.0.1", 9000), ("0.0.0.0:80", "0.0.0.0", 80), ("[::1]:80", "::1", 80), ("box:0", "box", 0)],
)
def test_the_ancestors_address_sets_host_and_port_and_an_empty_host_stays_loopback(
    tmp_path: Path, text: str, host: str, port: int
) -> None:
    server = load({}, {"SERVERFULL_RUNTIME_HTTPSERVER_ADDRESS": text}, tmp_path).settings.server
    assert (server.host, server.port) == (host, port)


def test_our_names_beat_the_ancestors_which_beat_those_of_other_programs(tmp_path: Path) -> None:
    environ = {"PORT": "1", "SERVERFULL_RUNTIME_HTTPSERVER_ADDRESS": ":2", "SERVERFULL_SERVER__PORT": "3"}
    ports = []
    for name in reversed(list(environ)):
        ports.append(load({}, environ, tmp_path).settings.server.port)
        del environ[name]
    assert ports == [3, 2, 1]


def test_the_real_name_of_the_log_level_beats_the_one_of_the_readme(tmp_path: Path) -> None:
    environ = {"SERVERFULL_RUNTIME_LOGGER_LEVEL": "WARN", "SERVERFULL_RUNTIME_LOGGING_LEVEL": "ERROR"}
    assert load({}, environ, tmp_path).settings.logging.level == "WARN"


def test_every_setting_can_be_set_by_its_variable_and_by_a_file(tmp_path: Path, write: Write) -> None:
    samples = {"logging.level": "WARN", "logging.output": "NULL", "logging.format": "json", "logging.functions": "NULL"}
    samples |= {"stats.output": "DATADOG", "stats.datadog_address": "h:1", "server.admin_address": "h:1"}
    samples |= {"server.allowed_origins": "http://other"}
    samples |= {"docker.engine": "unix:///other.sock", "docker.images": "python3.13=other", "docker.pull": "never"}
    samples |= {"docker.extra_hosts": "other:192.0.2.7", "docker.dns": "192.0.2.7", "docker.user": "7:7"}
    samples |= {"docker.volumes": "/other:/other:ro", "hot_reload.allowed_paths": "/other"}
    samples |= {"server.health_check": "/up", "functions.region": "eu-north-1", "functions.account": "1" * 12}
    samples |= {"signals.installed": "OS", "signals.os_signals": "1", "client.endpoint": "http://h"}
    samples |= {"state.code_store": "s3://bucket", "execution.mode": "process", "execution.other_python": "error"}
    samples |= {"events.synchronous": "normal"}
    samples |= {"execution.client": "awslambdaric", "execution.sandbox": "none"}
    samples |= {"aws.credentials": "static", "aws.endpoint_url": "http://h", "aws.endpoints": "S3=http://h"}
    samples |= {"destinations.endpoint_url": "aws", "destinations.endpoints": "SQS=http://h"}
    samples |= {"dependencies.install": "on", "dependencies.python_installer": "pip"}
    samples |= {"dependencies.python_index": "http://h", "dependencies.node_registry": "http://h"}
    samples |= {"logging.files_size": "5000", "logging.cloudwatch": "aws"}
    environ, lines = {}, []
    for group, field in setting_keys():
        default = get(Settings(), f"{group}.{field}")
        text = samples.get(f"{group}.{field}", "200" if isinstance(default, int | float) else "other")
        text = str(not default).lower() if isinstance(default, bool) else text
        environ[f"SERVERFULL_{group}__{field}".upper()] = text
        lines.append(f"{group}.{field} = '{text}'")
    from_environment = load({}, environ, tmp_path)
    write("serverfull.toml", "\n".join(lines))
    from_file = load({}, {}, tmp_path)
    assert from_file.settings == from_environment.settings
    assert all(origin.startswith("environment SERVERFULL_") for origin in from_environment.origins.values())
    assert all(origin.startswith("serverfull.toml: ") for origin in from_file.origins.values())
    same = {key for key in from_file.origins if get(from_file.settings, key) == get(Settings(), key)}
    assert same == {"signals.installed"}


def test_a_sandbox_that_there_is_not_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'loose' is not one of none, limits, strict"):
        load({}, {"SERVERFULL_EXECUTION__SANDBOX": "loose"}, tmp_path)


@pytest.mark.parametrize(
    "suffix", ["*.example.com", ".example.com", "example.com.", "a..b", "127.0.0.1", "a/b", "-a.b"]
)
def test_what_is_no_name_of_a_domain_is_no_suffix(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a list of names such as localhost"):
        load({}, {"SERVERFULL_DOCKER__DNS_SUFFIXES": suffix}, tmp_path)


def test_names_of_domains_are_suffixes(tmp_path: Path) -> None:
    text = "localhost.localstack.cloud,floci x--1.example"
    loaded = load({}, {"SERVERFULL_DOCKER__DNS_SUFFIXES": text}, tmp_path)
    assert loaded.settings.docker.dns_suffixes == ("localhost.localstack.cloud", "floci", "x--1.example")


def test_a_table_of_pyproject_is_read_and_serverfull_toml_is_preferred(tmp_path: Path, write: Write) -> None:
    write("pyproject.toml", "[project]\nname = 'x'\n[tool.serverfull.server]\nport = 1\n")
    loaded = load({}, {}, tmp_path)
    assert (loaded.settings.server.port, loaded.origins["server.port"]) == (1, "pyproject.toml: server.port")
    write("serverfull.toml", "[server]\nport = 2\n")
    assert load({}, {}, tmp_path).settings.server.port == 2


@pytest.mark.parametrize(
    "table",
    [
        "[tool.serverfull.server]\nport = 1",
        "[ tool . serverfull . server ]\nport = 1",
        "[tool.'serverfull'.server]\nport = 1",
        '["tool"\t."serverfull".server]\nport = 1',
        "[tool]\nserverfull.server.port = 1",
        "['tool']\nserverfull = {server = {port = 1}}",
        "tool = {serverfull = {server = {port = 1}}}",
        "tool.serverfull.server.port = 1",
        '["t\\u006fol"."serverf\\u0075ll".server]\nport = 1\n# serverfull',
    ],
)
def test_a_table_of_pyproject_is_found_in_whatever_form_it_is_written(table: str, tmp_path: Path, write: Write) -> None:
    write("pyproject.toml", table + "\n")
    assert load({}, {}, tmp_path).settings.server.port == 1


def test_a_pyproject_without_our_table_or_of_another_form_is_left_alone(tmp_path: Path, write: Write) -> None:
    write("pyproject.toml", "[project]\nname = 'uses-serverfull'\n")
    assert load({}, {}, tmp_path).settings == Settings()
    write("pyproject.toml", "this is no toml")
    assert load({}, {}, tmp_path).settings == Settings()
    write("pyproject.toml", "[project]\ndependencies = ['serverfull'\n")
    assert load({}, {}, tmp_path).settings == Settings()


def test_a_broken_pyproject_with_our_table_is_refused_with_its_line(tmp_path: Path, write: Write) -> None:
    write("pyproject.toml", "[tool.serverfull.server]\nport = \n")
    with pytest.raises(ConfigurationError, match=r"^pyproject\.toml cannot be read: .*line 2"):
        load({}, {}, tmp_path)


def test_the_file_can_be_named_by_a_flag_or_by_the_environment(tmp_path: Path, write: Write) -> None:
    write("serverfull.toml", "[server]\nport = 1\n")
    write("a.toml", "[server]\nport = 2\n")
    write("b.toml", "[server]\nport = 3\n")
    assert load({}, {"SERVERFULL_CONFIG": "a.toml"}, tmp_path).settings.server.port == 2
    flagged = load({"config": str(tmp_path / "b.toml")}, {"SERVERFULL_CONFIG": "a.toml"}, tmp_path)
    assert flagged.settings.server.port == 3


def test_variables_in_a_file_are_replaced_also_within_each_other_and_in_lists(tmp_path: Path, write: Write) -> None:
    write("serverfull.toml", "[server]\nport = '${PORT_A}'\nallowed_origins = ['http://${DOMAIN}', 'http://${X}']\n")
    environ = {"PORT_A": "${PORT_B}", "PORT_B": "9${DIGITS}", "DIGITS": "00", "DOMAIN": "example", "X": "$y"}
    server = load({}, environ, tmp_path).settings.server
    assert (server.port, server.allowed_origins) == (900, ("http://example", "http://$y"))


def test_variables_in_a_file_may_be_ten_deep_and_no_deeper(tmp_path: Path, write: Write) -> None:
    write("serverfull.toml", "[server]\nhost = '${V1}'\n")
    environ = {f"V{depth}": f"${{V{depth + 1}}}" for depth in range(1, 10)} | {"V10": "end"}
    assert load({}, environ, tmp_path).settings.server.host == "end"
    with pytest.raises(ConfigurationError, match=r"serverfull.toml: server.host: variables refer to each other"):
        load({}, {**environ, "V10": "${V11}", "V11": "end"}, tmp_path)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"SERVERFULL_SERVER__PROT": "1"},
            "environment SERVERFULL_SERVER__PROT is no setting; did you mean SERVERFULL_SERVER__PORT?",
        ),
        ({"SERVERFULL_SERVER_PORT": "1"}, "did you mean SERVERFULL_SERVER__PORT?"),
        ({"SERVERFULL_RUNTIME_LOGER_LEVEL": "INFO"}, "did you mean SERVERFULL_RUNTIME_LOGGER_LEVEL?"),
        (
            {"SERVERFULL_QQQQ": "1"},
            "environment SERVERFULL_QQQQ is no setting; `serverfull config show` lists them all",
        ),
        (
            {"SERVERFULL_SERVER__PORT": "x"},
            "environment SERVERFULL_SERVER__PORT: 'x' is not a whole number from 0 to 65535",
        ),
        ({"SERVERFULL_SERVER__PORT": "70000"}, "'70000' is not a whole number from 0 to 65535"),
        ({"SERVERFULL_SERVER__PORT": ""}, "'' is not a whole number"),
        ({"SERVERFULL_SERVER__IDLE_TIMEOUT": "soon"}, "'soon' is not a duration such as 250ms, 5s or 1m30s"),
        ({"SERVERFULL_SERVER__IDLE_TIMEOUT": "0"}, "seconds, above 0"),
        ({"SERVERFULL_FUNCTIONS__TIMEOUT": "2h"}, "above 0 and at most 5400"),
        ({"SERVERFULL_SERVER__INSECURE_NO_AUTH": "maybe"}, "'maybe' is not true or false"),
        ({"SERVERFULL_LOGGING__LEVEL": "LOUD"}, "'LOUD' is not one of DEBUG, INFO, WARN, ERROR"),
        ({"SERVERFULL_SIGNALS__OS_SIGNALS": "TERM"}, "is not a list of whole numbers of signals"),
        ({"SERVERFULL_SERVER__ALLOWED_HOSTS": "[oops"}, "is not a list of names or addresses of hosts"),
        ({"SERVERFULL_FUNCTIONS__ACCOUNT": "12"}, "is not an account number of twelve digits"),
        ({"SERVERFULL_SERVER__HEALTH_CHECK": "up"}, "'up' is not a path such as /up"),
        ({"SERVERFULL_RUNTIME_HTTPSERVER_ADDRESS": "8080"}, "is not an address written host:port or :port"),
        ({"SERVERFULL_RUNTIME_HTTPSERVER_ADDRESS": ":99999"}, "'99999' is not a whole number from 0 to 65535"),
        (
            {"SERVERFULL_RUNTIME_STATS_DATADOG_ADDRESS": "agent:65536"},
            "'agent:65536' is not an address written host:port",
        ),
        ({"SERVERFULL_SERVER__ADMIN_ADDRESS": "127.0.0.1:99999"}, "'127.0.0.1:99999' is not an address written host"),
        ({"SERVERFULL_RUNTIME_STATS_OUTPUT": "STATSD"}, "is not one of NULLSTAT, DATADOG"),
        ({"PORT": "http"}, "environment PORT: 'http' is not a whole number from 0 to 65535"),
        ({"AWS_REGION": "EU West"}, "environment AWS_REGION: 'EU West' is not an AWS region"),
        ({"SERVERFULL_CONFIG": "gone.toml"}, "environment SERVERFULL_CONFIG: there is no file gone.toml"),
    ],
)
def test_a_wrong_variable_is_named_with_what_would_be_right(
    tmp_path: Path, environ: Mapping[str, str], message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({}, environ, tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nprot = 1", "serverfull.toml: server.prot is no setting; did you mean server.port?"),
        ("[sever]\nport = 1", "serverfull.toml: sever is no group of settings; did you mean server?"),
        ("server = 1", "serverfull.toml: server must be a table, not 1"),
        ("[server]\nport = 1.5", "serverfull.toml: server.port: 1.5 is not a whole number"),
        ("[server]\nport = true", "serverfull.toml: server.port: True is not a whole number"),
        ("[server]\nhost = 7", "serverfull.toml: server.host: 7 is not text"),
        ("[server]\nallowed_hosts = [1]", "[1] is not a list of names or addresses of hosts, without port"),
        ("[server]\nhost = '${GONE}'", "serverfull.toml: server.host: the environment has no variable GONE"),
        ("[server\nport = 1", "serverfull.toml cannot be read: Expected ']'"),
    ],
)
def test_a_wrong_file_is_named_with_what_would_be_right(tmp_path: Path, write: Write, text: str, message: str) -> None:
    write("serverfull.toml", text)
    with pytest.raises(ConfigurationError) as caught:
        load({}, {}, tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"server.port": 70000}, "flag --port: 70000 is not a whole number from 0 to 65535"),
        ({"server.prot": 1}, "server.prot is no setting"),
        ({"config": "gone.toml"}, "flag --config: there is no file gone.toml"),
    ],
)
def test_a_wrong_flag_is_named(tmp_path: Path, flags: Mapping[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(flags, {}, tmp_path)
    assert message in str(caught.value)


def test_all_wrong_values_are_told_at_once(tmp_path: Path) -> None:
    environ = {
        "SERVERFULL_SERVER__PORT": "x",
        "SERVERFULL_LOGGING__LEVEL": "LOUD",
        "SERVERFULL_LIMITS__LOG_BYTES": "-1",
    }
    with pytest.raises(ConfigurationError) as caught:
        load({}, environ, tmp_path)
    assert len(str(caught.value).splitlines()) == 3


def test_a_value_that_a_flag_hides_is_checked_no_more(tmp_path: Path) -> None:
    assert load({"server.port": 1}, {"SERVERFULL_SERVER__PORT": "x"}, tmp_path).settings.server.port == 1


def test_what_kubernetes_sets_for_a_service_of_our_name_is_left_alone(tmp_path: Path) -> None:
    environ = {
        "SERVERFULL_SERVICE_HOST": "10.0.0.1",
        "SERVERFULL_SERVICE_PORT": "80",
        "SERVERFULL_SERVICE_PORT_HTTP": "80",
        "SERVERFULL_PORT": "tcp://10.0.0.1:80",
        "SERVERFULL_PORT_80_TCP": "tcp://10.0.0.1:80",
        "SERVERFULL_PORT_80_TCP_ADDR": "10.0.0.1",
        "SERVERFULL_API_SERVICE_HOST": "10.0.0.2",
    }
    assert load({}, environ, tmp_path).settings == Settings()
    with pytest.raises(ConfigurationError):
        load({}, {"SERVERFULL_PORT": "80"}, tmp_path)


def test_the_process_environment_and_folder_are_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SERVERFULL_SERVER__PORT", "5")
    (tmp_path / "serverfull.toml").write_text("[server]\nworkers = 6\n")
    server = load().settings.server
    assert (server.port, server.workers) == (5, 6)


@pytest.mark.parametrize(
    ("variables", "imported"),
    [({"PORT": "1", "AWS_REGION": "eu-west-1"}, False), ({"SERVERFULL_SERVER__PORT": "1"}, True)],
)
def test_pydantic_is_imported_only_where_there_is_text_to_read(
    tmp_path: Path, variables: Mapping[str, str], imported: bool
) -> None:
    code = (
        "import sys; from serverfull.config import load; load({'server.port': 0});"
        "print(any(name.split('.')[0] in ('pydantic', 'pydantic_settings', 'tomllib') for name in sys.modules))"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SERVERFULL_", "AWS_"))}
    clean["PYTHONPATH"] = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**clean, **variables},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout.strip() == str(imported), done.stderr
