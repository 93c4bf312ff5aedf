"""``prove``: show that archives for a recipient can be opened, with the stock ``age`` program."""

from __future__ import annotations

import argparse
from typing import Any

from django.utils import timezone

from ..documents import challenge_document, key_document
from ..services.keys.proof import answer_challenge, find_recipient, make_challenge
from ..services.keys.report import report_keys
from ..services.people import actor_for
from . import arguments
from .output import Output

HELP = "prove that somebody holds the identity of a recipient: make a challenge, or answer it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--recipient", metavar="R", help="age1…, or its beginning (default: the one to be proven)")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--answer", metavar="TEXT", help="the word that `age -d` printed")
    kind.add_argument("--out", type=arguments.path, metavar="FILE", help="write the challenge to a new file")
    parser.add_argument("--user", metavar="NAME", help="who proves it (default: the system account)")


def run(options: dict[str, Any], output: Output) -> int:
    """Make a challenge, or take the answer to one."""
    now = timezone.now()
    actor = actor_for(options["user"], permission="manage_keys")
    recipient = find_recipient(options["recipient"], now=now, is_answer=options["answer"] is not None)
    if options["answer"] is not None:
        answer_challenge(recipient, options["answer"], actor=actor, now=now)
        (key,) = [each for each in report_keys(now=now).keys if each.recipient.pk == recipient.pk]
        output.line(f"{recipient.key_id}… is proven until {key.proof_due_at:%Y-%m-%d}.")
        output.document({"keys": [key_document(key)]})
        return 0
    challenge = make_challenge(recipient, actor=actor, now=now, path=options["out"])
    shown = "challenge.age" if options["out"] is None else str(options["out"])
    if options["out"] is None:
        output.line(challenge.armored.rstrip())
        output.note("Save the lines from BEGIN to END as challenge.age.")
    output.note(f"Open it where the identity is:  age -d -i KEYFILE {shown}")
    answer = f"manage.py backup prove --recipient {recipient.key_id} --answer WORD"
    output.note(f"Then, before {challenge.expires_at:%Y-%m-%d %H:%M} UTC:  {answer}")
    output.document({"challenge": challenge_document(challenge, path=options["out"])})
    return 0
