"""What a person may get wrong on the command line."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path

import pytest

from backups_app.models import Database
from backups_app.verbs import arguments
from tests.console import Finished


def test_a_path_is_absolute_and_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert arguments.path("~/x") == arguments.path("x") == tmp_path / "x"


def test_the_home_of_nobody_is_refused():
    with pytest.raises(ArgumentTypeError, match="~nobody-has-this-name"):
        arguments.path("~nobody-has-this-name/x")


def test_no_text_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentTypeError):
        arguments.path("")
    assert arguments.path(".") == tmp_path


@pytest.mark.parametrize("given", ["-1", "1.5", "x", "", " 1", "1e3", "²", "1000000001", "9" * 5000])
def test_what_is_no_count_is_refused(given: str):
    with pytest.raises(ArgumentTypeError):
        arguments.count(given)


def test_a_count_starts_at_zero():
    assert (arguments.count("0"), arguments.count("12")) == (0, 12)
    assert arguments.count("1000000000") == 10**9


def test_json_may_stand_before_the_verb(run: Callable[..., Finished]):
    assert run("--json", "list").document == run("list", "--json").document == {"backups": []}


@pytest.mark.parametrize("verb", ["list", "keys", "databases", "status", "create --all"])
def test_yes_does_no_harm_where_nothing_is_asked(run: Callable[..., Finished], shop: Database, verb: str):
    assert run(*verb.split(), "--yes", "--json").code in (0, 8)
