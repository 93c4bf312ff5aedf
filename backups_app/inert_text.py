"""Text that PostgreSQL does not take, made harmless on its way there.

SQLite stores a NUL inside a text; PostgreSQL refuses it, and the escape for it in JSON. Neither stores half of a
surrogate pair, which is how Python spells a byte of a file name that is not UTF-8. Such text comes
from outside: names of tables, messages of damaged files, paths. It is evidence for people, so a
visible stand-in is as good, and no row must fail for it: this is the one place where that is seen to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from . import conf

_NUL = "\N{SYMBOL FOR NULL}"

Execute = Callable[[str, Any, bool, dict[str, Any]], Any]


def inert(value: Any) -> Any:
    """``value`` with every text in it, however deep, fit for PostgreSQL; the same object when all are."""
    if isinstance(value, str):
        return _inert_text(value)
    if isinstance(value, Mapping):
        return {inert(key): inert(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        found = [inert(each) for each in value]
        return value if all(new is old for new, old in zip(found, value, strict=True)) else type(value)(found)
    return value


def fitting(text: str, limit: int) -> str:
    """``text`` as a column of ``limit`` characters holds it, on any database: PostgreSQL refuses a longer one.

    A text that is cut ends with a part of its digest, so that two long ones stay two, and the same one the same.
    """
    text = _inert_text(text)
    if len(text) <= limit:
        return text
    return f"{text[: limit - 9]}…{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _inert_text(text: str) -> str:
    if "\0" in text:
        text = text.replace("\0", _NUL)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()
    return text


def keep_text_inert(*, connection: BaseDatabaseWrapper, **_kwargs: object) -> None:
    """Receiver of ``connection_created``: let nothing but inert text reach a catalogue on PostgreSQL."""
    if connection.alias != conf.CATALOG_ALIAS or connection.vendor != "postgresql":
        return
    if _with_inert_text not in connection.execute_wrappers:
        connection.execute_wrappers.append(_with_inert_text)


def _with_inert_text(execute: Execute, sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
    if params:
        params = [_inert_parameters(each) for each in params] if many else _inert_parameters(params)
    return execute(sql, params, many, context)


def _inert_parameters(params: Any) -> Any:
    if isinstance(params, Mapping):
        return {name: _inert_parameter(each) for name, each in params.items()}
    return tuple(_inert_parameter(each) for each in params)


def _inert_parameter(value: Any) -> Any:
    if hasattr(value, "obj") and hasattr(value, "dumps"):  # JSON, as psycopg wraps it
        return type(value)(inert(value.obj), dumps=value.dumps)
    return inert(value)
