"""Who is told: the receivers in the settings. Rows name them by their place, never by their address."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ... import conf
from ...models import Notification
from ...redaction import host_of

Channel = Notification.Channel


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """One receiver of one channel."""

    channel: str
    place: int
    address: str = field(repr=False)
    """Where to send to. It may hold a token: it must not leave this process in any text."""

    @property
    def name(self) -> str:
        """How people are told which receiver it is."""
        if self.channel == Channel.MAIL:
            return f"mail {self.place + 1}"
        number = f" {self.place + 1}" if self.channel == Channel.WEBHOOK else ""
        return f"{self.channel}{number} ({host_of(self.address)})"


def _heartbeats() -> list[str]:
    return [url] if (url := conf.heartbeat_url()) else []


_ADDRESSES: dict[str, Callable[[], list[str]]] = {
    Channel.MAIL: conf.notify_emails,
    Channel.WEBHOOK: conf.webhook_urls,
    Channel.HEARTBEAT: _heartbeats,
}


def receivers_of(channel: str) -> list[Receiver]:
    """The receivers of one channel, in the order of the setting.

    Raises:
        ImproperlyConfigured: a file with addresses cannot be read.
    """
    return [
        Receiver(channel=channel, place=place, address=address) for place, address in enumerate(_ADDRESSES[channel]())
    ]


def all_receivers() -> list[Receiver]:
    """The receivers of every channel.

    Raises:
        ImproperlyConfigured: a file with addresses cannot be read.
    """
    return [receiver for channel in _ADDRESSES for receiver in receivers_of(channel)]


def find_receiver(channel: str, place: int) -> Receiver | None:
    """The receiver at a place, or None when the settings no longer name one there.

    Raises:
        ImproperlyConfigured: a file with addresses cannot be read.
    """
    found = receivers_of(channel) if channel in _ADDRESSES else []
    return found[place] if place < len(found) else None
