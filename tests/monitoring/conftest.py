"""Monitors and people who ask for metrics."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families
from pytest_django.fixtures import Settings

TOKEN = "0123456789abcdef-t0ken"

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples_of(text: str) -> Samples:
    """Every sample of an exposition, read by the library's own parser."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def token(home: object, settings: Settings) -> str:
    """The token, set."""
    settings.BACKUPS = {**settings.BACKUPS, "METRICS_TOKEN": TOKEN}
    return TOKEN


@pytest.fixture
def scrape(token: str, db_catalog: None) -> Callable[[], Samples]:
    """A function that scrapes the metrics, as a monitor does."""

    def scrape() -> Samples:
        response = Client().get("/metrics", headers={"Authorization": f"Bearer {token}"})
        assert response.status_code == 200, response.content
        return samples_of(response.content.decode())

    return scrape


@pytest.fixture
def client_of(db_catalog: None) -> Callable[..., Client]:
    """A function that makes a signed-in client."""

    def make(*, is_staff: bool = True, permission: str = "") -> Client:
        user = User.objects.create_user(f"user{User.objects.count()}", is_staff=is_staff)
        if permission:
            user.user_permissions.add(Permission.objects.get(codename=permission))
        client = Client()
        client.force_login(user)
        return client

    return make
