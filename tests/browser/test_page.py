"""The status page in a real browser."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.driver import browser
from tests.browser.host import HOSTILE, SECRET
from tests.conftest import ROOT
from tests.node import find_modules

ROWS = "document.querySelectorAll('#rows tr').length"
BUTTON = "[...document.querySelectorAll('#rows button')].find(button => button.textContent === arguments[0])"
OPEN = f"{BUTTON}.click()"
LIT = "document.querySelector('#machine .current .name')?.textContent"
SIZES = {
    "desktop": {},
    "dark": {"dark": True},
    "phone": {"width": 390, "height": 844, "phone": True},
    "dark phone": {"width": 390, "height": 844, "phone": True, "dark": True},
}


class Host:
    """The process that serves the page."""

    def __init__(self, count: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.browser.host", str(count)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.url = f"http://127.0.0.1:{self._read()}/"

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the host has ended"
        return line

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        assert self._read() == "done"

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.communicate()


@pytest.fixture
def host() -> Iterator[Host]:
    served = Host(5)
    yield served
    served.close()


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core, which finds what people with a screen reader or a keyboard cannot use."""
    modules = find_modules()
    source = modules / "axe-core" / "axe.min.js"
    if not source.is_file():
        pytest.skip(f"no axe-core in {modules}; .ci/run installs it")
    return source.read_text()


def test_a_change_is_seen_without_a_reload(host: Host) -> None:
    with browser() as page:
        page.open(host.url)
        page.wait(f"{ROWS} === 6")
        page.run(OPEN, "server-001")
        page.wait(f"{LIT} === 'ready'")
        page.run("window.marked = true")
        host.tell("reconnect server-001")
        page.wait("[...document.querySelectorAll('#transitions li')].some(li => li.textContent.includes('recycle'))")
        page.run("document.getElementById('detail').close()")
        host.tell("remove server-001")
        page.wait(f"{ROWS} === 5")
        assert page.run("return window.marked") is True
        assert page.console() == []


def test_hostile_texts_stay_text(host: Host) -> None:
    with browser() as page:
        page.open(host.url)
        page.wait(f"{ROWS} === 6")
        page.run(OPEN, HOSTILE)
        page.wait("document.getElementById('lines').textContent.includes('<script>')")
        assert page.run("return document.title") == "Connections"
        assert page.run("return document.querySelectorAll('img, main script, dialog script').length") == 0
        assert page.console() == []


def test_no_secret_reaches_the_page(host: Host) -> None:
    with browser() as page:
        page.open(host.url)
        page.wait(f"{ROWS} === 6")
        for name in ("server-000", HOSTILE):
            page.run(OPEN, name)
            page.wait("document.querySelectorAll('#transitions li').length > 0")
            assert SECRET not in page.run("return document.documentElement.outerHTML")


def test_buttons_disable_and_enable(host: Host) -> None:
    with browser() as page:
        page.open(host.url)
        page.wait(f"{ROWS} === 6")
        page.run(OPEN, "server-002")
        page.wait("!document.getElementById('disable').hidden && " + LIT)
        page.run("document.getElementById('disable').click()")
        page.wait(f"{LIT} === 'closed'")
        page.run("document.getElementById('enable').click()")
        page.wait(f"{LIT} === 'ready'")
        assert page.console() == []


def test_the_filter_shows_what_matches(host: Host) -> None:
    shown = "[...document.querySelectorAll('#rows tr')].filter(row => !row.hidden).length"
    with browser() as page:
        page.open(host.url)
        page.wait(f"{ROWS} === 6")
        script = "const words = document.getElementById('words'); words.value = arguments[0];"
        for words, count in (("server-00", 5), ("server-003 ready", 1), ("nothing", 0), ("", 6)):
            page.run(script + "words.dispatchEvent(new Event('input'))", words)
            assert page.run(f"return {shown}") == count
        assert page.run("return document.getElementById('empty').hidden") is True


def test_the_keyboard_opens_the_detail(host: Host) -> None:
    with browser() as page:
        page.open(host.url)
        page.wait(f"{ROWS} === 6")
        page.run(f"{BUTTON}.focus()", "server-000")
        page.press("\ue007")  # Enter
        page.wait("document.getElementById('detail').open")
        page.press("\ue00c")  # Escape
        page.wait("!document.getElementById('detail').open")
        assert page.run("return document.activeElement.textContent") == "server-000"


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_axe_finds_nothing_serious(host: Host, axe: str, size: dict[str, Any]) -> None:
    with browser(**size) as page:
        page.open(host.url)
        page.wait(f"{ROWS} === 6")
        page.run(axe + "; window.axe = axe;")
        found = "return axe.run().then(({violations}) => violations.map(({id, impact, nodes}) => "
        found += "`${impact} ${id} ${nodes.map(node => node.html + node.failureSummary).join(' ')}`))"
        for name in (None, "server-000", HOSTILE):
            if name is not None:
                page.run(OPEN, name)
                page.wait("document.querySelectorAll('#transitions li').length > 0 && " + LIT)
            problems = page.run(found)
            assert [each for each in problems if each.startswith(("serious", "critical"))] == []
        assert page.run("return document.documentElement.scrollWidth <= innerWidth") is True


def test_three_hundred_rows_stay_live() -> None:
    host = Host(300)
    try:
        with browser() as page:
            page.open(host.url)
            page.wait(f"{ROWS} === 301")
            page.wait("document.getElementById('summary').textContent.includes('300 ready')")
            host.tell("remove server-123")
            page.wait(f"{ROWS} === 300")
            assert page.console() == []
    finally:
        host.close()
