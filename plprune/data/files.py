# SPDX-License-Identifier: Apache-2.0
"""Files that are read whole: regular ones of a bounded size, whatever lies at their path."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

LARGEST_TEXT = 2**26  # Bytes of JSON, which takes many times as much memory once it is parsed.
LARGEST = 2**33  # Bytes of arrays.


def opened(path: str | Path, largest: int = LARGEST) -> BinaryIO:
    """A regular file of at most `largest` bytes, open for reading.

    A named pipe would wait for ever, and a link to a device may have no end: neither is opened.

    Raises:
      OSError: If the file is missing or cannot be read.
      ValueError: If it is not a regular file, or larger.
    """
    # Not to wait for whoever would write into a pipe.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} must be a regular file.")
        if status.st_size > largest:
            raise ValueError(f"{path} must have at most {largest:,} bytes, got {status.st_size:,}.")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def content(path: str | Path, largest: int = LARGEST) -> bytes:
    """All bytes of a file; errors as of `opened`."""
    with opened(path, largest) as file:
        return file.read(os.fstat(file.fileno()).st_size)


def text(path: str | Path, largest: int = LARGEST_TEXT) -> str:
    """A file as UTF-8; errors as of `opened`, and ValueError for other bytes."""
    return content(path, largest).decode()
