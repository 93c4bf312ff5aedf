"""Settings of the console, and the example of embedding the app in a Django site.

Runs with no environment at all. Everything that is written lies below ``BACKUPS_HOME``.
"""

import os
import socket
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.core.exceptions import ImproperlyConfigured

from backups_app.catalog_url import catalog_from_url
from backups_app.core.sqlite import has_wal_reset_bug

from .home import load_secret_key, prepare_home
from .s3 import s3_storage

# What is written here is for this account only, SQLite's own files among it, whatever the caller's umask is.
os.umask(0o077)

BASE_DIR = Path(__file__).resolve().parent.parent
HOME = prepare_home(Path(os.environ.get("BACKUPS_HOME") or BASE_DIR / "var").expanduser().absolute())


def _words(name: str, separator: str = ",") -> list[str]:
    return [word.strip() for word in os.environ.get(name, "").split(separator) if word.strip()]


def _is_on(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes", "on")


def _secret(name: str) -> str:
    """The value of a variable, or of the file that ``NAME_FILE`` leads to."""
    path = os.environ.get(f"{name}_FILE", "")
    if os.environ.get(name) or not path:
        return os.environ.get(name, "").strip()
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as exc:
        raise ImproperlyConfigured(f"The file that {name}_FILE names cannot be read.") from exc


def _number(name: str, default: int) -> int:
    given = os.environ.get(name, "").strip()
    if not given:
        return default
    if not (given.isascii() and given.isdigit() and len(given) <= 10):
        raise ImproperlyConfigured(f"{name} is {given!r}. Write it as a whole number.")
    return int(given)


def _time_zone(name: str) -> str:
    given = os.environ.get(name, "").strip() or "UTC"
    try:
        return ZoneInfo(given).key
    except (OSError, ValueError, ZoneInfoNotFoundError) as exc:
        raise ImproperlyConfigured(f"{name} is {given!r}, which is no time zone. Write it as Europe/Athens.") from exc


DEBUG = _is_on("DJANGO_DEBUG")
SECRET_KEY = _secret("DJANGO_SECRET_KEY") or load_secret_key(HOME / "state" / "secret_key")
ALLOWED_HOSTS = _words("DJANGO_ALLOWED_HOSTS") or ["localhost", "127.0.0.1", "[::1]"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django_q",
    "backups_app",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "backups_app.middleware.TimeZoneMiddleware",
]

ROOT_URLCONF = "project.urls"
WSGI_APPLICATION = "project.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]


def _sqlite(path: Path, *, journal_mode: str, synchronous: str) -> dict[str, object]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        "OPTIONS": {
            # DEFERRED transactions lose work under load: they cannot wait when they turn to writing.
            "transaction_mode": "IMMEDIATE",
            "timeout": 10,
            "init_command": f"PRAGMA journal_mode={journal_mode}; PRAGMA synchronous={synchronous};",
        },
    }


_catalog_url = _secret("BACKUPS_CATALOG_URL")
_host = os.environ.get("BACKUPS_HOST", "").strip() or socket.gethostname()

