"""The catalogue on PostgreSQL, from one address: ``postgresql://user:password@host:port/name?sslmode=…``."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

_SCHEMES = ("postgresql", "postgres")
_OPTIONS = (
    "application_name",
    "connect_timeout",
    "gssencmode",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "options",
    "passfile",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "target_session_attrs",
    "tcp_user_timeout",
)
"""Parameters of libpq that may stand in the query. ``host`` may as well: the folder of a socket."""


def catalog_from_url(url: str, *, source: str = "BACKUPS_CATALOG_URL") -> dict[str, Any]:
    """The entry for ``DATABASES["catalog"]`` that ``url`` means. Parts are percent-decoded.

    Raises:
        ImproperlyConfigured: it is no such address. The message names ``source`` and what is wrong, and no
            part of the address: it holds a password.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise _unusable(source, "its host or port cannot be read") from None
    if parts.scheme not in _SCHEMES:
        raise _unusable(source, "it does not begin with postgresql://")
    if parts.fragment:
        raise _unusable(source, "it holds a '#'; write %23 for one that belongs to the password")
    name = _decoded(parts.path.removeprefix("/"), source)
    if not name or "/" in name:
        raise _unusable(source, "it does not end with the name of one database")
    options = _options(parts.query, source)
    host = options.pop("host", "") or _decoded(parts.hostname or "", source)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "USER": _decoded(parts.username or "", source),
        "PASSWORD": _decoded(parts.password or "", source),
        "HOST": host,
        "PORT": str(port or ""),
        "OPTIONS": {"connect_timeout": "10", "application_name": "backups", **options},
        "CONN_HEALTH_CHECKS": True,
    }


def _options(query: str, source: str) -> dict[str, str]:
    try:
        given = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict")
    except ValueError:
        raise _unusable(source, "what follows its '?' cannot be read") from None
    options = dict(given)
    if len(options) != len(given):
        raise _unusable(source, "it names a parameter twice")
    if not set(options) <= {"host", *_OPTIONS}:
        raise _unusable(source, f"it has a parameter other than host, {', '.join(_OPTIONS)}")
    if any("\0" in value for value in options.values()):
        raise _unusable(source, "it holds a NUL")
    return options


def _decoded(part: str, source: str) -> str:
    try:
        found = unquote(part, errors="strict")
    except UnicodeDecodeError:
        raise _unusable(source, "it is not UTF-8") from None
    if "\0" in found:
        raise _unusable(source, "it holds a NUL")
    return found


def _unusable(source: str, why: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(
        f"{source} cannot be used: {why}. Write it as postgresql://user:password@host:port/name, with special "
        "characters percent-encoded."
    )
