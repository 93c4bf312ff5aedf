"""The console's settings with everything written to a log that the loggers of all libraries have to say."""

import os

from project.settings import *  # noqa: F403

ADMINS = [("Ops", "ops@example.org")]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"all": {"class": "logging.FileHandler", "filename": os.environ["LOUD_LOG"], "level": "DEBUG"}},
    "root": {"handlers": ["all"], "level": "DEBUG"},
    "loggers": {"django": {"level": "DEBUG", "handlers": ["all"]}, "django-q": {"level": "DEBUG", "handlers": ["all"]}},
}
