"""Every page as a browser gets it: nothing inline, hostile text inert, one small style sheet in two modes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders
from django.utils import timezone

from backups_app.core.errors import BusyError
from backups_app.models import AuditEvent, Backup, Copy, Database, Job, Verification
from backups_app.services.databases import add_database, change_policy
from tests.admin.conftest import Person, job_row, verification_row
from tests.admin.markup import Page, page_of
from tests.conftest import ACTOR
from tests.support import PROJECT, build

MODELS = ("database", "backup", "copy", "verification", "auditevent", "job")
OURS = "backups_app/admin.css"
TEMPLATES = sorted((PROJECT / "backups_app" / "templates").rglob("*.html"))
HOSTILE = {
    "script": "<script>alert(1)</script>",
    "attribute": '"><img src=x onerror=alert(1)>',
    "quotes": 'O\'Brien "and" sons',
    "right to left": "\u202etxt.exe \u0645\u0631\u062d\u0628\u0627",
    "long": "w" * 200,
    "template": "{{ request.user.password }}{% now 'Y' %}%(name)s%s",
    "entities": "&lt;b&gt; &amp; &#60;",
}
MARKUP = re.compile(r"<script>alert|<img src=x|<b>")


def pages_of(backup: Backup) -> list[str]:
    """Every page of the app that has to do with a backup."""
    rows = {
        "database": backup.database,
        "backup": backup,
        "copy": backup.copies.first(),
        "verification": backup.verifications.first(),
        "auditevent": AuditEvent.objects.order_by("pk").last(),
        "job": backup.job,
    }
    pages = [f"/admin/backups_app/{model}/" for model in MODELS]
    pages += [f"/admin/backups_app/{model}/{row.pk}/change/" for model, row in rows.items() if row is not None]
    pages += [f"/admin/backups_app/database/{backup.database_id}/history/", "/admin/backups_app/", "/admin/"]
    return [
        *pages,
        "/admin/backups_app/overview/",
        f"/admin/backups_app/database/back-up-now/?id={backup.database_id}",
        f"/admin/backups_app/backup/{backup.pk}/verify/",
        f"/admin/backups_app/backup/{backup.pk}/hold/",
        f"/admin/backups_app/backup/{backup.pk}/download/",
        f"/admin/backups_app/backup/{backup.pk}/manifest/",
        f"/admin/backups_app/backup/{backup.pk}/delete-archive/",
        f"/admin/backups_app/backup/verify-chosen/?id={backup.pk}",
        f"/admin/backups_app/backup/hold-chosen/?id={backup.pk}",
        f"/admin/backups_app/database/drill/?id={backup.database_id}",
        f"/admin/backups_app/database/{backup.database_id}/retention/?keep_last=1",
        f"/admin/backups_app/database/{backup.database_id}/prune/",
        *([f"/admin/backups_app/job/{backup.job_id}/cancel/"] if backup.job_id else []),
    ]


# Nothing inline


def test_no_page_holds_inline_code_or_styles(superuser: Person, backup: Backup):
    for address in pages_of(backup):
        response = superuser.get(address)
        assert response.status_code == 200, address
        assert page_of(response).inline_code == [], address


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_template_of_ours_holds_inline_code_styles_or_safe_text(template: Path):
    source = template.read_text()
    assert not re.search(r"\bstyle=|<style|<script|\son\w+=|javascript:", source)
    assert not re.search(r"\|\s*safe|autoescape\s+off|safeseq", source)


def test_our_templates_override_pages_of_our_app_only():
    root = PROJECT / "backups_app" / "templates"
    assert {"/".join(path.relative_to(root).parts[:2]) for path in TEMPLATES} == {"admin/backups_app"}


def test_every_form_of_ours_carries_a_csrf_token(superuser: Person, backup: Backup):
    job = job_row(backup.database)
    job.save()
    forms = [each for each in pages_of(backup) if "back-up-now" in each or each.endswith("/verify/")]
    for address in [*forms, f"/admin/backups_app/job/{job.pk}/cancel/"]:
        page = page_of(superuser.get(address))
        (form,) = page.all("form", "walsafe-confirm")
        assert form.attributes["method"] == "post"
        tokens = [each for each in page.all("input") if each.attributes.get("name") == "csrfmiddlewaretoken"]
        assert len(tokens) >= 2, "one of the log-out form, one of ours"


def test_no_page_loads_anything_from_elsewhere(superuser: Person, backup: Backup):
    for address in pages_of(backup):
        page = page_of(superuser.get(address))
        loaded = [each.attributes.get("src") or each.attributes.get("href", "") for each in page.elements]
        assert not [each for each in loaded if each.startswith(("http:", "https:", "//"))], address


# Hostile text


@pytest.fixture
def make_hostile(
    home: Path, tmp_path: Path, db_catalog: None, make_backup: Callable[..., Backup]
) -> Callable[[str], Backup]:
    """A function that makes a real backup in which every free text is hostile."""

    def make(text: str) -> Backup:
        table = '"' + text.replace('"', '""') + '"'
        path = build(tmp_path / "hostile.sqlite3", f"CREATE TABLE {table} (id); INSERT INTO {table} VALUES (1), (2);")
        database = add_database(text, path, actor=ACTOR)
        change_policy(database, required_tables=[text], freshness_hours=None, actor=ACTOR)
        database.refresh_from_db()
        backup = make_backup(database, note=text)
        assert (backup.state, backup.tables) == ("verified", {text: 2})
        checks = [{"name": text, "ok": False, "evidence": text, "advisory": True}]
        verification_row(backup, verdict="failed", reason=text, hint=text, checks=checks, destination=text[:100]).save()
        AuditEvent.objects.create(
            actor_name=text[:200], action="create", outcome="done", database_name=text, subject=text, detail=text
        )
        job = job_row(database, state="running", phase=text[:60], log=f"{text}\n" * 3, cancelled_by_name=text[:200])
        job.requested_by_name, job.outcome, job.hint, job.host, job.owner = text[:200], text, text, text, text[:100]
        job.options = {text: text}
        job.save()
        backup.job = job
        backup.save()
        return backup

    return make


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_is_inert_on_every_page(superuser: Person, make_hostile: Callable[[str], Backup], kind: str):
    text = HOSTILE[kind]
    backup = make_hostile(text)
    for address in pages_of(backup):
        response = superuser.get(address)
        assert response.status_code == 200, address
        source = response.content.decode()
        assert not MARKUP.search(source), address
        page = Page(source)
        assert page.inline_code == [], address
        assert not [each for each in page.all("img") if each.attributes.get("src") == "x"], address
    everywhere = " ".join(page_of(superuser.get(address)).text for address in pages_of(backup))
    assert everywhere.count(" ".join(text.split())) >= 10, "it is shown as it is"


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_is_inert_in_messages(
    superuser: Person, make_hostile: Callable[[str], Backup], monkeypatch: pytest.MonkeyPatch, kind: str
):
    text = HOSTILE[kind]
    backup = make_hostile(text)

    def refuse(*_arguments: object, **_options: object) -> Job:
        raise BusyError(text, text)

    monkeypatch.setattr("backups_app.admin.database.ask_create", refuse)
    response = superuser.post(
        "/admin/backups_app/database/back-up-now/", {"id": backup.database_id, "note": text}, follow=True
    )
    assert not MARKUP.search(response.content.decode())
    ((level, message),) = page_of(response).messages
    assert level == "error"
    inert = text.replace("\u202e", "\\u202e")
    assert message == f"No job for {inert}: {inert} {inert}"


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("model", MODELS)
def test_a_hostile_search_is_inert(superuser: Person, shop: Database, model: str, kind: str):
    response = superuser.get(f"/admin/backups_app/{model}/", {"q": HOSTILE[kind]})
    assert response.status_code == 200
    assert not MARKUP.search(response.content.decode())


def test_a_failed_backup_with_a_hostile_reason_is_inert(superuser: Person, shop: Database):
    text = HOSTILE["script"]
    now = timezone.now()
    backup = Backup.objects.create(
        database=shop, state="failed", trigger="admin", reason=text, hint=text, finished_at=now, remarks=[text]
    )
    Copy.objects.create(backup=backup, destination=text, name=text, state="failed", reason=text)
    for address in ("/admin/backups_app/backup/", f"/admin/backups_app/backup/{backup.pk}/change/"):
        source = superuser.get(address).content.decode()
        assert not MARKUP.search(source)
    assert source.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 4


def test_half_characters_of_a_hostile_schema_do_not_break_a_page(
    superuser: Person, home: Path, tmp_path: Path, make_backup: Callable[..., Backup]
):
    path = build(
        tmp_path / "half.sqlite3",
        """
        CREATE TABLE parent (id INTEGER PRIMARY KEY);
        CREATE TABLE child (id INTEGER PRIMARY KEY, parent REFERENCES parent);
        INSERT INTO child (parent) VALUES (7);
        PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET name = CAST(x'63ff64' AS TEXT), tbl_name = CAST(x'63ff64' AS TEXT),
            sql = 'CREATE TABLE "' || CAST(x'63ff64' AS TEXT) || '" (id INTEGER PRIMARY KEY, parent REFERENCES parent)'
            WHERE name = 'child';
        """,
    )
    backup = make_backup(add_database("half", path, actor=ACTOR))
    checks = Verification.objects.get().checks
    assert "udcff" in repr(checks), "the evidence holds half a character"
    assert superuser.get(f"/admin/backups_app/backup/{backup.pk}/change/").status_code == 200
    assert superuser.get(f"/admin/backups_app/verification/{Verification.objects.get().pk}/change/").status_code == 200


# The style sheet


def style_sheet() -> str:
    found = finders.find(OURS)
    assert isinstance(found, str)
    return re.sub(r"/\*.*?\*/", "", Path(found).read_text(), flags=re.DOTALL)


def variables_of(block: str) -> dict[str, str]:
    return dict(re.findall(r"(--walsafe-[a-z-]+):\s*([^;]+);", block))


def blocks() -> dict[str, dict[str, str]]:
    """The variables of each block that sets any, by its selectors."""
    found: dict[str, dict[str, str]] = {}
    path: list[str] = []
    text = ""
    for character in style_sheet():
        if character == "{":
            path.append(" ".join(text.split()))
            text = ""
        elif character == "}":
            if variables_of(text):
                found[" / ".join(path)] = variables_of(text)
            path.pop()
            text = ""
        else:
            text += character
    assert path == [], "the braces are balanced"
    return found


def test_every_colour_of_ours_has_a_light_and_a_dark_value():
    found = blocks()
    light = found.pop(":root")
    assert set(found) == {
        '@media (prefers-color-scheme: dark) / html:not([data-theme="light"])',
        'html[data-theme="dark"]',
    }
    assert len(light) == 10
    for dark in found.values():
        assert set(dark) == set(light)
        assert all(dark[name] != light[name] for name in light)
    system, chosen = found.values()
    assert system == chosen


def test_every_variable_of_ours_that_is_used_is_defined():
    used = set(re.findall(r"var\((--walsafe-[a-z-]+)\)", style_sheet()))
    assert used == set(blocks()[":root"])


def luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(each * 2 for each in digits) if len(digits) == 3 else digits
    parts = [int(digits[index : index + 2], 16) / 255 for index in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("mode", blocks())
def test_badges_can_be_read_in_both_modes(mode: str):
    colours = blocks()[mode]
    for look in ("good", "warn", "bad", "busy", "idle"):
        first, second = sorted(luminance(colours[f"--walsafe-{look}-{part}"]) for part in ("fg", "bg"))
        assert (second + 0.05) / (first + 0.05) >= 4.5, f"WCAG AA contrast of {look}"


def test_no_other_colour_is_fixed():
    rules = re.sub(r"--walsafe-[a-z-]+:\s*[^;]+;", "", style_sheet())
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b|rgba?\(|hsla?\(", rules)


def test_every_class_in_our_templates_and_badges_is_styled(superuser: Person, every_state: list[Backup]):
    styled = set(re.findall(r"\.(walsafe-[a-z-]+)", style_sheet()))
    used: set[str] = set()
    for template in TEMPLATES:
        used |= set(re.findall(r"walsafe-[a-z-]+", template.read_text()))
    for model in ("backup", "verification", "auditevent", "database"):
        page = page_of(superuser.get(f"/admin/backups_app/{model}/"))
        used |= {name for each in page.elements for name in each.classes if name.startswith("walsafe-")}
    assert used
    assert used <= styled


def test_our_style_sheet_is_loaded_on_our_pages_and_nowhere_else(superuser: Person, backup: Backup):
    ours = [each for each in pages_of(backup) if re.search(r"/backups_app/\w+/", each) and "history" not in each]
    others = ["/admin/", "/admin/auth/user/", "/admin/auth/user/add/", "/admin/auth/group/", "/admin/password_change/"]
    for address in ours:
        assert f"/static/{OURS}" in page_of(superuser.get(address)).stylesheets, address
    for address in others:
        assert "backups_app" not in "".join(page_of(superuser.get(address)).stylesheets), address
