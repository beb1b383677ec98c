"""Addresses to listen at, and the origins and hosts by which browsers name a server."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from calotype.errors import CalotypeError, UsageError

WILDCARDS = ("0.0.0.0", "::", "")
"""Hosts that mean every address of the machine, and are no name of a server."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        CalotypeError: the address is not this machine's, or the port is taken.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CalotypeError(
            f"cannot listen at {host} port {port}: {reason}; choose another with --port"
        ) from error
    # Connections inherit it. asyncio sets it only where a socket names its protocol, and this one
    # does not: an answer's body would wait 40 ms for the client to confirm its headers.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def is_loopback(host: str) -> bool:
    """Whether what listens at `host` is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def origin_of(url: str, *, option: str, example: str) -> str:
    """The origin of an address: scheme, name and port, without the scheme's own port.

    Args:
        url: http or https, without a path.
        option: that it was given with, for the message.
        example: of what was expected.

    Raises:
        UsageError: it is no such address.
    """
    try:
        parts = urlsplit(url)
        port, name = parts.port, parts.hostname or ""
    except ValueError:
        parts, port, name = urlsplit(""), None, ""
    if parts.scheme not in ("http", "https") or not _is_host(name):
        raise UsageError(f"got {option} {url!r}; expected such as {example}")
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username:
        raise UsageError(f"got {option} {url!r}; expected no path: the pages begin at /")
    default = {"http": 80, "https": 443}[parts.scheme]
    shown = f"[{name}]" if ":" in name else name
    return f"{parts.scheme}://{shown}" + (f":{port}" if port not in (None, default) else "")


def _is_host(name: str) -> bool:
    """Whether it is a name as browsers send it, with punycode for other letters, or an address."""
    if re.fullmatch(r"[A-Za-z0-9._-]+", name):
        return True
    try:
        return ipaddress.ip_address(name).version == 6
    except ValueError:
        return False


def own_origins(host: str, port: int, public: str | None, *, local: bool) -> tuple[str, ...]:
    """By which browsers may name a server, in lower case; the first is for people.

    Args:
        host: listened at.
        port: listened at.
        public: an origin that a proxy has before it.
        local: whether the names of the loopback are its own, too.
    """
    shown = f"[{host}]" if ":" in host else host
    own = () if host in WILDCARDS else (f"http://{shown}:{port}",)
    names = ("127.0.0.1", "localhost", "[::1]") if local else ()
    loopback = tuple(f"http://{name}:{port}" for name in names)
    every = ((public,) if public else ()) + own + loopback
    return tuple(dict.fromkeys(name.lower().removesuffix(":80") for name in every))


def hosts_of(origins: Iterable[str]) -> frozenset[str]:
    """The `Host` headers of requests to these origins."""
    return frozenset(origin.partition("://")[2] for origin in origins)
