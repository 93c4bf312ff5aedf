"""The form that asks for a restore."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import Database
from ..services.restores.guards import GUARDS


class RequestForm(forms.Form):
    """Into which database, why, and which guards do not count."""

    database = forms.ModelChoiceField(
        label=gettext_lazy("Into the live database"), queryset=Database.objects.none(), empty_label=None
    )
    reason = forms.CharField(label=gettext_lazy("Reason"), max_length=2000)
    is_migrating = forms.BooleanField(
        label=gettext_lazy("Run the site's migrations afterwards"), required=False, initial=False
    )

    def __init__(self, data: Any = None, *, initial: dict[str, Any] | None = None, objecting: tuple[str, ...] = ()):
        super().__init__(data, initial=initial)
        self.fields["database"].queryset = Database.objects.filter(is_under_care=True)  # type: ignore[attr-defined]
        # A guard is offered for overriding only when it has objected.
        named = {code for code in GUARDS if code in objecting or (data and data.get(f"override_{code}"))}
        for code in sorted(named):
            self.fields[f"override_{code}"] = forms.CharField(
                label=_("Go on although %(what)s, because") % {"what": GUARDS[code]}, required=False, max_length=500
            )

    @property
    def overrides(self) -> dict[str, str]:
        """Guard → reason, for those that were given one."""
        given = {code: self.cleaned_data.get(f"override_{code}", "").strip() for code in GUARDS}
        return {code: reason for code, reason in given.items() if reason}
