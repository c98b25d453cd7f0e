"""Several functions' modules in one process."""

from __future__ import annotations

import importlib
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from serverfull.runtimes.loading import LoadFault, load_handler
from serverfull.runtimes.namespaces import CodeNamespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Make = "Callable[..., CodeNamespace]"


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Callable[..., CodeNamespace]]:
    """Make a namespace of files given as ``{path: text}``."""
    made: list[CodeNamespace] = []

    def make(files: dict[str, str], label: str = "orders") -> CodeNamespace:
        root = tmp_path / str(len(made))
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        made.append(CodeNamespace(root, label))
        return made[-1]

    yield make
    for namespace in made:
        namespace.close()


def test_two_packages_each_import_their_own_module_of_one_name(package: Make) -> None:
    text = "import util\ndef handler(event, context): return util.NAME\n"
    first = package({"lambda_function.py": text, "util.py": "NAME = 'first'"})
    second = package({"lambda_function.py": text, "util.py": "NAME = 'second'"})
    assert load_handler(first, "lambda_function.handler")(None, None) == "first"
    assert load_handler(second, "lambda_function.handler")(None, None) == "second"
    assert "util" not in sys.modules
    assert "lambda_function" not in sys.modules


def test_packages_relative_imports_and_submodules_are_the_same_objects_by_every_way(package: Make) -> None:
    namespace = package(
        {
            "app/__init__.py": "",
            "app/main.py": (
                "import app.deep.leaf, importlib\nfrom app.deep import leaf\nfrom .deep import leaf as relative\n"
                "def handler(event, context):\n"
                "    from app.deep.leaf import VALUE\n"
                "    named = importlib.import_module('app.deep.leaf')\n"
                "    dotted = importlib.import_module('.leaf', 'app.deep') if event else leaf\n"
                "    return [app.deep.leaf is leaf is relative is named is dotted, VALUE]\n"
            ),
            "app/deep/__init__.py": "",
            "app/deep/leaf.py": "VALUE = 7",
        }
    )
    assert load_handler(namespace, "app/main.handler")(None, None) == [True, 7]


def test_modules_are_found_by_what_looks_into_sys_modules(package: Make) -> None:
    namespace = package(
        {
            "shapes.py": "import dataclasses\n@dataclasses.dataclass\nclass Box:\n    side: int\n",
            "lambda_function.py": (
                "from __future__ import annotations\nimport dataclasses, pickle, typing\nimport shapes\n"
                "@dataclasses.dataclass\nclass Order:\n    box: shapes.Box\n"
                "def handler(event, context):\n"
                "    order = pickle.loads(pickle.dumps(Order(shapes.Box(3))))\n"
                "    return order.box.side, typing.get_type_hints(Order)['box'] is shapes.Box\n"
            ),
        }
    )
    assert load_handler(namespace, "lambda_function.handler")(None, None) == (3, True)


def test_a_module_named_like_one_of_the_standard_library_shadows_it_for_its_package_alone(package: Make) -> None:
    text = "import json, colorsys\ndef handler(event, context): return getattr(json, 'MINE', None), colorsys.__file__\n"
    shadowing = package({"lambda_function.py": text, "json.py": "MINE = True"})
    plain = package({"lambda_function.py": text})
    assert load_handler(shadowing, "lambda_function.handler")(None, None)[0] is True
    assert load_handler(plain, "lambda_function.handler")(None, None)[0] is None
    assert not hasattr(importlib.import_module("json"), "MINE")


def test_a_folder_without_modules_hides_no_installed_module(package: Make) -> None:
    namespace = package(
        {
            "lambda_function.py": "import aiohttp\ndef handler(event, context): return aiohttp.__version__\n",
            "aiohttp/readme.txt": "templates",
        }
    )
    assert load_handler(namespace, "lambda_function.handler")(None, None)


def test_imports_inside_handlers_work_on_any_thread(package: Make) -> None:
    namespace = package(
        {"lambda_function.py": "def handler(event, context):\n    import late\n    return late.X\n", "late.py": "X = 1"}
    )
    handler = load_handler(namespace, "lambda_function.handler")
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(handler(None, None)))
    thread.start()
    thread.join(10)
    assert seen == [1]


def test_closing_a_namespace_forgets_its_modules(package: Make) -> None:
    namespace = package({"lambda_function.py": "def handler(event, context): return 1"})
    load_handler(namespace, "lambda_function.handler")
    assert f"{namespace.name}.lambda_function" in sys.modules
    namespace.close()
    assert not [name for name in sys.modules if name.startswith(namespace.name)]


def test_the_process_is_as_it_was_when_the_last_namespace_is_closed(package: Make) -> None:
    finders, import_module = list(sys.meta_path), importlib.import_module
    namespaces = [package({"m.py": "def handler(event, context): return 1"}) for _ in range(2)]
    for namespace in namespaces:
        namespace.close()
        namespace.close()
    assert (sys.meta_path, importlib.import_module) == (finders, import_module)


def test_no_bytecode_is_written_into_the_package(package: Make, tmp_path: Path) -> None:
    load_handler(package({"lambda_function.py": "def handler(event, context): return 1"}), "lambda_function.handler")
    assert not list(tmp_path.rglob("__pycache__"))


@pytest.mark.parametrize(
    ("files", "handler", "error_type", "message"),
    [
        ({}, "gone.handler", "Runtime.ImportModuleError", "Unable to import module 'gone': No module named 'gone'"),
        (
            {"m.py": "import missing_one"},
            "m.handler",
            "Runtime.ImportModuleError",
            "Unable to import module 'm': No module named 'missing_one'",
        ),
        (
            {"m.py": "import own.gone", "own/__init__.py": ""},
            "m.handler",
            "Runtime.ImportModuleError",
            "Unable to import module 'm': No module named 'own.gone'",
        ),
        ({"m.py": "x = 1"}, "m.handler", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'm'"),
        (
            {"m.py": "x = 1"},
            "handler",
            "Runtime.MalformedHandlerName",
            "Bad handler 'handler': not enough values to unpack (expected 2, got 1)",
        ),
        ({"m.py": "raise KeyError('TABLE')"}, "m.handler", "KeyError", "'TABLE'"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_the_words_of_the_runtime_client(
    package: Make, files: dict[str, str], handler: str, error_type: str, message: str
) -> None:
    with pytest.raises(LoadFault) as caught:
        load_handler(package(files), handler)
    report = caught.value.report("id")
    assert (report.error_type, report.message, report.request_id) == (error_type, message, "id")


def test_a_syntax_error_is_reported_with_its_line(package: Make) -> None:
    with pytest.raises(LoadFault) as caught:
        load_handler(package({"m.py": "x = 1\ndef broken(:\n"}), "m.handler")
    report = caught.value.report("id")
    assert report.error_type == "Runtime.UserCodeSyntaxError"
    assert "Line 2" in report.stack_trace[0]


def test_the_trace_of_a_failing_module_shows_the_users_frames_and_none_of_ours(package: Make) -> None:
    with pytest.raises(LoadFault) as caught:
        load_handler(package({"m.py": "import util", "util.py": "1 / 0"}), "m.handler")
    trace = "".join(caught.value.report("id").stack_trace)
    assert "m.py" in trace
    assert "util.py" in trace
    assert "serverfull" not in trace
