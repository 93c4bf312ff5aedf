"""Optional: answer 503 while a restore exchanges the site's own database; show times in the visitor's zone."""

from __future__ import annotations

from collections.abc import Callable
from zoneinfo import ZoneInfo

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone

from .jobs.cron import zone_names
from .services.swapping import is_swapping

_RETRY_AFTER_SECONDS = 5

TIME_ZONE_COOKIE = "walsafe_time_zone"
"""Set by ``static/backups_app/time_zone.js``: the name of the browser's zone, such as ``Europe/Athens``."""


class RestoreInProgressMiddleware:
    """Put it first in ``MIDDLEWARE``: visitors are asked to come back, instead of waiting for a lock.

    The answer is 503 with ``Retry-After`` and touches no database. Without this middleware they
    wait like for any long write, up to their own database timeout.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """The answer of the site, or 503."""
        if is_swapping("default"):
            return HttpResponse(
                "The site's data is being restored. Please try again in a few seconds.\n",
                status=503,
                content_type="text/plain; charset=utf-8",
                headers={"Retry-After": str(_RETRY_AFTER_SECONDS), "Cache-Control": "no-store"},
            )
        return self._get_response(request)


class TimeZoneMiddleware:
    """Times are shown in the zone that the browser has told; without it in ``TIME_ZONE``.

    The zone comes in a cookie, so from the visitor: what is no name of a known zone is ignored.
    It holds for this request only, and changes nothing that is stored.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """The answer of the site, with its times in the visitor's zone."""
        given = request.COOKIES.get(TIME_ZONE_COOKIE, "")
        # Looked up in a list: as a path, a name could lead to any file.
        if given not in zone_names():
            return self._get_response(request)
        with timezone.override(ZoneInfo(given)):
            return self._get_response(request)
