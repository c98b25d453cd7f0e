from __future__ import annotations

from pathlib import Path

from serverfull.config.names import setting_keys
from serverfull.config.reference import describe, markdown

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_settings_page_is_up_to_date() -> None:
    assert PAGE.read_text() == markdown(), "run `make docs`"


def test_every_setting_is_described_with_all_its_names() -> None:
    described = describe()
    assert [(doc.group, doc.name) for doc in described] == list(setting_keys())
    assert [f"{doc.group}.{doc.name}" for doc in described if len(doc.doc) < 10] == []
    (port,) = (doc for doc in described if (doc.group, doc.name) == ("server", "port"))
    assert port.env == "SERVERFULL_SERVER__PORT"
    assert port.go_names == ("SERVERFULL_RUNTIME_HTTPSERVER_ADDRESS",)
    assert port.common_names == ("PORT",)
    assert port.flag == "--port"
    assert port.type == "a whole number from 0 to 65535"
    assert port.default == 8080
    assert port.doc.startswith("TCP port; 0 lets")


def test_a_text_of_several_lines_is_kept_whole() -> None:
    (admin,) = (doc for doc in describe() if doc.name == "admin_address")
    assert admin.doc.startswith("``host:port`` of a second listener")
    assert admin.doc.endswith("on the main port alone.")
    assert "\n   " not in admin.doc
