"""Write every page of builder-web from example models, or serve them: `python tests/web/gallery.py FOLDER|PORT`.

For whoever works on templates and style: all pages beside one another, ordinary and hostile, without a server or data.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import examples

from builder_web.pages import SECURITY_POLICY, render
from builder_web.pages.links import Links
from builder_web.pages.statics import STATIC_FILES


def rendered() -> dict[str, str]:
    """Return the HTML of each example by its name."""
    pages = examples.ordinary() | examples.hostile()
    return {name: render(page, links=Links()) for name, page in pages.items()}


def _index(names: list[str]) -> str:
    entries = "".join(f'<li><a href="/{escape(name)}">{escape(name)}</a></li>' for name in names)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Gallery</title><h1>Gallery</h1><ul>{entries}</ul>'
    )


@contextmanager
def served(port: int = 0) -> Iterator[str]:
    """Serve the examples, each below its name, under the pages' own security policy; give the address."""
    pages = rendered()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            name = path.rpartition("/")[2]
            if path == "/":
                status, media_type, body = 200, "text/html", _index(list(pages)).encode()
            elif path.startswith("/static/") and name in STATIC_FILES:
                status, media_type, body = 200, STATIC_FILES[name].media_type, STATIC_FILES[name].content
            elif name.startswith("viz"):
                status, media_type, body = 200, "text/html", b"<!doctype html><title>A drawing</title>"
            elif name in pages:
                status, media_type, body = 200, "text/html; charset=utf-8", pages[name].encode()
            else:
                status, media_type, body = 404, "text/html; charset=utf-8", pages["error-404"].encode()
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", SECURITY_POLICY)
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Say nothing: nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def main(target: str) -> None:
    """Serve at a port, or write into a folder."""
    if target.isdigit():
        with served(int(target)) as address:
            print(address)
            threading.Event().wait()
    folder = Path(target)
    (folder / "static").mkdir(parents=True, exist_ok=True)
    for name, file in STATIC_FILES.items():
        (folder / "static" / name).write_bytes(file.content)
    pages = rendered()
    for name, html in pages.items():
        (folder / f"{name}.html").write_text(html.replace('"/static/', '"static/'))
    (folder / "index.html").write_text(_index([f"{name}.html" for name in pages]).replace('href="/', 'href="'))


if __name__ == "__main__":
    main(sys.argv[1])
