"""Debian's Chromium without a window, driven by its own driver's protocol (W3C WebDriver)."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars"),
]
SECONDS = 180.0  # for a start on a machine that is busy


def found() -> bool:
    """Whether this machine has browser and driver."""
    return all(map(shutil.which, ("chromium", "chromedriver")))


class Browser:
    """One tab."""

    def __init__(self, address: str, profile: Path, *, scripts: bool = True):
        options: dict[str, Any] = {"args": [*FLAGS, f"--user-data-dir={profile}"]}
        if not scripts:
            options["prefs"] = {"profile.managed_default_content_settings.javascript": 2}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options}
        self._address = address
        made = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{made['sessionId']}"

    def open(self, path: Path | str) -> None:
        """Loads a page, a local one by its path."""
        address = path.resolve().as_uri() if isinstance(path, Path) else path
        self._ask("POST", f"{self._session}/url", {"url": address})

    @property
    def address(self) -> str:
        """Where it is."""
        return self._ask("GET", f"{self._session}/url")

    def run(self, script: str, *values: Any) -> Any:
        """The result of a script's `return`."""
        body = {"script": script, "args": list(values)}
        return self._ask("POST", f"{self._session}/execute/sync", body)

    def click(self, selector: str) -> None:
        """Clicks the first element of a CSS selector, as a pointer would."""
        self._ask("POST", f"{self._session}/element/{self._find(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        """Types into an element; keys such as \\ue004 (tab) too."""
        self._ask("POST", f"{self._session}/element/{self._find(selector)}/value", {"text": text})

    def visible(self, selector: str) -> list[str]:
        """Texts of the elements of a selector that are shown."""
        return self.run(
            "return [...document.querySelectorAll(arguments[0])]"
            ".filter(e => e.getClientRects().length).map(e => e.innerText.trim())",
            selector,
        )

    def shape(self, width: int, height: int, scheme: str = "light", mobile: bool = False) -> None:
        """Sets the window's size in pixels and the reader's colour scheme."""
        sizes = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self._tell("Emulation.setDeviceMetricsOverride", sizes)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._tell("Emulation.setEmulatedMedia", {"features": features})

    def picture(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode(self._ask("GET", f"{self._session}/screenshot"))

    def close(self) -> None:
        """Ends the session."""
        self._ask("DELETE", self._session)

    def _find(self, selector: str) -> str:
        body = {"using": "css selector", "value": selector}
        return next(iter(self._ask("POST", f"{self._session}/element", body).values()))

    def _tell(self, command: str, values: dict[str, Any]) -> None:
        body = {"cmd": command, "params": values}
        self._ask("POST", f"{self._session}/goog/cdp/execute", body)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.read().decode()[:600]}") from error


@contextmanager
def driver() -> Iterator[str]:
    """Starts the driver on a free port; yields its address."""
    with tempfile.TemporaryDirectory(prefix="fourierft-driver-") as folder:
        process = subprocess.Popen(
            ["chromedriver", "--port=0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "HOME": folder, "TMPDIR": folder},
        )
        try:
            for line in process.stdout:
                port = re.search(r"started successfully on port (\d+)", line)
                if port:
                    yield f"http://127.0.0.1:{port[1]}"
                    return
            raise AssertionError("chromedriver did not start")
        finally:
            process.terminate()
            process.wait(timeout=30)
