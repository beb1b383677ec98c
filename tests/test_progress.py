import pytest
import rich.console

from calotype import progress
from calotype.progress import Display
from calotype.training.progress import RateMeter, TrainingDisplay


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_now_and_then(clock, capsys):
    with Display("images") as display:
        for _ in range(4):
            display.advance(500, 4000)
            clock[0] += 20.0
        display.update(3000, facts="so far")
    assert capsys.readouterr().err == "images: 1,500 of 4,000\nimages: 3,000 of 4,000 so far\n"


def test_without_a_total(clock, capsys):
    display = Display("images", seconds=0.0)
    display.advance(3)
    display.advance(4)
    assert capsys.readouterr().err == "images: 3\nimages: 7\n"


def test_training_says_at_once_how_long_it_takes(clock, capsys):
    meter = RateMeter()
    meter.update(images=8, seconds=2.0, waited=1.0, loss=0.25)
    with TrainingDisplay("tiny 8px", 14_408, lasting=True) as display:
        display.show(8, meter)
        display.show(16, meter)
    line = "images, loss 0.2500, 4.0 images/s, data wait 50%, 1:00:00 left"
    assert capsys.readouterr().err == f"tiny 8px: 8 of 14,408 {line}\n"


def test_quiet_is_quiet(clock, capsys):
    with TrainingDisplay("tiny", 100, quiet=True) as display:
        display.show(8, RateMeter())
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    console = rich.console.Console
    monkeypatch.setattr(
        rich.console, "Console", lambda stderr: console(stderr=stderr, force_terminal=True)
    )
    with Display("images", lasting=True) as display:
        display.advance(3, 4)
    said = capsys.readouterr().err
    assert "3/4" in said and "images: 3" not in said
