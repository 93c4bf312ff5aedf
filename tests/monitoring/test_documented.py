"""Every code and metric is documented, and the examples name metrics that exist."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import pytest
import yaml
from django.utils import timezone

from backups_app.services.health.measures import measure
from backups_app.services.rescan import outcome
from tests.support import PROJECT

DOCS = PROJECT / "docs"
PAGE = (DOCS / "monitoring.md").read_text("utf-8")


_KINDS = ("Problem", "KeyFinding")

_PASSED_ON = ("keys.py", "findings.py", "elsewhere.py")
"""They pass codes on that others have given."""


def codes_in_the_source() -> set[str]:
    """The code of every ``Problem(code=…)`` and ``KeyFinding(code=…)`` of the app, and of every finding of a rescan."""
    found = set(outcome.DAMAGE)
    for path in (PROJECT / "backups_app").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in _KINDS:
                (code,) = [each.value for each in node.keywords if each.arg == "code"]
                if path.name in _PASSED_ON:
                    continue
                assert isinstance(code, ast.Constant), f"{path.name}: a code must be a plain text, to be found"
                found.add(str(code.value))
    return found


def test_every_code_is_documented_with_what_to_do_and_none_else():
    section = PAGE.partition("## Problems and what to do")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|([^|]+)\|([^|]+)\|$", section, re.MULTILINE)
    assert {code for code, _, _ in rows} == codes_in_the_source()
    assert len(rows) == len({code for code, _, _ in rows}) >= 19
    assert all(meaning.strip() and cure.strip() for _, meaning, cure in rows)


def test_every_code_has_its_urgency_in_the_guide_exactly_once():
    guide = (DOCS / "operators-guide.md").read_text("utf-8")
    section = guide.partition("\n## Alarms\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| \*\*[^|]+ \|([^|]+)\|$", section, re.MULTILINE)
    codes = [code for row in rows for code in re.findall(r"`(\w+)`", row)]
    assert len(rows) == 3
    assert sorted(codes) == sorted(codes_in_the_source())


@pytest.fixture
def metrics(home: object, db_catalog: None) -> dict[str, tuple[str, ...]]:
    """The metrics that exist, with their labels."""
    return {each.name: each.labels for each in measure(now=timezone.now())}


def test_every_metric_is_documented_with_its_labels(metrics: dict[str, tuple[str, ...]]):
    section = PAGE.partition("| metric | labels | meaning |")[2]
    rows = re.findall(r"^\| `(walsafe_\w+)` \|([^|]*)\|([^|]+)\|$", section, re.MULTILINE)
    documented = {name: tuple(re.findall(r"`(\w+)`", labels)) for name, labels, _ in rows}
    assert documented == metrics


def named(expression: str) -> set[str]:
    return set(re.findall(r"\bwalsafe_\w+", expression))


def test_the_alerts_name_metrics_that_exist(metrics: dict[str, tuple[str, ...]]):
    document: Any = yaml.safe_load((DOCS / "monitoring" / "alerts.yml").read_text("utf-8"))
    rules = [rule for group in document["groups"] for rule in group["rules"]]
    assert len(rules) >= 8
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert named(rule["expr"]), rule["alert"]
        assert named(rule["expr"]) <= set(metrics), rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]


def test_the_dashboard_names_metrics_that_exist(metrics: dict[str, tuple[str, ...]]):
    document = json.loads((DOCS / "monitoring" / "grafana.json").read_text("utf-8"))
    expressions = [target["expr"] for panel in document["panels"] for target in panel["targets"]]
    assert all(named(each) and named(each) <= set(metrics) for each in expressions)
    shown = {name for each in expressions for name in named(each)}
    assert len(shown) >= 15
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])


def test_the_alerts_use_labels_that_exist(metrics: dict[str, tuple[str, ...]]):
    document: Any = yaml.safe_load((DOCS / "monitoring" / "alerts.yml").read_text("utf-8"))
    for rule in (rule for group in document["groups"] for rule in group["rules"]):
        labels = {label for name in named(rule["expr"]) for label in metrics[name]}
        used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule)))
        assert used <= labels, rule["alert"]
