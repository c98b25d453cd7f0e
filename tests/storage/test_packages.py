"""Deployment packages as clients may send them: good ones come back as they were, the others are refused whole."""

from __future__ import annotations

import io
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serverfull.domain.limits import PACKAGE_ENTRIES, UNZIPPED_PACKAGE_BYTES
from serverfull.errors import InvalidParameterValue
from serverfull.storage.archive import Archive, ArchiveDamaged
from serverfull.storage.packages import check, unpack

NOT_UNZIPPED = "Could not unzip uploaded file. Please check your file, then try to upload again."
EMPTY = "Uploaded file must be a non-empty zip"
TOO_LARGE = "Unzipped size must be smaller than 262144000 bytes"
LINK = stat.S_IFLNK | 0o777


def deflated(content: bytes) -> bytes:
    squeezing = zlib.compressobj(9, zlib.DEFLATED, -15)
    return squeezing.compress(content) + squeezing.flush()


def entry(name: str | bytes, content: bytes = b"", **lies: Any) -> dict[str, Any]:
    """One entry of `archive`; all that it says about itself can be a lie, in the list or (``own_``) before its data."""
    raw = name.encode() if isinstance(name, str) else name
    truth: dict[str, Any] = {
        "name": raw, "packed": content, "method": 0, "flags": 0, "mode": stat.S_IFREG | 0o644, "system": 3,
        "crc": zlib.crc32(content), "size": len(content), "extra": b"", "own_extra": b"", "behind": b"", "disk": 0,
    }  # fmt: skip
    truth |= lies
    if truth["method"] == 8 and "packed" not in lies:
        truth["packed"] = deflated(content)
    for part in ("name", "method", "flags", "crc", "size"):
        truth.setdefault(f"own_{part}", truth[part])
    truth.setdefault("packed_size", len(truth["packed"]))
    truth.setdefault("own_packed_size", len(truth["packed"]))
    return truth


def archive(*entries: dict[str, Any], **lies: Any) -> bytes:
    """Write a zip archive by hand."""
    out, listed = bytearray(lies.get("before", b"")), bytearray()
    for one in entries:
        offset = one.get("offset", len(out))
        if "offset" not in one:
            sizes = (one["own_crc"], one["own_packed_size"], one["own_size"])
            lengths = (len(one["own_name"]), len(one["own_extra"]))
            head = (b"PK\3\4", 20, one["own_flags"], one["own_method"], 0, 33, *sizes, *lengths)
            out += struct.pack("<4s5H3L2H", *head)
            out += one["own_name"] + one["own_extra"] + one["packed"] + one["behind"]
        sizes = (one["crc"], one["packed_size"], one["size"])
        lengths = (len(one["name"]), len(one["extra"]), 0)
        head = (b"PK\1\2", 20, one["system"], 20, one["flags"], one["method"], 0, 33, *sizes, *lengths)
        listed += struct.pack("<4s2B5H3L5H2L", *head, one["disk"], 0, one["mode"] << 16, offset)
        listed += one["name"] + one["extra"]
    comment = lies.get("comment", b"")
    count = min(lies.get("count", len(entries)), 0xFFFF)
    end = (b"PK\5\6", lies.get("disk", 0), 0, count, count, len(listed), lies.get("start", len(out)), len(comment))
    return bytes(out + listed) + lies.get("gap", b"") + struct.pack("<4s4H2LH", *end) + comment


def with_zip64_end(package: bytes, **lies: int) -> bytes:
    """Give an archive the large end record too, telling the truth or not."""
    end = len(package) - 22
    _, _, _, _, count, size, start, _ = struct.unpack_from("<4s4H2LH", package, end)
    truth = {"count": count, "size": size, "start": start, "at": end, "length": 44, "short_count": 0xFFFF} | lies
    large = (b"PK\6\6", truth["length"], 45, 45, 0, 0, truth["count"], truth["count"], truth["size"], truth["start"])
    return (
        package[:end]
        + struct.pack("<4sQ2H2L4Q", *large)
        + struct.pack("<4sLQL", b"PK\6\7", 0, truth["at"], 1)
        + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, truth["short_count"], 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    )


