"""Writes hostile text into the catalogue of a desk; run in a process of its own, with the settings of these tests."""

from __future__ import annotations

import sys

import django

django.setup()

from tests.hostile import TEXTS, poison  # noqa: E402

if __name__ == "__main__":
    print(poison(TEXTS[sys.argv[1]], spared=frozenset(sys.argv[2:])))
