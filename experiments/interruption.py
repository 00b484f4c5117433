# SPDX-License-Identifier: Apache-2.0
"""Signals and streams of a command: no Ctrl-C is lost, and none prints a traceback.

The first Ctrl-C or SIGTERM is a KeyboardInterrupt, at which work in progress is saved. Where Python
swallows it, as in callbacks of the garbage collector, it is raised again. A second one ends the
process at once: whatever is on disk is whole at any moment.
"""

import atexit
import ctypes
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

INTERRUPTED = 130
PARENT = "PLPRUNE_PARENT"  # The process that a cell of a sweep is not to outlive.
SIGNALS = signal.SIGINT, signal.SIGTERM
SAME = 1.0  # Seconds: launchers such as `timeout` signal the process and then its group.
AGAIN = 0.05  # Seconds until what was swallowed is raised again.


class ClosedPipe(KeyboardInterrupt):
    """Nobody reads the output any more; what is under way is saved as at Ctrl-C."""


class _Asked:
    """When the first signal came; None before."""

    at: float | None = None


def listen() -> None:
    """Take over the signals and streams of this process until it ends."""
    # Registered first, it is called last: Python takes its handlers away soon after.
    atexit.register(lambda: [signal.signal(number, signal.SIG_IGN) for number in SIGNALS])
    _tie()
    _listen()


def _tie():
    """End with the process that is named as the parent, however that one ends.

    A cell that a sweep or Ray's worker left behind would keep its folder from the next. Its parent
    may have blocked Ctrl-C, as Ray's workers do.
    """
    parent = os.environ.pop(PARENT, None)
    if parent is None:
        return
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != int(parent):
        sys.exit("the process that started this one is gone")


def _listen():
    _Asked.at = None
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # Closed before the process began.
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):  # A terminal without a letter is no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    if threading.current_thread() is threading.main_thread():
        sys.unraisablehook = partial(_unraisable, sys.unraisablehook)
        signal.signal(signal.SIGALRM, _interrupt_again)
        for number in SIGNALS:
            # A job in the background was started deaf to Ctrl-C, and stays so.
            if number != signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _interrupt)


@contextmanager
def listening() -> Iterator[None]:
    """`listen` for the time of the block, for a process that goes on after the command."""
    main = threading.current_thread() is threading.main_thread()
    numbers = (*SIGNALS, signal.SIGALRM) if main else ()
    before, hook, asked = [signal.getsignal(n) for n in numbers], sys.unraisablehook, _Asked.at
    try:
        _listen()
        yield
    finally:
        _calm()
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        sys.unraisablehook, _Asked.at = hook, asked


def leave(code: int) -> None:
    """Exit with `code`, whatever signals and streams still do meanwhile."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, lambda *_: os._exit(code))
    _calm()
    sys.exit(code)


def asked() -> bool:
    """Whether an interruption was asked for."""
    return _Asked.at is not None


def check() -> None:
    """Raise KeyboardInterrupt where one was asked for and something has swallowed it."""
    if asked():
        _calm()
        raise KeyboardInterrupt


def is_read() -> bool:
    """Whether anybody may still read the output."""
    with suppress(OSError, ValueError):
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    return True


def complain(line: str) -> None:
    """Print a line on stderr where anybody is there to read it."""
    try:
        print(f"experiments: {line}", file=sys.stderr, flush=True)
    except OSError:
        _drop(sys.stderr)


def flushed() -> bool:
    """Whether all that was printed has been read; the rest of it is dropped.

    Raises:
      OSError: what was printed cannot be written, for another reason.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop(sys.stdout)
        return False
    except OSError:
        _drop(sys.stdout)
        raise
    return True


def _drop(stream):
    """What is left in the buffer goes nowhere: Python would write it again at its end."""
    with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def _calm():
    """Nothing that was swallowed is raised again."""
    if asked():
        signal.setitimer(signal.ITIMER_REAL, 0)


def _interrupt(number, frame):
    del number, frame
    if _Asked.at is None:
        _Asked.at = time.monotonic()
        raise KeyboardInterrupt
    if time.monotonic() - _Asked.at > SAME:
        with suppress(OSError):  # Progress bars have hidden the cursor.
            os.write(2, b"\x1b[?25h\n" if os.isatty(2) else b"")
        os._exit(INTERRUPTED)


def _interrupt_again(number, frame):
    del number, frame
    raise KeyboardInterrupt


def _unraisable(hook, what):
    """What Python could not raise, in a destructor or a callback."""
    if asked() and issubclass(what.exc_type, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
    else:
        hook(what)
