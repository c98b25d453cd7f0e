"""Figures as CloudWatch's embedded metric format has them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from serverfull.lambda_mode.emf import EmfMetrics


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def metrics(lines: list[str]) -> EmfMetrics:
    return EmfMetrics("serverfull", "shop", lines.append)


def test_a_line_says_what_each_figure_is(metrics: EmfMetrics, lines: list[str]) -> None:
    metrics.request_id = "id-1"
    metrics.count("orders", 2, shop="north", colour="red")
    metrics.timing("payment", 0.25, shop="north", colour="red")
    metrics.gauge("stock", 7, shop="north", colour="red")
    metrics.flush()
    (line,) = lines
    document = json.loads(line)
    assert line.endswith("}\n")
    assert document.pop("_aws")["CloudWatchMetrics"] == [
        {
            "Namespace": "serverfull",
            "Dimensions": [["FunctionName", "colour", "shop"]],
            "Metrics": [
                {"Name": "orders", "Unit": "Count"},
                {"Name": "payment", "Unit": "Seconds"},
                {"Name": "stock", "Unit": "None"},
            ],
        }
    ]
    assert document == {
        "FunctionName": "shop",
        "requestId": "id-1",
        "colour": "red",
        "shop": "north",
        "orders": 2,
        "payment": 0.25,
        "stock": 7,
    }


def test_counts_add_up_the_last_gauge_counts_and_distributions_keep_every_value(
    metrics: EmfMetrics, lines: list[str]
) -> None:
    for value in (1, 2, 3):
        metrics.count("c", value)
        metrics.gauge("g", value)
        metrics.histogram("h", value)
    metrics.flush()
    document = json.loads(lines[0])
    assert (document["c"], document["g"], document["h"]) == (6, 3, [1, 2, 3])


def test_a_flush_begins_anew_and_writes_nothing_where_there_is_nothing(metrics: EmfMetrics, lines: list[str]) -> None:
    metrics.count("c")
    metrics.flush()
    metrics.flush()
    metrics.count("c")
    metrics.flush()
    assert [json.loads(line)["c"] for line in lines] == [1, 1]


def test_other_tag_values_are_other_lines(metrics: EmfMetrics, lines: list[str]) -> None:
    metrics.count("c", shop="north")
    metrics.count("c", shop="south")
    metrics.flush()
    assert [json.loads(line)["shop"] for line in lines] == ["north", "south"]


def test_a_line_has_at_most_a_hundred_values_of_a_metric_and_a_hundred_metrics(
    metrics: EmfMetrics, lines: list[str]
) -> None:
    for number in range(250):
        metrics.histogram("h", number)
    for number in range(150):
        metrics.count(f"c{number}")
    metrics.flush()
    documents = [json.loads(line) for line in lines]
    assert [value for one in documents for value in one.get("h", [])] == list(range(250))
    assert max(len(one.get("h", [])) for one in documents) == 100
    described = [one["_aws"]["CloudWatchMetrics"][0]["Metrics"] for one in documents]
    assert max(map(len, described)) == 100
    assert sum(map(len, described)) == 3 + 150


def test_a_tag_without_a_value_is_no_dimension_as_cloudwatch_would_refuse_the_line(
    metrics: EmfMetrics, lines: list[str]
) -> None:
    metrics.count("c", shop="")
    metrics.flush()
    assert json.loads(lines[0])["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["FunctionName"]]


def test_names_that_meet_in_a_line_are_kept_apart(metrics: EmfMetrics, lines: list[str]) -> None:
    metrics.count("orders", orders="many", requestId="mine")
    metrics.count("_aws")
    metrics.flush()
    first, second = map(json.loads, lines)
    assert (first["orders"], first["orders_"], first["requestId_"]) == (1, "many", "mine")
    assert second["_aws_"] == 1


@pytest.mark.parametrize(
    "wrong",
    [
        lambda m: m.count("c", -1),
        lambda m: m.count("c", math.nan),
        lambda m: m.histogram("h", math.inf),
        lambda m: m.timing("t", math.nan),
        lambda m: m.count(""),
        lambda m: (m.count("c"), m.gauge("c", 1)),
        lambda m: (m.count("c", a=1), m.count("c", b=1)),
    ],
)
def test_what_the_hosts_metrics_refuse_is_refused_here_too(metrics: EmfMetrics, wrong: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match=r"takes|name"):
        wrong(metrics)


def test_a_handler_that_replaces_functions_of_the_json_module_breaks_no_figures(
    metrics: EmfMetrics, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(json, "dumps", None)
        metrics.count("orders")
        metrics.flush()
    assert json.loads(lines[0])["orders"] == 1
