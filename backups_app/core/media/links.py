"""Whether a symbolic link stays in its folder, whatever the other links in there are."""

from __future__ import annotations


def leads_out(path: str, target: str) -> bool:
    """Whether the link at ``path`` (its label first) may lead out of the folder of that label.

    ``..`` counts at the beginning only, where the folders above are real ones. Behind a name it
    could be taken from wherever a link leads, so such a target counts as leading out.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    if target.startswith("/"):
        return True
    ups = 0
    while ups < len(parts) and parts[ups] == "..":
        ups += 1
    return ".." in parts[ups:] or ups > path.count("/") - 1
