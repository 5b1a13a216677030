"""A process in place of a node, for the tests of ``kritad dev``: run as a script.

``stand_in.py PORT [MODE]`` answers every request with 200 and stops on SIGTERM with
status 0; MODE ``deaf`` ignores SIGTERM, ``broken`` exits with 78 at once, ``unready``
answers 503, ``unclean`` stops with status 3.
"""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

PATH = Path(__file__)


def main(port: int, mode: str) -> int:
    if mode == "broken":
        print("kritad: this setting is bad", flush=True)
        return 78
    stop = signal.SIG_IGN if mode == "deaf" else lambda *_: sys.exit(3 if mode == "unclean" else 0)
    signal.signal(signal.SIGTERM, stop)
    listener = socket.create_server(("127.0.0.1", port))
    print(f"listening on {port}", flush=True)
    status = b"503 no" if mode == "unready" else b"200 OK"
    while True:
        stream, _ = listener.accept()
        with stream:
            stream.recv(4096)
            stream.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""))
