"""What a bucket adds: conditions, checksums, uploads in parts, object lock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backups_app.core.errors import RefusedError, UnreachableError
from backups_app.core.progress import Watch
from backups_app.destinations import S3Destination, get_destination
from tests.destinations.bucket import client, keys_in, new_bucket, storage_of, unfinished_uploads

NAME = "shop/2026/shop-1.sqlite3.zst"


@pytest.fixture
def s3(home: Path, s3_url: str, bucket: str, add_storage: Callable[..., None]) -> S3Destination:
    add_storage("s3", storage_of(s3_url, bucket))
    found = get_destination("s3")
    assert isinstance(found, S3Destination)
    return found


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(bytes(20 << 20))
    return path


def test_objects_lie_below_the_prefix_and_listings_do_not_name_it(
    s3: S3Destination, s3_url: str, bucket: str, large: Path
):
    client(s3_url).put_object(Bucket=bucket, Key="siteother/x", Body=b"of somebody else")
    s3.store(large, NAME)
    assert keys_in(s3_url, bucket) == {f"site/{NAME}": 20 << 20, "siteother/x": 16}
    assert [each.name for each in s3.list()] == [NAME]


@pytest.mark.parametrize("size", [7, 20 << 20])
def test_the_store_keeps_a_checksum(s3: S3Destination, s3_url: str, bucket: str, tmp_path: Path, size: int):
    source = tmp_path / "source"
    source.write_bytes(bytes(size))
    s3.store(source, NAME)
    found = client(s3_url).head_object(Bucket=bucket, Key=f"site/{NAME}", ChecksumMode="ENABLED")
    assert found.get("ChecksumSHA256")


@pytest.mark.parametrize("size", [7, 20 << 20])
def test_somebody_faster_is_not_overwritten(
    s3: S3Destination, s3_url: str, bucket: str, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
):
    """Between the look and the writing another writer takes the name: the store itself refuses."""
    source = tmp_path / "source"
    source.write_bytes(bytes(size))
    client(s3_url).put_object(Bucket=bucket, Key=f"site/{NAME}", Body=b"first")
    monkeypatch.setattr(type(s3._storage), "exists", lambda *_args: False)
    with pytest.raises(RefusedError, match="exists already"):
        s3.store(source, NAME)
    assert keys_in(s3_url, bucket) == {f"site/{NAME}": 5}
    assert unfinished_uploads(s3_url, bucket) == 0


def test_an_upload_that_ends_early_is_given_up(s3: S3Destination, s3_url: str, bucket: str, large: Path):
    seen: list[int] = []

    def stop(_phase: str, done: int, _total: int) -> None:
        seen.append(done)
        if done >= 8 << 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        s3.store(large, NAME, watch=Watch(on_progress=stop))
    assert seen == [0, 8 << 20]
    assert keys_in(s3_url, bucket) == {}
    assert unfinished_uploads(s3_url, bucket) == 0


def test_a_locked_object_survives_a_removal(home: Path, s3_url: str, add_storage: Callable[..., None], tmp_path: Path):
    """With object lock a removal hides the object; its version stays, and the name is free."""
    bucket = new_bucket(s3_url, has_object_lock=True)
    until = {"Mode": "COMPLIANCE", "Days": 30}
    client(s3_url).put_object_lock_configuration(
        Bucket=bucket,
        ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": until}},
    )
    add_storage("s3", storage_of(s3_url, bucket))
    destination = get_destination("s3")
    source = tmp_path / "source"
    source.write_bytes(b"content")
    destination.store(source, NAME)
    destination.remove(NAME)
    with pytest.raises(UnreachableError):
        destination.size(NAME)
    versions = client(s3_url).list_object_versions(Bucket=bucket)["Versions"]
    assert [each["Size"] for each in versions] == [7]
    head = client(s3_url).head_object(Bucket=bucket, Key=f"site/{NAME}", VersionId=versions[0]["VersionId"])
    assert head["ObjectLockRetainUntilDate"] > datetime.now(UTC) + timedelta(days=29)


def test_a_bucket_that_is_not_there_is_unreachable_and_its_address_stays_unknown(
    home: Path, s3_url: str, add_storage: Callable[..., None], large: Path
):
    add_storage("s3", storage_of(s3_url, "no-such-bucket"))
    destination = get_destination("s3")
    calls: list[Callable[[], Any]] = [
        lambda: destination.store(large, NAME),
        lambda: list(destination.list()),
        lambda: destination.remove(NAME),
    ]
    for call in calls:
        with pytest.raises(UnreachableError) as raised:
            call()
        assert "NoSuchBucket" in raised.value.message
        assert s3_url not in raised.value.message


def test_a_server_that_is_down_is_unreachable_and_its_address_stays_unknown(
    home: Path, add_storage: Callable[..., None], large: Path
):
    add_storage("s3", storage_of("http://127.0.0.1:9", "bucket"))
    destination = get_destination("s3")
    for call in (
        lambda: destination.store(large, NAME),
        lambda: destination.size(NAME),
        lambda: list(destination.list()),
    ):
        with pytest.raises(UnreachableError) as raised:
            call()
        assert "127.0.0.1" not in raised.value.message
        assert "secret" not in raised.value.message


def test_a_body_that_breaks_off_is_unreachable(s3: S3Destination, large: Path, monkeypatch: pytest.MonkeyPatch):
    s3.store(large, NAME)

    def break_off(*_args: object) -> bytes:
        raise ConnectionError

    monkeypatch.setattr("botocore.response.StreamingBody.read", break_off)
    with s3.open(NAME) as stream, pytest.raises(UnreachableError, match="ConnectionError"):
        stream.read(10)


def test_a_store_without_conditional_writes_is_written_to_all_the_same(
    s3: S3Destination, s3_url: str, bucket: str, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from botocore.exceptions import ClientError

    calls: list[bool] = []
    publish = s3._publish

    def without(name: str, call: Callable[[dict[str, str]], object]) -> None:
        def refusing(more: dict[str, str]) -> object:
            calls.append(bool(more))
            if more:
                answer: Any = {"Error": {"Code": "NotImplemented"}, "ResponseMetadata": {"HTTPStatusCode": 501}}
                raise ClientError(answer, "PutObject")
            return call(more)

        publish(name, refusing)

    monkeypatch.setattr(s3, "_publish", without)
    s3.store(large, NAME)
    assert calls == [True, False]
    assert keys_in(s3_url, bucket) == {f"site/{NAME}": 20 << 20}
    with pytest.raises(RefusedError):
        s3.store(large, NAME)
