"""Names the file by which a process dies when a mapped file becomes shorter while it is read.

Reading a page that a mapped file has no more ends the process by SIGBUS, and no `except` sees it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

ADDRESS = 16  # bytes of siginfo_t before the address that could not be read, on every 64-bit Linux


class _Action(ctypes.Structure):  # struct sigaction, of glibc and musl
    _fields_ = [
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_byte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    ]


_SA_SIGINFO = 4
_before = _Action()
_process = 0


def name_bus_errors() -> None:
    """From now on a SIGBUS of this process says on stderr which file it was; then it ends as it would have.

    Call it before mapped files are read. Once a process is enough, and in a process that is forked once more:
    loader processes of torch have a handler of their own, which is called afterwards.
    """
    global _process
    if _process == os.getpid() or not sys.platform.startswith("linux") or ctypes.sizeof(ctypes.c_void_p) != 8:
        return
    _process = os.getpid()
    action = _Action(handler=ctypes.cast(_handler, ctypes.c_void_p), flags=_SA_SIGINFO)
    ctypes.CDLL(None, use_errno=True).sigaction(signal.SIGBUS, ctypes.byref(action), ctypes.byref(_before))


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
def _handler(number: int, about: int, context: int) -> None:
    # the read is tried again when this returns, so that the handler before this one has its turn
    ctypes.CDLL(None).sigaction(number, ctypes.byref(_before), None)
    address = ctypes.c_size_t.from_address(about + ADDRESS).value
    text = (
        f"{_mapped_at(address)}: process {os.getpid()} cannot go on reading it (SIGBUS): it was made shorter "
        "meanwhile, its disk failed, or, in /dev/shm, memory ran out. Restore it, and start again.\n"
    )
    os.write(2, text.encode(errors="surrogateescape"))


def _mapped_at(address: int) -> str:
    with open("/proc/self/maps", errors="surrogateescape") as maps:
        for line in maps:
            begin, _, end = line.split(" ", 1)[0].partition("-")
            if int(begin, 16) <= address < int(end, 16):
                return (line.split(maxsplit=5)[5:] or ["memory"])[0].strip()
    return "memory"
