# SPDX-License-Identifier: Apache-2.0
"""What every contestant does: read the arrays, time the calls, report on standard output.

Only NumPy and the standard library, so that every environment can import it.
"""

import json
import resource
import sys
import time

import numpy as np

_WARM_UP, _LIMIT = 0.3, 20  # Seconds of untimed and of timed calls.


def arrays():
    """The problem's arrays, from the file named by the second argument."""
    return dict(np.load(sys.argv[2]))


def report(call, value, **more):
    """Time ``call()`` and write medians, peak memory over the baseline and the value.

    Args:
      call: Computes the result and waits for it.
      value: The result as an array.
      **more: Further numbers to report, or functions to be called after the timing.
    """
    repeats, base = int(sys.argv[4]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    result = call()
    first, seconds = time.perf_counter() - start, []
    while time.perf_counter() - start < first + _WARM_UP:  # The first calls fetch their memory.
        del result
        result = call()
    for _ in range(repeats):
        del result  # Else two results would be alive at once and count as the method's memory.
        start = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - start)
        if sum(seconds) > _LIMIT:
            break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    np.save(sys.argv[3], value(result))
    numbers = {"median": float(np.median(seconds)), "first": first, "mib": (peak - base) / 1024}
    numbers["best"] = min(seconds)
    sys.stdout.write(json.dumps(numbers | {k: v() if callable(v) else v for k, v in more.items()}))
