"""What calotype computes is what it computed when pins.json was recorded, to the bit."""

import json
from pathlib import Path

import pytest
from record import differences, machine, record

PINS = Path(__file__).with_name("pins.json")


@pytest.mark.slow
def test_the_pins_hold(tmp_path):
    before = json.loads(PINS.read_text())
    if before["machine"] != machine():
        pytest.skip("recorded on another machine: see docs/development.md, Pins")
    assert differences(before, record(tmp_path)) == []
