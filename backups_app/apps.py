"""The app's registration with Django."""

import logging

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

        # At DEBUG it writes the headers of every request, with the id of the key. Who asks for it by name gets it.
        library = logging.getLogger("botocore")
        if library.level == logging.NOTSET:
            library.setLevel(logging.INFO)

        connection_created.connect(keep_text_inert, dispatch_uid="backups_app.inert_text")
