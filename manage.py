#!/usr/bin/env python3
"""The console's command line: Django's commands, and ``backup`` with its verbs."""

import json
import os
import sys


def main() -> None:
    """Run a management command; set-up faults are one readable message, not a traceback."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    try:
        from django.core.exceptions import ImproperlyConfigured
        from django.core.management import execute_from_command_line
    except ImportError:
        sys.exit("Error: Django is not installed here. Run `make install`, then use .venv/bin/python manage.py.")
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as exc:
        if sys.argv[1:2] == ["backup"] and "--json" in sys.argv:  # the command could not even be loaded
            failure = {"about": "", "code": "failed", "message": str(exc), "hint": ""}
            print(json.dumps({"errors": [failure]}, indent=2))
        sys.exit(f"Error: {exc}")
    except KeyboardInterrupt:
        print("Error: It was stopped.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
