"""From raw medical images to a calibrated, checked and reproducible ``submission.csv``."""

import os

# Idle compute threads soon sleep instead of spinning: spinning takes the processor from the loader's
# workers and from other programs, at once sleeping slows a free machine. Read when OpenMP is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__version__ = "0.1.0"
