"""Texts of the functions' log as JSON strings."""

import json
import sys
from json.encoder import encode_basestring

import pytest

from serverfull.invocation import sinks


@pytest.fixture(params=["with orjson", "without"])
def quote(request, monkeypatch):
    if request.param == "without":
        monkeypatch.setitem(sys.modules, "orjson", None)
    else:
        pytest.importorskip("orjson")
    return sinks._quoting()


def test_every_character_is_written_as_the_standard_library_writes_it(quote):
    for code in (*range(0x800), *range(0x2000, 0x2100), *range(0xD700, 0xE100), 0xFEFF, 0xFFFF, sys.maxunicode):
        assert quote(chr(code)) == encode_basestring(chr(code)), hex(code)
    text = 'one "line" \\ two\n\ttabs \x00\x1f\x7f\x80 \u2028 \ud800 \U0001f600'
    assert json.loads(quote(text)) == text
