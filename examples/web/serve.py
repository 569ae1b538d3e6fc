"""Serves a folder on this machine: python examples/web/serve.py [--directory DIR] [--port PORT]"""

from __future__ import annotations

import argparse
import functools
import http.server
import pathlib

PUBLIC = pathlib.Path(__file__).parent / "public"


class Handler(http.server.SimpleHTTPRequestHandler):
    """A handler of static files with the headers that WebAssembly threads require."""

    # Stated here because Python takes them from the system, and not every system has the right ones.
    extensions_map = {  # noqa: RUF012 - a plain dict in the base class
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".wasm": "application/wasm",
        ".json": "application/json",
    }

    def end_headers(self) -> None:
        """Isolates the page from others, which browsers require for memory shared between threads."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-store")  # a new model takes effect immediately
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Suppresses log lines, so the terminal shows only the address."""


def main() -> None:
    """Serves until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=pathlib.Path, default=PUBLIC)
    parser.add_argument("--port", type=int, default=8000, help="0 selects a free port")
    arguments = parser.parse_args()
    handler = functools.partial(Handler, directory=str(arguments.directory))
    with http.server.ThreadingHTTPServer(("localhost", arguments.port), handler) as server:
        print(f"Open http://localhost:{server.server_address[1]}/ in a browser. Press Ctrl+C to stop.", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
