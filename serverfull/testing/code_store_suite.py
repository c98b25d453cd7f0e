"""What every CodeStore must do, as tests to inherit. Needs pytest and pytest-asyncio.

::

    class TestMyCodeStore(CodeStoreSuite):
        @pytest.fixture
        async def store(self):
            store = MyCodeStore(...)  # with nothing in it, and sparing nothing in sweeps
            yield store
            await store.aclose()
"""

from __future__ import annotations

import asyncio
from hashlib import sha256

import pytest

from serverfull.errors import InvalidParameterValue
from serverfull.interfaces import CodeStore
from serverfull.testing.deployments import zipped

_ABSENT = "0" * 64


@pytest.mark.asyncio
class CodeStoreSuite:
    """Subclass it, name the class ``Test…`` and provide the ``store`` fixture: a code store with nothing in it."""

    @pytest.fixture
    def store(self) -> CodeStore:
        """Give the code store under test."""
        raise NotImplementedError("override the store fixture")

    async def test_a_package_is_kept_under_the_sha256_of_its_bytes(self, store: CodeStore) -> None:
        package = zipped({"a.py": "x = 1"})
        assert await store.put(package) == sha256(package).hexdigest()
        assert await store.package(sha256(package).hexdigest()) == package

    async def test_putting_a_package_again_changes_nothing(self, store: CodeStore) -> None:
        package = zipped({"a.py": "x = 1"})
        names = await asyncio.gather(*(store.put(package) for _ in range(5)))
        assert set(names) == {await store.put(package)}
        assert await store.package(names[0]) == package

    async def test_a_package_that_is_not_there_is_a_key_error(self, store: CodeStore) -> None:
        for name in (_ABSENT, "", "../../etc/passwd", _ABSENT.replace("0", "A"), _ABSENT + "\n"):
            with pytest.raises(KeyError):
                await store.package(name)
            with pytest.raises(KeyError):
                await store.tree(name)

    async def test_a_package_is_unpacked_once_however_many_ask(self, store: CodeStore) -> None:
        name = await store.put(zipped({"a.py": "x = 1", "b.txt": "text"}))
        trees = await asyncio.gather(*(store.tree(name) for _ in range(20)))
        assert len(set(trees)) == 1
        assert {path.name: path.read_text() for path in trees[0].iterdir()} == {"a.py": "x = 1", "b.txt": "text"}
        inode = trees[0].stat().st_ino
        assert (await store.tree(name)).stat().st_ino == inode

    async def test_one_who_stops_waiting_for_a_tree_does_not_stop_the_others(self, store: CodeStore) -> None:
        name = await store.put(zipped({f"m{i}.py": "x = 1" for i in range(500)}))
        first, second = asyncio.create_task(store.tree(name)), asyncio.create_task(store.tree(name))
        await asyncio.sleep(0)
        first.cancel()
        assert len(list((await second).iterdir())) == 500
        with pytest.raises(asyncio.CancelledError):
            await first

    async def test_what_cannot_be_unpacked_is_kept_and_says_so_each_time(self, store: CodeStore) -> None:
        name = await store.put(b"no zip archive")
        for _ in range(2):
            with pytest.raises(InvalidParameterValue, match="Could not unzip uploaded file"):
                await store.tree(name)
        assert await store.package(name) == b"no zip archive"

    async def test_a_sweep_deletes_what_is_not_wanted(self, store: CodeStore) -> None:
        wanted, unwanted = await store.put(zipped({"a.py": "1"})), await store.put(zipped({"a.py": "2"}))
        kept, gone = await store.tree(wanted), await store.tree(unwanted)
        assert await store.sweep({wanted, _ABSENT}) == 1
        assert (kept.is_dir(), gone.exists()) == (True, False)
        assert await store.package(wanted)
        with pytest.raises(KeyError):
            await store.package(unwanted)
        with pytest.raises(KeyError):
            await store.tree(unwanted)
        assert await store.sweep({wanted}) == 0

    async def test_closing_twice_is_fine(self, store: CodeStore) -> None:
        await store.aclose()
        await store.aclose()
