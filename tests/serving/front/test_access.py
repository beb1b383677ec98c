"""The names of a server, and when it refuses to be reached at all."""

from __future__ import annotations

import pytest

from calotype.errors import UsageError
from calotype.serving.front.access import access_of, check_exposure
from calotype.serving.front.settings import ServeSettings


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_the_loopback_needs_no_key(host):
    check_exposure(ServeSettings(host=host), has_keys=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.2", "images.example.org"])
def test_other_addresses_need_one(host):
    settings = ServeSettings(host=host, allowed_hosts=("a.example",))
    with pytest.raises(UsageError, match="--new-key"):
        check_exposure(settings, has_keys=False)
    check_exposure(settings, has_keys=True)


def test_every_address_needs_a_name():
    with pytest.raises(UsageError, match="--allowed-host"):
        check_exposure(ServeSettings(host="0.0.0.0"), has_keys=True)


def test_names():
    access = access_of(ServeSettings())
    assert access.hosts == {"127.0.0.1:8000", "localhost:8000", "[::1]:8000"}
    assert access.origins[0] == "http://127.0.0.1:8000" and not access.is_secure
    assert access.cookie.startswith("calotype_")
    assert access.cookie != access_of(ServeSettings(port=8001)).cookie


def test_further_names_and_a_proxy():
    settings = ServeSettings(
        host="0.0.0.0",
        public_url="https://Images.example.org/",
        allowed_hosts=("box", "box2:99", "[fd00::1]"),
        cors_origins=("https://app.example.org",),
    )
    access = access_of(settings)
    assert access.origins[0] == "https://images.example.org"
    assert access.is_secure and access.cookie.startswith("__Host-")
    names = {"images.example.org", "box", "box:8000", "box2:99", "[fd00::1]", "[fd00::1]:8000"}
    assert names < access.hosts and "0.0.0.0:8000" not in access.hosts
    assert {"http://box:8000", "https://box"} < set(access.origins)
    assert access.cors == {"https://app.example.org"}


@pytest.mark.parametrize("bad", ["*", "a/b", "", "a b.c/", "u@a", "https://*.a"])
@pytest.mark.parametrize("option", ["allowed_hosts", "cors_origins"])
def test_what_is_no_name(option, bad):
    with pytest.raises(UsageError, match=f"--{option[:-1]}".replace("_", "-")):
        access_of(ServeSettings(**{option: (bad,)}))
