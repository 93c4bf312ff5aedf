"""The bucket that the environment names, as an entry of STORAGES."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured

_CONNECT_SECONDS = 10
_READ_SECONDS = 60


def s3_storage(
    *, bucket: str, prefix: str, endpoint_url: str, region: str, access_key: str, secret_key: str
) -> dict[str, object]:
    """The S3Storage for ``bucket``; what is empty is left to the usual places of the AWS libraries.

    Raises:
        ImproperlyConfigured: the extra ``s3`` is not installed, or one half of the key is missing.
    """
    if bool(access_key) != bool(secret_key):
        raise ImproperlyConfigured(
            "Set both BACKUPS_S3_ACCESS_KEY_ID and BACKUPS_S3_SECRET_ACCESS_KEY (or their _FILE), or neither."
        )
    try:
        from botocore.config import Config
    except ImportError as exc:
        raise ImproperlyConfigured("BACKUPS_S3_BUCKET needs the extra s3: pip install 'django-walsafe[s3]'.") from exc
    options: dict[str, object] = {
        "bucket_name": bucket,
        "location": prefix.strip("/"),
        "default_acl": None,
        "file_overwrite": False,
        "querystring_auth": True,
        # A store that is down must not hold up the other destinations for long; it is tried again later.
        "client_config": Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 3},
            signature_version="s3v4",
        ),
    }
    given = {"endpoint_url": endpoint_url, "region_name": region, "access_key": access_key, "secret_key": secret_key}
    options.update({name: value.strip() for name, value in given.items() if value.strip()})
    return {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}
