"""A connection of HTTP/2 frame by frame, for what no client would send."""

import contextlib
import socket

from hpack import Decoder, Encoder
from hyperframe.frame import DataFrame, Frame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from gateway import PATIENCE


class Wire:
    """What the gateway sends is read by the test when it wants to; its pings and settings are acknowledged then."""

    def __init__(self, gateway, settings=None):
        host, port = gateway.listen.split(":")
        self.authority = gateway.listen
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE)
        if gateway.url.startswith("https"):
            context = gateway.options_of_client["verify"]
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket, server_hostname=host)
        self.encoder = Encoder()
        self.seen = b""
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(settings=settings or {}).serialize())

    def send(self, *frames):
        """False when the gateway has hung up."""
        try:
            self.socket.sendall(b"".join(frame if isinstance(frame, bytes) else frame.serialize() for frame in frames))
        except OSError:
            return False
        return True

    def head(self, stream, path="/sync/changes", method="GET", more=(), flags=("END_HEADERS", "END_STREAM")):
        fields = [(":method", method), (":scheme", "http"), (":authority", self.authority), (":path", path), *more]
        return HeadersFrame(stream, self.encoder.encode(fields), flags=flags)

    def ask(self, stream, path="/sync/changes", **more):
        return self.send(self.head(stream, path, **more))

    def pour(self, stream, count):
        """Send so many blanks as a body, as far and as fast as the gateway takes them; the frames until it has answered."""
        frames = self.wait_for(lambda frame: isinstance(frame, SettingsFrame))
        room = {0: 65_535, stream: frames[-1].settings.get(SettingsFrame.INITIAL_WINDOW_SIZE, 65_535)}
        while not any(isinstance(frame, (HeadersFrame, RstStreamFrame)) for frame in frames):
            piece = min(count, 16_384, *room.values())
            if piece:
                self.send(DataFrame(stream, b" " * piece))
                room, count = {stream: left - piece for stream, left in room.items()}, count - piece
                continue
            frames += self.read(enough=lambda frame: isinstance(frame, (WindowUpdateFrame, HeadersFrame)))
            if isinstance(frames[-1], WindowUpdateFrame):
                room[frames[-1].stream_id] += frames[-1].window_increment
        return frames

    def read(self, patience=PATIENCE, enough=lambda frame: False):
        """The frames until one is enough, the end of the connection, or `patience` seconds of silence."""
        frames = []
        self.socket.settimeout(patience)
        with contextlib.suppress(OSError):
            while not any(map(enough, frames[-1:])):
                while len(self.seen) < 9 or len(self.seen) < 9 + int.from_bytes(self.seen[:3], "big"):
                    part = self.socket.recv(65536)
                    if not part:
                        return frames
                    self.seen += part
                frame, length = Frame.parse_frame_header(memoryview(self.seen[:9]))
                frame.parse_body(memoryview(self.seen[9 : 9 + length]))
                self.seen = self.seen[9 + length :]
                frames.append(frame)
                if isinstance(frame, (PingFrame, SettingsFrame)) and "ACK" not in frame.flags:
                    self.send(PingFrame(0, frame.opaque_data, flags=["ACK"]) if isinstance(frame, PingFrame) else SettingsFrame(flags=["ACK"]))
        return frames

    def wait_for(self, enough):
        frames = self.read(enough=enough)
        assert frames and enough(frames[-1]), frames
        return frames

    def is_heard(self):
        """Does the connection still answer?"""
        return self.send(PingFrame(0, b"\0" * 8)) and bool(self.read(enough=lambda frame: isinstance(frame, PingFrame) and "ACK" in frame.flags)[-1:])


def status(head):
    """Of the answer that begins with this frame."""
    return int(dict(Decoder().decode(head.data))[":status"])
