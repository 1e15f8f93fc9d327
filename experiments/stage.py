"""One stage in a process of its own, as `jaxrobust.experiments.runner` starts it.

    python -m jaxrobust.experiments.stage LOCK MODULE ARGUMENT…

is `python -m MODULE ARGUMENT…` with two promises. Two stages never write at the same time: each
holds the lock, so that what an earlier, killed call has left running ends first. On Linux it does
so at once: it gets SIGTERM when the call that started it is killed.
"""

import contextlib
import ctypes
import runpy
import signal
import sys

from filelock import FileLock

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run the module that the command line names."""
    lock, module, *arguments = sys.argv[1:]
    with contextlib.suppress(OSError, AttributeError):  # elsewhere there is no prctl
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    with FileLock(lock):
        sys.argv[1:] = arguments
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