DATABASES = {
    # The data under care: the site's own tables, users and sessions among them.
    "default": _sqlite(HOME / "site.sqlite3", journal_mode="WAL", synchronous="NORMAL"),
    # What the app knows. Apart, so that restoring the site never rolls back its own records.
    # Several processes checkpoint it, so it is WAL only where SQLite does that without a bug.
    # Shared by the hosts of a fleet it is PostgreSQL: see docs/fleet.md.
    "catalog": catalog_from_url(_catalog_url)
    if _catalog_url
    else _sqlite(
        HOME / "catalog.sqlite3",
        journal_mode="DELETE" if has_wal_reset_bug() else "WAL",
        synchronous="FULL",
    ),
}
DATABASE_ROUTERS = ["backups_app.routers.CatalogRouter"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

_redis_url = _secret("BACKUPS_REDIS_URL")
Q_CLUSTER = {
    "name": "backups",
    **({"cluster_name": f"backups@{_host}"} if _catalog_url else {}),  # one queue for each host of a fleet
    **({"redis": _redis_url} if _redis_url else {"orm": "catalog"}),
    "workers": 2,
    "queue_limit": 1,
    "bulk": 1,
    "ack_failures": True,
    "max_attempts": 1,
    "timeout": 6 * 3600 + 1800,  # above DEADLINE_SECONDS, which ends a job in good order
    "retry": 7 * 3600,
    "catch_up": False,
    "scheduler": False,  # due times are rows of ours, with a record of each
    "save_limit": -1,  # so are jobs: a task row of a success would say less
    "log_level": "WARNING",
    "label": "Queue",
}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

LANGUAGE_CODE = os.environ.get("DJANGO_LANGUAGE_CODE") or "en"
LANGUAGES = [("en", "English"), ("el", "Ελληνικά")]  # the browser of each person chooses
LOCALE_PATHS = [BASE_DIR / "locale"]
TIME_ZONE = _time_zone("DJANGO_TIME_ZONE")  # for commands, and until the browser has told its own
USE_I18N = True
USE_TZ = True

# The mail server that notifications go through.
EMAIL_HOST = os.environ.get("DJANGO_EMAIL_HOST", "localhost")
EMAIL_PORT = _number("DJANGO_EMAIL_PORT", 25)
EMAIL_HOST_USER = os.environ.get("DJANGO_EMAIL_HOST_USER", "")
EMAIL_HOST_PASSWORD = _secret("DJANGO_EMAIL_HOST_PASSWORD")
EMAIL_USE_TLS = _is_on("DJANGO_EMAIL_USE_TLS")
EMAIL_USE_SSL = _is_on("DJANGO_EMAIL_USE_SSL")
EMAIL_TIMEOUT = 10
EMAIL_SUBJECT_PREFIX = "[backups] "
DEFAULT_FROM_EMAIL = os.environ.get("DJANGO_DEFAULT_FROM_EMAIL", "backups@localhost")

STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True  # served from the packages: no collectstatic step

STORAGES: dict[str, dict[str, object]] = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
_destinations = ["local"]
if os.environ.get("BACKUPS_S3_BUCKET"):
    # A second place for every backup: a bucket of any S3-compatible store. See docs/destinations.md.
    STORAGES["s3"] = s3_storage(
        bucket=os.environ["BACKUPS_S3_BUCKET"].strip(),
        prefix=os.environ.get("BACKUPS_S3_PREFIX", ""),
        endpoint_url=os.environ.get("BACKUPS_S3_ENDPOINT_URL", ""),
        region=os.environ.get("BACKUPS_S3_REGION", ""),
        access_key=_secret("BACKUPS_S3_ACCESS_KEY_ID"),
        secret_key=_secret("BACKUPS_S3_SECRET_ACCESS_KEY"),
    )
    _destinations.append("s3")

LOGIN_URL = "admin:login"
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
DEFAULT_EXCEPTION_REPORTER_FILTER = "project.reporting.WithoutSecrets"

# Behind TLS: browsers come by HTTPS only, and remember it for a year.
if _is_on("DJANGO_SECURE"):
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]  # asked from inside, and they tell nothing
    SECURE_HSTS_SECONDS = _number("DJANGO_HSTS_SECONDS", 365 * 24 * 3600)
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
# Only where a proxy sets this header on every request, whatever the visitor has sent.
if _is_on("DJANGO_SECURE_PROXY"):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

BACKUPS = {
    "HOME": HOME,
    "HOST": os.environ.get("BACKUPS_HOST", "").strip() or None,
    "ROOTS": _words("BACKUPS_ROOTS", os.pathsep),
    "NOTIFY_EMAILS": _words("BACKUPS_NOTIFY_EMAILS"),
    "DESTINATIONS": _words("BACKUPS_DESTINATIONS") or _destinations,
    "TRIAGE_ROOTS": _words("BACKUPS_TRIAGE_ROOTS", os.pathsep),
    "TRIAGE_KEY_FILES": _words("BACKUPS_TRIAGE_KEY_FILES", os.pathsep),
    "REUSE_UNCHANGED": _is_on("BACKUPS_REUSE_UNCHANGED") or not os.environ.get("BACKUPS_REUSE_UNCHANGED"),
    "DELTA_CHAIN": _number("BACKUPS_DELTA_CHAIN", 0),
}
