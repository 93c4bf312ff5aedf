"""Progress and Ctrl-C at the command line edges."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from backups_app.core import terminal
from backups_app.core.errors import KeyMissingError
from backups_app.core.terminal import ask_passphrase, cancel_on_signal, interrupt_on_signal, printable, progress_bar
from tests.support import PROJECT


def test_there_is_no_bar_when_stderr_is_not_a_terminal(capsys: pytest.CaptureFixture[str]):
    with progress_bar("shop") as on_progress:
        assert on_progress is None
    assert capsys.readouterr() == ("", "")


def test_the_bar_is_drawn_on_a_terminal_and_never_on_stdout():
    program = (
        "import time\n"
        "from backups_app.core.terminal import progress_bar\n"
        "with progress_bar('sh\\x1b[31mop') as show:\n"
        "    for done in range(0, 101, 10):\n"
        "        show('copy', done << 20, 100 << 20); show('unknown', done, 0); time.sleep(0.03)\n"
    )
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        )
        os.close(theirs)
        drawn = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            drawn += piece
        stdout, _ = process.communicate(timeout=30)
    finally:
        os.close(ours)
    assert process.returncode == 0
    assert stdout == b""
    assert b"copy" in drawn
    assert b"%" in drawn
    assert b"sh\x1b[31mop" not in drawn


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_for_an_orderly_cancel(number: signal.Signals):
    before = signal.getsignal(number)
    with cancel_on_signal() as is_cancelled:
        assert not is_cancelled()
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        assert is_cancelled()
    assert signal.getsignal(number) is before


def test_a_second_interrupt_ends_the_hard_way():
    before = signal.getsignal(signal.SIGINT)

    def interrupt_twice() -> None:
        with cancel_on_signal():
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)

    with pytest.raises(KeyboardInterrupt):
        interrupt_twice()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_sigterm_stays_an_orderly_cancel():
    with cancel_on_signal() as is_cancelled:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert is_cancelled()


def test_outside_the_main_thread_signals_are_left_alone():
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with cancel_on_signal() as is_cancelled:
            seen.extend((is_cancelled(), signal.getsignal(signal.SIGINT) is before))
        with interrupt_on_signal():
            seen.append(signal.getsignal(signal.SIGINT) is before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False, True, True]


def test_streams_that_are_closed_lead_to_nowhere_and_no_file_takes_their_number(tmp_path: Path):
    code = (
        "import os, sys; from backups_app.core.terminal import open_closed_streams; open_closed_streams();"
        "file = open(sys.argv[1], 'x'); print('lost'); print('lost', file=sys.stderr); os.write(1, b'lost');"
        "os.write(2, b'lost'); file.write(str(file.fileno() > 2)); assert sys.stdin.read() == ''"
    )
    made = tmp_path / "made"
    command = [sys.executable, "-c", code, str(made)]
    finished = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command], cwd=PROJECT, check=False)
    assert finished.returncode == 0
    assert made.read_text() == "True"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name", "plain name"),
        ("café ☕", "café ☕"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("line\nbreak\ttab", "line\\nbreak\\ttab"),
        ("right\u202eleft", "right\\u202eleft"),
        ("half\udcff", "half\\udcff"),
    ],
)
def test_control_characters_are_spelled_out(text: str, shown: str):
    assert printable(text) == shown


def test_a_passphrase_is_asked_for_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(KeyMissingError, match="no terminal"):
        ask_passphrase()
    monkeypatch.setattr(terminal.sys.stdin, "isatty", lambda: True)
    answers = iter(["", "correct horse"])
    monkeypatch.setattr(terminal.getpass, "getpass", lambda _prompt: next(answers))
    with pytest.raises(KeyMissingError, match="No passphrase"):
        ask_passphrase()
    assert ask_passphrase() == "correct horse"
