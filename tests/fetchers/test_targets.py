from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from serverfull.errors import TargetAttributeMissing, TargetError, TargetImportFailed, TargetInvalid, TargetNotFound
from serverfull.fetchers.static import StaticFetcher
from serverfull.fetchers.targets import TargetPlace, load_target, load_targets, place_of

Write = Callable[[str, str], Path]


@pytest.fixture(autouse=True)
def _imports_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        return path

    return write


HANDLERS = """
    from serverfull.domain.functions import Function
    from serverfull.fetchers.static import StaticFetcher

    def hello(event): return "hello"
    async def good_bye(event, context): return "bye"

    @Function(timeout=9)
    def slow(event): ...

    class Callable:
        def __call__(self, event): ...
    instance = Callable()

    functions = {"first": hello, "second-one": slow}
    several = [hello, slow]
    fetcher = StaticFetcher({"fetched": hello})
    number = 7
    nothing = {}
    bad_name = {"no spaces": hello}
    bad_value = {"hello": 7}
    twice = [hello, hello]
    nameless = [lambda event: 1]
    anonymous = lambda event: 1
"""


@pytest.mark.parametrize(
    ("attribute", "names"),
    [
        ("", {"first", "second-one"}),
        (":functions", {"first", "second-one"}),
        (":several", {"hello", "slow"}),
        (":fetcher", {"fetched"}),
        (":hello", {"hello"}),
        (":good_bye", {"good_bye"}),
        (":slow", {"slow"}),
        (":instance", {"instance"}),
        (":anonymous", {"anonymous"}),
    ],
)
@pytest.mark.parametrize("place", ["handlers_a", "handlers_a.py", "./handlers_a.py"])
async def test_every_kind_of_attribute_is_served(write: Write, place: str, attribute: str, names: set[str]) -> None:
    write("handlers_a.py", HANDLERS)
    assert set(await load_target(place + attribute).list()) == names


async def test_options_of_a_function_survive(write: Write) -> None:
    write("handlers_a.py", HANDLERS)
    assert (await load_target("handlers_a:slow").fetch("slow")).timeout == 9


async def test_an_attribute_of_an_attribute_and_a_module_with_functions_can_be_named(write: Write) -> None:
    write("handlers_a.py", HANDLERS)
    write("outer_a.py", "import handlers_a\n")
    assert set(await load_target("outer_a:handlers_a.several").list()) == {"hello", "slow"}
    assert set(await load_target("outer_a:handlers_a").list()) == {"first", "second-one"}


async def test_a_module_in_a_package_is_found_in_the_current_folder(write: Write) -> None:
    write("package_a/__init__.py", "")
    write("package_a/handlers.py", HANDLERS)
    assert set(await load_target("package_a.handlers:hello").list()) == {"hello"}


async def test_a_file_imports_its_neighbours_at_import_and_when_it_runs(write: Write) -> None:
    write("folder/neighbour_a.py", "value = 7")
    write("folder/late_a.py", "value = 8")
    write(
        "folder/main_a.py",
        """
        from neighbour_a import value

        def hello(event):
            import late_a
            return value + late_a.value
        """,
    )
    function = await load_target("folder/main_a.py:hello").fetch("hello")
    assert function({}) == 15


async def test_a_file_named_like_a_loaded_module_does_not_take_its_place(write: Write) -> None:
    import queue

    write("queue.py", "def hello(event): return 'mine'")
    assert (await load_target("queue.py:hello").fetch("hello"))({}) == "mine"
    assert sys.modules["queue"] is queue


