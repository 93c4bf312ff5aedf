"""A media archive into another one, for other keys: the same tar, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..age import Recipient
from ..archive import Keys, OpenStored, decompress, read_chunks, write_pieces
from ..errors import KeyMissingError, VerificationError
from ..manifest import Media
from ..progress import Watch
from ..verify import NO_KEYS, hash_stored, keys_for
from .index import Counts
from .pack import PackedMedia


def repack_media(
    open_stored: OpenStored,
    media: Media,
    destination: Path,
    *,
    encryption: str | None,
    keys: Keys = NO_KEYS,
    watch: Watch,
    level: int = 1,
    workers: int = 2,
    recipients: Sequence[Recipient] = (),
) -> PackedMedia:
    """Write the tar of a stored media archive into the new private file ``destination``, for ``recipients``.

    Raises:
        VerificationError: the stored bytes or the tar are not those that the manifest names.
            KeyMissingError: no key opens it. UnreachableError, DiskFullError, CancelledError, DeadlineError,
            BackupError. ``destination`` does not exist then.
    """

    def contents() -> Iterator[bytes]:
        opening = keys_for(encryption, keys)
        with open_stored() as stored:
            pieces = read_chunks(stored, phase="media", total_bytes=media.archive_bytes, watch=watch)
            yield from decompress(pieces if opening is None else opening.opened(pieces), limit_bytes=media.tar_bytes)

    try:
        stream = write_pieces(
            contents(), destination, size_bytes=media.tar_bytes, level=level, workers=workers, recipients=recipients
        )
    except KeyMissingError as exc:
        # Damage to its first bytes looks the same.
        stored = hash_stored(open_stored, total_bytes=media.archive_bytes, watch=watch)
        if stored == (media.archive_bytes, media.archive_sha256):
            raise
        raise VerificationError(
            "The stored media archive is not the one that was written.", "Verify the backup; nothing was changed."
        ) from exc
    if (stream.packed_bytes, stream.packed_sha256) != (media.tar_bytes, media.tar_sha256):
        destination.unlink(missing_ok=True)
        raise VerificationError(
            "The media archive does not hold what its manifest says.", "Verify the backup; nothing was changed."
        )
    return PackedMedia(
        stream=stream,
        index_sha256=media.index_sha256,
        counts=Counts(files=media.files, folders=media.folders, links=media.links, content_bytes=media.content_bytes),
        labels=media.labels,
        read_from=media.read_from,
        read_until=media.read_until,
        remarks=(),
        problems=(),
    )
