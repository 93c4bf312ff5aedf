"""Stores that behave badly, each in one way: what a destination must not be believed about."""

from __future__ import annotations

import errno
import time
from typing import Any

from django.core.files.base import ContentFile, File
from django.core.files.storage import InMemoryStorage


class Lying(InMemoryStorage):
    """Says that it has stored everything, and keeps nothing."""

    def _save(self, name: str, content: File[bytes]) -> str:
        for _piece in content.chunks():
            pass
        return name


class Truncating(InMemoryStorage):
    """Loses the last byte of what it is given."""

    def _save(self, name: str, content: File[bytes]) -> str:
        kept = content.read()[:-1]
        saved: str = super()._save(name, ContentFile(kept))  # type: ignore[misc]
        return saved


class Altering(InMemoryStorage):
    """Keeps as many bytes as it is given, one of them changed."""

    def _save(self, name: str, content: File[bytes]) -> str:
        kept = bytearray(content.read())
        kept[len(kept) // 2] ^= 1
        saved: str = super()._save(name, ContentFile(bytes(kept)))  # type: ignore[misc]
        return saved


class Slow(InMemoryStorage):
    """Takes its time over each piece, and does what it is asked in the end."""

    seconds = 0.2

    def _save(self, name: str, content: File[bytes]) -> str:
        pieces = []
        while piece := content.read(512):
            time.sleep(self.seconds)
            pieces.append(piece)
        saved: str = super()._save(name, ContentFile(b"".join(pieces)))  # type: ignore[misc]
        return saved


class OnceFailing(InMemoryStorage):
    """Fails the first time that something is stored, halfway."""

    has_failed = False

    def _save(self, name: str, content: File[bytes]) -> str:
        if not self.has_failed:
            self.has_failed = True
            content.read(10)
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        saved: str = super()._save(name, content)  # type: ignore[misc]
        return saved


class HalfStoring(InMemoryStorage):
    """Fails the first time, and keeps what came by then: an object with half the bytes."""

    has_failed = False

    def _save(self, name: str, content: File[bytes]) -> str:
        if not self.has_failed:
            self.has_failed = True
            super()._save(name, ContentFile(content.read()[:100]))  # type: ignore[misc]
            raise TimeoutError
        saved: str = super()._save(name, content)  # type: ignore[misc]
        return saved


class Deaf(InMemoryStorage):
    """Keeps everything, and loses the answer the first time: the object is there and nobody knows."""

    has_failed = False

    def _save(self, name: str, content: File[bytes]) -> str:
        saved: str = super()._save(name, content)  # type: ignore[misc]
        if not self.has_failed:
            self.has_failed = True
            raise TimeoutError
        return saved


class Full(InMemoryStorage):
    """Has no room."""

    def _save(self, name: str, content: File[bytes]) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")


class Renaming(InMemoryStorage):
    """Stores under another name, as file storages do when a name is taken."""

    def _save(self, name: str, content: File[bytes]) -> str:
        saved: str = super()._save(f"{name}_x7", content)  # type: ignore[misc]
        return saved


class Down(InMemoryStorage):
    """Answers nothing while it is down; its error holds an address and a secret."""

    is_down = True
    """Of the class: a store is up or down for everybody."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("save", "open", "exists", "size", "listdir", "delete") and Down.is_down:

            def fail(*_args: object, **_options: object) -> None:
                raise RuntimeError("no answer from https://key:s3cret@store.example/bucket")

            return fail
        return super().__getattribute__(name)
