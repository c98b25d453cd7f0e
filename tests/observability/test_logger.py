"""The host's log and the handlers' logger."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serverfull.config import LoggingSettings
from serverfull.observability.handles import CURRENT, NoMetrics, logger, metrics
from serverfull.observability.logger import HostLogger, InvocationLogger

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3,6}Z")


class BadRepr:
    def __repr__(self) -> str:
        raise SystemError("no")


def host_lines(format_: Any = "json", level: Any = "INFO") -> tuple[HostLogger, io.StringIO]:
    stream = io.StringIO()
    return HostLogger(LoggingSettings(format=format_, level=level), stream=stream), stream


class TestHostLogger:
    def test_a_record_is_a_json_line_where_nobody_looks(self) -> None:
        log, stream = host_lines("auto")
        log.bind(function="f").info("ready", port=8080, big=1 << 80, half="\ud800", thing=object)
        record = json.loads(stream.getvalue())
        assert stream.getvalue().count("\n") == 1
        assert list(record)[:3] == ["timestamp", "level", "event"]
        assert TIMESTAMP.fullmatch(record["timestamp"])
        assert (record["level"], record["event"], record["port"], record["function"]) == ("info", "ready", 8080, "f")
        assert record["thing"] == "<class 'object'>"

    def test_levels_below_the_least_write_nothing(self) -> None:
        log, stream = host_lines(level="WARN")
        log.debug("a")
        log.info("b")
        log.bind(x=1).info("c")
        log.warning("d")
        log.error("e")
        assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["d", "e"]

    def test_null_writes_nothing(self, capfd: pytest.CaptureFixture[str]) -> None:
        log = HostLogger(LoggingSettings(output="NULL"))
        log.error("a")
        try:
            raise ValueError
        except ValueError:
            log.exception("b")
        assert capfd.readouterr() == ("", "")

    def test_an_exception_comes_with_its_traceback(self) -> None:
        log, stream = host_lines()
        try:
            raise ValueError("wrong")
        except ValueError as error:
            log.exception("first")
            kept = error
        log.error("second", exc_info=kept)
        first, second = (json.loads(line) for line in stream.getvalue().splitlines())
        for record in (first, second):
            assert record["exception"].endswith("ValueError: wrong")
            assert record["level"] == "error"

    def test_console_lines_cannot_steer_the_terminal_or_pass_for_others(self) -> None:
        log, stream = host_lines("console")
        log.info("a\x1b[2J\nb", key="\x9b31m\r\nfake", **{"k\n": 1}, thing={"x": "\x1b"})
        try:
            raise ValueError("\x1b]0;title\x07")
        except ValueError:
            log.exception("c")
        text = stream.getvalue()
        assert not set(text) & {chr(code) for code in (*range(10), *range(11, 32), *range(127, 160))}
        assert text.splitlines()[0].count("fake") == 1
        assert "ValueError: \\x1b]0;title" in text

    def test_colours_only_on_a_terminal_and_only_if_wanted(self) -> None:
        def written(*, color: bool) -> bytes:
            ours, theirs = pty.openpty()
            with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(theirs, "w") as terminal:
                HostLogger(LoggingSettings(), color=color, stream=terminal).info("hello", port=1)
                return screen.read(4096)

        assert b"\x1b[" in written(color=True)
        plain = written(color=False)
        assert b"\x1b[" not in plain
        assert b"hello" in plain
        assert not plain.startswith(b"{")

    def test_a_closed_pipe_and_a_full_disk_are_nobodys_problem(self) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        with open(writing, "w") as pipe, open("/dev/full", "w") as full:
            for stream in (pipe, full):
                log = HostLogger(LoggingSettings(format="json"), stream=stream)
                log.error("lost")
                log.error("lost")
                assert log.dropped == 2

    def test_a_reader_that_does_not_read_holds_nobody_up(self) -> None:
        reading, writing = os.pipe()
        with os.fdopen(writing, "w") as stream:
            log = HostLogger(LoggingSettings(format="json"), stream=stream)
            for _ in range(20):
                log.info("long", text="x" * 10_000)  # a blocking write would hang here
            assert log.dropped > 0
            seen = os.read(reading, 1 << 20)
            log.info("read again")
            seen += os.read(reading, 1 << 20)
        os.close(reading)
        assert json.loads(seen.splitlines()[-1])["event"] == "read again"

    def test_a_broken_repr_costs_its_own_record_only(self) -> None:
        log, stream = host_lines()
        log.info("bad", field=BadRepr())
        log.info("good")
        assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["bad", "good"]
        assert log.dropped == 1

    def test_the_stream_of_the_start_is_kept(self, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
        log = HostLogger(LoggingSettings(format="json"))
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        log.info("hello")
        assert '"event":"hello"' in capfd.readouterr().err

    def test_the_import_for_the_first_record_does_not_hold_up_a_loop(self) -> None:
        program = (
            "import asyncio, sys, threading\n"
            "from serverfull.config import LoggingSettings\n"
            "from serverfull.observability.logger import HostLogger\n"
            "class Slow:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name == 'structlog':\n"
            "            assert went_on.wait(20)\n"
            "async def main():\n"
            "    log.info('first', n=1)\n"
            "    log.bind(n=2).warning('second')\n"
            "    went_on.set()\n"
            "went_on = threading.Event()\n"
            "sys.meta_path.insert(0, Slow())\n"
            "log = HostLogger(LoggingSettings(format='json'))\n"
            "asyncio.run(main())\n"
            "log.flush(20)\n"
            "log.error('third', n=3)\n"
        )
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=50)
        records = [json.loads(line) for line in ran.stderr.splitlines()]
        assert [(record["level"], record["event"], record["n"]) for record in records] == [
            ("info", "first", 1),
            ("warning", "second", 2),
            ("error", "third", 3),
        ]
        assert [next(iter(record)) for record in records] == ["timestamp"] * 3
        assert all(TIMESTAMP.fullmatch(record["timestamp"]) for record in records)
        assert sorted(records, key=lambda record: record["timestamp"]) == records

    def test_a_structlog_that_cannot_be_imported_costs_the_text_of_records_only(self) -> None:
        program = (
            "import sys\n"
            "sys.modules['structlog'] = None\n"
            "from serverfull.config import LoggingSettings\n"
            "from serverfull.observability.logger import HostLogger\n"
            "log = HostLogger(LoggingSettings(format='json'))\n"
            "log.info('one')\n"
            "log.error('two')\n"
            "assert log.dropped == 2\n"
        )
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=50)
        assert [json.loads(line) for line in ran.stderr.splitlines()] == [
            {"level": "info", "event": "one", "log_error": "ModuleNotFoundError"},
            {"level": "error", "event": "two", "log_error": "ModuleNotFoundError"},
        ]

    def test_a_record_that_is_made_while_the_first_one_is_written_comes_after_it(self) -> None:
        class Logs:
            def __repr__(self) -> str:
                log.info("inner")
                return "said"

        log, stream = host_lines()
        log.info("outer", field=Logs())
        assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["outer", "inner"]

    def test_structlog_as_handlers_configured_it_stays_so(self, tmp_path: Path) -> None:
        program = (
            "import structlog, sys\n"
            "structlog.configure(processors=[lambda *a: 'THEIRS'])\n"
            "from serverfull.config import LoggingSettings\n"
            "from serverfull.observability.logger import HostLogger\n"
            "HostLogger(LoggingSettings(format='json')).info('ours')\n"
            "structlog.get_logger().info('x')\n"
        )
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert ran.stdout == "THEIRS\n"
        assert json.loads(ran.stderr)["event"] == "ours"
        clean = program.replace("structlog.configure(processors=[lambda *a: 'THEIRS'])", "") + (
            "assert not structlog.is_configured()\n"
        )
        subprocess.run([sys.executable, "-c", clean], capture_output=True, check=True)


class TestInvocationLogger:
    def written(self, log_format: Any = "JSON") -> tuple[InvocationLogger, list[str]]:
        lines: list[str] = []
        return InvocationLogger(lines.append, "id-1", "hello", log_format), lines

    def test_a_record_is_one_json_line_in_one_write(self) -> None:
        log, lines = self.written()
        log.bind(order=1).info("placed %s\n", "now", shop="north", big=1 << 80)
        (line,) = lines
        assert line.count("\n") == 1
        record = json.loads(line)
        assert TIMESTAMP.fullmatch(record.pop("timestamp"))
        assert record == {
            "level": "INFO",
            "message": "placed now\n",
            "requestId": "id-1",
            "function": "hello",
            "order": 1,
            "shop": "north",
            "big": 1 << 80,
        }

    def test_text_has_awss_shape(self) -> None:
        log, lines = self.written("Text")
        log.warning("placed", shop="north end", n=1, empty="", forged="a\nEND RequestId: x")
        level, stamp, request_id, rest = lines[0].split("\t")
        assert (level, request_id) == ("[WARNING]", "id-1")
        assert TIMESTAMP.fullmatch(stamp)
        assert rest == 'placed shop="north end" n=1 empty="" forged="a\\nEND RequestId: x"\n'

    def test_bound_fields_come_and_go_as_in_structlog(self) -> None:
        log, lines = self.written()
        bound = log.bind(a=1).bind(b=2)
        for each in (bound, bound.unbind("a"), bound.new(c=3), bound.try_unbind("zzz"), log):
            each.error("x")
        fields = [{key: value for key, value in json.loads(line).items() if len(key) == 1} for line in lines]
        assert fields == [{"a": 1, "b": 2}, {"b": 2}, {"c": 3}, {"a": 1, "b": 2}, {}]
        with pytest.raises(KeyError):
            log.unbind("zzz")

    @pytest.mark.parametrize("log_format", ["JSON", "Text"])
    def test_an_exception_is_told(self, log_format: Any) -> None:
        log, lines = self.written(log_format)
        try:
            raise ValueError("wrong")
        except ValueError:
            log.exception("failed")
        log.error("no exception now", exc_info=True)  # noqa: LOG014 - that it does no harm is the point
        assert "ValueError" in lines[0]
        assert "ValueError" not in lines[1]
        if log_format == "JSON":
            record = json.loads(lines[0])
            assert (record["errorType"], record["errorMessage"]) == ("ValueError", "wrong")
            assert record["stackTrace"][0].startswith("Traceback")

    def test_fields_cannot_overwrite_who_wrote(self) -> None:
        log, lines = self.written()
        log.info("x", requestId="forged", level="none")
        record = json.loads(lines[0])
        assert (record["requestId"], record["requestId_"], record["level"]) == ("id-1", "forged", "INFO")


class TestHandles:
    def test_outside_of_an_invocation_records_go_to_standard_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        logger().info("hello", n=1)
        record = json.loads(capsys.readouterr().err)
        assert (record["message"], record["n"]) == ("hello", 1)
        assert "requestId" not in record

    def test_outside_of_an_invocation_metrics_keep_nothing(self) -> None:
        assert isinstance(metrics(), NoMetrics)
        metrics().count("x")
        metrics().gauge("x", 1)
        metrics().histogram("x", 1)
        metrics().timing("x", 1)

    def test_inside_of_one_they_are_its_own(self) -> None:
        class Running:
            logger = InvocationLogger(lambda text: None)
            metrics = NoMetrics()

        running = Running()
        token = CURRENT.set(running)
        try:
            assert logger() is running.logger
            assert metrics() is running.metrics
        finally:
            CURRENT.reset(token)

    def test_what_a_module_takes_at_its_import_belongs_to_the_invocation_that_uses_it(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        taken, bound, figures = logger(), logger().bind(shop="tea"), metrics()
        counted: list[tuple[str, float, dict[str, object]]] = []

        class Counting(NoMetrics):
            def count(self, name: str, value: float = 1, **tags: object) -> None:
                counted.append((name, value, tags))

            gauge = histogram = timing = count

        def invoke(number: int) -> list[str]:
            lines: list[str] = []

            class Running:
                logger = InvocationLogger(lines.append, f"id-{number}", "hello", "Text")
                metrics = Counting()

            token = CURRENT.set(Running())
            try:
                taken.info("sold", item="a")
                bound.unbind("shop").bind(n=number).warning("%s left", "none")
                figures.count("orders", 2, item="a")
                figures.gauge("stock", number)
                figures.histogram("size", 3)
                figures.timing("took", 0.5)
            finally:
                CURRENT.reset(token)
            return lines

        for number in (1, 2):
            assert [line.split("\t", 2)[2] for line in invoke(number)] == [
                f"id-{number}\tsold item=a\n",
                f"id-{number}\tnone left n={number}\n",
            ]
        assert counted[:4] == [("orders", 2, {"item": "a"}), ("stock", 1, {}), ("size", 3, {}), ("took", 0.5, {})]
        bound.info("outside")
        assert json.loads(capsys.readouterr().err)["shop"] == "tea"
