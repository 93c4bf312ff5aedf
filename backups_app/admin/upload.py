"""*Upload* of an archive of others: straight into quarantine, limited while it arrives, then a triage.

What arrives never lies anywhere but in the private folder of the quarantine, and what the sender
calls it is text. Django parses a form when it is first looked at, so the place is set before the
token of the form is checked; whatever does not become a triage is removed when the answer is ready.
"""

from __future__ import annotations

from typing import Any, NoReturn

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler, SkipFile, StopUpload
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt, csrf_protect

from .. import conf
from ..core.errors import BackupError, RefusedError
from ..models import Job, TriageRun
from ..services.audit import Actor
from ..services.quarantine import Received, Receiving, has_open_job, receive, remove_upload
from ..services.triage.runs import JUDGE, ask_upload_triage
from . import display
from .asking import asked_with_this_form, form_opened_at, lead_to
from .base import EvidenceAdmin
from .links import reverse

FIELD = "archive"
"""The one field whose file is taken."""


class QuarantineHandler(FileUploadHandler):
    """Receives one file of a form into quarantine; whatever else is sent along is skipped."""

    def __init__(self, request: HttpRequest | None = None) -> None:
        super().__init__(request)
        self.problem: BackupError | None = None
        self.received: Received | None = None
        self.name = ""
        self._announced_bytes, self._is_too_large = 0, False
        self._receiving: Receiving | None = None

    def handle_raw_input(
        self,
        input_data: Any,
        META: Any,  # noqa: N803 - Django gives it by this name
        content_length: int,
        boundary: Any,
        encoding: Any = None,
    ) -> None:
        """Note what is announced; the fields before the file, its token among them, are read all the same."""
        self._announced_bytes = max(0, content_length)
        self._is_too_large = self._announced_bytes > conf.get("UPLOAD_MAX_BYTES") + _FORM_BYTES

    def new_file(self, *arguments: Any, **options: Any) -> None:
        """A file begins."""
        super().new_file(*arguments, **options)
        if self.field_name != FIELD or self._receiving is not None:
            raise SkipFile
        self.name = self.file_name or ""
        if self._is_too_large:
            self._stop(_too_large(conf.get("UPLOAD_MAX_BYTES")))
        try:
            self._receiving = receive(announced_bytes=self._announced_bytes)
        except BackupError as exc:
            self._stop(exc)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        """The next piece; nobody else gets it."""
        try:
            if self._receiving is not None:
                self._receiving.write(raw_data)
        except BackupError as exc:
            self._stop(exc)

    def file_complete(self, file_size: int) -> UploadedFile:
        """The file has arrived."""
        try:
            if self._receiving is not None:
                self.received = self._receiving.finish()
        except BackupError as exc:
            self._stop(exc)
        return UploadedFile(name=self.name, size=file_size)

    def keep(self) -> None:
        """Somebody looks after the file from now on."""
        self._receiving = None

    def upload_interrupted(self) -> None:
        """The sender has gone; Django says so as well when a later file was skipped."""
        if self.received is None:
            self.discard()

    def discard(self) -> None:
        """Remove what has arrived."""
        self.received = None
        if self._receiving is not None:
            self._receiving.discard()

    def _stop(self, problem: BackupError) -> NoReturn:
        self.problem = problem
        self.discard()
        raise StopUpload(connection_reset=True)


_FORM_BYTES = 1 << 16
"""Room for what a form sends around its file."""


def _too_large(limit: int) -> BackupError:
    return RefusedError(
        f"The upload has more than {limit:,} bytes. It was not kept.",
        "Put the file below one of BACKUPS['TRIAGE_ROOTS'], or raise BACKUPS['UPLOAD_MAX_BYTES'].",
    )


