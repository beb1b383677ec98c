"""The pages are true to the code: references up to date, links that lead somewhere, names known."""

import importlib.util
import re
from pathlib import Path

import pytest

import calotype
from calotype.training.recipes import recipe_names

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), ROOT / "NOTICE", *(ROOT / "docs").glob("*.md")])


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["make_cli_reference", "make_settings_reference"])
def test_references_are_up_to_date(name):
    module = script(name)
    if module.PAGE.read_text(encoding="utf-8") != module.page():
        pytest.fail(f"run: python docs/{name}.py")


def test_the_settings_reference_describes_every_field():
    for line in script("make_settings_reference").page().splitlines():
        if line.startswith("| `") and not re.match(
            r"\| `(name|version|integrity|package|author|license|url)`", line
        ):
            assert not line.endswith("|  |"), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", place.read_text(encoding="utf-8"), re.M)
            known = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}
            assert anchor in known, f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_knows_this_machine(page):
    text = page.read_text(encoding="utf-8")
    for pattern in (
        r"/(home|root|work|opt|tmp|Users)/",
        r"pypi\.org",
        r"registry\.",
        r"huggingface\.co",
    ):
        assert not re.search(pattern, text), pattern


def test_every_recipe_is_described():
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for name in recipe_names():
        assert f"| `{name}` |" in text


def test_the_changelog_knows_this_version():
    assert f"## {calotype.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_notice_names_every_source_of_the_embedded_weights():
    from calotype.emoji.recipe import load_recipe

    recipe, text = load_recipe(), (ROOT / "NOTICE").read_text(encoding="utf-8")
    for source in map(recipe.source, recipe.sets):
        assert source.license in text and source.url in text
        assert f"{source.package.name} {source.package.version}" in " ".join(text.split())
    assert f"{recipe.label_package.name} {recipe.label_package.version}" in text


def test_the_development_page_names_files_that_are_there():
    text = (ROOT / "docs" / "development.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:\w+/)+\w+\.\w+)`", text))
    places = (ROOT, ROOT / "src" / "calotype")
    assert len(named) > 25
    lost = [name for name in named if not any((place / name).is_file() for place in places)]
    # Files are named in full once, then by their last part.
    assert not [name for name in lost if not name.startswith("tests/pins")]


def test_the_limits_page_names_tests_that_are_there():
    text = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    named = set(re.findall(r"tests/[\w/]+\.py", text))
    assert len(named) > 20 and not [name for name in named if not (ROOT / name).is_file()]
