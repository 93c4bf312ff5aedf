"""What the app does to the admin of a host project: one more entry in its index, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.urls import path

from backups_app.models import Backup, Job, Schedule
from tests.admin.conftest import Person, backup, person, superuser  # noqa: F401 - fixtures
from tests.admin.test_hostile import addresses
from tests.admin.test_matrix import rows  # noqa: F401 - a fixture
from tests.console import environment
from tests.support import PROJECT

_TOKEN = re.compile(r'(csrfmiddlewaretoken" value=")[^"]+')
_ENTRY = re.compile(r'\s*<div class="app-backups_app module[^"]*">.*?</table>\s*</div>', re.DOTALL)

# A site of a host project that shows our screens too, beside the stock one.
office = admin.AdminSite(name="office")
for _model, _screen in admin.site._registry.items():
    office.register(_model, type(_screen))
urlpatterns = [path("office/", office.urls), path("admin/", admin.site.urls)]


def host_pages(home: Path, *, with_app: bool) -> dict[str, list[Any]]:
    home.mkdir()
    env = environment(home, DJANGO_SETTINGS_MODULE="tests.host.settings", HOST_HOME=str(home))
    env.pop("WITH_APP", None)
    ran = subprocess.run(
        [sys.executable, "-m", "tests.host.pages"],
        cwd=PROJECT,
        env={**env, **({"WITH_APP": "1"} if with_app else {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, list[Any]] = json.loads(ran.stdout)
    return {address: [status, _TOKEN.sub(r"\1", content)] for address, (status, content) in found.items()}


def test_the_pages_of_a_host_are_the_same_but_for_our_entry_in_the_index(tmp_path: Path):
    without, with_app = (host_pages(tmp_path / name, with_app=name == "with") for name in ("without", "with"))
    assert without.keys() == with_app.keys()
    assert len(without) > 30
    entries = 0
    for address, (status, content) in without.items():
        shown, found = with_app[address]
        entries += len(_ENTRY.findall(found))
        assert (shown, _ENTRY.sub("", found)) == (status, content), address
        assert "static/backups_app" not in found, address
        if address.startswith("/office"):
            assert "backups_app" not in found, address
    assert entries > 10, "the stock site has our entry in its index, and in the side bar of its pages"
    assert "of the host" in with_app["/admin/"][1]
    assert "The host says hello." in with_app["/office/auth/"][1]


@pytest.mark.urls("tests.test_host")
@pytest.mark.usefixtures("home", "db_catalog")
def test_our_pages_stay_on_the_site_of_the_host(superuser: Person, rows: dict[str, Any]):  # noqa: F811
    Schedule.objects.filter(pk=rows["schedule"].pk).update(is_enabled=True)
    opened, away = 0, {}
    for _name, stock in [("app", "/admin/backups_app/"), *addresses()]:
        address = stock.replace("/admin/", "/office/", 1)
        response = superuser.get(address)
        assert response.status_code in (200, 302, 403, 404, 405), (address, response.status_code)
        content = b"" if response.streaming else response.content
        opened += response.status_code == 200
        if response.status_code == 200 and (found := re.findall(r'["\']/admin/[^"\']*', content.decode())):
            away[address] = sorted(set(found))
        elif response.status_code == 302:
            assert response["Location"].startswith(("/office/", "../")), address
    assert away == {}
    assert opened > 60


@pytest.mark.urls("tests.test_host")
@pytest.mark.usefixtures("home", "db_catalog")
def test_what_is_asked_for_on_the_site_of_the_host_leads_to_its_pages(
    superuser: Person,  # noqa: F811
    backup: Backup,  # noqa: F811
    person: Callable[..., Person],  # noqa: F811
):
    assert superuser.get("/admin/backups_app/backup/").status_code == 200
    asked = superuser.post(f"/office/backups_app/backup/{backup.pk}/verify/", {"level": "quick"})
    job = Job.objects.latest("created_at")
    assert asked["Location"] == f"/office/backups_app/job/{job.pk}/change/"
    progress = superuser.get(f"/office/backups_app/job/{job.pk}/progress.json").json()
    assert progress["links"]["job"].startswith("/office/")
    visitor = person("anonymous")
    assert visitor.get("/office/backups_app/overview/")["Location"].startswith("/office/login/")
