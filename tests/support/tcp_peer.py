"""A stand-in for a node's TCP side, as a program of its own: it listens, dials, and says what became of each session.

    python tcp_peer.py listen PORT            echoes what it is sent; listens on IPv4 and IPv6
    python tcp_peer.py dial LOCAL ADDR PORT   dials (from LOCAL, 0: any port) and prints "up"; at a line on its input it
                                              sends a byte, and at the echo it prints "here"; when it hears that the
                                              session was cut, it prints "lost" and ends
    python tcp_peer.py try LOCAL ADDR PORT    prints "ok", "refused" or "silent", and ends

With AS_USER in the environment it becomes that user first, by number.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading


def echo(session: socket.socket) -> None:
    with session:
        try:
            while data := session.recv(4096):
                session.sendall(data)
        except OSError:
            pass


def listen(port: int) -> None:
    with socket.socket(socket.AF_INET6) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        door.bind(("::", port))
        door.listen(512)
        while True:
            session, _ = door.accept()
            threading.Thread(target=echo, args=(session,), daemon=True).start()


def dialled(local: int, address: str, port: int, timeout: float) -> socket.socket:
    session = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    session.settimeout(timeout)
    session.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    session.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    session.bind(("", local))
    session.connect((address, port))
    session.sendall(b"?")
    if session.recv(1) != b"?":
        raise ConnectionResetError
    return session


def dial(local: int, address: str, port: int) -> None:
    with dialled(local, address, port, 10.0) as session:
        print("up", flush=True)
        while True:
            ready, _, _ = select.select([session, sys.stdin], [], [])
            try:
                if sys.stdin in ready:
                    if not sys.stdin.readline():
                        return
                    session.sendall(b".")
                if not session.recv(1):
                    break
            except OSError:
                break
            print("here", flush=True)
    print("lost", flush=True)


def attempt(local: int, address: str, port: int) -> None:
    try:
        dialled(local, address, port, 1.0).close()
        print("ok")
    except TimeoutError:
        print("silent")
    except OSError:
        print("refused")


if __name__ == "__main__":
    if user := os.environ.get("AS_USER"):
        os.setgroups([])
        os.setgid(int(user))
        os.setuid(int(user))
    verb, *rest = sys.argv[1:]
    if verb == "listen":
        threading.Thread(target=listen, args=(int(rest[0]),)).start()
    elif verb == "dial":
        dial(int(rest[0]), rest[1], int(rest[2]))
    else:
        attempt(int(rest[0]), rest[1], int(rest[2]))
