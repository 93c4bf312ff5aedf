"""The web server process: waitress's own command line, for which SIGINT is no error also while it starts.

``python -m backups_app.jobs.web`` takes what ``python -m waitress`` takes. Once it serves, waitress
answers SIGINT by finishing what it is answering, for five seconds at most; before that, Ctrl-C
would end it with a traceback.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    try:
        from waitress.runner import run

        sys.exit(run())
    except KeyboardInterrupt:
        sys.exit(0)
