"""Notifications: who was told what, what did not arrive and why, and a test."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..core.errors import BackupError
from ..models import Job, Notification
from ..services.audit import Actor
from ..services.notifications.trial import Trial, require_receivers, send_test
from . import display
from .base import EvidenceAdmin
from .links import reverse


@admin.register(Notification)
class NotificationAdmin(EvidenceAdmin):
    """Messages on their way, arrived, or given up."""

    nothing_yet = gettext_lazy("Nobody was told anything yet. A test shows whether notifications arrive.")
    list_display = ["when", "state_badge", "subject", "why", "channel", "event", "job_link", "attempts"]
    list_display_links = ["when", "subject"]
    list_filter = ["state", "channel", "event"]
    list_per_page = 50
    search_fields = ["job__id", "job__database__name", "reason"]
    date_hierarchy = "created_at"
    actions = None
    fieldsets = [
        (None, {"fields": ["state_badge", "why", "channel", "receiver_place", "event", "job_link"]}),
        (gettext_lazy("Content"), {"fields": ["facts"]}),
        (gettext_lazy("Details"), {"fields": ["created_at", "attempts", "next_attempt", "sent_at"]}),
    ]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        """Everything."""
        return [str(name) for _title, options in self.fieldsets for name in options["fields"]]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Notification]:
        """All notifications with their jobs, without the long logs of these."""
        queryset: QuerySet[Notification] = super().get_queryset(request).select_related("job__database")
        return queryset.defer("job__log", "job__options")

    @admin.display(description=gettext_lazy("created"), ordering="created_at")
    def when(self, notification: Notification) -> SafeString | str:
        """How long ago."""
        return display.age(notification.created_at)

    @admin.display(description=gettext_lazy("subject"))
    def subject(self, notification: Notification) -> str:
        """What it is about."""
        return display.sendable(str(notification.content.get("subject") or display.DASH))

    @admin.display(description=gettext_lazy("job"))
    def job_link(self, notification: Notification) -> SafeString | str:
        """The job that it is about, linked."""
        if notification.job_id is None:
            return display.DASH
        if not self.admin_site.is_registered(Job):
            return notification.job_id
        url = reverse(f"{self.admin_site.name}:backups_app_job_change", args=[notification.job_id])
        return format_html('<a href="{}">{}</a>', url, notification.job)

    @admin.display(description=gettext_lazy("state"), ordering="state")
    def state_badge(self, notification: Notification) -> SafeString:
        """The state."""
        return display.badge(notification.state, notification.get_state_display())

    @admin.display(description=gettext_lazy("receiver"), ordering="receiver")
    def receiver_place(self, notification: Notification) -> str:
        """Its place in the setting; addresses may hold tokens and are shown nowhere."""
        return _("number %(number)d in the settings") % {"number": notification.receiver + 1}

    @admin.display(description=gettext_lazy("next attempt"), ordering="next_attempt_at")
    def next_attempt(self, notification: Notification) -> Any:
        """When it is tried next, while it waits."""
        is_waiting = notification.state == Notification.State.PENDING
        return display.moment(notification.next_attempt_at if is_waiting else None)

    @admin.display(description=gettext_lazy("last failure"), ordering="reason")
    def why(self, notification: Notification) -> SafeString | str:
        """Why it did not arrive."""
        return display.worded(notification.reason) or display.DASH

    @admin.display(description=gettext_lazy("content"))
    def facts(self, notification: Notification) -> SafeString | str:
        """The document that is sent, as a table."""
        return display.facts_table(notification.content)

    # Send a test notification

    def get_urls(self) -> list[URLPattern]:
        """The stock pages and the test.

        The test is for those who set policies: it sends to the outside, and it quiets the dead man's
        switch for a while, so the right to look is not enough.
        """
        own = self.own_path("test/", self.test_view, permission="change_database", name="backups_app_notification_test")
        return [own, *super().get_urls()]

    def test_view(self, request: HttpRequest) -> HttpResponseBase:
        """GET shows who will get the test, POST sends it and tells how each fared."""
        back = HttpResponseRedirect(reverse("admin:backups_app_notification_changelist"))
        try:
            receivers = require_receivers()
            if request.method == "POST":
                _report(request, send_test(actor=Actor.of(request.user), now=timezone.now()))
                return back
        except BackupError as exc:
            messages.warning(request, display.refusal(exc))
            return back
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": _("Send a test notification"),
            "receivers": receivers,
            "has_heartbeat": any(each.channel == Notification.Channel.HEARTBEAT for each in receivers),
        }
        return TemplateResponse(request, "admin/backups_app/confirm_notification_test.html", context)


def _report(request: HttpRequest, trials: list[Trial]) -> None:
    for trial in trials:
        if trial.is_delivered:
            messages.success(request, _("%(receiver)s: delivered.") % {"receiver": trial.receiver.name})
        else:
            facts = {"receiver": trial.receiver.name, "reason": trial.reason}
            messages.error(request, _("%(receiver)s: not delivered. %(reason)s") % facts)
