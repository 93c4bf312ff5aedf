"""Measures in the text format of Prometheus. The only module that needs ``prometheus-client``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ..services.health.measures import Measure

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Measured(Collector):
    """Gives what was measured; made anew for each request."""

    def __init__(self, measures: Sequence[Measure]) -> None:
        self._measures = measures

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for each in self._measures:
            family = GaugeMetricFamily(each.name, each.text, labels=each.labels)
            for labels, value in each.values:
                family.add_metric([_label(text) for text in labels], value)
            yield family


def exposition(measures: Sequence[Measure]) -> bytes:
    """The measures as a monitor reads them."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Measured(measures))
    return generate_latest(registry)


def _label(text: str) -> str:
    """A name of a database, host or folder as a label: what cannot be printed is spelled out.

    The library escapes quotes, backslashes and line feeds; other line ends would cut a line in two
    for some readers, and half a character cannot be sent at all.
    """
    shown = "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")
