"""Prints the pages of the host project as JSON; run in a process of its own, with or without the app."""

from __future__ import annotations

import json

import django

django.setup()

from django.conf import settings  # noqa: E402
from django.contrib.auth.models import Group, User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.test import Client  # noqa: E402

OWN = (
    *("", "auth/", "auth/user/", "auth/user/?q=an&is_staff__exact=1", "auth/user/add/", "auth/user/1/change/"),
    *("auth/user/1/history/", "auth/user/1/delete/", "auth/user/report/", "auth/group/", "auth/group/1/change/"),
    *("auth/group/add/", "password_change/", "jsi18n/", "login/", "nothing/"),
)


def pages() -> dict[str, list[object]]:
    """Status and content of each page, as a person of the staff gets it, and of what a form leads to."""
    for alias in settings.DATABASES:
        call_command("migrate", database=alias, verbosity=0)
    anna = User.objects.create_superuser("anna")
    Group.objects.create(name="readers")
    client, found = Client(), {}
    client.force_login(anna)
    for site in ("admin", "office"):
        for page in OWN:
            response = client.get(f"/{site}/{page}")
            found[f"/{site}/{page}"] = [response.status_code, response.content.decode()]
        added = client.post(f"/{site}/auth/group/add/", {"name": f"writers of {site}"}, follow=True)
        found[f"/{site}/ added"] = [added.status_code, added.content.decode()]
        acted = client.post(f"/{site}/auth/user/", {"action": "greet", "_selected_action": anna.pk}, follow=True)
        found[f"/{site}/ acted"] = [acted.status_code, acted.content.decode()]
    return found


if __name__ == "__main__":
    print(json.dumps(pages()))
