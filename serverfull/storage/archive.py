"""Reads zip archives that nobody vouches for: where everything is, and what is in it.

`serverfull.storage.packages` calls it with what clients upload. It is stricter than the standard library's reader,
which looks at the list at the end of an archive alone and, before CPython 3.11.8, lets entries overlap: here the list,
the headers before the data, the descriptors behind it and the data itself must all say the same, and no byte belongs to
two entries. What cannot be read in one way only is refused. Everything is done in memory, without threads.

The format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from struct import Struct
from struct import error as StructError  # noqa: N812
from typing import NamedTuple

_END = Struct("<4s4H2LH")
_END_SIGNATURE = b"PK\5\6"
_END_SEARCHED = _END.size + 0xFFFF
_LOCATOR = Struct("<4sLQL")
_LOCATOR_SIGNATURE = b"PK\6\7"
_END64 = Struct("<4sQ2H2L4Q")
_END64_SIGNATURE = b"PK\6\6"
_LISTED = Struct("<4s2B5H3L5H2L")
_LISTED_SIGNATURE = b"PK\1\2"
_LOCAL = Struct("<4s5H3L2H")
_LOCAL_SIGNATURE = b"PK\3\4"
_DESCRIPTORS = (Struct("<4s3L"), Struct("<4sL2Q"))
_DESCRIPTOR_SIGNATURE = b"PK\7\10"
_FIELD = Struct("<2H")

_ENCRYPTED = 0x2041  # encrypted, strongly encrypted, list masked
_DESCRIPTOR_FOLLOWS = 0x8
_UTF_8 = 0x800
_STORED, _DEFLATED = 0, 8
_ZIP64_FIELD = 0x0001
_UNICODE_PATH_FIELD = 0x7075
_IN_ZIP64 = 0xFFFFFFFF
_UNIX_SYSTEMS = (3, 19)  # Unix, macOS: the only ones whose modes mean something

_PIECE = 1 << 20
_INPUT_PIECE = 1 << 16


class ArchiveDamaged(Exception):
    """The bytes are not a zip archive that can be read in one way only; the message says where it fails."""


class Entry(NamedTuple):
    """One entry of an archive.

    :param name: as it was written; a folder's ends with a slash.
    :param mode: type and permissions as Unix has them, 0 where the archive does not say.
    :param size: bytes, unpacked.
    :param offset: where its header is.
    :param start: where its data is, ``packed`` bytes long.
    """

    name: str
    mode: int
    size: int
    crc: int
    offset: int
    start: int
    packed: int
    deflated: bool


class Archive:
    """A zip archive in memory.

    :param most: entries that it may have.
    :raises ArchiveDamaged: it cannot be read, or has more entries.
    """

    def __init__(self, package: bytes, most: int) -> None:
        self._package = package
        self._view = memoryview(package)
        try:
            self.entries = self._read_entries(most)
        except StructError:
            raise ArchiveDamaged("it ends too early") from None

    def _read_entries(self, most: int) -> list[Entry]:
        position, size, count = self._find_list()
        if count > most:
            raise ArchiveDamaged(f"it has more than {most} entries")
        start = position
        extents: list[tuple[int, int]] = []
        entries = []
        for _ in range(count):
            entry, position, end = self._read_entry(position, start + size)
            entries.append(entry)
            extents.append((entry.offset, end))
        if position != start + size:
            raise ArchiveDamaged("the list of entries has another size than it says")
        _refuse_overlaps(extents, start)
        return entries

    def _find_list(self) -> tuple[int, int, int]:
        """Give where the list of entries is, its bytes and its entries."""
        end = self._find_end()
        _, disk, list_disk, count_here, count, size, start, _ = _END.unpack_from(self._package, end)
        found: tuple[int, ...] = (disk, list_disk, count_here, count, size, start)
        locator = end - _LOCATOR.size
        if locator >= 0 and self._package.startswith(_LOCATOR_SIGNATURE, locator):
            end, found = self._read_end64(locator, found)
        disk, list_disk, count_here, count, size, start = found
        if disk or list_disk or count_here != count:
            raise ArchiveDamaged("it is one of several disks")
        if start + size != end:
            raise ArchiveDamaged("the list of entries is not where it should be")
        return start, size, count

    def _find_end(self) -> int:
        at = len(self._package)
        lowest = max(0, at - _END_SEARCHED)
        while (at := self._package.rfind(_END_SIGNATURE, lowest, at + 3)) >= 0:
            comment = at + _END.size
            if comment <= len(self._package):
                length = int.from_bytes(self._package[comment - 2 : comment], "little")
                if comment + length == len(self._package):
                    return at
        raise ArchiveDamaged("it has no end record")

    def _read_end64(self, locator: int, short: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        """Read the large form of the end record; every figure that the short one has too must be the same there."""
        _, disk, at, disks = _LOCATOR.unpack_from(self._package, locator)
        if disk or disks > 1 or at + _END64.size > locator:
            raise ArchiveDamaged("the end record is not where it should be")
        signature, length, _, _, *large = _END64.unpack_from(self._package, at)
        if signature != _END64_SIGNATURE or at + 12 + length != locator:
            raise ArchiveDamaged("the end record is not where it should be")
        unsaid = (0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, _IN_ZIP64, _IN_ZIP64)
        for little, big, none in zip(short, large, unsaid, strict=True):
            if little not in (none, big):
                raise ArchiveDamaged("its end records contradict each other")
        return at, tuple(large)

    def _read_entry(self, position: int, stop: int) -> tuple[Entry, int, int]:
        """Read an entry of the list, and the header before its data.

        :param stop: where the list ends.
        :returns: the entry, where the next one of the list is, and where what belongs to this one ends.
        """
        if position + _LISTED.size > stop:
            raise ArchiveDamaged("the list of entries ends too early")
        listed = _LISTED.unpack_from(self._package, position)
        signature, _, system, _, flags, method, _, _, crc, packed, size = listed[:11]
        name_length, extra_length, comment_length, disk, _, attributes, offset = listed[11:]
        name_at = position + _LISTED.size
        extra_at = name_at + name_length
        after = extra_at + extra_length + comment_length
        if signature != _LISTED_SIGNATURE or after > stop:
            raise ArchiveDamaged("the list of entries is damaged")
        raw_name = self._package[name_at:extra_at]
        name = None
        if extra_length:
            fields = _read_fields(self._package[extra_at : extra_at + extra_length])
            size, packed, offset = _in_zip64(fields, size, packed, offset)
            name = _unicode_path(fields, raw_name)
        if disk not in (0, 0xFFFF):
            raise ArchiveDamaged("it is one of several disks")
        _refuse_unreadable(flags, method, packed, size)
        start, end = self._read_header(offset, raw_name, (method, crc, packed, size))
        mode = attributes >> 16 if system in _UNIX_SYSTEMS else 0
        name = _decode(raw_name, flags) if name is None else name
        return Entry(name, mode, size, crc, offset, start, packed, method == _DEFLATED), after, end

    def _read_header(self, offset: int, name: bytes, listed: tuple[int, int, int, int]) -> tuple[int, int]:
        """Read the header before an entry's data; it must say what the list says.

        :returns: where the data begins, and where the entry ends.
        """
        method, crc, packed, size = listed
        signature, _, flags, own_method, _, _, *own, name_length, extra_length = _LOCAL.unpack_from(
            self._package, offset
        )
        name_at = offset + _LOCAL.size
        extra_at = name_at + name_length
        start = extra_at + extra_length
        end = start + packed
        if signature != _LOCAL_SIGNATURE or own_method != method or end > len(self._package):
            raise ArchiveDamaged("an entry is not where the list says")
        if self._package[name_at:extra_at] != name or flags & _ENCRYPTED:
            raise ArchiveDamaged("an entry has another header than the list says")
        follows = bool(flags & _DESCRIPTOR_FOLLOWS)
        if own != [crc, packed, size]:
            if _IN_ZIP64 in own[1:] and extra_length:
                own[2], own[1] = _in_zip64(_read_fields(self._package[extra_at:start]), own[2], own[1])
            for figure, expected in zip(own, (crc, packed, size), strict=True):
                if figure != expected and not (follows and figure in (0, _IN_ZIP64)):
                    raise ArchiveDamaged("an entry has another header than the list says")
        return start, self._skip_descriptor(end, crc, packed, size) if follows else end

    def _skip_descriptor(self, at: int, crc: int, packed: int, size: int) -> int:
        """Give the end of the figures that follow the data, which come with or without signature, short or long."""
        for form in _DESCRIPTORS:
            try:
                expected = form.pack(_DESCRIPTOR_SIGNATURE, crc, packed, size)
            except StructError:
                continue
            for descriptor in (expected, expected[4:]):
                if self._package.startswith(descriptor, at):
                    return at + len(descriptor)
        raise ArchiveDamaged("the figures behind an entry's data are not those of the list")

    def read(self, entry: Entry) -> Iterator[bytes | memoryview]:
        """Give an entry's content in pieces of at most 1 MB, never more of it than the archive says.

        :raises ArchiveDamaged: the content is not what the archive says. Pieces may have been given before.
        """
        crc = size = 0
        for piece in self._inflate(entry) if entry.deflated else self._slices(entry):
            size += len(piece)
            if size > entry.size:
                raise ArchiveDamaged("an entry is larger than it says")
            crc = zlib.crc32(piece, crc)
            yield piece
        if size != entry.size or crc != entry.crc:
            raise ArchiveDamaged("an entry's content is damaged")

    def _slices(self, entry: Entry) -> Iterator[memoryview]:
        for at in range(0, entry.packed, _PIECE):
            yield self._view[entry.start + at : entry.start + min(at + _PIECE, entry.packed)]

    def _inflate(self, entry: Entry) -> Iterator[bytes]:
        if not entry.packed:
            return  # some writers say that a folder is deflated
        inflating = zlib.decompressobj(-zlib.MAX_WBITS)
        stop = entry.start + entry.packed
        try:
            for at in range(entry.start, stop, _INPUT_PIECE):
                given: bytes | memoryview = self._view[at : min(at + _INPUT_PIECE, stop)]
                while given and not inflating.eof:
                    yield inflating.decompress(given, _PIECE)
                    given = inflating.unconsumed_tail
                if inflating.eof and (inflating.unused_data or at + _INPUT_PIECE < stop):
                    raise ArchiveDamaged("an entry's data ends too early")
        except zlib.error:
            raise ArchiveDamaged("an entry's data is damaged") from None
        yield from _drain(inflating)


def _drain(inflating: zlib._Decompress) -> Iterator[bytes]:
    """Give what is inflated and not yet given once all input has been taken."""
    while not inflating.eof:
        piece = inflating.decompress(b"", _PIECE)
        if not piece:
            raise ArchiveDamaged("an entry's data ends too early")
        yield piece


def _refuse_overlaps(extents: list[tuple[int, int]], limit: int) -> None:
    """Let no byte belong to two entries, or to one and the list."""
    extents.sort()
    free = 0
    for start, end in extents:
        if start < free:
            raise ArchiveDamaged("its entries overlap")
        free = end
    if free > limit:
        raise ArchiveDamaged("its entries overlap the list of them")


def _refuse_unreadable(flags: int, method: int, packed: int, size: int) -> None:
    if flags & _ENCRYPTED:
        raise ArchiveDamaged("it is encrypted")
    if method not in (_STORED, _DEFLATED):
        raise ArchiveDamaged(f"compression method {method} is not known")
    if method == _STORED and packed != size:
        raise ArchiveDamaged("an entry that is not compressed has two sizes")


def _read_fields(extra: bytes) -> dict[int, bytes]:
    """Split the extra fields of an entry; a rest too short to be one is padding."""
    fields: dict[int, bytes] = {}
    at = 0
    while at + _FIELD.size <= len(extra):
        identity, length = _FIELD.unpack_from(extra, at)
        at += _FIELD.size
        if at + length > len(extra):
            raise ArchiveDamaged("an extra field is damaged")
        fields.setdefault(identity, extra[at : at + length])
        at += length
    return fields


def _in_zip64(fields: dict[int, bytes], *short: int) -> tuple[int, ...]:
    """Replace the figures that were too large for their places by those of the field that has room for them."""
    field = fields.get(_ZIP64_FIELD, b"")
    at = 0
    found = []
    for figure in short:
        if figure == _IN_ZIP64 and _ZIP64_FIELD in fields:
            if at + 8 > len(field):
                raise ArchiveDamaged("an extra field is damaged")
            found.append(int.from_bytes(field[at : at + 8], "little"))
            at += 8
        else:
            found.append(figure)
    return tuple(found)


def _unicode_path(fields: dict[int, bytes], raw_name: bytes) -> str | None:
    """Give the name in UTF-8 that goes with the raw one, where an archive has both."""
    field = fields.get(_UNICODE_PATH_FIELD)
    if field is None or len(field) < 5 or field[0] != 1:
        return None
    if int.from_bytes(field[1:5], "little") != zlib.crc32(raw_name):
        return None  # somebody renamed the entry and did not know the field
    return _decode(field[5:], _UTF_8)


def _decode(raw_name: bytes, flags: int) -> str:
    """Decode a name: UTF-8 where the entry says so or it can be that, else the code page that the format names."""
    try:
        return raw_name.decode()
    except UnicodeDecodeError:
        if flags & _UTF_8:
            raise ArchiveDamaged("a name is not UTF-8") from None
        return raw_name.decode("cp437")
