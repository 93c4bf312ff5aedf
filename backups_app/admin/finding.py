"""Findings: what the last rescan of a destination found wrong there."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import Finding
from . import display
from .base import EvidenceAdmin
from .health import CodeFilter, problem_name


@admin.register(Finding)
class FindingAdmin(EvidenceAdmin):
    """One line per finding; the next rescan of its destination replaces them all."""

    nothing_yet = gettext_lazy(
        "There are none: the last rescan found nothing wrong, or there was none yet. “manage.py backup rescan” looks."
    )
    list_display = ["what", "weight", "said", "database_name", "destination", "object_name", "found"]
    list_filter = ["is_damage", "destination", ("code", CodeFilter)]
    list_per_page = 50
    ordering = ["-is_damage", "destination"]
    search_fields = ["code", "database_name", "about", "path", "message"]
    date_hierarchy = "found_at"
    actions = None
    fieldsets = [
        (None, {"fields": ["weight", "what", "said", "what_to_do"]}),
        (gettext_lazy("Where"), {"fields": ["destination", "database_name", "backup_link", "object_name", "found"]}),
    ]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        """Everything."""
        return [str(name) for _title, options in self.fieldsets for name in options["fields"]]

    @admin.display(description=gettext_lazy("problem"), ordering="code")
    def what(self, finding: Finding) -> str:
        """The code, as words."""
        return problem_name(finding.code)

    @admin.display(description=gettext_lazy("weight"), ordering="is_damage")
    def weight(self, finding: Finding) -> SafeString:
        """Whether somebody has to look."""
        return display.badge("attention", _("needs attention")) if finding.is_damage else display.badge("-", _("note"))

    @admin.display(description=gettext_lazy("object"), ordering="path")
    def object_name(self, finding: Finding) -> SafeString | str:
        """The stored object, as text."""
        return format_html("<bdi>{}</bdi>", display.sendable(finding.path)) if finding.path else display.DASH

    @admin.display(description=gettext_lazy("backup"))
    def backup_link(self, finding: Finding) -> SafeString | str:
        """The backup, linked; its page says so when the catalogue does not know it."""
        return display.linked("backup", finding.about) if finding.about else display.DASH

    @admin.display(description=gettext_lazy("found"), ordering="found_at")
    def found(self, finding: Finding) -> SafeString | str:
        """How long ago."""
        return display.age(finding.found_at)

    @admin.display(description=gettext_lazy("message"))
    def said(self, finding: Finding) -> SafeString:
        """What was found."""
        return display.worded(finding.message)

    @admin.display(description=gettext_lazy("what to do"))
    def what_to_do(self, finding: Finding) -> SafeString | str:
        """The hint."""
        return display.worded(finding.hint) or display.DASH
