"""From raw medical images to a calibrated, checked and reproducible ``submission.csv``."""

import os

# Idle compute threads sleep: spinning ones take the processor from the loader's workers, and from any
# other program (on two busy cores a training step takes ten times as long). Read when OpenMP is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
