"""The app's registration with Django."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class BackupsConfig(AppConfig):
    """Backups of SQLite databases, proven and undoable."""

    name = "backups_app"
    verbose_name = _("Backups")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks, and what keeps text fit for the catalogue."""
        from django.db.backends.signals import connection_created

        from . import checks  # noqa: F401
        from .inert_text import keep_text_inert

        connection_created.connect(keep_text_inert, dispatch_uid="backups_app.inert_text")
