"""``/healthz`` and ``/readyz``: for whoever restarts processes and routes requests.

Anybody may ask, so they tell nothing but yes or no. Neither says whether the data is safe: a
process must not be restarted because a backup is old.
"""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from ..services import catalog


@never_cache
@require_safe
def healthz(_request: HttpRequest) -> JsonResponse:
    """The process answers. No database is asked."""
    return JsonResponse({"ok": True})


@never_cache
@require_safe
def readyz(_request: HttpRequest) -> JsonResponse:
    """The catalogue can be read and fits the code; else 503. Why not is in the log."""
    is_ready = catalog.is_answering()
    return JsonResponse({"ready": is_ready}, status=200 if is_ready else 503)
