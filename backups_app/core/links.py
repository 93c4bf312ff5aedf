"""Chains of archives: a full one, and deltas that build on each other, the next on the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .archive import Keys, OpenStored
from .delta import Patch
from .errors import VerificationError
from .manifest import Delta, Manifest, links_digest
from .pages import is_page_size


@dataclass(frozen=True, kw_only=True)
class Link:
    """One stored archive of a chain, with the manifest that says what it must be."""

    open_stored: OpenStored
    manifest: Manifest
    keys: Keys


def patch_of(manifest: Manifest, delta: Delta) -> Patch:
    """What the index of a delta must say."""
    return Patch(
        base_sha256=delta.base_sha256,
        sha256=manifest.sha256,
        size_bytes=manifest.size_bytes,
        page_size=delta.page_size,
        pages=delta.pages,
    )


def require_linked(manifest: Manifest, below: Sequence[Link]) -> None:
    """Make sure that ``below`` is the chain that the archive of ``manifest`` builds on, the full one first.

    Each manifest names digest and content of the archive below it, so one that was replaced, or is
    missing, is noticed here, before anything is read.

    Raises:
        VerificationError: it is another chain.
    """
    expected = manifest.delta.position if manifest.delta else 0
    if len(below) != expected:
        raise VerificationError(
            f"The archive builds on {expected} others, and {len(below)} were found.",
            "Look for the missing ones, or use an older verified backup.",
        )
    links_sha256, before = "", None
    for number, each in enumerate([*(link.manifest for link in below), manifest]):
        delta = each.delta
        if before is None:
            is_right = delta is None
        else:
            is_right = delta is not None and _is_on(each, delta, number=number, before=before)
        links_sha256 = links_digest(each.archive_sha256, below=links_sha256)
        if not is_right or each.links_sha256 != links_sha256:
            raise VerificationError(
                f"The archive {each.archive_name} does not build on those that were found.",
                "One of the chain was replaced. Use an older verified backup.",
            )
        before = each


def _is_on(manifest: Manifest, delta: Delta, *, number: int, before: Manifest) -> bool:
    found = (delta.position, delta.base_name, delta.base_archive_sha256, delta.base_sha256)
    is_whole = is_page_size(delta.page_size) and not (
        manifest.size_bytes % delta.page_size or before.size_bytes % delta.page_size
    )
    return is_whole and found == (number, before.archive_name, before.archive_sha256, before.sha256)
