"""What users import from ``serverfull``: everything they need, sorted, and nothing by accident."""

from __future__ import annotations

import subprocess
import sys

import pytest

import serverfull


def test_the_list_of_names_is_complete_and_sorted() -> None:
    assert serverfull.__all__ == sorted(serverfull.__all__)
    assert set(serverfull.__all__) >= {
        "ChainFetcher",
        "Fetcher",
        "Function",
        "LambdaContext",
        "NotFoundError",
        "ServerfullError",
        "Settings",
        "StaticFetcher",
        "create_app",
        "logger",
        "metrics",
        "serve",
    }
    assert set(serverfull.__all__) <= set(dir(serverfull))


@pytest.mark.parametrize("name", serverfull.__all__)
def test_every_name_can_be_imported_and_is_documented(name: str) -> None:
    value = getattr(serverfull, name)
    assert value.__doc__
    assert value.__module__.startswith("serverfull.")
    assert getattr(serverfull, name) is value


def test_a_star_import_gives_exactly_these_names() -> None:
    space: dict[str, object] = {}
    exec("from serverfull import *", space)
    assert set(space) - {"__builtins__"} == set(serverfull.__all__)


def test_other_names_are_refused_by_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        serverfull.Nonsense


def test_importing_the_package_imports_nothing_else() -> None:
    program = (
        "import sys; before = set(sys.modules); import serverfull; "
        "print(sorted(m for m in set(sys.modules) - before if not m.startswith('serverfull')))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not {"aiohttp", "botocore", "pydantic", "asyncio", "prometheus_client"} & set(eval(shown))


@pytest.mark.parametrize(
    "modules", ["serverfull.cli.application", "serverfull.serving, serverfull.host", "serverfull.cli.doctor"]
)
def test_a_start_imports_nothing_of_what_runs_processes_and_keeps_events(modules: str) -> None:
    late = (
        "serverfull.runtimes.process",
        "serverfull.runtimes.child",
        "serverfull.domain.events",
        "serverfull.storage",
    )
    program = (
        f"import sys; import {modules}; print([name for name in sys.modules "
        f"if name.startswith({(*late, 'sqlalchemy', 'botocore', 'sqlite3')})])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert eval(shown) == []


def test_the_first_event_imports_nothing_of_what_is_deployed() -> None:
    program = "import sys; import serverfull.storage.events; print('serverfull.domain.kinds' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert eval(shown) is False
