"""A host project with an admin of its own; with the app where ``WITH_APP`` is set."""

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOME = Path(os.environ["HOST_HOME"])
WITH_APP = bool(os.environ.get("WITH_APP"))

SECRET_KEY = "host"
ALLOWED_HOSTS = ["testserver"]
ROOT_URLCONF = "tests.host.urls"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    *(["django_q", "backups_app"] if WITH_APP else []),
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [HERE / "templates"],
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
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": HOME / "host.sqlite3"}}
if WITH_APP:
    DATABASES["catalog"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": HOME / "catalog.sqlite3"}
    DATABASE_ROUTERS = ["backups_app.routers.CatalogRouter"]
    Q_CLUSTER = {"name": "host", "orm": "catalog"}
    BACKUPS = {"HOME": HOME}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "static/"
USE_TZ = True
