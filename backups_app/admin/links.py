"""Links stay on the admin site that their page belongs to: a host project may have several, under names of its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from django.urls import reverse as _reverse

_site: ContextVar[str] = ContextVar("walsafe_admin_site", default="admin")


def stay_on(name: str) -> None:
    """From here on links of this request lead to pages of the admin site ``name``.

    Every page of ours says so first. It is never taken back: a page is rendered after its view has ended.
    """
    _site.set(name)


def reverse(name: str, args: Sequence[Any] | None = None) -> str:
    """The address of the page ``name``, such as ``admin:index``, on that site."""
    return _reverse(name, args=args, current_app=_site.get())
