"""Regions on one machine: network namespaces, joined by long links.

    with Network(("eu", "us"), delay_ms=40) as network:
        with network.regions["us"]:
            ...  # sockets made here and processes started here are in "us"
        network.cut("eu", "us")

Each region is a network namespace of its own with one device, a TUN: the packets that
its kernel would send come to us, and a thread hands each one to the region that it is
for, after the link's delay. The kernels' real TCP runs on top. (netem is the usual
tool for this, but a part of the kernel that may be missing; TUN hardly ever is.)

Rules:
* A namespace has no name. It lives while a descriptor of it is open or a process is in
  it, so nothing is left behind, however a test ends.
* What is cut is silent: packets get lost and nobody is told, as when a cable breaks.
* The delay is the same for all packets of a link, so they keep their order.

Needs root, the ``ip`` program and /dev/net/tun; ``why_not`` says what is missing.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import itertools
import os
import selectors
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

_CLONE_NEWNET = 0x40000000  # sched.h
_TUNSETIFF = 0x400454CA  # if_tun.h, and the next two
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000  # bare packets
_TUN = "/dev/net/tun"
_HERE = "/proc/thread-self/ns/net"
_PACKET_BYTES = 1 << 16
_PACKETS_AT_ONCE = 64  # of one device, before the others have their turn

_libc = ctypes.CDLL(None, use_errno=True)


def why_not() -> str:
    """Why there can be no regions here; "" if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not Path(_TUN).exists():
        return f"there is no {_TUN}"
    if shutil.which("ip") is None:
        return "there is no ip (iproute2)"
    try:
        Region("probe", 1).close()
    except OSError as error:
        return f"no network namespace can be made: {error}"
    return ""


class Region:
    """A namespace and its device. As a context manager: the calling thread is in it,
    and so is what it makes: sockets, processes. It may be entered within another."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.address = f"10.77.0.{number}"
        self._back: list[int] = []  # where those who entered came from
        with ExitStack() as undo:
            before = _open(_HERE, undo)
            _check(_libc.unshare(_CLONE_NEWNET))
            try:
                self._namespace = _open(_HERE, undo)
                self.device = _open(_TUN, undo, os.O_RDWR | os.O_NONBLOCK)
                request = struct.pack("16sH22x", b"wan", _IFF_TUN | _IFF_NO_PI)
                fcntl.ioctl(self.device, _TUNSETIFF, request)
                self._configure()
            finally:
                _check(_libc.setns(before, _CLONE_NEWNET))
            undo.pop_all()
            os.close(before)

    def _configure(self) -> None:
        commands = (
            "link set lo up",
            f"address add {self.address}/24 dev wan",
            "link set wan up",
        )
        done = subprocess.run(
            ["ip", "-batch", "-"],
            input="\n".join(commands).encode(),
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise OSError(done.stderr.decode(errors="replace").strip())

    def __enter__(self) -> Region:
        self._back.append(os.open(_HERE, os.O_RDONLY))
        _check(_libc.setns(self._namespace, _CLONE_NEWNET))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        back = self._back.pop()
        try:
            _check(_libc.setns(back, _CLONE_NEWNET))
        finally:
            os.close(back)

    def close(self) -> None:
        """Let go of it; it ends with the last process in it."""
        os.close(self.device)
        os.close(self._namespace)


class Network:
    """Regions and the links between each two of them."""

    def __init__(self, names: Iterable[str], delay_ms: float) -> None:
        self.delay_ms = delay_ms  # one way
        self.regions: dict[str, Region] = {}
        with ExitStack() as undo:
            for number, name in enumerate(names, 1):
                region = self.regions[name] = Region(name, number)
                undo.callback(region.close)
            self._undo = undo.pop_all()
        self._by_address = {_packed(r.address): r for r in self.regions.values()}
        self._cuts: frozenset[frozenset[str]] = frozenset()  # replaced, never changed
        # When, a number that keeps the order, for whom, what.
        self._under_way: list[tuple[float, int, Region, bytes]] = []
        self._numbers = itertools.count()
        self._end_read, self._end_write = os.pipe()
        self._thread = threading.Thread(target=self._carry, name="network", daemon=True)

    def __enter__(self) -> Network:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.write(self._end_write, b"x")
        self._thread.join()
        os.close(self._end_write)
        os.close(self._end_read)
        self._undo.close()

    def cut(self, one: str, other: str) -> None:
        """From now on nothing passes between the two; what is under way is lost too."""
        self._cuts |= {frozenset((one, other))}

    def isolate(self, name: str) -> None:
        """Cut all of a region's links."""
        for other in self.regions:
            if other != name:
                self.cut(name, other)

    def heal(self) -> None:
        """Every link is whole again."""
        self._cuts = frozenset()

    # --- the thread's part -----------------------------------------------------------

    def _carry(self) -> None:
        with selectors.SelectSelector() as selector:  # the others count in milliseconds
            selector.register(self._end_read, selectors.EVENT_READ)
            for region in self.regions.values():
                selector.register(region.device, selectors.EVENT_READ, region)
            while True:
                due = self._under_way[0][0] if self._under_way else None
                left_s = None if due is None else max(0.0, due - time.monotonic())
                for key, _ in selector.select(left_s):
                    if key.data is None:
                        return
                    self._take(key.data)
                self._deliver()

    def _take(self, source: Region) -> None:
        due = time.monotonic() + self.delay_ms / 1000
        for _ in range(_PACKETS_AT_ONCE):
            try:
                packet = os.read(source.device, _PACKET_BYTES)
            except BlockingIOError:
                return
            # IPv6 finds nobody here: the addresses are those of IPv4.
            target = self._by_address.get(packet[16:20]) if packet[0] >> 4 == 4 else None
            if target is not None and not self._is_cut(source, target):
                heapq.heappush(self._under_way, (due, next(self._numbers), target, packet))

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._under_way and self._under_way[0][0] <= now:
            _, _, target, packet = heapq.heappop(self._under_way)
            source = self._by_address.get(packet[12:16])
            if source is not None and self._is_cut(source, target):
                continue
            with suppress(OSError):  # its queue is full: lost, as on any network
                os.write(target.device, packet)

    def _is_cut(self, one: Region, other: Region) -> bool:
        return frozenset((one.name, other.name)) in self._cuts


def _open(path: str, undo: ExitStack, flags: int = os.O_RDONLY) -> int:
    descriptor = os.open(path, flags)
    undo.callback(os.close, descriptor)
    return descriptor


def _packed(address: str) -> bytes:
    return bytes(map(int, address.split(".")))


def _check(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
