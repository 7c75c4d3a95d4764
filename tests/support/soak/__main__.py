"""``make soak SECONDS=600``: soak half of the time with one server, half with two.

The exit status is 0 only if each lost or doubled task has a cause that its ack setting or
kombu explains, no two runs of one account were there at once, no window had more starts than
its rate allows, and no token is left.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

from tests.support.soak.load import soaking


def main(seconds: float, seed: int) -> int:
    """Soak for so many seconds, print what came of it, and return the exit status."""
    print(f"soaking for {seconds:.0f} s, seed {seed}", flush=True)
    well = True
    for apart in (False, True):
        print("the limiter has a server of its own" if apart else "one server for all", flush=True)
        with (
            tempfile.TemporaryDirectory() as name,
            soaking(Path(name), seed, apart=apart) as soak,
        ):
            figures = soak.run(seconds / 2)
            print(figures, flush=True)
            well = well and figures.is_well
    print("all is well" if well else "NOT WELL")
    return 0 if well else 1


if __name__ == "__main__":
    given = dict(enumerate(sys.argv[1:]))
    # 0 stands for none: the Makefile's SECONDS has that where nobody says how long.
    sys.exit(main(float(given.get(0, 0)) or 60, int(given.get(1, random.randrange(10**6)))))
