"""Which texts are event patterns."""

from __future__ import annotations

import json

import pytest

from serverfull.domain.event_patterns import parse_event_pattern


@pytest.mark.parametrize(
    "pattern",
    [
        {"body": ["x", 1, None, True, 2.5, ""]},
        {"body": {"RequestCode": ["BBBB"], "nested": {"deep": [1]}}},
        {"a": [{"prefix": "x"}, {"suffix": "x"}, {"equals-ignore-case": "x"}, {"wildcard": "a*b"}]},
        {"a": [{"prefix": {"equals-ignore-case": "x"}}]},
        {"a": [{"anything-but": "x"}, {"anything-but": 3}, {"anything-but": ["x", 3]}]},
        {"a": [{"anything-but": {"prefix": "x"}}, {"anything-but": {"wildcard": ["a*", "b*"]}}]},
        {"a": [{"numeric": ["=", 5]}, {"numeric": [">", 0, "<=", 3.5]}]},
        {"a": [{"exists": True}], "b": [{"exists": False}]},
        {"a": [{"cidr": "10.0.0.0/24"}, {"cidr": "2001:db8::/32"}]},
        {"$or": [{"a": ["x"]}, {"b": {"c": [1]}}], "d": ["y"]},
        {"$or": ["a field of that name"]},
    ],
)
def test_patterns_are_read(pattern):
    assert parse_event_pattern(json.dumps(pattern)) == pattern


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        '"text"',
        "[]",
        "{}",
        '[{"a": ["x"]}]',
        '{"a": "x"}',
        '{"a": 1}',
        '{"a": null}',
        '{"a": []}',
        '{"a": {}}',
        '{"a": [["x"]]}',
        '{"a": [{}]}',
        '{"a": [{"prefix": "x", "suffix": "y"}]}',
        '{"a": [{"like": "x"}]}',
        '{"a": [{"prefix": 1}]}',
        '{"a": [{"prefix": ""}]}',
        '{"a": [{"prefix": {"wildcard": "x"}}]}',
        '{"a": [{"exists": "yes"}]}',
        '{"a": [{"anything-but": []}]}',
        '{"a": [{"anything-but": null}]}',
        '{"a": [{"anything-but": {"numeric": ["=", 1]}}]}',
        '{"a": [{"anything-but": {}}]}',
        '{"a": [{"numeric": []}]}',
        '{"a": [{"numeric": ["=", "1"]}]}',
        '{"a": [{"numeric": ["=", true]}]}',
        '{"a": [{"numeric": ["!", 1]}]}',
        '{"a": [{"numeric": [[], 1]}]}',
        '{"a": [{"numeric": [">", 3, "<", 3]}]}',
        '{"a": [{"numeric": ["<", 3, ">", 1]}]}',
        '{"a": [{"numeric": ["=", 5000000001]}]}',
        '{"a": [{"cidr": "10.0.0.0/99"}]}',
        '{"a": [{"cidr": 10}]}',
        '{"a": [{"wildcard": "a**b"}]}',
        '{"$or": [{"a": ["x"]}]}',
        '{"$or": [{"a": ["x"]}, {}]}',
        '{"$or": []}',
        '{"a":' * 600 + '["x"]' + "}" * 600,
        "[" * 4096,
    ],
)
def test_what_is_no_pattern_is_refused(text):
    with pytest.raises(ValueError):
        parse_event_pattern(text)
