"""Rebuild the catalogue from a destination alone, and say what is wrong there.

``store.py`` reads the destination, ``trust.py`` decides whose signatures count, ``known.py`` is what
the catalogue says, ``judge.py`` compares the three, ``rebuild.py`` makes rows, ``outcome.py`` records,
and ``run.py`` is the order of it all.
"""

from .outcome import Found, Rescan
from .run import rescan, rescan_all

__all__ = ["Found", "Rescan", "rescan", "rescan_all"]
