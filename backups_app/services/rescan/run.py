"""The order of a rescan: list, judge each manifest, judge each chain, rebuild rows, record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from django.utils import timezone

from ... import conf
from ...core import manifest as manifests
from ...core.chain import Fault, Head, Link, chain_end, judge_chain
from ...core.errors import BusyError, NotFoundError, RefusedError, UnreachableError, translated
from ...core.files import file_lock
from ...core.manifest import Manifest
from ...core.progress import ProgressCallback, Watch
from ...core.ranges import Range, covers, merged, single
from ...destinations import LOCAL, Destination, get_destination
from ...models import Backup, Copy, Database, Verification
from ...models.backup import Verdict
from ..audit import Actor
from ..chain import adopt_head, head_of, kept_head
from ..heal import heal_interrupted
from ..hosts import here
from ..signing import trust
from ..verify import verify_copy
from . import judge
from .archives import Archives
from .known import KnownCopy, copies_elsewhere, id_in, is_still_known, known_copies, numbers_elsewhere
from .outcome import Found, Rescan, record
from .rebuild import copy_name, database_for, register
from .store import Listing, Objects, Reading, list_store, read_manifest
from .trust import Trust, decide_trust

_ROW = ("pk", "state", "manifest_sha256")


def rescan_all(
    names: Sequence[str] | None = None,
    *,
    actor: Actor,
    is_dry_run: bool = False,
    trusting: str = "",
    on_progress: ProgressCallback | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> list[Rescan]:
    """:func:`rescan` of each named destination in turn; without names of all that settings and rows name.

    Those of the settings come first, in their order: what one of them knows is not missing at the next.

    Raises:
        NotFoundError: a named one is not configured. Else as :func:`rescan`; what was found at the
            destinations before stays recorded.
    """
    found: list[Rescan] = []
    for name in names or known_destinations():
        try:
            get_destination(name)
        except RefusedError as exc:
            if names:
                raise NotFoundError(exc.message, exc.hint) from exc
            found.append(_not_configured(name, exc, actor=actor, is_dry_run=is_dry_run))
            continue
        found.append(
            rescan(
                actor=actor,
                is_dry_run=is_dry_run,
                trusting=trusting,
                destination=name,
                on_progress=on_progress,
                is_cancelled=is_cancelled,
            )
        )
    return found


def _not_configured(name: str, exc: RefusedError, *, actor: Actor, is_dry_run: bool) -> Rescan:
    """Copies are known at a destination that the settings do not have any more."""
    done = Rescan(destination=name, is_dry_run=is_dry_run)
    done.findings.append(Found(code="destination_unreachable", message=exc.message))
    if not is_dry_run:
        record(done, actor=actor, now=timezone.now())
    return done


def known_destinations() -> list[str]:
    """Every destination at which backups should be, by settings, databases and copies."""
    chosen = [str(name) for names in Database.objects.values_list("destinations", flat=True) for name in names]
    stored = (
        Copy.objects.filter(state__in=Copy.STORED_STATES).order_by("destination").values_list("destination", flat=True)
    )
    return list(dict.fromkeys([*conf.destinations(), *sorted(chosen), *stored.distinct()]))


def rescan(
    *,
    actor: Actor,
    is_dry_run: bool = False,
    trusting: str = "",
    destination: str = LOCAL,
    on_progress: ProgressCallback | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> Rescan:
    """Compare a destination with catalogue and chain heads, and bring unknown signed backups back.

    Every stored byte is read once. A backup found damaged or missing is verified at level
    ``quick``, so that its states say so. ``trusting`` names a key whose signatures count from now
    on. With ``is_dry_run`` nothing is written at all.

    Raises:
        BusyError: another rescan is running. NotFoundError, InputError: ``trusting`` is no key.
            CancelledError, DeadlineError: what was registered by then stays; findings are not kept.
    """
    if not is_dry_run:
        heal_interrupted()
    limit_seconds = conf.get("DEADLINE_SECONDS")
    watch = Watch(on_progress=on_progress, is_cancelled=is_cancelled, deadline_seconds=limit_seconds)
    quiet = Watch(is_cancelled=is_cancelled, deadline_seconds=limit_seconds)
    lock = conf.state_folder() / "locks" / "rescan.lock"
    with translated("taking the lock of rescans"), file_lock(lock, blocking=False) as is_ours:
        if not is_ours:
            raise BusyError("Another rescan is running.", "Try again when it has ended.")
        run = _Run(get_destination(destination), actor=actor, is_dry_run=is_dry_run, watch=watch, quiet=quiet)
        done = run.carry_out(trusting)
        if not is_dry_run:
            record(done, actor=actor, now=timezone.now())
    return done


class _Run:
    """One rescan: what it has learned, and its steps in order."""

    def __init__(self, destination: Destination, *, actor: Actor, is_dry_run: bool, watch: Watch, quiet: Watch) -> None:
        self.destination = destination
        self.actor = actor
        self.is_dry_run = is_dry_run
        self.watch = watch
        self.quiet = quiet  # progress counts all archives together
        self.done = Rescan(destination=destination.name, is_dry_run=is_dry_run)
        self.names: dict[str, str] = {}
        self.links: dict[str, list[Link]] = {}
        self.ends: dict[str, Head] = {}
        """Identity → where its chain ends at this destination."""
        self.fresh: dict[str, list[tuple[int, str, str]]] = {}
        """Identity → number, backup and stem of what the catalogue does not know yet."""
        self.bad: list[KnownCopy] = []
        self.missing: dict[str, set[int]] = {}
        self.spoiled: dict[str, set[int]] = {}
        self.trust = Trust(keys={})
        self.elsewhere = copies_elsewhere(destination.name)
        others = Database.objects.none() if conf.is_catalog_local() else Database.objects.exclude(here())
        self.strangers = {text for row in others.values_list("identity", "name") for text in row}
        """Identities and names of databases that other hosts look after."""
        self.left = 0

    def carry_out(self, trusting: str) -> Rescan:
        """All steps."""
        # Catalogue and heads first: what is added while we look cannot seem to be missing then.
        heads = {each.identity: head_of(each) for each in Database.objects.filter(here())}
        self.names = dict(Database.objects.values_list("identity", "name"))
        self.known = known_copies(self.destination.name)
        try:
            listing = list_store(self.destination)
        except UnreachableError as exc:
            self._find("destination_unreachable", exc.message)
            return self.done
        self.archives = Archives(self.destination, listing, watch=self.quiet)
        self.done.objects = listing.objects
        # A row is there before its objects: what was listed is known by now, at least as running.
        self.present = known_copies(self.destination.name)
        self.rows: dict[str, tuple[str, str]] = {
            pk: (state, digest) for pk, state, digest in Backup.objects.values_list(*_ROW).iterator()
        }
        self.digests = {each.manifest_sha256: each for each in self.present.values()}
        if self.known and not listing.stems:
            self._find("destination_empty", f"None of {len(self.known)} backups is there.")
            return self.done
        self._decide_trust(trusting, listing)
        self._judge_objects(listing)
        self._judge_absent(listing)
        self._judge_chains(heads)
        self._rebuild(listing)
        self._settle_bad()
        if self.left:
            self.done.notes.append(f"{self.left} manifests are of databases of other hosts, and were left to them.")
        return self.done

    def _find(self, code: str, message: str, *, path: str = "", backup: str = "", database: str = "") -> None:
        self.done.findings.append(Found(code=code, message=message, path=path, backup=backup, database=database))

    def _find_known(self, code: str, message: str, known: KnownCopy, *, path: str = "") -> None:
        self._find(code, message, path=path or known.archive, backup=known.backup, database=known.database)

    def _decide_trust(self, trusting: str, listing: Listing) -> None:
        self.trust = decide_trust(trusting, readings=partial(self._readings, listing))
        self.done.notes += self.trust.notes
        self.done.trusted_keys = list(self.trust.added)
        for key_id, why in self.trust.added.items() if not self.is_dry_run else ():
            trust(self.trust.keys[key_id], actor=self.actor, why=why)

    def _readings(self, listing: Listing) -> Iterator[Reading]:
        for stem, objects in listing.stems.items():
            self.watch.check()
            if objects.has_manifest:
                try:
                    yield read_manifest(self.destination, stem)
                except UnreachableError:  # it will be a finding
                    continue

    # Each object

    def _judge_objects(self, listing: Listing) -> None:
        total = sum(each.archive_bytes + each.media_bytes for each in listing.stems.values())
        read = 0
        for stem in sorted(listing.stems):
            objects = listing.stems[stem]
            for name in objects.odd:
                self._find("not_a_plain_file", "It is a link, a pipe or a device.", path=name)
            self._judge_stem(stem, objects)
            read += objects.archive_bytes + objects.media_bytes
            self.watch.report("rescan", read, total)
        for name in sorted(listing.unknown):
            self._find("unknown_file", "It is not named like anything of ours.", path=name)

    def _judge_stem(self, stem: str, objects: Objects) -> None:
        known = self.present.get(stem)
        if known is None and (self._is_running(stem) or stem in self.elsewhere):
            return
        if not objects.has_manifest:
            self._judge_without_manifest(stem, objects, known)
            return
        self.done.manifests += 1
        try:
            reading = read_manifest(self.destination, stem)
        except UnreachableError as exc:
            self._find("unreachable", exc.message, path=stem + manifests.SUFFIX, backup=known.backup if known else "")
            return
        if known is not None:
            self._judge_known(reading, stem, objects, known)
        else:
            self._judge_new(reading, stem)

    def _is_running(self, stem: str) -> bool:
        """Whether a backup of this name is being made right now."""
        state: str = self.rows.get(id_in(stem), ("", ""))[0]
        return state == str(Backup.State.RUNNING)

    def _judge_without_manifest(self, stem: str, objects: Objects, known: KnownCopy | None) -> None:
        if known is not None:
            if not objects.odd and is_still_known(known):
                code, what = ("manifest_deleted", "its manifest") if objects.archive else ("backup_deleted", "it")
                self._find_known(code, f"The catalogue knows the backup, but {what} is not there.", known)
            self._note_bad(known, is_missing=not objects.archive)
        elif objects.archive or objects.media:
            is_left_over = self.rows.get(id_in(stem), ("", "unknown"))[1] == ""
            message = "No manifest belongs to this archive."
            self._find("left_over" if is_left_over else "stray_archive", message, path=objects.archive or objects.media)
        elif objects.has_signature:
            self._find("unknown_file", "A signature without a manifest.", path=stem)

    def _judge_known(self, reading: Reading, stem: str, objects: Objects, known: KnownCopy) -> None:
        found = judge.judge_known(reading, stem, known, digests=self.digests, keys=self.trust.keys)
        if found is not None:
            self.done.findings.append(found)
        if found is not None and found.is_damage:
            self._note_bad(known, is_missing=False)
            return
        manifest = reading.manifest
        if manifest is None:  # the catalogue would not know its digest
            return
        if manifest.is_signed:
            self.links.setdefault(known.identity, []).append(judge.link_of(reading, manifest))
        self._judge_known_archive(manifest, objects, known)

    def _judge_known_archive(self, manifest: Manifest, objects: Objects, known: KnownCopy) -> None:
        self._judge_media(manifest, objects)
        code, problem = self.archives.problem(manifest, objects)
        if not problem:
            self.done.known += 1
            if not known.is_settled:
                self.bad.append(known)  # it is good again: verifying says so
            return
        if not is_still_known(known):
            return
        if code and known.archive not in objects.odd:
            self._find_known(code, problem, known)
        self.bad.append(known)

    def _judge_media(self, manifest: Manifest, objects: Objects) -> None:
        """What lies in the place of an archive of folders, although the manifest names none."""
        if objects.media and (manifest.media is None or manifest.media.name != objects.media):
            name = self.names.get(manifest.identity, manifest.database)
            message = "The manifest knows no archive of media of this name."
            self._find("stray_archive", message, path=objects.media, backup=manifest.id, database=name)

    def _judge_new(self, reading: Reading, stem: str) -> None:
        found = judge.judge_new(reading, stem, keys=self.trust.keys)
        manifest = reading.manifest
        if found is not None or manifest is None:
            if found is not None:
                self.done.findings.append(found)
            return
        if self.rows.get(manifest.id, ("", "unknown"))[1] == "":
            name = self.names.get(manifest.identity, manifest.database)
            self._find("left_over", "Its backup did not succeed.", path=stem, backup=manifest.id, database=name)
            return
        if not self.strangers.isdisjoint((manifest.identity, manifest.database)):
            self.left += 1
            return
        self.names.setdefault(manifest.identity, manifest.database)
        self.links.setdefault(manifest.identity, []).append(judge.link_of(reading, manifest))
        self.fresh.setdefault(manifest.identity, []).append((manifest.sequence or 0, manifest.id, stem))

    def _judge_absent(self, listing: Listing) -> None:
        for stem, known in self.known.items():
            if stem not in listing.stems and is_still_known(known):
                self._find_known("backup_deleted", "The catalogue knows the backup, but nothing of it is there.", known)
                self._note_bad(known, is_missing=True)

    def _note_bad(self, known: KnownCopy, *, is_missing: bool) -> None:
        self.bad.append(known)
        if known.sequence is not None:
            numbers = self.missing if is_missing else self.spoiled
            numbers.setdefault(known.identity, set()).add(known.sequence)

    # Each chain

    def _judge_chains(self, heads: dict[str, Head | None]) -> None:
        for identity in sorted({*heads, *self.links}):
            # A head outlives the catalogue, and says of a chain that nobody knows any more where it ended.
            links, head = self.links.get(identity, []), heads.get(identity) or kept_head(identity)
            spoiled, missing = self.spoiled.get(identity, set()), self.missing.get(identity, set())
            last = max([*(link.sequence for link in links), *spoiled], default=0)
            # What was reported by name is not reported by number again, but for the end of the chain.
            named = single(spoiled | {each for each in missing if each < last})
            pruned = merged(self._pruned(identity, head), *(link.pruned for link in links))
            elsewhere = single(numbers_elsewhere(self.destination.name, identity))
            for fault in judge_chain(links, head=head, pruned=merged(named, pruned, elsewhere)):
                self._find_fault(fault, identity)
            end = chain_end(links)
            if end is not None:
                self.ends[identity] = Head(
                    sequence=end.sequence, manifest_sha256=end.digest, backup=end.backup, pruned=pruned
                )

    @staticmethod
    def _pruned(identity: str, head: Head | None) -> tuple[Range, ...]:
        """What the head knows to be deleted on purpose, now as well as before we looked."""
        database = Database.objects.filter(identity=identity).first()
        now = head_of(database) if database is not None else None
        return merged(*(each.pruned for each in (head, now) if each))

    def _find_fault(self, fault: Fault, identity: str) -> None:
        numbers = f"number {fault.sequence}" if fault.sequence == fault.last else f"{fault.sequence} to {fault.last}"
        code, message = {
            "gap": ("backup_deleted", f"Of the chain, {numbers} is missing, and was not deleted by retention."),
            "cut": ("chain_cut", f"The chain ends before its head: {numbers} is missing."),
            "broken": ("chain_broken", f"The manifest with {numbers} does not name the one before it."),
            "rolled_back": ("rolled_back", f"The head of the chain knows another manifest with {numbers}."),
            "forked": ("stray_manifest", f"The chain goes through another manifest with {numbers}."),
        }[fault.kind]
        self._find(code, message, backup=fault.backup, database=self.names.get(identity, ""))

    # Rows

    def _rebuild(self, listing: Listing) -> None:
        strays = {each.backup for each in self.done.findings if each.code == "stray_manifest"}
        for identity, fresh in self.fresh.items():
            pruned = self.ends[identity].pruned
            for number, backup, stem in sorted(fresh):
                self.watch.check()
                if covers(pruned, number):
                    name = self.names[identity]
                    self._find("pruned", "It was deleted on purpose.", path=stem, backup=backup, database=name)
                elif backup not in strays:
                    self._rebuild_one(stem, listing.stems[stem])
        for identity, head in self.ends.items():
            database = Database.objects.filter(identity=identity).first()
            if database is not None and not self.is_dry_run:
                adopt_head(head, database=database)
            self.done.heads[self.names.get(identity, identity)] = head

    def _rebuild_one(self, stem: str, objects: Objects) -> None:
        try:
            reading = read_manifest(self.destination, stem)
        except UnreachableError as exc:
            self._find("unreachable", exc.message, path=stem)
            return
        manifest = reading.manifest
        if manifest is None or judge.judge_new(reading, stem, keys=self.trust.keys) is not None:
            self._find("forged", "The manifest was exchanged while it was read.", path=stem)
            return
        row = Backup.objects.filter(pk=manifest.id).first() if manifest.id in self.rows else None
        if row is not None and row.manifest_sha256 != reading.digest:
            code = "rolled_back" if row.manifest_sha256 else "left_over"
            self._find(code, "The catalogue knows this backup with another manifest.", path=stem, backup=row.pk)
            return
        if row is not None and row.is_gone:
            self._find("left_over", "This backup was pruned, and its files are still there.", path=stem, backup=row.pk)
            return
        self.done.registered += 1
        self._judge_media(manifest, objects)
        if self.is_dry_run:
            code, problem = self.archives.problem(manifest, objects)
            verdict: str = Verdict.FAILED if problem else Verdict.PASSED
        else:
            code, problem, verdict = self._register(reading, stem, manifest, objects, row)
        if verdict != Verdict.PASSED and manifest.archive_name not in objects.odd:
            database = self.names[manifest.identity]
            self._find(code, problem, path=manifest.archive_name, backup=manifest.id, database=database)

    def _register(
        self, reading: Reading, stem: str, manifest: Manifest, objects: Objects, row: Backup | None
    ) -> tuple[str, str, str]:
        if row is None:
            database, is_new = database_for(manifest)
            self.names[manifest.identity] = database.name
            if is_new:
                self.done.databases_added.append(database.name)
            row, copy = register(
                manifest, stem=stem, digest=reading.digest, database=database, destination=self.destination.name
            )
        else:  # the catalogue knows the backup, but not that a copy of it is here
            stored_at = min(manifest.created_at, timezone.now())
            facts = {"name": copy_name(manifest, stem), "stored_at": stored_at}
            copy, is_new = Copy.objects.get_or_create(backup=row, destination=self.destination.name, defaults=facts)
            if not is_new and copy.stored_at is None:  # it waited to be stored, and is there
                copy.stored_at = stored_at
        judged = self._verify(row, copy)
        if judged.verdict == Verdict.UNREACHABLE:
            return self.archives.code_of_absent(manifest, objects), judged.reason, judged.verdict
        return "archive_replaced", judged.reason, judged.verdict

    # Verdicts

    def _settle_bad(self) -> None:
        if self.is_dry_run:
            return
        for known in self.bad:
            copy = Copy.objects.select_related("backup__database").filter(pk=known.copy_id).first()
            if copy is not None:
                self._verify(copy.backup, copy)

    def _verify(self, backup: Backup, copy: Copy) -> Verification:
        return verify_copy(backup, copy, level=Verification.Level.QUICK, actor=self.actor, job=None, watch=self.quiet)
