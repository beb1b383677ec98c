"""Names of servers: which are loopback, what an origin is, what is refused."""

import socket

import pytest

from calotype.errors import CalotypeError, UsageError
from calotype.web.addresses import hosts_of, is_loopback, listen, origin_of, own_origins


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "10.0.0.1", "localhost.example", "2130706433"]
)
def test_not_loopback(host):
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://Images.Example.org/", "https://images.example.org"),
        ("https://a.example:443", "https://a.example"),
        ("http://a.example:443", "http://a.example:443"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_origin(url, expected):
    assert origin_of(url, option="--public-url", example="https://a.example") == expected


@pytest.mark.parametrize(
    "url",
    ["", "a.example", "ftp://a.example", "http://", "http://a:b", "http://a:99999", "http://[::1",
     "https://a.example/x", "https://a.example?x", "https://u@a.example",
     "http://a b", "http://*.a", "http://é.a", "https://a.example/#x"],
)  # fmt: skip
def test_no_origin(url):
    with pytest.raises(UsageError, match="--public-url"):
        origin_of(url, option="--public-url", example="https://a.example")


def test_own_origins():
    found = own_origins("127.0.0.1", 8000, None, local=True)
    assert found == tuple(f"http://{n}:8000" for n in ("127.0.0.1", "localhost", "[::1]"))
    public = own_origins("0.0.0.0", 80, "https://a.example", local=False)
    assert public == ("https://a.example",)
    assert own_origins("::1", 80, None, local=False) == ("http://[::1]",)
    assert hosts_of(found) == {"127.0.0.1:8000", "localhost:8000", "[::1]:8000"}


def test_a_port_in_use_is_one_line():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CalotypeError, match=f"127.0.0.1 port {port}: .*--port"):
            listen("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port)):
            pass


def test_answers_do_not_wait_to_be_confirmed():
    with listen("127.0.0.1", 0) as listening:
        with socket.create_connection(listening.getsockname()):
            accepted, _ = listening.accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
