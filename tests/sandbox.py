"""A folder in which the shell blocks of one page are run, in order, as a reader would type them.

The working folder looks like a checkout, the home is its own, the terminal answers *yes*, servers are ended once
they are ready. What a reader fills in is filled in here; the rules stand in :data:`FILLED` and in docs/testing.md.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.console import Console, environment
from tests.keys import Key
from tests.pages import SHELL, Block
from tests.site import fill
from tests.support import PROJECT, build_shop, connected

PAGE_SECONDS = 250

CHECKED_ONLY = ("test", "lint", "bench", "soak", "audit", "screenshots")
"""Targets of the Makefile that take long: that they exist is looked at, and what they would do."""

_NEWEST = """\
#!/bin/sh
# newest TABLE [CONDITION]: the id of the newest row of the catalogue.
exec sqlite3 -readonly "$BACKUPS_HOME/catalog.sqlite3" \\
    "SELECT id FROM backups_app_$1 WHERE ${2:-1} ORDER BY rowid DESC LIMIT 1"
"""

_BOUNDED = '''\
#!{python}
"""Runs a server until it says that it is ready, then ends it as Ctrl-C does; its exit code is that of the server."""
import os, signal, subprocess, sys, threading, time
pipes = {{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}}
server = subprocess.Popen(sys.argv[1:], **pipes)
giving_up = threading.Timer(90, os.killpg, (server.pid, signal.SIGKILL))
giving_up.start()
ready = False
for line in server.stdout:
    print(line, end="", flush=True)
    if "Stop with Ctrl-C" in line:
        ready = True
        time.sleep(2)  # nobody reads and presses faster; before it supervises, a stop is a cancel (130)
        os.killpg(server.pid, signal.SIGINT)
code = server.wait()
giving_up.cancel()
# make(1) calls an interrupted target a failure, though the server below it ended in good order.
sys.exit(1 if not ready else 0 if sys.argv[1] == "make" else code)
'''

FILLED: list[tuple[str, str]] = [
    # Folders of another machine lie below the sandbox.
    (r"(?<![\w./~$}}-])/(root|srv|var|run|mnt|etc)/", r"{root}/\1/"),
    # Who acts, what is written, which row is meant.
    (r"--user NAME\b", "--user anna"),
    (r"--(reason|note) TEXT\b", r"--\1 'a test'"),
    (r"--to FILE\b", '--to "$(mktemp -u "$PWD/restored-XXXXXX.sqlite3")"'),
    (r"add-database NAME PATH\b", "add-database orders {root}/srv/orders/orders.sqlite3"),
    (r"\bID\b", '"$(newest backup "state = \'verified\'")"'),
    (r"\bREQUEST\b", '"$(newest restore)"'),
    (r"\bJOB\b", '"$(newest job)"'),
    (r"\bRECIPIENT\b", '"$(age-keygen -y {root}/root/keys/backup.key)"'),
    (r"\bNEW_RECIPIENT\b", '"$(age-keygen -y {root}/root/keys/backup-2027.key)"'),
    (r"\bWORD\b", '"$(age -d -i {root}/root/keys/backup.key challenge.age)"'),
    # An archive of a page stands for the one that lies in the working folder.
    (r"[a-z]+-\d{{8}}T\d{{6}}Z-[0-9a-f]{{12}}(?=\.sqlite3\.zst\.age)", "{encrypted}"),
    (r"[a-z]+-\d{{8}}T\d{{6}}Z-[0-9a-f]{{12}}(?!\.sqlite3\.zst\.age)", "{plain}"),
    # What does not end by itself, and what takes long.
    (r"^((?:\.venv/bin/)?python manage\.py backup serve\b[^#\n]*)", r"bounded \1 --port {port} "),
    (r"^make demo *$", "bounded make demo ARGS='--port {port}'"),
    (rf"^make ({'|'.join(CHECKED_ONLY)})\b([^#\n]*)", r"make --dry-run \1 \2 >/dev/null "),
    # Needs attention is an answer, not a failure.
    (r"^((?:\.venv/bin/)?python manage\.py backup status\b[^#|\n]*)", r"{{ \1 || [ $? -eq 8 ]; }} "),
]
"""What is exchanged in a block before it is run: a pattern, and what stands in its place."""


@dataclass
class Sandbox:
    """Where one page is run."""

    root: Path
    site_template: Path
    port: int
    plain: str = "none"
    encrypted: str = "none"
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.work.mkdir(parents=True)
        for name in ("root/keys", "srv/orders", "srv/old/backups", "srv/old/keys", "run/secrets", "mnt", "bin"):
            (self.root / name).mkdir(mode=0o700, parents=True)
        build_shop(self.root / "srv" / "orders" / "orders.sqlite3")
        _executable(self.root / "bin" / "newest", _NEWEST)
        _executable(self.root / "bin" / "bounded", _BOUNDED.format(python=sys.executable))
        self.variables = environment(
            self.home,
            HOME=str(self.root / "root"),
            BACKUPS_ROOTS=str(self.root / "srv"),
            DJANGO_SUPERUSER_PASSWORD="of-the-sandbox",
            DJANGO_SUPERUSER_USERNAME="root",
            DJANGO_SUPERUSER_EMAIL="root@example.org",
            PATH=os.pathsep.join([str(self.root / "bin"), sysconfig.get_path("scripts"), os.environ["PATH"]]),
        )

    @property
    def work(self) -> Path:
        """The folder in which a reader sits."""
        return self.root / "work"

    @property
    def home(self) -> Path:
        """BACKUPS_HOME."""
        return self.root / "home"

    @property
    def console(self) -> Console:
        """The command, for preparations."""
        return Console(self.home, {"BACKUPS_ROOTS": str(self.root)})

    # Preparations

    def prepare(self, names: list[str]) -> None:
        """Do what the page asks for with ``setup``."""
        for name in names:
            SETUPS[name](self)

    def checkout(self) -> None:
        """The working folder as a checkout with its virtual environment."""
        for name in ("backups_app", "project", "templates", "locale", "manage.py", "Makefile", "pyproject.toml"):
            (self.work / name).symlink_to(PROJECT / name)
        shutil.copy(PROJECT / "requirements-dev.txt", self.work)
        (self.work / ".venv").mkdir()
        for each in Path(sys.prefix).iterdir():
            if not each.name.startswith("."):
                (self.work / ".venv" / each.name).symlink_to(each)
        for stamp in (".run", ".dev"):  # made: nothing is installed from within a test
            (self.work / ".venv" / stamp).touch()

    def site(self) -> None:
        """A site in which anna and ben may do everything."""
        shutil.copytree(self.site_template, self.home)
        fill(self.console, 200_000)

    def backup(self) -> None:
        """A backup of that site, and rows that came since."""
        self.console.ok("create", "default")
        with connected(self.console.site) as connection:
            connection.execute("INSERT INTO events (what) VALUES ('later')")

    def key(self) -> None:
        """A key, as keygen makes it."""
        Key(self.root / "root" / "keys" / "backup.key")

    def archive(self) -> None:
        """An archive with all that belongs to it, and the key that signed it."""
        self.plain = self._archive_of(self.console)
        shutil.copy(self.home / "state" / "signing.pub", self.work)

    def encrypted_archive(self) -> None:
        """An encrypted one, and its key."""
        key = Key(self.work / "backup.key")
        self.encrypted = self._archive_of(Console(self.home, {"BACKUPS_AGE_RECIPIENTS": key.recipient}))

    def _archive_of(self, console: Console) -> str:
        archive = console.archive(console.ok("create", "default", "--json").backup())
        stem = archive.name.partition(".")[0]
        for each in archive.parent.glob(f"{stem}.*"):
            shutil.copy(each, self.work)
        return stem

    def fresh(self) -> None:
        """Another machine: it has the archives that were copied, and knows nothing."""
        shutil.move(self.home / "archives", self.root / "mnt" / "archives")
        shutil.rmtree(self.home)

    def old(self) -> None:
        """Old archives of somebody else, good and useless ones, and a key of the old system."""
        folder = self.root / "srv" / "old"
        live = build_shop(folder / "live.sqlite3")
        with connected(live) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copy(live, folder / "backups" / "app_20260220_101112.db")
        with connected(folder / "backups" / "app_20260219_101112.db") as connection:
            connection.execute("CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT)")
        live.unlink()
        (folder / "keys" / "master.key").write_bytes(os.urandom(32))

    # Running

    def fill_in(self, text: str) -> str:
        """The text of a block with what a reader fills in."""
        values = {"root": self.root, "plain": self.plain, "encrypted": self.encrypted, "port": self.port}
        for pattern, replacement in FILLED:
            text = re.sub(pattern.format(**values), replacement.format(**values), text, flags=re.MULTILINE)
        return text

    def run(self, blocks: list[Block]) -> None:
        """Type the shell blocks in one shell, and put the others into their files, in the order of the page."""
        steps = [step for block in blocks for step in self._steps(block)]
        script = self.root / "page.sh"
        script.write_text("\n".join(["set -euo pipefail", *(step.marked for step in steps), ""]))
        ours, theirs = os.openpty()
        os.write(ours, b"yes\n" * 50)
        process = subprocess.Popen(
            ["bash", script],
            cwd=self.work,
            env=self.variables,
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=PAGE_SECONDS)
        finally:
            with suppress(ProcessLookupError):  # what a failed block has left behind
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(ours)
            os.close(theirs)
        _judge(steps, output, process.returncode)

    def _steps(self, block: Block) -> list[Step]:
        if "elsewhere" in block.directives:
            return []
        if "file" in block.directives:
            text = self.root / f"block-{block.line}"
            text.write_text("\n" + self.fill_in(block.text) + "\n")
            target = self.fill_in(block.directives["file"])
            return [Step(f'mkdir -p "$(dirname "{target}")"; cat "{text}" >>"{target}"', [], block.place)]
        if block.language not in SHELL:
            return []
        found = session(block.text) if block.language == "console" else [Step(block.text, None)]
        return [
            replace(
                each,
                command=self.fill_in(each.command),
                expected=each.expected and [self.fill_in(line) for line in each.expected],
                place=block.place,
            )
            for each in found
        ]


SETUPS: dict[str, Callable[[Sandbox], None]] = {
    "checkout": Sandbox.checkout,
    "site": Sandbox.site,
    "backup": Sandbox.backup,
    "key": Sandbox.key,
    "archive": Sandbox.archive,
    "encrypted_archive": Sandbox.encrypted_archive,
    "fresh": Sandbox.fresh,
    "old": Sandbox.old,
}


# Sessions: `$ command`, then what it prints; … stands for anything


@dataclass(frozen=True)
class Step:
    """Commands, the lines that they are said to print (None: whatever they like), and where they stand."""

    command: str
    expected: list[str] | None
    place: str = ""

    @property
    def marked(self) -> str:
        """With a mark before what they print."""
        return f"printf '\\036\\n'\n{self.command}"


def session(text: str) -> list[Step]:
    """The steps of a console block. What is continued by a backslash or an open quote is indented."""
    steps: list[Step] = []
    for line in text.split("\n"):
        last = steps[-1] if steps else None
        if line.startswith("$ "):
            steps.append(Step(line[2:], []))
        elif last and not last.expected and line.startswith("  ") and _is_open(last.command):
            steps[-1] = Step(f"{last.command}\n{line}", [])
        elif line.strip():
            assert last is not None, f"a console block begins with a command: {line!r}"
            assert last.expected is not None
            last.expected.append(line)
    return steps


def _is_open(command: str) -> bool:
    return command.endswith("\\") or command.count('"') % 2 == 1 or command.count("'") % 2 == 1


def is_like(said: str, expected: list[str]) -> bool:
    """Whether these lines stand in what was said, in order; blanks do not count, and … is anything."""
    wanted = " ".join(" ".join(expected).split())
    pattern = ".*".join(re.escape(each.strip()) for each in wanted.split("…"))
    return re.search(pattern, " ".join(said.split())) is not None


def _judge(steps: list[Step], output: str, code: int) -> None:
    parts = output.split("\x1e\n")[1:]
    for step, part in zip(steps, parts, strict=False):
        shown = f"{step.place}\n{step.command}\nprinted\n{part}"
        assert "Traceback" not in part, shown
        assert code == 0 or step is not steps[len(parts) - 1], f"{shown}\nand ended with exit code {code}"
        assert step.expected is None or is_like(part, step.expected), f"{shown}\nand not\n{step.expected}"
    assert (code, len(parts)) == (0, len(steps)), output


def _executable(path: Path, content: str) -> None:
    path.write_text(content)
    path.chmod(0o755)
