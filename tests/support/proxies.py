"""A TCP proxy between a client and a server that tests break: closed, slow, lossy, or silent."""

from __future__ import annotations

import random
import socket
import threading
import time
from contextlib import suppress

from tests.support.ports import free_port


class Proxy:
    """Passes connections on to a port of loopback while it is open.

    Args:
        target: the port behind it.
        seed: of the chance by which replies are lost.

    Attributes:
        target: the port behind it.
        port: where it listens, also after it was closed and opened again.
        reply_loss: the share of replies after whose request the connection is cut.
        delay: seconds by which what is passed on comes later, at most.
        lost: how many replies were.
    """

    def __init__(self, target: int, seed: int = 0) -> None:
        self.target = target
        self._random = random.Random(seed)
        self._whole = threading.Event()
        self._whole.set()
        self.reply_loss = 0.0
        self.delay = 0.0
        self.lost = 0
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.port = free_port()
        self.open()

    def open(self) -> None:
        """Take connections."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(128)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def close(self) -> None:
        """Refuse new connections and break those that are there."""
        with self._lock:
            listener, self._listener = self._listener, None
            broken, self._sockets = self._sockets, set()
        if listener:
            broken.add(listener)
        for one in broken:
            _end(one)

    def part(self) -> None:
        """Pass nothing on any more, and tell nobody; ``join`` passes on what has come since."""
        self._whole.clear()

    def join(self) -> None:
        """End a partition: what comes now may come very late."""
        self._whole.set()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                near.close()  # refused there, refused here
                continue
            with self._lock:
                if self._listener is not listener:
                    near.close()
                    far.close()
                    return
                self._sockets |= {near, far}
            for ends in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, replies: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._whole.wait(60)
                if self.delay:
                    time.sleep(self._random.uniform(0, self.delay))
                if replies and self._random.random() < self.reply_loss:
                    self.lost += 1
                    break
                target.sendall(data)
        for one in (source, target):
            _end(one)


def _end(one: socket.socket) -> None:
    # A close alone does not wake a thread that waits in accept or recv.
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