async def test_a_target_that_is_named_twice_is_imported_once(write: Write) -> None:
    write("handlers_a.py", HANDLERS)
    first = await load_target("handlers_a.py:hello").fetch("hello")
    assert (await load_target("handlers_a.py:functions").fetch("first")).handler is first.handler


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("missing_a", "there is no module 'missing_a': No module named 'missing_a'"),
        ("package_a.missing:functions", "there is no module 'package_a.missing'"),
        ("handlers_a.deeper:functions", "'handlers_a' is not a package"),
        ("handler_a:hello", "did you mean handlers_a?"),
        ("missing_a.py:hello", "there is no file missing_a.py"),
        ("folder/nothing.py", "there is no file folder/nothing.py"),
        ("./handlers_a", "did you mean handlers_a.py?"),
        ("handler_a.py", "did you mean handlers_a.py?"),
        ("", "names nothing"),
        (":functions", "names nothing"),
        ("handlers_a:", "names nothing"),
        ("handlers_a:not valid", "names nothing"),
        ("..handlers_a:hello", "is no module name"),
    ],
)
def test_a_missing_module_or_file_is_told_in_one_line(write: Write, text: str, message: str) -> None:
    write("handlers_a.py", HANDLERS)
    write("package_a/__init__.py", "")
    with pytest.raises(TargetNotFound) as caught:
        load_target(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


CHAINED = """
import importlib
try:
    importlib.import_module('missing_b')
except ImportError as failure:
    raise KeyError from failure
"""


@pytest.mark.parametrize("place", ["broken_a", "broken_a.py"])
@pytest.mark.parametrize(
    ("code", "line", "shown"),
    [
        ("import missing_b", "No module named 'missing_b'", "import missing_b"),
        ("import broken_a.deeper", "ModuleNotFoundError", "import broken_a.deeper"),
        ("def f(:\n", "SyntaxError: invalid syntax", "def f(:"),
        ("raise ValueError('first\\nsecond')", "ValueError: first", "second"),
        ("raise SystemExit(9)", "SystemExit: 9", "raise SystemExit(9)"),
        ("class E(Exception):\n    def __str__(self): return 1/0\nraise E", ": E", "raise E"),
        (CHAINED, "KeyError", "importlib.import_module('missing_b')"),
        ("try:\n    1/0\nexcept ZeroDivisionError as e:\n    raise ValueError('x') from e", "ValueError: x", "1/0"),
        (
            "from serverfull.domain.functions import Function\nFunction(print, timeout=-1)",
            "ValueError: timeout must be above 0",
            "Function(print, timeout=-1)",
        ),
    ],
)
def test_code_that_fails_at_import_is_told_with_the_users_frames_only(
    write: Write, place: str, code: str, line: str, shown: str
) -> None:
    path = write("broken_a.py", "pass\n")
    path.write_text(code)
    with pytest.raises(TargetImportFailed) as caught:
        load_target(f"{place}:functions")
    message, told = str(caught.value), caught.value.user_traceback
    assert line in message
    assert "\n" not in message
    assert shown in told
    assert "broken_a.py" in told
    assert "importlib/" not in told
    assert "<frozen" not in told
    assert "serverfull/" not in told.replace(str(path.parent), "")
    assert "broken_a" not in sys.modules
    assert str(path.parent) not in sys.path


def test_a_module_that_a_package_of_the_target_imports_is_not_the_target(write: Write) -> None:
    write("package_a/__init__.py", "import package_a.absent")
    with pytest.raises(TargetImportFailed):
        load_target("package_a.absent:functions")


def test_ctrl_c_during_the_import_is_not_an_import_failure(write: Write) -> None:
    write("broken_a.py", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_target("broken_a.py")


def test_a_missing_attribute_hints_at_near_names(write: Write) -> None:
    write("handlers_a.py", HANDLERS)
    with pytest.raises(TargetAttributeMissing, match=r"'handlers_a' has no attribute 'helo'; did you mean 'hello'\?"):
        load_target("handlers_a:helo")


def test_a_module_without_functions_says_what_could_be_named(write: Write) -> None:
    write("plain_a.py", "import json\ndef order(event): ...\n")
    with pytest.raises(TargetAttributeMissing, match=r"name what to serve, such as plain_a.py:order"):
        load_target("plain_a.py")


def test_a_failing_getattr_of_the_module_is_the_users_failure(write: Write) -> None:
    write("lazy_a.py", "def __getattr__(name):\n    raise RuntimeError(name)\n")
    with pytest.raises(TargetImportFailed, match="RuntimeError: hello") as caught:
        load_target("lazy_a:hello")
    assert "in __getattr__" in caught.value.user_traceback


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("number", "it is a int; it takes a mapping of names"),
        ("nothing", "it holds no function"),
        ("bad_name", "'no spaces' is no function name"),
        ("bad_value", "'hello' is a int, which is neither a Function nor callable"),
        ("twice", "two functions named 'hello'"),
        ("nameless", "has no __name__ to be served under"),
        ("StaticFetcher", "it is the class StaticFetcher; make a Fetcher of it"),
        ("Callable", "it is the class Callable; name an instance"),
    ],
)
def test_an_attribute_that_cannot_be_served_says_why(write: Write, attribute: str, message: str) -> None:
    write("handlers_a.py", HANDLERS)
    with pytest.raises(TargetInvalid) as caught:
        load_target(f"handlers_a:{attribute}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_users_own_fetcher_is_given_back_as_it_is(write: Write) -> None:
    write("handlers_a.py", HANDLERS)
    assert load_target("handlers_a:fetcher") is sys.modules["handlers_a"].fetcher
    assert isinstance(load_target("handlers_a:fetcher"), StaticFetcher)


@pytest.mark.parametrize("place", ["pk/__init__.py", "./pk/__init__.py", "pk/inner/__init__.py"])
async def test_the_file_of_a_package_is_imported_as_its_package(write: Write, tmp_path: Path, place: str) -> None:
    write("pk/__init__.py", "from .handlers import hello\nfunctions = [hello]")
    write("pk/handlers.py", "def hello(event): return __name__")
    write("pk/inner/__init__.py", "from ..handlers import hello\nfrom . import more\nfunctions = [hello]")
    write("pk/inner/more.py", "")
    functions = await load_target(f"{place}:functions").list()
    assert functions["hello"].handler_name == "pk.handlers.hello"
    name = "pk.inner" if "inner" in place else "pk"
    assert place_of(place) == TargetPlace(f"{name}:functions", tmp_path, tmp_path / "pk")


def test_a_package_file_that_another_package_hides_is_refused(write: Write) -> None:
    write("json/__init__.py", "functions = [print]")
    with pytest.raises(TargetNotFound, match="hidden by another package 'json'"):
        load_target("json/__init__.py")


async def test_several_targets_are_a_chain_and_one_with_a_slash_is_a_folder(write: Write) -> None:
    write("handlers_a.py", HANDLERS)
    folder_of_functions = write("functions/first.py", "").parent
    write("functions/other.py", "")
    chain = load_targets(["handlers_a.py", "./functions", "functions/../functions/"])
    survey = [(found.name, found.source, found.hidden_by) for found in await chain.survey()]
    static, folder = [("first", None), ("second-one", None)], [("first", "static"), ("other", None)]
    assert survey[:4] == [*((n, "static", h) for n, h in static), *((n, "directory", h) for n, h in folder)]
    assert [hidden_by for *_, hidden_by in survey[4:]] == ["static", f"directory {folder_of_functions}"]
    assert sorted(await load_targets(["./functions"]).list()) == ["first", "other"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("./nope", r"there is no folder \./nope"),
        ("./handlers_a.py", r"there is no file \./handlers_a\.py"),
        ("folder_a", r"module 'folder_a' has no .*; the functions of the folder of that name are \./folder_a"),
        ("folder-b", r"module 'folder-b' has no .*; the functions of the folder of that name are \./folder-b"),
    ],
)
def test_what_is_no_folder_of_functions_is_told(write: Write, text: str, message: str) -> None:
    write("folder_a/hello.py", "")
    write("folder-b/hello.py", "")
    with pytest.raises(TargetError, match=message):
        load_targets([text])


def test_urls_go_to_what_knows_their_scheme_and_others_are_refused_by_name() -> None:
    asked = []

    def fetch(url: str) -> StaticFetcher:
        asked.append(url)
        return StaticFetcher({"f": print})

    assert isinstance(load_targets(["s3://b/p"], elsewhere={"s3": fetch}), StaticFetcher)
    assert asked == ["s3://b/p"]
    with pytest.raises(TargetNotFound, match=r"'ftp://b/p' names nothing: of URLs, a TARGET can be s3://"):
        load_targets(["ftp://b/p"], elsewhere={"s3": fetch})
