"""Judging archives that somebody else made: is there anything in them worth keeping?

One file gives one :class:`Judged`, whatever is in it: a database of any kind, compressed,
encrypted or packed, a file of another kind, or an attack. Promises:

* Content decides, never a name and never a size alone.
* Nothing at the source is changed or created. What is unpacked lies in a private folder below
  the caller's scratch folder and is gone when the call returns.
* A verdict comes in bounded time, space and memory (:class:`Limits`). Nothing found is executed:
  no view, no trigger, no virtual table, no name from a ZIP.
* ``corrupt`` is said on evidence only. What could not be read or finished is ``not a database``
  with ``is_judged`` false and the reason.
* ``is_useless`` is true only for a file that was read to its end and holds no row of data. A file
  without a byte must be named like an archive besides.

The caller must name the files that may be live databases of this process (``exclude``): opening
and closing one as a plain file would drop the process's locks on it.
"""

from .engine import JudgedPayload, TriageOptions, judge, judge_all, judged_payload
from .foreign import FileIdentity, expanded
from .keys import read_legacy_keys
from .limits import Limits
from .removal import remove_unchanged
from .verdict import VERDICTS, Judged, Totals, Verdict

__all__ = [
    "VERDICTS",
    "FileIdentity",
    "Judged",
    "JudgedPayload",
    "Limits",
    "Totals",
    "TriageOptions",
    "Verdict",
    "expanded",
    "judge",
    "judge_all",
    "judged_payload",
    "read_legacy_keys",
    "remove_unchanged",
]