def contents(root: Path) -> dict[str, tuple[str, int, Any]]:
    """Give all that is below a folder: sort, permissions and content."""
    found: dict[str, tuple[str, int, Any]] = {}
    for path in sorted(root.rglob("*")):
        name, mode = str(path.relative_to(root)), path.lstat().st_mode
        if stat.S_ISLNK(mode):
            found[name] = ("link", 0, os.readlink(path))
        elif stat.S_ISDIR(mode):
            found[name] = ("folder", stat.S_IMODE(mode), None)
        else:
            found[name] = ("file", stat.S_IMODE(mode), path.read_bytes())
    return found


def refused(package: bytes, tmp_path: Path) -> str:
    """Give the message with which both refuse a package, after looking for what they left."""
    with pytest.raises(InvalidParameterValue) as in_memory:
        check(package)
    with pytest.raises(InvalidParameterValue) as on_disk:
        unpack(package, tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []
    assert in_memory.value.message == on_disk.value.message
    return in_memory.value.message


def unpacked(package: bytes, tmp_path: Path) -> dict[str, tuple[str, int, Any]]:
    facts = unpack(package, tmp_path / "tree")
    assert check(package) == facts
    found = contents(tmp_path / "tree")
    assert facts.entries == len(found)
    assert facts.unzipped_bytes == sum(len(content) for sort, _, content in found.values() if sort == "file")
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]
    return found


def test_a_package_comes_back_with_modes_links_and_empty_folders(tmp_path: Path) -> None:
    package = archive(
        entry("bootstrap", b"#!/bin/sh\n", mode=stat.S_IFREG | 0o755),
        entry("lib/data.py", b"x = 1\n" * 1000, method=8, mode=stat.S_IFREG | 0o640),
        entry("empty/", mode=stat.S_IFDIR | 0o750),
        entry("lib/libfoo.so", b"libfoo.so.1", mode=LINK),
        entry("lib/libfoo.so.1", b"libfoo.so.1.2", mode=LINK),
        entry("lib/libfoo.so.1.2", b"\x7fELF"),
        entry("up/to/root", b"../../bootstrap", mode=LINK),
        entry("broken", b"lib/nothing", mode=LINK),
        entry("written on DOS", b"x", system=0, mode=0o777),
        entry("says nothing", b"x", mode=0),
    )
    assert unpacked(package, tmp_path) == {
        "bootstrap": ("file", 0o755, b"#!/bin/sh\n"),
        "lib": ("folder", 0o755, None),
        "lib/data.py": ("file", 0o640, b"x = 1\n" * 1000),
        "empty": ("folder", 0o750, None),
        "lib/libfoo.so": ("link", 0, "libfoo.so.1"),
        "lib/libfoo.so.1": ("link", 0, "libfoo.so.1.2"),
        "lib/libfoo.so.1.2": ("file", 0o644, b"\x7fELF"),
        "up": ("folder", 0o755, None),
        "up/to": ("folder", 0o755, None),
        "up/to/root": ("link", 0, "../../bootstrap"),
        "broken": ("link", 0, "lib/nothing"),
        "written on DOS": ("file", 0o644, b"x"),
        "says nothing": ("file", 0o644, b"x"),
    }


@pytest.mark.parametrize(
    "name",
    [
        "a\\b",
        "sub/..hidden",
        "C",
        "x:y",
        "json.py",
        "asyncio/__init__.py",
        "sitecustomize.py",
        "x.pth",
        "a b",
        "ä/ö.py",
    ],
)
def test_a_name_that_stays_inside_is_taken_literally(name: str, tmp_path: Path) -> None:
    assert unpacked(archive(entry(name, b"mine")), tmp_path)[name] == ("file", 0o644, b"mine")


