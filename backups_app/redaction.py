"""Text for rows, logs and messages, without secrets: whatever an error text has picked up on its way."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from . import conf

HIDDEN = "•••"

_AGE_KEY = re.compile(r"AGE-(SECRET-KEY|PLUGIN)-[0-9A-Z-]+", re.IGNORECASE)
# A path or a query may hold a token as well as the user and password before the host.
_ADDRESS = re.compile(r"\b([a-z][a-z0-9+.-]*)://([^\s/?#'\"<>]*)([^\s'\"<>]*)", re.IGNORECASE)
_ASSIGNMENT = re.compile(
    r"(?i)(?<![a-z0-9])([\"']?[a-z0-9_-]*(?:password|passwd|secret|token|api_?key)[\"']?\s*[=:]\s*)[\"']?[^\s,;\"']+"
)
_SECRET_NAME = re.compile(r"API|TOKEN|KEY|SECRET|PASS|SIGNATURE|CREDENTIAL", re.IGNORECASE)

# A shorter value is met in innocent text too often to be hidden by its value.
_SHORTEST = 6


def redacted(text: str) -> str:
    """``text`` without private keys, tokens, passwords and the secrets of the settings; addresses keep their host."""
    return _redacted(text, _known_secrets())


def redacted_document(found: Any) -> Any:
    """The same for every text in a JSON document."""
    return _redacted_document(found, _known_secrets())


def _redacted_document(found: Any, secrets: list[str]) -> Any:
    if isinstance(found, Mapping):
        return {str(name): _redacted_document(value, secrets) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return [_redacted_document(each, secrets) for each in found]
    return _redacted(found, secrets) if isinstance(found, str) else found


def _redacted(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    text = _AGE_KEY.sub(HIDDEN, text)
    text = _ADDRESS.sub(_host_only, text)
    return _ASSIGNMENT.sub(rf"\g<1>{HIDDEN}", text)


def host_of(address: str) -> str:
    """The host name in a web address: the only part that may be shown."""
    try:
        return urlsplit(address).hostname or HIDDEN
    except ValueError:
        return HIDDEN


def _host_only(match: re.Match[str]) -> str:
    scheme, authority, rest = match.groups()
    host = authority.rpartition("@")[2]
    return f"{scheme}://{host}{'/' + HIDDEN if rest.strip('/.,;:)') else rest}"


def _known_secrets() -> list[str]:
    """Longest first, so that none is hidden by halves."""
    found = {value for name in dir(settings) if name.isupper() for value in _secrets_in(getattr(settings, name), name)}
    with suppress(ImproperlyConfigured, TypeError):  # what cannot be read here cannot have been used either
        found.update(conf.webhook_urls())
    with suppress(ImproperlyConfigured):
        found.add(conf.heartbeat_url())
    with suppress(ImproperlyConfigured):
        found.add(str(conf.given_or_secret("AGE_PASSPHRASE")))
    return sorted((each for each in found if len(each) >= _SHORTEST), key=len, reverse=True)


def _secrets_in(value: Any, name: str) -> Iterator[str]:
    """The texts in a setting whose name says that they are secret."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _secrets_in(inner, str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _secrets_in(inner, name)
    elif isinstance(value, str) and _SECRET_NAME.search(name):
        yield value
