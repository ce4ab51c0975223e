"""A wire to a TCP server: as long, as narrow and as unreliable as a test wants it.

It is a process of its own, so that a fast client in Python does not wait for it.

    with tcp_proxy(server.port, round_trip=0.01, rate=12_500_000) as wire:
        connect(wire.port)
        wire.cut()
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BLOCK = 256 * 1024  # bytes
NO_LIMIT = 1e12  # bytes/s


@dataclass(frozen=True, slots=True)
class Wire:
    """The test's end."""

    port: int
    _process: subprocess.Popen[str]

    def cut(self) -> None:
        """Break the connections that there are; new ones are taken."""
        self._tell("cut")

    def cut_after(self, count: int) -> None:
        """The same, once, when so many bytes more have come from the server."""
        self._tell(f"cut-after {count}")

    def stall(self) -> None:
        """Nothing goes through any more, and nobody is told."""
        self._tell("stall")

    def flow(self) -> None:
        """End `stall`."""
        self._tell("flow")

    def received(self) -> int:
        """Bytes that have come from the server so far."""
        return int(self._tell("received"))

    def connections(self) -> int:
        """How many have been made so far."""
        return int(self._tell("connections"))

    def _tell(self, command: str) -> str:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


@contextmanager
def tcp_proxy(port: int, *, round_trip: float = 0.0, rate: float = NO_LIMIT) -> Iterator[Wire]:
    """To 127.0.0.1:`port`. Seconds, and bytes per second of each direction, of all together."""
    argv = [sys.executable, str(Path(__file__)), str(port), str(round_trip), str(rate)]
    with subprocess.Popen(
        argv, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout
        yield Wire(int(process.stdout.readline()), process)
        process.stdin.close()  # it ends
        process.wait(60)


class Direction:
    """What all connections share one way."""

    def __init__(self, delay: float, rate: float) -> None:
        self.delay, self.rate = delay, rate
        self.room = int(min(64 << 20, BLOCK + rate * delay))  # bytes under way per connection
        self.free_at = 0.0  # when the wire has sent what it was given
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.count = 0  # bytes

    def due(self, length: int) -> float:
        now = asyncio.get_running_loop().time()
        self.free_at = max(self.free_at, now) + length / self.rate
        return self.free_at + self.delay


class Proxy:
    def __init__(self, port: int, round_trip: float, rate: float) -> None:
        self.port = port
        self.there, self.back = (Direction(round_trip / 2, rate) for _ in range(2))
        self.writers: set[asyncio.StreamWriter] = set()
        self.made = 0
        self.cut_at: int | None = None

    async def serve(self) -> None:
        server = await asyncio.start_server(self.connect, "127.0.0.1", 0, limit=BLOCK)
        print(server.sockets[0].getsockname()[1], flush=True)
        commands = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        while line := (await commands.readline()).decode().split():
            self.do(*line)
            print(self.back.count if line == ["received"] else self.made, flush=True)

    def do(self, command: str, count: str = "") -> None:
        for direction in (self.there, self.back):
            if command == "stall":
                direction.flowing.clear()
            elif command == "flow":
                direction.flowing.set()
        if command == "cut":
            self.cut()
        elif command == "cut-after":
            self.cut_at = self.back.count + int(count)

    def cut(self) -> None:
        for writer in self.writers:
            writer.transport.abort()

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.made += 1
        try:
            far = await asyncio.open_connection("127.0.0.1", self.port, limit=BLOCK)
        except OSError:
            writer.transport.abort()
            return
        self.writers |= {writer, far[1]}
        both = (self.pump(reader, far[1], self.there), self.pump(far[0], writer, self.back))
        await asyncio.gather(*both)
        self.writers -= {writer, far[1]}

    async def pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Direction
    ) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(max(1, way.room * 4 // BLOCK))
        sender = asyncio.create_task(self.send(queue, writer, way))
        try:
            while data := await reader.read(BLOCK):
                await queue.put((way.due(len(data)), data))
        except OSError:
            pass  # the other end is told by the end of this one
        await queue.put((0.0, b""))
        await sender

    async def send(
        self,
        queue: asyncio.Queue[tuple[float, bytes]],
        writer: asyncio.StreamWriter,
        way: Direction,
    ) -> None:
        loop = asyncio.get_running_loop()
        while (item := await queue.get())[1]:
            due, data = item
            await asyncio.sleep(max(0.0, due - loop.time()))
            await way.flowing.wait()
            way.count += len(data)
            if way is self.back and self.cut_at is not None and way.count >= self.cut_at:
                self.cut_at = None
                self.cut()
            try:
                writer.write(data)
                await writer.drain()
            except OSError:
                pass  # it is read to its end all the same
        writer.close()


if __name__ == "__main__":
    asyncio.run(Proxy(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])).serve())
