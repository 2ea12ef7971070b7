"""A TCP proxy that is a bad network: slow, silent, or cutting connections at random places."""

import random
import socket
import threading
import time

CHUNK = 16 * 1024


class Proxy:
    """Forwards a port of its own to one of loopback. `delay` seconds pass before what the server sends is passed on.

    With `cuts` connections are cut: refused, reset, left half-open or ended in the middle, in either direction, after a random number of
    bytes, until so many were; `made` counts them. `quiet()` ends that before.
    """

    def __init__(self, target, delay=0.0, cuts=0, seed=0):
        self.target, self.delay, self.cuts, self.made = target, delay, cuts, 0
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self.listener.getsockname()[1]
        self.open = []
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        self.listener.close()
        for ends in self.open:
            for end in ends:
                end.close()

    def quiet(self):
        self.cuts = 0

    def plan(self):
        """How this connection ends: (way, direction, bytes), or None."""
        with self.lock:
            if self.made >= self.cuts:
                return None
            way = self.random.choice(("refuse", "reset", "end", "reset", "end", "half-open"))
            bytes = int(self.random.expovariate(1 / 20_000)) if self.random.random() < 0.5 else self.random.randrange(1, 3000)
            return way, self.random.choice(("up", "down")), bytes

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            plan = self.plan()
            if plan and plan[0] == "refuse":
                self.made += 1
                reset(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                reset(client)
                continue
            self.open.append((client, server))
            state = {"silent": False}
            for name, source, sink in (("up", client, server), ("down", server, client)):
                threading.Thread(target=self.pump, args=(name, source, sink, plan, state), daemon=True).start()

    def pump(self, name, source, sink, plan, state):
        passed = 0
        try:
            while data := source.recv(CHUNK):
                if name == "down" and self.delay:
                    until = time.monotonic() + self.delay
                    while time.monotonic() < until and self.delay:
                        time.sleep(0.01)
                if state["silent"]:
                    continue
                if plan and plan[1] == name and passed + len(data) > plan[2]:
                    self.made += 1
                    sink.sendall(data[: max(plan[2] - passed, 0)])
                    if plan[0] == "half-open":
                        state["silent"] = True
                        continue
                    for end in (source, sink):
                        reset(end) if plan[0] == "reset" else end.close()
                    return
                sink.sendall(data)
                passed += len(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def reset(end):
    """Close with a RST."""
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        end.shutdown(socket.SHUT_RD)
    except OSError:
        pass
    end.close()
