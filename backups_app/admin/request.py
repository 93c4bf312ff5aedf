"""The form that asks for a restore."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import Database
from ..services.restores.guards import GUARDS, Objection
from . import display


class RequestForm(forms.Form):
    """Into which database, why, and which guards do not count."""

    database = forms.ModelChoiceField(
        label=gettext_lazy("Into the live database"), queryset=Database.objects.none(), empty_label=None
    )
    reason = forms.CharField(label=gettext_lazy("Reason"), max_length=2000)
    is_migrating = forms.BooleanField(
        label=gettext_lazy("Run the site's migrations afterwards"),
        help_text=gettext_lazy("Counts for databases of this site only."),
        required=False,
    )

    def __init__(
        self, data: Any = None, *, initial: dict[str, Any] | None = None, objections: Sequence[Objection] = ()
    ) -> None:
        super().__init__(data, initial=initial)
        self.fields["database"].queryset = Database.objects.filter(is_under_care=True)  # type: ignore[attr-defined]
        # A guard is offered for overriding only when it has objected.
        objecting = {each.code for each in objections}
        for code, what in GUARDS.items():
            if code in objecting or (data and data.get(f"override_{code}")):
                label = _("Go on although %(what)s, because") % {"what": _(what)}
                self.fields[f"override_{code}"] = forms.CharField(label=label, required=False, max_length=500)
        if objections and self.is_valid():
            self._show(objections)

    def _show(self, objections: Sequence[Objection]) -> None:
        self.add_error(
            None, _("The restore was refused. Choose another backup, or say below why each objection does not count.")
        )
        for each in objections:
            self.add_error(f"override_{each.code}", display.sendable(f"{each.message[:1].upper()}{each.message[1:]}."))

    @property
    def overrides(self) -> dict[str, str]:
        """Guard → reason, for those that were given one."""
        given = {code: self.cleaned_data.get(f"override_{code}", "") for code in GUARDS}
        return {code: reason for code, reason in given.items() if reason}