class UploadPages(EvidenceAdmin):
    """The pages through which a file comes into quarantine, and goes out of it unused."""

    def get_urls(self) -> list[URLPattern]:
        """*Upload* and *Remove upload*."""
        upload = path("upload/", self.admin_site.admin_view(self._upload_guarded), name="backups_app_triagerun_upload")
        remove = self.own_path(
            "<str:run_id>/remove-upload/",
            self.remove_upload_view,
            permission="import_backup",
            name="backups_app_triagerun_remove_upload",
        )
        return [upload, remove, *super().get_urls()]

    @method_decorator(csrf_exempt)  # only until the place of the upload is set: see _upload_checked
    def _upload_guarded(self, request: HttpRequest) -> HttpResponseBase:
        if not request.user.has_perm("backups_app.import_backup"):
            raise PermissionDenied
        missing = self._missing(request)
        if missing is not None:
            return missing
        handler = QuarantineHandler(request)
        try:
            request.upload_handlers = [handler]
        except AttributeError:
            return self._form(request, _("A middleware of this site has read the upload already. It cannot be kept."))
        try:
            return self._upload_checked(request, handler)
        finally:
            handler.discard()

    @method_decorator(csrf_protect)
    def _upload_checked(self, request: HttpRequest, handler: QuarantineHandler) -> HttpResponseBase:
        if request.method != "POST":
            return self._form(request)
        opened = request.POST.get("opened", "")  # the form is received with this
        if handler.problem is not None:
            return self._form(request, f"{handler.problem.message} {handler.problem.hint}")
        if handler.received is None:
            return self._form(request, _("Choose a file."))
        asked_at, digest = timezone.now(), handler.received.sha256

        def is_same(job: Job) -> bool:
            return (job.options.get("do"), job.options.get("upload")) == (JUDGE, digest)

        job = asked_with_this_form(request, kind=Job.Kind.TRIAGE, database=None, is_same=is_same) if opened else None
        if job is None:
            run = ask_upload_triage(
                handler.received, name=handler.name, actor=Actor.of(request.user), trigger=Job.Trigger.ADMIN
            )
            handler.keep()
            job = Job.objects.get(triage_run=run)
        otherwise = reverse("admin:backups_app_triagerun_changelist")
        return lead_to(request, [job], asked_at=asked_at, otherwise=otherwise)

    def _form(self, request: HttpRequest, problem: str = "") -> TemplateResponse:
        context = {
            "problem": display.sendable(problem),
            "field": FIELD,
            "most": display.size(conf.get("UPLOAD_MAX_BYTES")),
            "hours": conf.get("UPLOAD_KEEP_HOURS"),
        }
        # Rendered here: afterwards the form has no place to be received in.
        page = self._page(request, "upload_archive", _("Upload an archive"), context)
        page.render()
        return page

    def remove_upload_view(self, request: HttpRequest, run_id: str) -> HttpResponseBase:
        """GET shows what goes, POST removes it."""
        run = self._run(run_id)
        page = display.page_url("triagerun", run.pk)
        if not run.is_upload or run.upload_removed_at is not None:
            messages.info(request, _("There is no uploaded file to remove."))
            return HttpResponseRedirect(page)
        if has_open_job(run):
            messages.warning(request, _("A job works on this upload. Wait for it to end, or cancel it."))
            return HttpResponseRedirect(page)
        if request.method != "POST":
            context = {"run": run, "name": display.sendable(run.upload_name)}
            return self._page(request, "confirm_remove_upload", _("Remove upload"), context)
        try:
            remove_upload(run, actor=Actor.of(request.user), why="it is not wanted")
        except BackupError as exc:
            messages.error(request, display.refusal(exc))
        else:
            messages.success(request, _("The uploaded file was removed. The verdict stays."))
        return HttpResponseRedirect(page)

    def _run(self, run_id: str) -> TriageRun:
        run: TriageRun | None = TriageRun.objects.select_related("job").filter(pk=run_id).first()
        if run is None:
            raise Http404
        return run

    def _page(self, request: HttpRequest, template: str, title: str, context: dict[str, Any]) -> TemplateResponse:
        common = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": title,
            "opened": form_opened_at(),
        }
        return TemplateResponse(request, f"admin/backups_app/{template}.html", {**common, **context})
