"""Keys: what is proven of each recipient, the proof itself, and the recovery kit to print."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..core.errors import BackupError
from ..models import Recipient
from ..services.audit import Actor
from ..services.keys.kit import recovery_kit
from ..services.keys.proof import Challenge, answer_challenge, has_open_challenge, make_challenge
from ..services.keys.registry import is_proven, proof_due_at, proof_state, sync_recipients
from ..services.keys.report import KeyReport, report_keys
from . import display
from .base import EvidenceAdmin
from .links import reverse

_LONGEST_ANSWER = 200


@admin.register(Recipient)
class RecipientAdmin(EvidenceAdmin):
    """Public keys that archives were encrypted for. Which ones are used is read from the settings only."""

    nothing_yet = gettext_lazy("No key is set, so archives are not encrypted. The setting AGE_RECIPIENTS names keys.")
    list_display = ["key", "in_use", "proof", "proven_until", "first_archive"]
    list_display_links = ["key"]
    search_fields = ["public"]
    actions = None
    fieldsets = [
        (None, {"fields": ["key", "public", "in_use", "proof", "proven_until", "archives", "archives_alone"]}),
        (
            gettext_lazy("Details"),
            {"fields": ["first_seen_at", "first_archive", "retired_at", "proven_at", "proven_by_name"]},
        ),
    ]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        """Everything."""
        return [str(name) for _title, options in self.fieldsets for name in options["fields"]]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list, with the recipients of the settings in it."""
        if (missing := self._missing(request)) is not None:
            return missing
        if self.has_view_permission(request):
            try:
                sync_recipients(now=timezone.now())
            except BackupError as exc:
                messages.error(request, display.refusal(exc))
        return super().changelist_view(request, extra_context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The detail page, with what this person may do."""
        may = {"can_manage": request.user.has_perm("backups_app.manage_keys")}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **may})

    @admin.display(description=gettext_lazy("key"), ordering="key_id")
    def key(self, recipient: Recipient) -> str:
        """Its beginning, to be compared by eye."""
        return f"{recipient.key_id}…"

    @admin.display(description=gettext_lazy("in use"), ordering="retired_at")
    def in_use(self, recipient: Recipient) -> SafeString:
        """Whether new archives are made for it."""
        is_used = recipient.retired_at is None
        return display.badge("safe", _("in use")) if is_used else display.badge("expired", _("retired"))

    @admin.display(description=gettext_lazy("proof"), ordering="proven_at")
    def proof(self, recipient: Recipient) -> SafeString:
        """Whether somebody has shown to hold its identity."""
        now = timezone.now()
        look = "passed" if is_proven(recipient, now=now) else "attention"
        return display.badge(look, proof_state(recipient, now=now))

    @admin.display(description=gettext_lazy("proven until"))
    def proven_until(self, recipient: Recipient) -> Any:
        """When it is asked for again."""
        return display.moment(proof_due_at(recipient))

    @admin.display(description=gettext_lazy("first archive"), ordering="first_used_at")
    def first_archive(self, recipient: Recipient) -> SafeString | str:
        """How long ago the first archive for it was made."""
        return display.age(recipient.first_used_at)

    @admin.display(description=gettext_lazy("archives that it opens"))
    def archives(self, recipient: Recipient) -> SafeString | str:
        """How many are stored."""
        return display.count(_report_of(recipient).archives)

    @admin.display(description=gettext_lazy("archives that nothing else opens"))
    def archives_alone(self, recipient: Recipient) -> SafeString | str:
        """How many would be lost with it."""
        return display.count(_report_of(recipient).archives_alone)

    # Proof, and the kit

    def get_urls(self) -> list[URLPattern]:
        """The stock pages, the proof and the recovery kit."""
        prove = self.own_path(
            "<int:recipient_id>/prove/", self.prove_view, permission="manage_keys", name="backups_app_recipient_prove"
        )
        kit = self.own_path(
            "kit/",
            self.kit_view,
            permission=("manage_keys", "view_recipient"),
            name="backups_app_recipient_kit",
        )
        return [prove, kit, *super().get_urls()]

    def prove_view(self, request: HttpRequest, recipient_id: int) -> HttpResponseBase:
        """GET explains, one POST makes a challenge and shows it, another takes the answer."""
        recipient = Recipient.objects.filter(pk=recipient_id).first()
        if recipient is None:
            raise Http404
        challenge: Challenge | None = None
        if request.method == "POST":
            try:
                if "answer" in request.POST:
                    return self._answer(request, recipient, request.POST["answer"][:_LONGEST_ANSWER])
                challenge = make_challenge(recipient, actor=Actor.of(request.user), now=timezone.now())
            except BackupError as exc:
                messages.error(request, display.refusal(exc))
                return HttpResponseRedirect(request.path)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": _("Prove a key"),
            "recipient": recipient,
            "challenge": challenge,
            "can_answer": has_open_challenge(recipient, now=timezone.now()),
        }
        return TemplateResponse(request, "admin/backups_app/prove_key.html", context)

    def _answer(self, request: HttpRequest, recipient: Recipient, answer: str) -> HttpResponseRedirect:
        answer_challenge(recipient, answer, actor=Actor.of(request.user), now=timezone.now())
        messages.success(request, _("The key %(key)s is proven.") % {"key": f"{recipient.key_id}…"})
        return HttpResponseRedirect(reverse("admin:backups_app_recipient_changelist"))

    def kit_view(self, request: HttpRequest) -> HttpResponseBase:
        """The recovery kit, ready to be printed."""
        try:
            kit = recovery_kit(now=timezone.now())
        except BackupError as exc:
            messages.error(request, display.refusal(exc))
            return HttpResponseRedirect(reverse("admin:backups_app_recipient_changelist"))
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": _("Recovery kit"),
            "kit": display.sendable(kit),
        }
        return TemplateResponse(request, "admin/backups_app/recovery_kit.html", context)


def _report_of(recipient: Recipient) -> KeyReport:
    report = report_keys(now=timezone.now())
    return next(each for each in report.keys if each.recipient.pk == recipient.pk)
