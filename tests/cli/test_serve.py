"""`calotype serve`: what its options become, and that it loads no torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict

import pytest


@pytest.fixture
def served(monkeypatch):
    """Settings that the server would have run with."""
    from calotype.serving.front import serve

    found = []

    def run(settings, on_ready):
        found.append(settings)
        on_ready("http://127.0.0.1:8000")

    monkeypatch.setattr(serve, "serve", run)
    return found


def test_options_become_settings(command, served, tmp_path) -> None:
    folder = tmp_path / "images"
    code, out, err = command(
        *("serve", "--data", str(folder), "--model", "a=x+l.safetensors:0.8", "--model", "b=y"),
        *("--keep-bytes", "1.5G", "--memory", "100 MiB", "--no-metadata"),
        *("--cors-origin", "https://a.example", "--keep", "all", "--cfg", "exact"),
    )
    assert (code, out, err) == (0, "serving on http://127.0.0.1:8000\n", "")
    found = asdict(served[0])
    assert (
        found
        | {
            "models": ("a=x+l.safetensors:0.8", "b=y"),
            "data": folder,
            "keep": "all",
            "keep_bytes": 3 * 2**29,
            "memory": 100 * 2**20,
            "metadata": False,
            "cors_origins": ("https://a.example",),
            "cfg": "exact",
        }
        == found
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), (None, (1, 1), 0.0)),
        (("--ray", "--replicas", "1:4"), ("auto", (1, 4), 0.0)),
        (("--ray", "local", "--replicas", "3"), ("local", (3, 3), 0.0)),
        (("--ray", "head:6379", "--gpus-per-replica", "0.5"), ("head:6379", (1, 1), 0.5)),
    ],
)
def test_more_machines(command, served, words, expected) -> None:
    assert command("serve", *words)[0] == 0
    found = served[0]
    assert (found.ray, found.replicas, found.gpus_per_replica) == expected


def test_images_lie_in_the_users_data_folder(command, served, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert command("serve")[0] == 0
    assert served[0].data == tmp_path / "calotype" / "serve"


@pytest.mark.parametrize(
    "options",
    [
        ("--keep", "some"),
        ("--keep-bytes", "-1"),
        ("--memory", "much"),
        ("--replicas", "4:1", "--ray"),
        ("--replicas", "0", "--ray"),
        ("--replicas", "2"),
        ("--gpus-per-replica", "0.5"),
        ("--gpus-per-replica", "1.5", "--ray"),
        ("--c2pa-cert", "chain.pem"),
        ("--c2pa-key", "key.pem"),
        ("--c2pa-cert", "chain.pem", "--c2pa-key", "key.pem", "--no-metadata"),
        ("--cfg", "other"),
        ("--drain", "-1"),
        ("--idle-unload", "-1"),
        ("--max-batch", "0"),
        ("--deadline", "nan"),
    ],
)
def test_wrong_options_are_one_line(command, served, options) -> None:
    code, out, err = command("serve", *options)
    assert (code, out, err.count("\n")) == (2, "", 1) and options[0] in err


def test_a_taken_port_is_one_line(command, tmp_path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, _, err = command("serve", "--data", str(tmp_path), "--port", port)
    assert code == 1 and err.count("\n") == 1 and "--port" in err


def test_it_loads_no_torch() -> None:
    code = "import sys, calotype.cli, calotype.serving.front.serve; print('torch' in sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.split() == ["False"]


def test_a_missing_extra_is_named(command, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "calotype.serving.front.serve", raising=False)
    code, _, err = command("serve")
    assert code == 1 and "pip install 'calotype[serve]'" in err and err.count("\n") == 1


def test_keys_are_made_listed_and_deleted(command, served, tmp_path) -> None:
    data = ("serve", "--data", str(tmp_path / "d"))
    code, key, err = command(*data, "--new-key", "laptop")
    assert (code, err) == (0, "") and key.startswith("ct-") and key.count("\n") == 1
    assert command(*data, "--list-keys") == (0, "laptop\n", "")
    code, out, err = command(*data, "--new-key", "laptop")
    assert (code, out, err.count("\n")) == (2, "", 1) and "--delete-key laptop" in err
    assert command(*data, "--delete-key", "laptop") == (0, "", "")
    code, out, err = command(*data, "--delete-key", "laptop")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert command(*data, "--list-keys") == (0, "", "")
    assert not served


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "images.example.org"])
def test_without_a_key_others_cannot_reach_it(command, tmp_path, host) -> None:
    data = tmp_path / "d"
    code, out, err = command("serve", "--data", str(data), "--host", host, "--port", "0")
    assert (code, out, err.count("\n")) == (2, "", 1) and "--new-key" in err
    assert not data.exists()
