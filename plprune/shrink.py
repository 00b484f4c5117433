# SPDX-License-Identifier: Apache-2.0
"""``python -m plprune.shrink SOURCE TARGET --model MODULE:FUNCTION --keep KEEP.npz``."""

import sys

from plprune.nodes import shrink
from plprune.storage.command import main

if __name__ == "__main__":
    sys.exit(main())
# Who imports this file gets the function of this name, which `plprune.shrink` stays.
sys.modules[__name__] = shrink  # pyright: ignore[reportArgumentType]
