"""An S3-compatible bucket as a destination: the S3Storage of django-storages, streamed.

Its ``open`` would take a whole object into memory, and its ``save`` sends up to ten parts at once.
Here objects are read from one streaming GET, and written part by part from one buffer. Each part
travels with its SHA-256, which the bucket checks (buckets with object lock ask for a checksum), and
is published under the condition that nothing has the name (``If-None-Match: *``).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from django.core.files.storage import Storage

from ..core.errors import BackupError
from ..core.progress import Watch
from .base import StoredObject, require_plain_name
from .storage import StorageDestination, error_code, http_status

PART_BYTES = 8 << 20
"""Size of one part, which is what an upload holds in memory; larger for objects of more than 80 GB."""

_MOST_PARTS = 10_000
_NO_CONDITIONS = ("NotImplemented", "InvalidArgument", "InvalidRequest", "501")


class S3Destination(StorageDestination):
    """A bucket, or what lies below a prefix of one."""

    def store(self, source: Path, name: str, *, watch: Watch | None = None) -> None:
        """Publish ``source`` as ``name``. See :class:`.base.Destination`."""
        require_plain_name(name)
        if self._ask(f"asking for {name}", lambda: self._storage.exists(name)):
            raise self.taken(name)
        size = source.stat().st_size
        watch = watch or Watch()
        with open(source, "rb") as file:
            if size <= PART_BYTES:
                watch.report("store", 0, size)
                self._publish(name, lambda more: self._put(name, file, more))
                watch.report("store", size, size)
            else:
                self._store_in_parts(file, name, size=size, watch=watch)

    def _put(self, name: str, file: BinaryIO, more: dict[str, str]) -> None:
        file.seek(0)
        body = file.read()
        self._client.put_object(
            **self._place(name),
            **self._parameters(name),
            **more,
            Body=body,
            ChecksumAlgorithm="SHA256",
            ChecksumSHA256=_checksum(body),
        )

    def _store_in_parts(self, file: BinaryIO, name: str, *, size: int, watch: Watch) -> None:
        part_bytes = max(PART_BYTES, -(-size // _MOST_PARTS))
        started = self._ask(
            f"storing {name}",
            lambda: self._client.create_multipart_upload(
                **self._place(name), **self._parameters(name), ChecksumAlgorithm="SHA256"
            ),
        )
        upload = {**self._place(name), "UploadId": started["UploadId"]}
        try:
            parts: list[dict[str, Any]] = []
            while body := file.read(part_bytes):
                watch.report("store", file.tell() - len(body), size)
                parts.append(self._send_part(upload, name, len(parts) + 1, body))
            watch.report("store", size, size)
            self._publish(
                name,
                lambda more: self._client.complete_multipart_upload(**upload, **more, MultipartUpload={"Parts": parts}),
            )
        except BaseException:
            with suppress(BackupError):  # a lifecycle rule of the bucket removes what stays
                self._ask("giving an upload up", lambda: self._client.abort_multipart_upload(**upload))
            raise

    def _send_part(self, upload: dict[str, str], name: str, number: int, body: bytes) -> dict[str, Any]:
        checksum = _checksum(body)
        answer = self._ask(
            f"storing {name}",
            lambda: self._client.upload_part(**upload, PartNumber=number, Body=body, ChecksumSHA256=checksum),
        )
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}

    def _publish(self, name: str, call: Callable[[dict[str, str]], object]) -> None:
        """The call that gives an object its name, on the condition that nothing has it."""

        def publish() -> bool:
            try:
                call({"IfNoneMatch": "*"})
            except Exception as exc:
                if http_status(exc) == 412 or error_code(exc) == "PreconditionFailed":
                    return False
                if error_code(exc) not in _NO_CONDITIONS and http_status(exc) != 501:
                    raise
                call({})  # a store without conditional writes: we have looked that the name is free
            return True

        if not self._ask(f"storing {name}", publish):
            raise self.taken(name)

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a stored object: one GET, whose body is read as it comes. See :class:`.base.Destination`."""
        require_plain_name(name)
        answer = self._ask(f"opening {name}", lambda: self._found(name, self._get), name=name)
        body = answer["Body"]
        try:
            yield self.reader(name, body.read)
        finally:
            with suppress(Exception):
                body.close()

    def _get(self, name: str) -> Any:
        return self._client.get_object(**self._place(name))

    @staticmethod
    def _found(name: str, call: Callable[[str], Any]) -> Any:
        try:
            return call(name)
        except Exception as exc:
            if error_code(exc) in ("NoSuchKey", "404"):
                raise FileNotFoundError(name) from exc
            raise

    def remove(self, name: str) -> None:
        """Remove a stored object; one that is not there is fine. See :class:`.base.Destination`."""
        require_plain_name(name)
        # Not through the storage: to that, a bucket that is not there is an object that is not there.
        self._ask(f"removing {name}", lambda: self._client.delete_object(**self._place(name)))

    def list(self) -> Iterator[StoredObject]:
        """Every stored object, a page at a time. See :class:`.base.Destination`."""
        prefix = self._prefix
        pages = iter(self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix))
        while True:
            page = self._ask("listing", lambda: next(pages, None))
            if page is None:
                return
            for each in page.get("Contents", ()):
                name = str(each["Key"]).removeprefix(prefix)
                if name and not name.endswith("/"):  # consoles make empty objects that stand for folders
                    yield StoredObject(name=name, size_bytes=int(each["Size"]))

    # Through the storage: the connection of this thread, and how it names things

    @property
    def _s3(self) -> Any:
        return self._storage

    @property
    def _client(self) -> Any:
        return self._s3.connection.meta.client

    @property
    def _bucket(self) -> str:
        bucket: str = self._s3.bucket_name
        return bucket

    @property
    def _prefix(self) -> str:
        location = str(self._s3.location or "").strip("/")
        return f"{location}/" if location else ""

    def _place(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + name}

    def _parameters(self, name: str) -> dict[str, Any]:
        """What the site wants for its objects, as storage class or encryption of the bucket."""
        given = dict(self._s3.get_object_parameters(name))
        given.setdefault("ContentType", "application/octet-stream")
        if self._s3.default_acl:
            given.setdefault("ACL", self._s3.default_acl)
        for each in ("ChecksumAlgorithm", "IfNoneMatch"):
            given.pop(each, None)
        return given


def _checksum(body: bytes) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


def is_s3(storage: Storage) -> bool:
    """Whether a storage is the S3Storage of django-storages; False too when that is not installed."""
    wanted = ("storages.backends.s3", "S3Storage")
    return any((kind.__module__, kind.__name__) == wanted for kind in type(storage).__mro__)
