"""What an approval is bound to."""

from __future__ import annotations

import hashlib

from ...core.manifest import canonical
from ...models import Restore


def binding_of(restore: Restore) -> str:
    """Digest of what an approval is for: the archive, the target and the options."""
    return hashlib.sha256(
        canonical(
            {
                "backup": restore.backup_id,
                "archive_sha256": restore.backup.restored_sha256,
                "target": restore.database.identity,
                "path": restore.database.path,
                "overrides": restore.overrides,
                "migrate": restore.is_migrating,
            }
        )
    ).hexdigest()
