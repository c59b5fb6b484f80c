"""The broker's parent: a small process, so that the broker cannot outlive who started it.

Run by path with ``free`` or ``leash``, a temporary folder (or an empty word) and the command. It starts the command and
writes its pid to stdout. With ``free`` that is all: the command stays behind as nobody's child. With ``leash`` it ends
with the command, and stdin is the leash: when its other end closes without a word, because the owner died (SIGKILL
included), the command is killed and the folder removed. Imports only the standard library: it starts in milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading

# From <linux/prctl.h>.
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """Even when this process is itself killed. Linux alone has this."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(mode: str, folder: str, command: list[str]) -> None:
    # The lock of the data directory is among the inherited descriptors: it is free once the broker is gone.
    leash = _die_with_parent if mode == "leash" and sys.platform == "linux" else None
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, close_fds=False, preexec_fn=leash)
    print(child.pid, flush=True)
    if mode == "free":
        os._exit(0)
    abandoned = threading.Event()

    def end_with_child() -> None:
        status = child.wait()
        if not abandoned.is_set():
            os._exit(abs(status))

    threading.Thread(target=end_with_child, daemon=True).start()
    # An owner that lets go says a word first; one that dies does not.
    if not sys.stdin.buffer.read():
        abandoned.set()
    child.kill()
    child.wait()
    if folder and abandoned.is_set():
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
