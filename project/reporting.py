"""Reports of errors, by mail or on Django's debug page, without the secrets that settings hold under innocent names."""

from typing import Any

from django.views.debug import SafeExceptionReporterFilter

from backups_app.redaction import redacted, redacted_document


class WithoutSecrets(SafeExceptionReporterFilter):
    """Django hides a setting by its name; this hides a password inside an address as well, as in ``Q_CLUSTER``."""

    def cleanse_setting(self, key: Any, value: Any) -> Any:
        """The value as it may be shown."""
        cleansed = super().cleanse_setting(key, value)
        return redacted_document(cleansed) if isinstance(cleansed, dict | list | tuple) else _shown(cleansed)

    def get_post_parameters(self, request: Any) -> Any:
        """What was sent by a form; passwords and tokens are hidden by the name of their field."""
        return {name: self.cleanse_setting(name, value) for name, value in super().get_post_parameters(request).items()}

    def get_traceback_frame_variables(self, request: Any, tb_frame: Any) -> Any:
        """Variables where it happened, hidden likewise."""
        found = super().get_traceback_frame_variables(request, tb_frame)
        return [(name, self.cleanse_setting(name, value)) for name, value in found]


def _shown(value: Any) -> Any:
    return redacted(value) if isinstance(value, str) else value
