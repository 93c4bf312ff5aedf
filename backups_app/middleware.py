"""Optional: answer 503 while the site's own database is being exchanged by a restore."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from .services.swapping import is_swapping

_RETRY_AFTER_SECONDS = 5


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
