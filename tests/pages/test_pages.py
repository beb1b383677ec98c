import base64
import io
import re

import jinja2
import pytest
from matplotlib.figure import Figure
from PIL import Image

from calotype.pages import page as pages
from calotype.pages.charts import (
    PAGE,
    PAPER,
    chart_style,
    inline_svg,
    label_text,
    write_chart,
)
from calotype.pages.images import data_uri, page_image
from calotype.pages.page import render_page, write_page

HOSTILE = "</script><script>alert(1)</script> $x^2$ \u202eabc \x00\ud800"


def _figure(colours, title="A chart"):
    figure = Figure(figsize=(3, 2), layout="constrained")
    axes = figure.subplots()
    axes.errorbar([0, 1], [1, 2], yerr=0.2, marker="o", color=colours["s1"])
    axes.set_title(title)
    return figure


def _svg(title="A chart", name="calotype"):
    with chart_style(name=name):
        return inline_svg(_figure(PAGE, title), title)


def _bytes(kind, size=(40, 20), colour=(200, 30, 30)):
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, kind)
    return stream.getvalue()


def _template(monkeypatch, text):
    """A package whose only template is `text`."""
    original = pages.PackageLoader

    def loader(package, folder):
        return jinja2.DictLoader({"x.j2": text}) if package == "x" else original(package, folder)

    monkeypatch.setattr(pages, "PackageLoader", loader)


def test_a_page_is_escaped_and_fetches_nothing(monkeypatch):
    text = (
        '{% extends "page.html.j2" %}{% block title %}{{ name }}{% endblock %}'
        "{% block main %}{{ name }} {{ 12345|commas }}{% endblock %}"
    )
    _template(monkeypatch, text)
    html = render_page("x", "x.j2", name=HOSTILE, made="today")
    assert "<script" not in html and html.count("&lt;script&gt;") == 2
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'\"" in html
    assert not re.search(r"https?://|@import|url\(", html)
    assert "12,345" in html and "Written today by calotype" in html and "--ink" in html


def test_a_name_that_is_missing_is_an_error(monkeypatch):
    _template(monkeypatch, "{{ name }}")
    with pytest.raises(jinja2.UndefinedError):
        render_page("x", "x.j2")


def test_a_page_is_written_whatever_it_says(tmp_path):
    assert write_page(tmp_path / "a.html", HOSTILE) == (tmp_path / "a.html").stat().st_size


def test_charts_are_the_same_bytes_each_time_and_in_the_pages_colours():
    one, two = _svg(), _svg()
    assert one == two and "var(--s1)" in one and 'aria-label="A chart"' in one
    assert "#0000" not in one and " xmlns" not in one
    names = set(re.findall(r' id="([^"]*)"', one))
    assert names and not names & set(re.findall(r' id="([^"]*)"', _svg(name="other")))


def test_what_a_chart_refers_to_is_in_it():
    svg = _svg()
    for name in re.findall(r'(?:href="|url\()#([^")]+)', svg):
        assert f'id="{name}"' in svg


def test_hostile_titles_are_text():
    svg = _svg(label_text(HOSTILE), name=HOSTILE)
    assert "<script" not in svg and "$x^2$" in svg


def test_labels_are_short_and_printable():
    assert label_text("a\nb\x00c\ud800d") == "a b c d"
    assert label_text("x" * 10_000_000, 10) == "x" * 9 + "…"
    assert label_text("x" * 10, 10) == "x" * 10


def test_charts_in_files_have_colours(tmp_path):
    for name in ("a.svg", "b.svg", "a.png", "b.png"):
        with chart_style(PAPER):
            write_chart(_figure(PAPER), tmp_path / name)
    svg = (tmp_path / "a.svg").read_text()
    assert PAPER["s1"] in svg and "var(" not in svg
    assert svg == (tmp_path / "b.svg").read_text()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert Image.open(tmp_path / "a.png").convert("RGB").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_small_images_are_kept(kind):
    data = _bytes(kind)
    image = page_image(data, kept_bytes=len(data), side=8)
    assert image.uri == data_uri(data, kind.lower()) and (image.width, image.height) == (40, 20)
    assert base64.b64decode(image.uri.partition(",")[2]) == data


def test_large_images_become_small_and_broken_ones_none():
    data = _bytes("PNG")
    image = page_image(data, kept_bytes=0, side=10)
    assert image.uri.startswith("data:image/jpeg;base64,")
    assert (image.width, image.height) == (10, 5)
    assert page_image(data[:40], kept_bytes=100_000, side=10) is None
    assert page_image(b"GIF89a", kept_bytes=0, side=10) is None