def test_names_are_read_as_utf_8_and_else_in_the_code_page_of_the_format(tmp_path: Path) -> None:
    raw = "é".encode("cp437")
    field = struct.pack("<HHBL", 0x7075, 5 + len("ß".encode()), 1, zlib.crc32(b"s")) + "ß".encode()
    stale = struct.pack("<HHBL", 0x7075, 6, 1, 0) + b"z"
    package = archive(entry(raw), entry("ü"), entry(b"s", extra=field), entry(b"renamed", extra=stale))
    assert set(unpacked(package, tmp_path)) == {"é", "ü", "ß", "renamed"}


def test_parts_that_say_nothing_are_left_out_of_names(tmp_path: Path) -> None:
    package = archive(entry("./"), entry("./a//b.py", b"1"), entry("c/./d", b"2"))
    assert set(unpacked(package, tmp_path)) == {"a", "a/b.py", "c", "c/d"}


@pytest.mark.parametrize(
    "name",
    [
        "../x", "..", "a/../../x", "a/..", "/abs", "//abs", "/", "C:\\x", "c:/x", "C:", "..\\x", "a\\..\\..\\x", "\\x",
        "\\\\server\\share", "a\0b", "", ".", "x" * 256, "ö" * 128, "/".join(["x" * 200] * 6),
    ],
)  # fmt: skip
def test_a_name_that_leads_out_or_can_be_no_file_is_refused(name: str, tmp_path: Path) -> None:
    package = archive(entry("good.py", b"1"), entry(name, b"x"), entry("later.py", b"2"))
    assert refused(package, tmp_path).startswith(NOT_UNZIPPED)
    assert list(tmp_path.parent.glob("x")) == []


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("l", b"/etc/passwd"),
        ("l", b"../outside"),
        ("a/l", b"../../outside"),
        ("l", b".."),
        ("l", b""),
        ("l", b"a\0b"),
        ("l", b"x" * 1025),
        ("l", b"l"),
        ("l", b"folder/link/../../.."),
    ],
)
def test_a_link_that_leads_out_is_refused(path: str, target: bytes, tmp_path: Path) -> None:
    assert refused(archive(entry(path, target, mode=LINK), entry("folder/x")), tmp_path).startswith(NOT_UNZIPPED)


@pytest.mark.parametrize(
    "chain",
    [
        {"deep/down/here": b"../..", "l": b"deep/down/here/../x"},
        {"a": b"b", "b": b"c", "c": b"../x"},
        {"a": b"b", "b": b"a"},
        {"d/e": b".", "l": b"d/e/../../x"},
        {"l0": b"x"} | {f"l{i}": f"l{i - 1}/../l{i - 1}/../..".encode() for i in range(1, 60)},
        {f"l{i}": f"l{i + 1}".encode() for i in range(50)},
    ],
)
def test_links_that_lead_out_together_or_in_a_circle_are_refused(chain: dict[str, bytes], tmp_path: Path) -> None:
    package = archive(*(entry(name, target, mode=LINK) for name, target in chain.items()))
    assert "is a link that leads out of the package or in a circle" in refused(package, tmp_path)


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    inside = tmp_path / "inside"
    inside.mkdir()
    for links in ([b"real"], [str(outside).encode()]):
        for order in (1, -1):
            parts = [entry("d", links[0], mode=LINK), entry("d/file", b"x")][::order]
            assert refused(archive(entry("real/a"), *parts), inside).startswith(NOT_UNZIPPED)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("sort", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFDIR, 0o110000])
def test_what_is_neither_file_nor_folder_nor_link_is_refused(sort: int, tmp_path: Path) -> None:
    assert refused(archive(entry("x", mode=sort | 0o666)), tmp_path).startswith(NOT_UNZIPPED)


