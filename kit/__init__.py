"""From raw medical images to a calibrated, checked and reproducible ``submission.csv``."""

__version__ = "0.1.0"
