"""Every family has one command on the page from folder to image; options are checked by
tests/docs/test_commands.py."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "interop.md"
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("family", ["if", "karlo", "glide", "my-imagen"])
def test_each_family_has_its_way_to_an_image(family):
    convert = rf"^calotype convert .*-o {family}$"
    sample = rf"^calotype sample .*--model {family} .*-o \w+\.png$"
    assert any(re.fullmatch(f"{convert}\n{sample}\n", block, re.M) for block in BLOCKS)
