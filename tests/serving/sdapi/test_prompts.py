"""Their syntax within prompts: what becomes words, what goes, and that no prompt takes long."""

from __future__ import annotations

import time

import pytest

from calotype.serving.sdapi.prompts import plain


@pytest.mark.parametrize(
    ("prompt", "caption", "ignored"),
    [
        ("a fox", "a fox", []),
        ("a (sly) [red] fox, 10:30", "a (sly) [red] fox, 10:30", []),
        ("(a fox:1.2)", "a fox", ["prompt.weights"]),
        ("((a:1.1) fox:.5), (b: 2 )", "a fox, b", ["prompt.weights"]),
        ("(bad, low quality:1.4), text", "bad, low quality, text", ["prompt.weights"]),
        ("a <lora:red fox:0.8> fox <hypernet:x:1>", "a fox", ["prompt.lora"]),
        ("a <b> fox", "a <b> fox", []),
    ],
)  # fmt: skip
def test_what_prompts_mean(prompt, caption, ignored) -> None:
    assert plain(prompt) == (caption, ignored)


@pytest.mark.parametrize("piece", ["(", "(:", "(a:1", "<lora:", ":1", "(a:1)", "(" * 9 + ":1)" * 9])
def test_no_prompt_takes_long(piece) -> None:
    began = time.process_time()
    plain((piece * 32_000)[:32_000])
    plain("(" + (piece.strip("()") * 32_000)[:32_000])
    assert time.process_time() - began < 1
