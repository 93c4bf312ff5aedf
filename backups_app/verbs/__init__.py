"""The verbs of ``manage.py backup``, one module each: arguments → service → output → exit code."""
