"""Who may reach the server: its names, its own origins, and the sites that may use its APIs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from calotype.errors import UsageError
from calotype.serving.front.settings import ServeSettings
from calotype.web.addresses import WILDCARDS, hosts_of, is_loopback, origin_of, own_origins


@dataclass(frozen=True, kw_only=True)
class Access:
    """The names of a server.

    Args:
        origins: its own, as browsers say them; the first is for people.
        hosts: by which it is asked.
        cors: origins of other sites whose pages may use the APIs.
    """

    origins: tuple[str, ...]
    hosts: frozenset[str]
    cors: frozenset[str] = frozenset()

    @property
    def is_secure(self) -> bool:
        """Whether browsers come by https, so that cookies stay there."""
        return self.origins[0].startswith("https://")

    @property
    def cookie(self) -> str:
        """Servers at other ports of a host share its cookies, but not their names."""
        start = "__Host-" if self.is_secure else ""
        return f"{start}calotype_{hashlib.sha256(self.origins[0].encode()).hexdigest()[:8]}"


def check_exposure(settings: ServeSettings, *, has_keys: bool) -> None:
    """Refuse to let others reach a server that anybody could use, or that knows no name of its own.

    Raises:
        UsageError: there is no key, or no name.
    """
    if not has_keys and not is_loopback(settings.host):
        raise UsageError(
            f"got --host {settings.host!r} without a key; make one with --new-key NAME first, "
            "or leave --host out: the server is then reached from this machine alone"
        )
    if settings.host in WILDCARDS and not (settings.public_url or settings.allowed_hosts):
        raise UsageError(
            f"got --host {settings.host!r} alone; expected --public-url or --allowed-host with it, "
            "for requests by other names are refused"
        )


def access_of(settings: ServeSettings) -> Access:
    """The names of a server; its port is the one listened at.

    Raises:
        UsageError: an option is no name or no address.
    """
    public = None
    if settings.public_url is not None:
        public = _origin(settings.public_url, "--public-url", "https://images.example.org")
    local = is_loopback(settings.host) or settings.host in WILDCARDS
    own = own_origins(settings.host, settings.port, public, local=local)
    named = _named(settings.allowed_hosts, settings.port)
    origins = (*own, *(f"{scheme}://{name}" for name in named for scheme in ("http", "https")))
    example = "https://app.example.org"
    cors = (_origin(one, "--cors-origin", example).lower() for one in settings.cors_origins)
    return Access(origins=origins, hosts=hosts_of(origins), cors=frozenset(cors) - set(origins))


def _named(hosts: Sequence[str], port: int) -> tuple[str, ...]:
    """Each host with the port that it was given, or else without and with the server's own."""
    found: list[str] = []
    for host in hosts:
        name = _origin(f"http://{host}", "--allowed-host", "images.example.org").lower()
        name = name.removeprefix("http://")
        has_port = not name.endswith("]") and ":" in name.rpartition("]")[2]
        found += [name] if has_port else [name, f"{name}:{port}"]
    return tuple(found)


def _origin(url: str, option: str, example: str) -> str:
    if "*" in url:
        raise UsageError(f"got {option} {url!r}; expected one name, such as {example}")
    return origin_of(url, option=option, example=example)