def test_setuid_setgid_sticky_and_writable_by_others_are_taken_off(tmp_path: Path) -> None:
    package = archive(
        entry("program", mode=stat.S_IFREG | 0o7777),
        entry("shut", mode=stat.S_IFREG),
        entry("folder/", mode=stat.S_IFDIR | 0o1777),
        entry("closed/", mode=stat.S_IFDIR),
        entry("closed/file"),
    )
    modes = {name: mode for name, (_, mode, _) in unpacked(package, tmp_path).items()}
    assert modes == {"program": 0o755, "shut": 0o400, "folder": 0o755, "closed": 0o700, "closed/file": 0o644}


@pytest.mark.parametrize(
    "names",
    [
        ["a", "a"], ["a", "./a"], ["a", "a/b"], ["a/b", "a"], ["a", "a/"], ["a/b", "a/b/c"],
        ["readme", "README"], ["lib/x", "LIB/y"], ["é", "e\u0301"], ["straße", "STRASSE"],
    ],
)  # fmt: skip
def test_two_entries_for_one_place_are_refused(names: list[str], tmp_path: Path) -> None:
    assert refused(archive(*map(entry, names)), tmp_path).startswith(NOT_UNZIPPED)


def test_a_folder_may_be_listed_twice(tmp_path: Path) -> None:
    assert set(unpacked(archive(entry("a/b"), entry("a/"), entry("a/")), tmp_path)) == {"a", "a/b"}


def test_a_folder_has_no_content(tmp_path: Path) -> None:
    assert refused(archive(entry("a/", b"x", mode=stat.S_IFDIR | 0o755)), tmp_path).startswith(NOT_UNZIPPED)


ZEROS = zlib.compressobj(9, zlib.DEFLATED, -15)
BOMB = ZEROS.compress(bytes(50_000_000)) + ZEROS.flush()


def bomb(size: int = 50_000_000, **lies: Any) -> dict[str, Any]:
    return entry("zeros", packed=BOMB, method=8, size=size, crc=zlib.crc32(bytes(50_000_000)), **lies)


def test_a_package_that_says_how_large_it_is_is_refused_by_that(tmp_path: Path) -> None:
    assert refused(archive(bomb(UNZIPPED_PACKAGE_BYTES + 1)), tmp_path) == TOO_LARGE
    six = [bomb() | {"name": name, "own_name": name} for name in (b"1", b"2", b"3", b"4", b"5", b"6")]
    assert refused(archive(*six), tmp_path) == TOO_LARGE
    assert check(archive(*six[:5])).unzipped_bytes == 250_000_000


def test_no_more_of_an_entry_is_inflated_than_it_says() -> None:
    reading = Archive(archive(bomb(1000)), 1)
    with pytest.raises(ArchiveDamaged, match="larger than it says"):
        next(reading.read(reading.entries[0]))


def test_a_package_in_a_package_is_a_file(tmp_path: Path) -> None:
    inner = archive(bomb())
    assert unpacked(archive(entry("inner.zip", inner)), tmp_path)["inner.zip"] == ("file", 0o644, inner)


