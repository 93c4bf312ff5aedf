"""The backup engine: consistent snapshots, proven archives, strict reading. No Django inside."""
