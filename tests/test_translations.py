"""Greek is complete, compiled, and says the same: the catalogues against the sources, without gettext's tools."""

from __future__ import annotations

import ast
import gettext
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.utils import translation
from django.utils.translation.template import templatize

from backups_app.admin.health import problem_name
from backups_app.admin.progress import phase_label
from backups_app.models import Copy, Job, Restore
from backups_app.services.rescan.outcome import DAMAGE
from backups_app.services.wording import english
from tests.support import PROJECT

APP = PROJECT / "backups_app"
CATALOGUES = {
    "app": APP / "locale" / "el" / "LC_MESSAGES" / "django.po",
    "console": PROJECT / "locale" / "el" / "LC_MESSAGES" / "django.po",
}
Entries = dict[str, tuple[str, ...]]

_MARKERS = {"_", "gettext", "gettext_lazy", "gettext_noop", "ngettext", "ngettext_lazy"}
_MARKERS_WITH_CONTEXT = {"pgettext", "pgettext_lazy"}
_PLACEHOLDER = re.compile(r"%\(\w+\)[.\d]*[a-z]|%%|%[sd]|\{\w*\}|<[^>]*>")
_TEXT = r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""


def entries(path: Path) -> Entries:
    """The texts of a ``.po`` with their translations, the plural forms under the singular; no header.

    A context stands before its text, apart by EOT, as in the compiled catalogue.
    """
    found: Entries = {}
    for block in path.read_text("utf-8").split("\n\n"):
        parts: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line.startswith("#"):
                assert "fuzzy" not in line, block
                continue
            if not line.startswith('"'):
                name = line.split(" ", 1)[0]
            parts[name] = parts.get(name, "") + ast.literal_eval(line.removeprefix(name).strip())
        given = tuple(text for key, text in parts.items() if key.startswith("msgstr"))
        text = f"{parts['msgctxt']}\x04{parts['msgid']}" if "msgctxt" in parts else parts["msgid"]
        assert text not in found
        assert ("msgid_plural" in parts) == (len(given) == 2), block
        found[text] = given
    header = found.pop("")
    assert "nplurals=2; plural=(n != 1);" in header[0]
    return found


def marked_in_python(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        given = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        if node.func.id in _MARKERS and given[:1]:
            yield given[0]
        elif node.func.id in _MARKERS_WITH_CONTEXT and given:
            yield "\x04".join(given)


def marked_in_template(path: Path) -> Iterator[str]:
    source = templatize(path.read_text("utf-8"))
    for written in re.findall(rf"\b(?:n?gettext|_)\(u?{_TEXT}", source):
        yield ast.literal_eval(written)


def marked(*folders: Path) -> set[str]:
    """Every text of the sources that is marked for translation."""
    python = {text for folder in folders for path in folder.rglob("*.py") for text in marked_in_python(path)}
    templates = {text for folder in folders for path in folder.rglob("*.html") for text in marked_in_template(path)}
    return python | templates


@pytest.mark.parametrize("name", CATALOGUES)
def test_every_marked_text_is_translated_and_nothing_else(name: str):
    wanted = marked(APP) if name == "app" else marked(PROJECT / "templates", PROJECT / "project")
    assert wanted
    assert set(entries(CATALOGUES[name])) == wanted


def test_the_reader_of_templates_sees_both_kinds():
    wanted = {"Verify", "The last %(days)s days", "%(more)s more, see below."}
    assert wanted <= marked(APP / "templates")


@pytest.mark.parametrize("name", CATALOGUES)
def test_the_compiled_catalogue_is_the_written_one(name: str):
    """Whoever changes the texts runs ``make messages``: pip installs the compiled one."""
    with CATALOGUES[name].with_suffix(".mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    for text, given in entries(CATALOGUES[name]).items():
        if len(given) == 1:
            assert compiled.gettext(text) == given[0]
        else:
            assert (compiled.ngettext(text, "", 1), compiled.ngettext(text, "", 2)) == given
            assert compiled.ngettext(text, "", 0) == given[1]
    catalogue = compiled._catalog  # type: ignore[attr-defined]
    names = {key[0] if isinstance(key, tuple) else key for key in catalogue} - {""}
    assert names == set(entries(CATALOGUES[name]))


@pytest.mark.parametrize("name", CATALOGUES)
def test_translations_are_filled_with_the_same_placeholders(name: str):
    for text, given in entries(CATALOGUES[name]).items():
        for each in given:
            assert each.strip(), text
            assert sorted(_PLACEHOLDER.findall(each)) == sorted(_PLACEHOLDER.findall(text)), text
            assert each == each.strip()


def test_translations_are_greek_unless_they_are_names():
    """A word that was left in English by accident is seen; the few that stay are listed."""
    names = {"SHA-256", "webhook", "mail", "Worker", "Workers", "%(bytes)s bytes"}
    left = {text for text, given in entries(CATALOGUES["app"]).items() if not re.search("[Α-Ωα-ωά-ώ]", "".join(given))}
    assert left <= names | {text for text in left if not re.sub(_PLACEHOLDER, "", text).strip()}


def test_each_problem_and_each_phase_has_a_name_in_greek():
    """Codes and phases are written where they arise, far from the words for them."""
    codes, phases = set(DAMAGE), set()
    for path in APP.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            given = {each.arg: each.value.value for each in node.keywords if isinstance(each.value, ast.Constant)}
            if isinstance(node.func, ast.Name) and node.func.id in {"Problem", "KeyFinding"} and "code" in given:
                codes.add(given["code"])
            if isinstance(node.func, ast.Attribute) and node.func.attr == "report" and node.args:
                phases |= {node.args[0].value} if isinstance(node.args[0], ast.Constant) else set()
            phases |= {given["phase"]} if given.get("phase") else set()
    phases -= {"rescan"}  # no job does it
    assert {"copies_missing", "wal_large", "forged"} <= codes
    assert {"copy", "prune", "decrypt"} <= phases
    with translation.override("el"):
        assert [code for code in codes if not _is_greek(problem_name(code))] == []
        assert [phase for phase in phases if not _is_greek(phase_label(Job(phase=phase)))] == []


def _is_greek(text: str) -> bool:
    return re.search("[Α-Ωα-ωά-ώ]", text) is not None


def test_one_english_word_with_two_meanings_has_two_greek_ones():
    with translation.override("el"):
        assert Job(kind="copy").get_kind_display() == "αποθήκευση αντιτύπων"
        assert str(Copy._meta.verbose_name) == "αντίτυπο"
        assert english(Job(kind="copy"), "kind") == "copy"


def test_what_is_recorded_stays_in_english():
    with translation.override("el"):
        assert Job(kind="create").get_kind_display() == "λήψη αντιγράφου"
        assert english(Job(kind="create"), "kind") == "back up"
        assert english(Restore(state="rolled_back"), "state") == "rolled back"
        assert Job(kind="create").get_kind_display() == "λήψη αντιγράφου"


def test_services_and_commands_take_no_label_in_the_language_of_the_reader():
    folders = [APP / "services", APP / "verbs", APP / "jobs"]
    found = [
        path for folder in folders for path in folder.rglob("*.py") if re.search(r"_display\(\)", path.read_text())
    ]
    assert found == []
