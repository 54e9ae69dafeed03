"""`altmin dashboard` behind a proxy, and at addresses of any kind."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin

import pytest
from bokeh.server.server import Server
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import websocket_connect

from altmin_dask.dashboard import server as server_module
from altmin_dask.dashboard.server import make_server, serve
from altmin_dask.storage.run import RunFolder


def served(trained: Any, then: Callable[[Server], Any], address: str = "127.0.0.1", **how: Any) -> Any:
    """What comes of a server of a run while it serves."""

    async def run() -> Any:
        server = make_server(RunFolder(trained / "autoencoder"), address, 0, **how)
        server.start()
        try:
            return await then(server)
        finally:
            server.stop()

    return asyncio.run(run())


async def loaded(base: str, page: str) -> tuple[str, list[int]]:
    """A page, and how the server answers for all scripts that it names."""
    client = AsyncHTTPClient()
    text = (await client.fetch(f"{base}{page}")).body.decode()
    scripts = re.findall(r'<script[^>]* src="([^"]+)"', text)
    assert scripts
    answers = [await client.fetch(urljoin(f"{base}{page}", script), raise_error=False) for script in scripts]
    return text, [answer.code for answer in answers]


@pytest.mark.parametrize("prefix", ["", "user/ada/proxy"])
def test_all_that_the_page_loads_is_named_from_where_it_is(trained, prefix):
    async def look(server: Server) -> None:
        base = f"http://127.0.0.1:{server.port}" + (f"/{prefix}" if prefix else "")
        text, codes = await loaded(base, "/altmin")
        assert set(codes) == {200}
        # a proxy that takes a path of its own away before it asks: nothing may begin with a slash, or a host
        assert all(name.startswith("./") for name in re.findall(r'(?:src|href)="([^"]+)"', text))

    served(trained, look, prefix=prefix)


def test_a_proxy_is_let_in_by_its_name(trained):
    async def codes(server: Server) -> list[str]:
        found = []
        for origin in ("http://localhost:{}", "https://hub.example.org", "http://elsewhere.example.org"):
            request = HTTPRequest(
                f"ws://127.0.0.1:{server.port}/altmin/ws", headers={"Origin": origin.format(server.port)}
            )
            try:
                (await websocket_connect(request, subprotocols=["bokeh", "none"])).close()
                found.append("in")
            except Exception as error:
                found.append(str(error))
        return found

    assert served(trained, codes, origins=["hub.example.org"])[1:] == ["in", "HTTP 403: Forbidden"]
    assert served(trained, codes)[1] == "HTTP 403: Forbidden"


def test_urls_of_ipv6_are_urls(trained, monkeypatch):
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    said: list[str] = []
    monkeypatch.setattr(server_module.Server, "start", lambda self: self.stop())
    monkeypatch.setattr(
        server_module.Server,
        "io_loop",
        property(lambda self: type("Ended", (), {"start": lambda self: None})()),
    )
    serve(RunFolder(trained / "autoencoder"), "::1", 0, said.append, prefix="/p")
    assert re.match(r"dashboard: http://\[::1\]:\d+/p/altmin  \(for this machine only", said[0])
