"""The screens in Greek: words, plural forms, dates and numbers of the reader; machines get what they always got."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client
from django.utils import timezone, translation

from backups_app.admin.display import age, due
from backups_app.admin.schedule import _in_words
from backups_app.jobs.cron import parse
from backups_app.models import Backup, Database, Finding, Host, Job, Schedule
from tests.admin.conftest import Person, backup_row, job_row, verification_row
from tests.admin.markup import Page, page_of

MakePerson = Callable[..., Person]

pytestmark = pytest.mark.usefixtures("home", "db_catalog")

APP = "/admin/backups_app/"


@pytest.fixture
def reader(person: MakePerson) -> Person:
    """Somebody who may see everything, with a Greek browser."""
    return person("superuser", headers={"Accept-Language": "el-GR,el;q=0.9,en;q=0.5"})


def opened(reader: Person, address: str) -> Page:
    response = reader.get(address)
    assert response.status_code == 200
    assert response["Content-Language"] == "el"
    page = page_of(response)
    assert page.all("html")[0].attributes["lang"] == "el"
    return page


def expect(page: Page, *, there: list[str], gone: list[str]) -> None:
    for each in there:
        assert each in page.text, each
    for each in gone:
        assert each not in page.text, each


def test_the_index_is_greek(reader: Person):
    page = opened(reader, "/admin/")
    expect(
        page,
        there=["Αντίγραφα ασφαλείας", "Βάσεις δεδομένων", "Επαναφορές", "Χρονοπρογράμματα", "Γραφείο αντιγράφων"],
        gone=["Databases", "Restores", "Schedules", "Backup desk"],
    )


def test_the_list_of_databases_is_greek(reader: Person, backup: Backup):
    page = opened(reader, f"{APP}database/")
    expect(
        page,
        there=["Τελευταίο επαληθευμένο αντίγραφο", "ασφαλής", "Λήψη αντιγράφου τώρα", "μόλις τώρα"],
        gone=["Last verified backup", "Back up now", "just now"],
    )


def test_the_page_of_a_backup_is_greek(reader: Person, backup: Backup):
    page = opened(reader, f"{APP}backup/{backup.pk}/change/")
    expect(
        page,
        there=["επαληθεύτηκε", "Τεκμήρια", "Αντίτυπα και ανάκτηση", "Επαλήθευση", "Αίτημα επαναφοράς", "Κράτηση"],
        gone=["Evidence", "Copies and recovery", "Request restore", "was read back"],
    )


def test_the_page_of_a_job_and_its_texts_for_the_script_are_greek(reader: Person, shop: Database):
    job = job_row(shop, state="running")
    job.save()
    page = opened(reader, f"{APP}job/{job.pk}/change/")
    expect(
        page,
        there=["εκτελείται", "Το αντίγραφο δημιουργείται.", "Έλεγχος και συμπίεση", "Ταχύτητα", "Ακύρωση εργασίας"],
        gone=["running", "The backup is being made", "Checking and compressing", "Cancel job"],
    )
    sent = reader.get(f"{APP}job/{job.pk}/progress.json").json()
    assert sent["words"] == "Το αντίγραφο δημιουργείται."
    assert sent["percent_label"] == "25%"
    assert (sent["state"], sent["look"], sent["percent"], sent["is_open"]) == ("running", "busy", 25, True)


def test_the_overview_is_greek(reader: Person, backup: Backup):
    page = opened(reader, f"{APP}overview/")
    expect(
        page,
        there=[
            "Όλα όσα είναι υπό προστασία επαληθεύτηκαν την τελευταία 1 ώρα.",
            "Προστατευμένες βάσεις δεδομένων",
            "1 από 1",
            "Τελευταία άσκηση",
            "Οι τελευταίες 60 ημέρες",
        ],
        gone=["Everything under care", "Protected databases", "Last drill", "The last 60 days"],
    )


def test_every_other_page_opens_in_greek(reader: Person, backup: Backup):
    drill = verification_row(backup, level="drill")
    drill.save()
    schedule = Schedule.objects.create(database=backup.database, cron="15 3 * * *", time_zone="Europe/Athens")
    pages = {
        "health/": ("healthproblem/health/", "Τίποτα δεν χρειάζεται προσοχή."),
        "verify": (f"backup/{backup.pk}/verify/", "Σε τι βάθος;"),
        "restore": (f"backup/{backup.pk}/restore/", "Τίποτα ζωντανό δεν αλλάζει πριν"),
        "hold": (f"backup/{backup.pk}/hold/", "Καμία πολιτική δεν διαγράφει"),
        "back up": (f"database/back-up-now/?id={backup.database_id}", "Λαμβάνεται ένα συνεπές αντίγραφο"),
        "retention": (f"database/{backup.database_id}/retention/", "Εδώ δεν αλλάζει τίποτα."),
        "drill": (f"verification/{drill.pk}/report/", "Χρόνος ανάκτησης"),
        "schedule": (f"schedule/{schedule.pk}/change/", "15 3 * * * Στις 03:15"),
        "triage": ("triagerun/start/", "Αξιολόγηση αρχειοθηκών"),
        "kit": ("recipient/kit/", "Δεν περιέχει κανένα μυστικό."),
    }
    for name, (address, words) in pages.items():
        assert words in opened(reader, APP + address).text, name
    for model in ("backup", "database", "job", "restore", "schedule", "verification", "auditevent", "notification"):
        opened(reader, f"{APP}{model}/")


def test_what_is_done_with_backups_is_asked_in_greek(reader: Person, backup: Backup):
    one = f"{APP}backup/{backup.pk}/"
    pages = {
        f"{one}download/": (["Κατέβασμα αντιγράφου", "Τι;", "τη διαβάζει όποιος"], ["Download", "What?", "Manifest"]),
        f"{one}delete-archive/": (
            ["Αυτό δεν αναιρείται.", "Όνομα της βάσης δεδομένων"],
            ["Delete", "cannot be"],
        ),
        f"{one}manifest/": (["Δηλωτικό", "byte προς byte"], ["As it is stored"]),
        f"{APP}backup/verify-chosen/?id={backup.pk}": (["Επαλήθευση αντιγράφων"], ["Verify backups", "How deep"]),
        f"{APP}backup/hold-chosen/?id={backup.pk}": (["Κράτηση αντιγράφων"], ["Hold backups", "No policy"]),
        f"{APP}database/drill/?id={backup.database_id}": (["Άσκηση", "με χρονομέτρηση"], ["Drill", "The newest"]),
        f"{APP}triagerun/upload/": (["Ανέβασμα αρχειοθήκης", "μέσα σε 24 ώρες"], ["Upload", "quarantine", "within"]),
    }
    for address, (there, gone) in pages.items():
        expect(opened(reader, address), there=there, gone=gone)


def test_copies_hosts_and_findings_are_greek(reader: Person, backup: Backup):
    now = timezone.now()
    host = Host.objects.create(name="alpha", seen_at=now, started_at=now)
    finding = Finding.objects.create(
        code="forged", destination="local", path="a", message="m", is_damage=True, found_at=now
    )
    copy = backup.copies.get()
    pages = {
        f"host/{host.pk}/change/": (["λειτουργεί", "Όλες οι εργασίες αυτού του υπολογιστή"], ["works", "All jobs"]),
        f"finding/{finding.pk}/change/": (["βαρύτητα", "χρειάζεται προσοχή"], ["weight", "needs attention"]),
        f"copy/{copy.pk}/change/": (["επαληθεύτηκε", "προορισμός"], ["verified", "destination"]),
    }
    for address, (there, gone) in pages.items():
        text = opened(reader, APP + address).text.lower()
        assert [each for each in there if each.lower() not in text] == []
        assert [each for each in gone if each.lower() in text] == []


def test_actions_on_several_backups_are_counted_in_greek(reader: Person, backup: Backup, shop: Database):
    other = backup_row(shop)
    other.save()
    one = reader.post(f"{APP}backup/hold-chosen/", {"verb": "hold", "id": [backup.pk]}, follow=True)
    assert "1 αντίγραφο είναι σε κράτηση." in page_of(one).text
    both = reader.post(f"{APP}backup/hold-chosen/", {"verb": "release", "id": [backup.pk, other.pk]}, follow=True)
    assert "2 αντίγραφα αποδεσμεύτηκαν." in page_of(both).text


def test_plural_forms_dates_and_numbers_are_greek(shop: Database):
    moment = datetime(2026, 3, 5, 14, 30, tzinfo=UTC)
    with translation.override("el"):
        assert "05/03/2026, 14:30:00 UTC" in age(moment)
        now = timezone.now()
        assert ">3\N{NO-BREAK SPACE}ώρες πριν<" in age(now - timedelta(hours=3, minutes=1))
        assert ">1\N{NO-BREAK SPACE}ώρα από τώρα<" in due(now + timedelta(minutes=60, seconds=30))


def test_numbers_are_grouped_as_in_greece_and_addresses_are_not(reader: Person, shop: Database):
    backup = backup_row(shop)
    backup.save()
    page = opened(reader, f"{APP}backup/{backup.pk}/change/")
    titles = {each.attributes.get("title", "") for each in page.all("span", "walsafe-number")}
    assert "1.234.567 byte" in titles
    assert "7.654.321" in page.text


def test_coordinates_of_pictures_have_no_decimal_commas(reader: Person, shop: Database):
    for days in range(1, 8):
        at = timezone.now() - timedelta(days=days)
        backup_row(
            shop, created_at=at, finished_at=at + timedelta(seconds=days), taken_at=at, size_bytes=days * 999
        ).save()
    page = opened(reader, f"{APP}overview/")
    lines = [each.attributes["points"] for each in page.all("polyline")]
    assert lines
    for line in lines:
        assert re.fullmatch(r"\d+(\.\d+)?,\d+(\.\d+)?( \d+(\.\d+)?,\d+(\.\d+)?)*", line)
    places = [each.attributes.get("transform", "") for each in page.all("g", "walsafe-day")]
    assert places
    assert all(re.fullmatch(r"translate\(\d+ 0\)", each) for each in places)


def test_the_values_of_a_job_for_machines_are_the_same_in_every_language(reader: Person, shop: Database):
    job = job_row(shop, state="running")
    job.save()
    labels = {"words", "state_label", "phase", "percent_label", "done", "total", "amount", "speed", "time_left"}
    labels |= {"elapsed"}
    greek = reader.get(f"{APP}job/{job.pk}/progress.json").json()
    english = reader.client.get(f"{APP}job/{job.pk}/progress.json", headers={"Accept-Language": "en"}).json()
    assert {name: value for name, value in greek.items() if name not in labels} == {
        name: value for name, value in english.items() if name not in labels
    }
    assert greek["words"] != english["words"]


def test_what_a_greek_reader_asks_for_is_recorded_in_english(reader: Person, backup: Backup):
    reader.post(f"{APP}backup/{backup.pk}/hold/", {"verb": "hold"})
    reader.post(f"{APP}backup/{backup.pk}/verify/", {"level": "quick"})
    job = Job.objects.get(kind="verify")
    assert not re.search("[α-ω]", f"{job.options} {job.outcome} {job.log}")


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("15 3 * * *", "Στις 03:15"),
        ("*/15 * * * *", "Κάθε 15 λεπτά"),
        ("0 2 * * 1-5", "Στις 02:00, Δευτέρα έως Παρασκευή"),
        ("0 2 * * 0", "Στις 02:00, μόνο Κυριακή"),
        ("0 0 1 6 *", "At 00:00, on day 1 of the month, only in June"),
    ],
)
def test_schedules_are_in_greek_words_where_these_are_whole(written: str, words: str):
    with translation.override("el"):
        assert _in_words(parse(written)) == words


@pytest.mark.parametrize("language", ["en", "xx", "", "../../etc"])
def test_any_other_browser_gets_english(language: str):
    answer = Client(headers={"Accept-Language": language}).get("/admin/login/")
    assert answer["Content-Language"] == "en"
    assert "Log in" in page_of(answer).buttons


def test_exact_times_are_in_the_zone_of_the_browser_and_name_it(reader: Person, backup: Backup):
    Backup.objects.filter(pk=backup.pk).update(taken_at=datetime(2026, 1, 5, 22, 30, tzinfo=UTC))
    reader.client.cookies["walsafe_time_zone"] = "Europe/Athens"
    page = opened(reader, f"{APP}backup/{backup.pk}/change/")
    assert "06/01/2026, 00:30:00 EET" in {each.attributes.get("title") for each in page.all("time")}
