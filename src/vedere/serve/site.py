"""The page as a web application, and the server that runs it.

Own routes give out pictures and downloads by key; the rest is Gradio's. Every answer carries a content security policy: the
browser then asks no other host, whatever a component may try, and no other site may put the page into a frame. Gradio counts
its users by default; that is switched off, like its public links, history and footer.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vedere.errors import ConfigError, MediaError
from vedere.serve.compose_layout import needs_gradio, theme
from vedere.serve.compose_page import ComposePage, asset
from vedere.serve.desk import Studio
from vedere.serve.desks import Desks
from vedere.serve.downloads import Downloads

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "worker-src 'self' blob:; frame-ancestors 'none'; form-action 'self'; base-uri 'self'; object-src 'none'"
)
"""Gradio's own scripts are inline and build functions from text, so both are allowed; text of an article is escaped."""

UPLOAD_LIMIT = "32mb"


def compose_site(studio: Studio, files: Path | str, language: str = "en") -> Any:
    """The application (FastAPI, an ASGI callable).

    Args:
        studio: What all visitors share.
        files: Folder for downloads and for the visitors' articles, which are found again there when the server begins anew.
        language: What the page speaks at first.

    Raises:
        ConfigError: Gradio is not installed.
    """
    gradio = needs_gradio()
    from fastapi import FastAPI, Response
    from fastapi.responses import FileResponse

    files = Path(files)
    downloads = Downloads(files / "downloads")
    page = ComposePage(Desks(studio, files / "articles"), downloads, language)
    site = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def picture(key: str, width: int = 320) -> Response:
        try:
            data = studio.shelf.image(key, width)
        except MediaError as error:
            return Response(str(error), 410, media_type="text/plain")
        if data is None:
            return Response("no such picture", 404, media_type="text/plain")
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    def download(key: str) -> Response:
        found = downloads.find(key)
        if found is None:
            return Response("this download is gone; export again", 404, media_type="text/plain")
        path, kind = found
        return FileResponse(path, media_type=kind.media_type, filename=kind.name)

    site.add_api_route("/pictures/{key}", picture, methods=["GET"], response_model=None)
    site.add_api_route("/downloads/{key}", download, methods=["GET"], response_model=None)
    gradio.mount_gradio_app(
        site,
        page.blocks,
        path="/",
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        max_file_size=UPLOAD_LIMIT,
        theme=theme(),
        css=asset("compose.css"),
        head=f"<script>document.documentElement.lang = '{language}'; {asset('compose.js')}</script>",
    )
    return _Guarded(site)


class _Guarded:
    """An application whose every answer carries the policy."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [
                    (b"content-security-policy", POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
                message = {**message, "headers": [*message.get("headers", []), *headers]}
            await send(message)

        await self.inner(scope, receive, guarded)


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A bound socket; it is bound before a model is loaded, so that a port in use is found at once.

    Args:
        host: Address to listen on; 127.0.0.1: this computer only.
        port: Port; 0: any free one.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(
                f"cannot listen on {host}, port {port} ({reason}); choose another --port (0: any free one) or --host"
            ) from None
        yield listener


def serve(site: Any, listener: socket.socket) -> None:
    """Runs an application on a bound socket until it is interrupted.

    Args:
        site: What to run.
        listener: Where, as `listening` gives it.
    """
    import uvicorn

    listener.listen(128)  # from here on a browser waits instead of being refused
    host, port = listener.getsockname()[:2]
    print(
        f"vedere: http://{f'[{host}]' if ':' in host else host}:{port}/ (Ctrl-C ends it)", file=sys.stderr, flush=True
    )
    config = uvicorn.Config(site, log_level="warning", timeout_graceful_shutdown=2)
    uvicorn.Server(config).run(sockets=[listener])
