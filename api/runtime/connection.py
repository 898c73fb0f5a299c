"""One client of the engine: its bytes in, its bytes out, its bounds."""

import contextlib
import socket
from collections import deque
from itertools import islice

from api.runtime.errors import WireError
from api.runtime.wire import PAYLOAD_IN_MAX, SOCKET_BUFFER_BYTES, Buffer, Decoder

OUTBOUND_BYTES_MAX = 64 << 20
"""A client that lets more pile up is disconnected; it comes back and gets a new WELCOME."""
IN_FLIGHT_COMMANDS_MAX = 262_144
"""Above this its socket is not read until answers have left."""
BUFFERS_PER_WRITE = 256


class Connection:
    """A connected client; non-blocking.

    Attributes
    ----------
    role : str
        Empty until HELLO.
    in_flight : int
        Commands submitted and not answered.
    """

    def __init__(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        self.socket = accepted
        self.descriptor = accepted.fileno()
        self.decoder = Decoder(PAYLOAD_IN_MAX)
        self.role = ""
        self.subscribed = False
        self.in_flight = 0
        self.interest = 0
        self.closed = False
        self._outbound: deque[Buffer] = deque()
        self.outbound_bytes = 0

    def receive(self) -> bool:
        """Read once; False when the peer is gone."""
        try:
            count = self.socket.recv_into(self.decoder.get_buffer())
        except BlockingIOError:
            return True
        except OSError:
            # ECONNRESET is how a peer that died with unread data says goodbye.
            return False
        self.decoder.received(count)
        return count > 0

    def send(self, buffers: list[Buffer]) -> None:
        """Queue buffers; `flush` writes them.

        Raises
        ------
        WireError
            The client reads too slowly: the bound is reached.
        """
        self._outbound.extend(buffers)
        self.outbound_bytes += sum(map(len, buffers))
        if self.outbound_bytes > OUTBOUND_BYTES_MAX:
            raise WireError(f"{self.outbound_bytes} bytes wait for a client that does not read them")

    def flush(self) -> bool:
        """Write what the socket takes; False when the peer is gone."""
        outbound = self._outbound
        while outbound:
            try:
                if len(outbound) == 1:
                    written = self.socket.send(outbound[0])
                else:
                    written = self.socket.sendmsg(list(islice(outbound, BUFFERS_PER_WRITE)))
            except BlockingIOError:
                return True
            except OSError:
                return False
            self.outbound_bytes -= written
            while written:
                head = outbound.popleft()
                if len(head) > written:
                    outbound.appendleft(memoryview(head)[written:])
                    break
                written -= len(head)
        return True

    def close(self) -> None:
        """Close the socket; what was queued is dropped."""
        if not self.closed:
            self.closed = True
            self._outbound.clear()
            self.outbound_bytes = 0
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()
