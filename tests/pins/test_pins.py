"""What calotype computes is what it computed when pins.json was recorded, to the bit."""

import json
import os
from pathlib import Path

import pytest
from record import differences, machine, record

PINS = Path(__file__).with_name("pins.json")


@pytest.mark.slow
@pytest.mark.skipif("CALOTYPE_PINS" not in os.environ, reason="on one machine: CALOTYPE_PINS=1")
def test_the_pins_hold(tmp_path):
    before = json.loads(PINS.read_text())
    assert before["machine"] == machine(), "record them on this one: docs/development.md, Pins"
    assert differences(before, record(tmp_path)) == []
