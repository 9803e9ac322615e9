"""Peak resident memory of a training run; all arguments go to `experiments.train`.

python -m benchmarks.memory --dataset=mnist --network=conv --epochs=2
"""

from __future__ import annotations

import resource
import subprocess
import sys


def peak_megabytes() -> float:
    """Largest resident memory of any child process that has ended, in 10⁶ bytes."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def main() -> int:
    status = subprocess.run(
        [sys.executable, "-m", "experiments.train", *sys.argv[1:]], check=False
    ).returncode
    if status == 0:
        print(f"peak resident memory {peak_megabytes():,.0f} MB")
    return status


if __name__ == "__main__":
    sys.exit(main())
