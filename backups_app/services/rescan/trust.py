"""Whose signatures count in a rescan."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...core.errors import InputError, NotFoundError
from ...core.signature import PublicKey, read_public_key
from ..signing import known_keys
from .store import Reading

_KEY_ID = re.compile(r"[0-9a-f]{16,64}")


@dataclass(kw_only=True)
class Trust:
    """Keys whose signatures count, and how they came to."""

    keys: dict[str, PublicKey]
    added: dict[str, str] = field(default_factory=dict)
    """Key id → why it is trusted from now on."""
    notes: list[str] = field(default_factory=list)

    def add(self, key: PublicKey, *, why: str) -> None:
        """Let a key count."""
        if key.key_id not in self.keys:
            self.keys[key.key_id] = key
            self.added[key.key_id] = why


def decide_trust(given: str, *, readings: Callable[[], Iterator[Reading]]) -> Trust:
    """The keys known on this machine, and ``given``: a PEM file, or the id of a key that the manifests name.

    With neither, the key that signed what lies there is trusted on first use, if it is one only.

    Raises:
        NotFoundError, InputError: ``given`` is no key, or no manifest names a key of that id.
    """
    trust = Trust(keys=known_keys())
    if given:
        key = _given_key(given, readings)
        trust.add(key, why="given with --trust")
    elif not trust.keys:
        _trust_on_first_use(trust, readings)
    return trust


def _given_key(given: str, readings: Callable[[], Iterator[Reading]]) -> PublicKey:
    path = Path(given).expanduser()
    if not _KEY_ID.fullmatch(given) or path.exists():
        return read_public_key(path)
    found = [key for key in _signing(readings).values() if key.key_id.startswith(given)]
    if not found:
        raise NotFoundError(f"No manifest is signed with a key {given}.", "Give the PEM file of the public key.")
    if len(found) > 1:
        raise InputError(f"Several keys begin with {given}.", "Give more digits.")
    return found[0]


def _trust_on_first_use(trust: Trust, readings: Callable[[], Iterator[Reading]]) -> None:
    found = _signing(readings)
    if len(found) == 1:
        (key,) = found.values()
        trust.add(key, why="trusted on first use: no key was known here, and one key signed everything")
        trust.notes.append(
            f"No signing key was known here. The key {key.key_id} signed everything that was found, and is "
            "trusted from now on. Compare it with one that you wrote down: whoever can write to the "
            "destination could have signed with a key of their own."
        )
    elif found:
        trust.notes.append(
            "No signing key is known here, and several keys signed what was found: "
            f"{', '.join(sorted(found))}. None is trusted. Name yours with --trust KEYFILE, or by its id."
        )


def _signing(readings: Callable[[], Iterator[Reading]]) -> dict[str, PublicKey]:
    """The keys that have really signed a manifest there."""
    found: dict[str, PublicKey] = {}
    for reading in readings():
        key = reading.own_key
        if key is not None and key.key_id not in found and reading.is_signed_by(key):
            found[key.key_id] = key
    return found
