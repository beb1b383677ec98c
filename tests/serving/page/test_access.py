"""Everybody can use it: axe, keys, focus, live regions, from 320 pixels on, in both colours."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow
WIDTHS = {320: 640, 390: 844, 768: 1024, 1440: 900}
TARGETS = """() => [...document.querySelectorAll(
    'button, a[href], input, select, textarea, summary')].filter((one) => {
  const box = one.getBoundingClientRect();
  if (box.width === 0 || one.closest('.unseen, .skip')) return false;
  return box.width < 24 || box.height < 24;
}).filter((one) => !one.closest('label') && getComputedStyle(one).display !== 'inline')
  .map((one) => one.outerHTML.slice(0, 120))"""


class Look:
    """Axe, sizes of targets and nothing sticking out, of each state."""

    def __init__(self, page, axe):
        self.page, self.axe, self.found = page, axe, {}
        page.evaluate(axe)

    def __call__(self, name):
        self.page.wait_for_timeout(150)
        result = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        found = [(one["id"], one["nodes"][0]["html"][:200]) for one in result["violations"]]
        width = self.page.evaluate("document.documentElement.scrollWidth")
        if width > self.page.viewport_size["width"]:
            found.append(("wide", width))
        found += [("target", one) for one in self.page.evaluate(TARGETS)]
        if found:
            self.found[name] = found


@pytest.mark.parametrize(
    "width, scheme",
    [(320, "light"), (768, "dark"), (1440, "light")],
)
def test_axe_finds_nothing_in_any_state(visit, served, mock_api, axe, width, scheme):
    viewport = {"width": width, "height": WIDTHS[width]}
    page = visit(viewport=viewport, color_scheme=scheme, has_touch=width < 500)
    look = Look(page, axe)
    look("empty")
    page.click("text=More settings")
    page.click(".stage >> nth=0 >> summary")
    look("settings")
    page.click("text=More settings")
    page.fill(".prompt", "a red fox " * 12)
    served.mock.faults.add("held")
    page.click(".actions .main")
    page.wait_for_selector(".state.waiting")
    served.mock.faults.add("full")
    page.click(".actions .main")
    page.wait_for_selector(".state.held")
    look("waiting and full")
    served.mock.faults.clear()
    page.wait_for_selector(".job.done >> nth=1")
    page.click("text=Nine drafts")
    page.wait_for_selector("text=Choose the drafts")
    page.click("[aria-label='Choose draft 1']")
    look("drafts")
    served.mock.faults |= {"failing", "restarting", "disk"}
    page.click(".actions .main")
    page.wait_for_selector(".state.failed")
    page.wait_for_selector(".banner.restarting")
    look("failed")
    served.mock.faults.clear()
    page.wait_for_selector(".banner", state="detached")
    page.click("nav >> text=Library")
    page.wait_for_selector(".grid img")
    look("library")
    page.click("[data-at='0'] .open")
    page.wait_for_selector(".large.ready")
    look("viewer")
    page.keyboard.press("c")
    page.wait_for_selector("dialog.compare")
    look("compare")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog.compare", state="detached")
    page.keyboard.press("e")
    page.wait_for_selector(".sheet img")
    look("editor")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog.editor", state="detached")
    look("source")
    page.click("[aria-label^='Keys']")
    look("keys")
    assert look.found == {}


def test_tab_goes_through_everything_in_order_and_is_seen(visit, served):
    page = visit()
    page.wait_for_selector(".pill.ready")
    names = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen = page.evaluate(
            """() => { const one = document.activeElement;
              if (one === document.body) return null;
              const style = getComputedStyle(one), box = one.getBoundingClientRect();
              const name = one.getAttribute('aria-label') ?? one.labels?.[0]?.textContent;
              const ringed = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
              return [(name ?? one.textContent).trim(), ringed,
                box.bottom > 0 && box.top < innerHeight]; }"""
        )
        if seen is None:
            break
        names.append(seen[0])
        assert seen[1] and seen[2], seen
    order = ["To the images", "Create", "Library", "Caption", "3d render", "Seed", "Generate"]
    places = [next(n for n, name in enumerate(names) if name.startswith(one)) for one in order]
    assert places == sorted(places)


def test_live_regions_say_what_happens(visit, served):
    page = visit()
    page.fill(".prompt", "a boat")
    page.click(".actions .main")
    page.wait_for_selector(".job.done")
    assert "1 image ready: a boat" in page.inner_text("[role=status]")
    assert page.get_attribute("[role=status]", "aria-live") == "polite"
    assert page.get_attribute("[role=alert]", "aria-live") == "assertive"


def test_keys_are_listed_and_those_of_one_letter_can_be_switched_off(visit, served):
    page = visit()
    page.keyboard.press("?")
    page.wait_for_selector("dialog.help")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog.help", state="detached")
    page.keyboard.press("g")
    page.wait_for_selector(".library")
    page.keyboard.press("/")
    page.wait_for_selector(".prompt:focus")
    page.keyboard.type("?g/")  # text, not keys
    assert page.input_value(".prompt") == "?g/" and page.locator("dialog").count() == 0
    page.click("[aria-label^='Keys']")
    page.uncheck("dialog.help input")
    page.keyboard.press("Escape")
    page.reload()
    page.wait_for_selector(".composer")
    for key in ("?", "g", "s"):
        page.keyboard.press(key)
    page.wait_for_timeout(200)
    assert page.locator("dialog, .library").count() == 0
    page.keyboard.press("Control+Enter")  # no single key
    page.wait_for_selector(".job.done")


def test_the_theme_can_be_chosen_and_stays(visit, served):
    page = visit(color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click("[aria-label^='Colours as the system']")
    page.click("[aria-label^='Light colours']")
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    page.wait_for_selector(".composer")
    assert page.evaluate(ground) == dark
    page.click("[aria-label^='Dark colours']")
    assert page.evaluate(ground) == light


def test_nothing_moves_where_motion_is_reduced(visit, served):
    page = visit()
    page.fill(".prompt", "a boat")
    page.click("text=Nine drafts")
    page.wait_for_selector(".tile")
    longest = page.evaluate(
        """() => Math.max(...[...document.querySelectorAll('*')].map((one) => {
          const { animationName, animationDuration, transitionDuration } = getComputedStyle(one);
          const seconds = (text) => Math.max(...text.split(',').map(parseFloat));
          const moves = animationName === 'none' ? 0 : seconds(animationDuration);
          return Math.max(moves, seconds(transitionDuration));
        }))"""
    )
    assert longest < 0.05
