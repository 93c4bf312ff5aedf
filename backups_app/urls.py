"""Addresses for machines. Include them where monitors look: ``path("", include("backups_app.urls"))``."""

from django.urls import path

from .monitoring.metrics import metrics
from .monitoring.probes import healthz, readyz

app_name = "backups"

urlpatterns = [
    path("healthz", healthz, name="healthz"),
    path("readyz", readyz, name="readyz"),
    path("metrics", metrics, name="metrics"),
]
