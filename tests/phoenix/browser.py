"""A headless Chromium, driven by its DevTools protocol: opens a page, waits until it shows what it should, takes its picture."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
START_SECONDS = 60.0
WaitUntil = Callable[..., Awaitable[None]]
MAX_MESSAGE_BYTES = 32 * 1024 * 1024


def program() -> str | None:
    """Where Chromium is, if anywhere."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command, and its result; events that come in between are passed over."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while (told := await self._socket.receive_json()).get("id") != number:
            pass
        assert "error" not in told, told
        result: dict[str, Any] = told["result"]
        return result

    async def says(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; None where it raises."""
        told = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return told["result"].get("value")

    async def picture_of(self, selector: str) -> bytes:
        """PNG of an element, as far as the window shows it."""
        box = await self.says(
            f"(({{x, y, width, height}}) => ({{x, y, width, height}}))"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        told = await self.call("Page.captureScreenshot", format="png", clip=box | {"scale": 1})
        return base64.b64decode(told["data"])


@contextlib.asynccontextmanager
async def opened(
    chromium: str,
    url: str,
    folder: Path,
    *,
    size: tuple[int, int],
    stored: Mapping[str, str],
    wait_until: WaitUntil,
) -> AsyncIterator[Page]:
    """A page in a browser with a profile of its own, which reaches this machine only.

    ``stored`` is what the page finds in its local storage.
    """
    width, height = size
    process = await asyncio.create_subprocess_exec(
        chromium,
        "--headless=new",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
        f"--window-size={width},{height}",
        "--hide-scrollbars",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        *(("--no-sandbox",) if os.geteuid() == 0 else ()),
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        file = folder / "DevToolsActivePort"
        await wait_until(lambda: _port_in(file) > 0 or process.returncode is not None, seconds=START_SECONDS)
        assert process.returncode is None, "Chromium did not start"
        port = _port_in(file)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                (tab,) = [each for each in await answer.json() if each["type"] == "page"]
            async with session.ws_connect(
                tab["webSocketDebuggerUrl"], max_msg_size=MAX_MESSAGE_BYTES
            ) as socket:
                page = Page(socket)
                await page.call(
                    "Emulation.setDeviceMetricsOverride",
                    width=width,
                    height=height,
                    deviceScaleFactor=1,
                    mobile=False,
                )
                await page.call("Page.enable")
                await page.call("Page.addScriptToEvaluateOnNewDocument", source=_remembering(stored))
                await page.call("Page.navigate", url=url)
                yield page
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def _remembering(stored: Mapping[str, str]) -> str:
    items = "".join(
        f"localStorage.setItem({json.dumps(name)}, {json.dumps(value)});" for name, value in stored.items()
    )
    return f"try {{ {items} }} catch {{}}"  # about:blank has no storage


def _port_in(file: Path) -> int:
    """Chromium writes it down once it listens; 0 before."""
    lines = file.read_text().splitlines() if file.exists() else []
    return int(lines[0]) if lines else 0
