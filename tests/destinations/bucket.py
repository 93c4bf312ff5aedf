"""A real S3 server of its own process on this machine, and its bucket as an entry of STORAGES."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config

KEY = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing-secret"}


@contextmanager
def served() -> Iterator[str]:
    """The address of a running server; it ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_for(url, server)
            yield url
        finally:
            server.kill()


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    give_up_at = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{url}/moto-api/", timeout=5):
                return
        except OSError:
            assert server.poll() is None, "the server has ended"
            assert time.monotonic() < give_up_at, "the server does not answer"
            time.sleep(0.1)


def client(url: str) -> Any:
    """A plain client, to look past the destination."""
    return boto3.client("s3", endpoint_url=url, region_name="us-east-1", **KEY)  # type: ignore[call-overload]


def new_bucket(url: str, *, has_object_lock: bool = False) -> str:
    """The name of a fresh bucket."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    client(url).create_bucket(Bucket=name, ObjectLockEnabledForBucket=has_object_lock)
    return name


def storage_of(url: str, bucket: str, *, prefix: str = "site") -> dict[str, Any]:
    """What STORAGES says of it."""
    return {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {
            "bucket_name": bucket,
            "location": prefix,
            "endpoint_url": url,
            "region_name": "us-east-1",
            "access_key": KEY["aws_access_key_id"],
            "secret_key": KEY["aws_secret_access_key"],
            "client_config": Config(connect_timeout=2, read_timeout=20, retries={"total_max_attempts": 1}),
        },
    }


def keys_in(url: str, bucket: str) -> dict[str, int]:
    """Key → bytes of every object in a bucket."""
    found = client(url).list_objects_v2(Bucket=bucket)
    return {each["Key"]: each["Size"] for each in found.get("Contents", ())}


def unfinished_uploads(url: str, bucket: str) -> int:
    """Uploads in parts that were neither finished nor given up."""
    return len(client(url).list_multipart_uploads(Bucket=bucket).get("Uploads", ()))


os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
