"""The demo in a real browser, with its JavaScript."""

from __future__ import annotations

from demo.screenshot import ask, send_hits
from tests.support.chromium import Chromium, Page

HITS = "Number(document.querySelector('[data-live=hits]').innerText)"
KOBE = "#row-2 td:nth-child(2)"


def open_demo(chromium: Chromium, address: str) -> Page:
    """A tab with the demo, in which the script has asked the server for the first time."""
    page = chromium.open(address)
    page.wait_for("document.querySelector('#pulse b')?.offsetParent && document.readyState == 'complete'")
    assert page.text("#pulse") == "live"
    return page


def test_what_another_visitor_does_shows_up_by_itself(served_demo: str, chromium: Chromium) -> None:
    page = open_demo(chromium, served_demo)
    assert page.evaluate(HITS) == 1
    send_hits(served_demo, 20)
    page.wait_for(f"{HITS} === 21")
    ask(
        f"{served_demo}/look", method="POST", form={"theme": "light"}
    )  # which leads to the page: one more hit
    page.wait_for("document.documentElement.dataset.theme === 'light'")
    page.wait_for(f"{HITS} === 22")


def test_the_button_sends_200_requests_and_none_is_lost(served_demo: str, chromium: Chromium) -> None:
    page = open_demo(chromium, served_demo)
    page.evaluate("document.querySelector('#burst').click()")
    page.wait_for("document.querySelector('#burst-result').innerText")
    result = page.text("#burst-result") or ""
    assert "Shared counter: +200 for 200 requests." in result
    assert "and none is missing" in result
    assert "Each worker saw only its own." in result
    page.wait_for(f"{HITS} === 201")


def test_an_edit_in_one_browser_is_shown_in_another_and_never_overwritten_there(
    served_demo: str, chromium: Chromium
) -> None:
    mine, theirs = open_demo(chromium, served_demo), open_demo(chromium, served_demo)
    for page in (mine, theirs):
        page.evaluate(f"document.querySelector('{KOBE} a').click()")
        page.wait_for(f"document.querySelector('{KOBE} form')")
    edit(mine, "Awaji")
    mine.wait_for(f"document.querySelector('{KOBE}').innerText === 'Awaji'")
    edit(theirs, "Osaka")
    theirs.wait_for("document.querySelector('.message')")
    assert "Nothing was overwritten" in (theirs.text(".message") or "")
    theirs.wait_for(f"document.querySelector('{KOBE}').innerText === 'Awaji'")


def edit(page: Page, text: str) -> None:
    """Type into the open cell and save."""
    page.evaluate(f"document.querySelector('{KOBE} [name=new]').value = '{text}'")
    page.evaluate(f"document.querySelector('{KOBE} form').requestSubmit()")
