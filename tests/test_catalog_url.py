"""The address of a catalogue on PostgreSQL: read in full, or refused without a word of what is in it."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given
from hypothesis import strategies as st

from backups_app.catalog_url import catalog_from_url


def test_every_part_of_the_address_counts():
    found = catalog_from_url(
        "postgresql://wal%40safe:p%40ss%2Fword%3A%231@db.example.org:6543/cata%20log?sslmode=verify-full&sslrootcert=%2Fca.pem"
    )
    assert {name: found[name] for name in ("USER", "PASSWORD", "HOST", "PORT", "NAME")} == {
        "USER": "wal@safe",
        "PASSWORD": "p@ss/word:#1",
        "HOST": "db.example.org",
        "PORT": "6543",
        "NAME": "cata log",
    }
    assert found["ENGINE"] == "django.db.backends.postgresql"
    assert found["OPTIONS"] == {
        "connect_timeout": "10",
        "application_name": "backups",
        "sslmode": "verify-full",
        "sslrootcert": "/ca.pem",
    }


def test_what_is_left_out_is_left_to_the_driver():
    found = catalog_from_url(" postgres:///catalog\n")
    assert (found["HOST"], found["PORT"], found["USER"], found["PASSWORD"]) == ("", "", "", "")


def test_an_address_of_ipv6_and_the_folder_of_a_socket():
    assert catalog_from_url("postgresql://u@[::1]:5433/c")["HOST"] == "::1"
    found = catalog_from_url("postgresql://u@/c?host=/run/postgresql")
    assert found["HOST"] == "/run/postgresql"
    assert "host" not in found["OPTIONS"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "catalog",
        "mysql://u:topsecret@h/c",
        "postgresql://u:topsecret@h",
        "postgresql://u:topsecret@h/",
        "postgresql://u:topsecret@h/a/b",
        "postgresql://u:topsecret@h:port/c",
        "postgresql://u:topsecret@h:99999/c",
        "postgresql://u:topsecret@[::1/c",
        "postgresql://u:topsecret#1@h/c",
        "postgresql://u:topsecret@h/c?sslmode",
        "postgresql://u:topsecret@h/c?sslmod=require",
        "postgresql://u:topsecret@h/c?sslmode=a&sslmode=b",
        "postgresql://u:topsecret@h/c?password=topsecret",
        "postgresql://u:topsecret%ff@h/c",
        "postgresql://u:topsecret%00@h/c",
        "postgresql://u:topsecret@h/c%00",
        "postgresql://u:topsecret@h/c?host=%00",
    ],
)
def test_what_cannot_be_used_is_refused_with_how_to_write_it_and_without_the_password(url: str):
    with pytest.raises(ImproperlyConfigured) as caught:
        catalog_from_url(url, source="THE_SOURCE")
    text = str(caught.value)
    assert text.startswith("THE_SOURCE cannot be used: ")
    assert "postgresql://user:password@host:port/name" in text
    assert "topsecret" not in text
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@given(st.text(max_size=40))
def test_no_text_ends_in_anything_else(text: str):
    told = ""
    try:
        assert catalog_from_url(f"postgresql://u:topsecret@{text}")["NAME"]
    except ImproperlyConfigured as exc:
        told = str(exc)
    assert "topsecret" not in told