def test_entries_are_counted_before_they_are_read_and_so_are_folders_in_paths(tmp_path: Path) -> None:
    one = entry("x", offset=0)
    many = with_zip64_end(archive(entry("x"), one), count=PACKAGE_ENTRIES + 1)
    assert refused(many, tmp_path) == NOT_UNZIPPED
    deep = [entry(f"{i}/" + "/".join("a" * 500)) for i in range(PACKAGE_ENTRIES // 500)]
    assert f"is beyond the {PACKAGE_ENTRIES}" in refused(archive(*deep), tmp_path)


def test_links_cost_no_more_than_a_package_may(tmp_path: Path) -> None:
    slow = b"a/../" * 200 + b"a"
    links = [entry(f"l{i}", slow, mode=LINK) for i in range(1000)]
    assert "is one link too many" in refused(archive(*links), tmp_path)


BAD_ARCHIVES: dict[str, Callable[[], bytes]] = {
    "no zip": lambda: b"not a zip archive at all",
    "zeros": lambda: bytes(1000),
    "an end record alone, too long": lambda: archive(comment=b"x")[:-1],
    "trailing bytes": lambda: archive(entry("a")) + b"x",
    "leading bytes that move everything": lambda: b"#!/bin/sh\n" + archive(entry("a")),
    "entries overlap": lambda: archive(entry("a", b"x"), entry("a", b"x", offset=0) | {"name": b"a"}),
    "quoted overlap": lambda: quoted_overlap(),
    "an entry overlaps the list": lambda: archive(entry("a", b"x", own_packed_size=60, packed_size=60, size=60)),
    "size says 0": lambda: archive(bomb(0)),
    "size says less": lambda: archive(bomb(1000)),
    "size says more": lambda: archive(bomb(50_000_001)),
    "header says another size": lambda: archive(entry("a", b"xyz", own_size=2)),
    "header says another packed size": lambda: archive(entry("a", b"xyz", own_packed_size=2)),
    "header says another crc": lambda: archive(entry("a", b"xyz", own_crc=2)),
    "header has another name": lambda: archive(entry("a", own_name=b"b")),
    "header has another method": lambda: archive(entry("a", b"x" * 9, method=8, own_method=0)),
    "wrong crc": lambda: archive(entry("a", b"xyz", crc=1)),
    "wrong crc, deflated": lambda: archive(entry("a", b"xyz", method=8, crc=1)),
    "stored in two sizes": lambda: archive(entry("a", b"xyz", size=2)),
    "data descriptor lies": lambda: archive(
        entry("a", b"xyz", flags=8, own_crc=0, own_size=0, own_packed_size=0, behind=struct.pack("<3L", 1, 3, 3))
    ),
    "data descriptor is missing": lambda: archive(entry("a", b"xyz", flags=8)),
    "encrypted": lambda: archive(entry("a", b"xyz", flags=1)),
    "encrypted by its header": lambda: archive(entry("a", b"xyz", own_flags=1)),
    "encrypted by the list": lambda: archive(entry("a", b"xyz", flags=1, own_flags=0)),
    "strongly encrypted": lambda: archive(entry("a", b"xyz", flags=0x41)),
    "deflated data ends early": lambda: archive(entry("a", bytes(99), method=8, packed=deflated(bytes(99))[:-1])),
    "deflated data goes on": lambda: archive(entry("a", bytes(9), method=8, packed=deflated(bytes(9)) + b"x")),
    "deflated data is noise": lambda: archive(entry("a", bytes(9), method=8, packed=b"\xff" * 20)),
    "deflated data is none": lambda: archive(entry("a", bytes(9), method=8, packed=b"")),
    "more entries than it says": lambda: archive(entry("a"), entry("b"), count=1),
    "fewer entries than it says": lambda: archive(entry("a"), count=2),
    "list elsewhere": lambda: archive(entry("a"), start=3),
    "gap behind the list": lambda: archive(entry("a"), gap=b"1234"),
    "several disks": lambda: archive(entry("a"), disk=1),
    "entry on another disk": lambda: archive(entry("a", disk=1)),
    "large end record elsewhere": lambda: with_zip64_end(archive(entry("a")), at=0),
    "large end record of another length": lambda: with_zip64_end(archive(entry("a")), length=45),
    "end records differ": lambda: with_zip64_end(archive(entry("a"), entry("b")), short_count=1),
    "large end record lies": lambda: with_zip64_end(archive(entry("a")), start=1),
    "extra field damaged": lambda: archive(entry("a", extra=struct.pack("<HH", 1, 9) + b"x")),
    "large sizes missing": lambda: archive(entry("a", b"x", size=0xFFFFFFFF, extra=struct.pack("<HH", 1, 0))),
    "name is not UTF-8": lambda: archive(entry(b"\xff", flags=0x800)),
    "offset beyond the end": lambda: archive(entry("a"), entry("b", offset=10_000)),
    "tar": lambda: tar(),
    "gzip": lambda: __import__("gzip").compress(b"x"),
    **{
        f"method {method}": lambda method=method: archive(entry("a", b"xyz", method=method))
        for method in (1, 6, 9, 12, 14, 93, 95, 99)
    },
}


def quoted_overlap() -> bytes:
    """Begin an entry in a stored block of the one before it, so that both use the same data."""
    kernel = entry("b", bytes(1000), method=8)
    header = struct.pack(
        "<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 33, kernel["crc"], len(kernel["packed"]), kernel["size"], 1, 0
    )
    quote = struct.pack("<BHH", 0, len(header) + 1, 0xFFFF ^ (len(header) + 1)) + header + b"b"
    first = entry("a", header + b"b" + bytes(1000), method=8, packed=quote + kernel["packed"])
    return archive(first, kernel | {"offset": 30 + 1 + 5})


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        file.addfile(tarfile.TarInfo("a"))
    return out.getvalue()


@pytest.mark.parametrize("case", BAD_ARCHIVES)
def test_a_damaged_or_lying_archive_is_refused_in_the_words_of_aws(case: str, tmp_path: Path) -> None:
    assert refused(BAD_ARCHIVES[case](), tmp_path) == NOT_UNZIPPED


@pytest.mark.parametrize("case", ["entries overlap", "quoted overlap", "an entry overlaps the list"])
def test_entries_that_share_bytes_are_refused_for_that(case: str) -> None:
    with pytest.raises(InvalidParameterValue) as refusal:
        check(BAD_ARCHIVES[case]())
    assert "overlap" in str(refusal.value.__cause__)


def test_the_quoted_overlap_is_one_by_the_book() -> None:
    package = quoted_overlap()
    with zipfile.ZipFile(io.BytesIO(package)) as file:
        first, second = file.infolist()
    assert (first.file_size, second.file_size) == (1031, 1000)
    data = package[31 : 31 + first.compress_size]
    assert zlib.crc32(zlib.decompress(data, -15)) == first.CRC
    assert second.header_offset < 31 + first.compress_size


def test_every_way_to_cut_an_archive_short_is_refused(tmp_path: Path) -> None:
    package = archive(entry("a", b"xyz" * 9, method=8), entry("b/c", b"12"))
    for length in range(1, len(package)):
        assert refused(package[:length], tmp_path) == NOT_UNZIPPED


def test_an_archive_without_entries_is_refused_as_empty(tmp_path: Path) -> None:
    assert refused(b"", tmp_path) == EMPTY
    assert refused(archive(), tmp_path) == EMPTY


@pytest.mark.parametrize("signature", [b"", b"PK\7\x08"])
@pytest.mark.parametrize("figures", ["<3L", "<L2Q"])
def test_true_figures_behind_the_data_are_read_in_all_forms(signature: bytes, figures: str, tmp_path: Path) -> None:
    behind = signature + struct.pack(figures, zlib.crc32(b"xyz"), 3, 3)
    first = entry("a", b"xyz", flags=8, own_crc=0, own_size=0, own_packed_size=0, behind=behind)
    assert set(unpacked(archive(first, entry("b")), tmp_path)) == {"a", "b"}


def test_the_large_forms_of_records_are_read(tmp_path: Path) -> None:
    sizes = struct.pack("<HHQQ", 1, 16, 3, 3)
    large = {"size": 0xFFFFFFFF, "packed_size": 0xFFFFFFFF, "own_size": 0xFFFFFFFF, "own_packed_size": 0xFFFFFFFF}
    package = archive(entry("a", b"xyz", extra=sizes, own_extra=sizes, **large), entry("b"))
    assert set(unpacked(with_zip64_end(package), tmp_path)) == {"a", "b"}


def test_an_archive_may_follow_other_bytes_and_end_in_a_comment(tmp_path: Path) -> None:
    package = archive(entry("a"), before=b"#!/usr/bin/env python3\n", comment=b"PK\5\6 is no end record here")
    assert set(unpacked(package, tmp_path)) == {"a"}


def test_nothing_is_unpacked_over_something(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "old").touch()
    with pytest.raises(FileExistsError):
        unpack(archive(entry("a")), tmp_path / "tree")
    assert set(contents(tmp_path)) == {"tree", "tree/old"}


CHILD = """
    import os, resource, signal, sys
    from pathlib import Path
    from serverfull.storage import packages

    package, destination = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
    if sys.argv[3] == "full":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    else:
        step = getattr(packages, sys.argv[3])
        setattr(packages, sys.argv[3], lambda *arguments: os.kill(os.getpid(), signal.SIGKILL))
    packages.unpack(package, destination)
"""


def run_child(how: str, tmp_path: Path) -> subprocess.CompletedProcess[bytes]:
    (tmp_path / "package.zip").write_bytes(archive(entry("a"), entry("b", bytes(5000))))
    (tmp_path / "trees").mkdir()
    arguments = [str(tmp_path / "package.zip"), str(tmp_path / "trees" / "tree"), how]
    return subprocess.run([sys.executable, "-c", textwrap.dedent(CHILD), *arguments], capture_output=True, check=False)


def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path) -> None:
    done = run_child("full", tmp_path)
    assert b"OSError: [Errno 27]" in done.stderr
    assert contents(tmp_path / "trees") == {}


@pytest.mark.parametrize("step", ["flush_tree", "place"])
def test_a_host_that_is_killed_leaves_no_tree_that_is_not_whole(step: str, tmp_path: Path) -> None:
    assert run_child(step, tmp_path).returncode == -signal.SIGKILL
    (left,) = (tmp_path / "trees").iterdir()
    assert left.name.startswith(".new-")


def folded(named: tuple[str, Any]) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", named[0]).casefold())


NAMES = st.text(st.characters(exclude_categories=["C"], exclude_characters="/\\:"), min_size=1, max_size=9)
FILES = st.tuples(st.binary(max_size=99), st.sampled_from([1, 9_999]), st.sampled_from([0o644, 0o755, 0o555, 0o400]))
"""Content, how often it is repeated, and permissions."""
LINKS = st.sampled_from([".", "nothing", "./a/b"])
FOLDERS = st.recursive(
    FILES | LINKS,
    lambda inner: st.lists(
        st.tuples(NAMES.filter(lambda name: name not in {".", ".."}), inner), unique_by=folded, max_size=5
    ).map(dict),
)


def plant(tree: Any, path: Path) -> None:
    if isinstance(tree, dict):
        path.mkdir()
        for name, inner in tree.items():
            plant(inner, path / name)
    elif isinstance(tree, str):
        path.symlink_to(tree)
    else:
        path.write_bytes(tree[0] * tree[1])
        path.chmod(tree[2])


def zipped_by_python(root: Path) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(root.rglob("*")):
            if path.is_symlink():
                link = zipfile.ZipInfo(str(path.relative_to(root)))
                link.external_attr = LINK << 16
                file.writestr(link, os.readlink(path))
            else:
                file.write(path, path.relative_to(root))
    return out.getvalue()


def zipped_by_command(root: Path) -> bytes:
    command = ["zip", "-q", "-r", "-y", "../package.zip", "."]
    subprocess.run(command, cwd=root, check=True, env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"})
    return (root.parent / "package.zip").read_bytes()


@pytest.mark.parametrize("zipped", [zipped_by_python, zipped_by_command])
@given(tree=FOLDERS.filter(bool).filter(lambda tree: isinstance(tree, dict)))
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_tree_comes_back_byte_for_byte(
    zipped: Callable[[Path], bytes], require: Callable[..., None], tree: dict[str, Any]
) -> None:
    if zipped is zipped_by_command:
        require("zip", shutil.which("zip"), "apt-get install zip")
    with tempfile.TemporaryDirectory() as scratch:
        before = Path(scratch, "before")
        plant(tree, before)
        unpack(zipped(before), Path(scratch, "after"))
        assert contents(Path(scratch, "after")) == contents(before)
