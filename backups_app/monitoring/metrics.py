"""``/metrics`` for Prometheus: computed when it is asked for, shown to those who may see it.

Needs the extra ``metrics``. Nothing is kept between two requests, so any number of processes may
answer.
"""

from __future__ import annotations

import logging

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from .. import conf
from ..services import catalog
from ..services.health.measures import measure

logger = logging.getLogger(__name__)


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """The metrics in Prometheus' text format.

    403 without the token or the right to view databases, 501 without the library, 503 when the
    catalogue cannot be used: then Prometheus' own ``up`` is 0.
    """
    if not _may_read(request):
        return _text("Metrics need the token, or a staff session with the permission to view databases.", status=403)
    try:
        from .prometheus import CONTENT_TYPE, exposition
    except ImportError:
        return _text("Metrics need prometheus-client: pip install 'django-walsafe[metrics]'.", status=501)
    try:
        if not catalog.is_answering():
            return _text("The catalogue cannot be used.", status=503)
        found = measure(now=timezone.now())
    except DatabaseError as exc:
        logger.error("The metrics could not be computed: %s", exc)  # noqa: TRY400 - no traceback
        return _text("The catalogue cannot be used.", status=503)
    return HttpResponse(exposition(found), content_type=CONTENT_TYPE)


def _may_read(request: HttpRequest) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return _is_token(given.strip())
    user = getattr(request, "user", None)
    return bool(user and user.is_active and user.is_staff and user.has_perm("backups_app.view_database"))


def _is_token(given: str) -> bool:
    try:
        token = conf.metrics_token()
    except ImproperlyConfigured as exc:
        logger.error("The token of the metrics is not known: %s", exc)  # noqa: TRY400 - no traceback
        return False
    return bool(token) and constant_time_compare(given, token)


def _text(text: str, *, status: int) -> HttpResponse:
    return HttpResponse(text + "\n", status=status, content_type="text/plain; charset=utf-8")
