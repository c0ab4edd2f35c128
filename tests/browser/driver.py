"""A headless Chromium, driven through the W3C WebDriver protocol that Debian's chromedriver serves."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

MISSING = "Chromium and its driver are not installed (Debian: chromium, chromium-driver); .ci/run installs them"


class Browser:
    """One window."""

    def __init__(self, client: httpx2.Client, session: str) -> None:
        self._client = client
        self._path = f"/session/{session}"

    def _post(self, path: str, body: Any) -> Any:
        answer = self._client.post(self._path + path, json=body)
        value = answer.json()["value"]
        assert answer.status_code == 200, value
        return value

    def open(self, url: str) -> None:
        """Load a page, and return when its own resources are there."""
        self._post("/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page. `return` gives a value; a promise is awaited."""
        return self._post("/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, condition: str, *arguments: Any) -> Any:
        """Return when an expression is true; it is looked at whenever the page changes, and once a frame.

        Raises an assertion after the driver's script timeout, with what the page shows.
        """
        script = f"""
            const done = arguments[arguments.length - 1], given = arguments;
            const holds = () => (function () {{ return {condition}; }}).apply(null, given);
            (function look() {{ const value = holds(); value ? done(value) : requestAnimationFrame(look); }})();
        """
        return self._post("/execute/async", {"script": script, "args": list(arguments)})

    def press(self, key: str) -> None:
        """Press and release one key."""
        actions = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self._post("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def console(self) -> list[str]:
        """What the page wrote to the console, errors of the browser's included, since it was last asked."""
        return [entry["message"] for entry in self._post("/se/log", {"type": "browser"})]

    def screenshot(self) -> bytes:
        """The window as PNG."""
        return base64.b64decode(self._client.get(f"{self._path}/screenshot").json()["value"])


@contextmanager
def browser(width: int = 1280, height: int = 900, *, dark: bool = False, phone: bool = False) -> Iterator[Browser]:
    """A browser of its own, without any network but this machine."""
    driver = shutil.which("chromedriver")
    if driver is None or shutil.which("chromium") is None:
        pytest.skip(MISSING)
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        port = next(
            found[1] for line in process.stdout if (found := re.search(r"started successfully on port (\d+)", line))
        )
        arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--window-size={width},{height}",
            # Whatever is asked for by another name than this machine's does not exist.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            *(["--blink-settings=preferredColorScheme=0"] if dark else []),
        ]
        options: dict[str, Any] = {"args": arguments}
        if phone:
            options["mobileEmulation"] = {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 2}}
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
            "timeouts": {"script": 20_000},
        }
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            answer = client.post("/session", json={"capabilities": {"alwaysMatch": wanted}}).json()["value"]
            session = answer["sessionId"]
            try:
                yield Browser(client, session)
            finally:
                client.delete(f"/session/{session}")
    finally:
        process.terminate()
        process.communicate()
