"""The main job: raw files in, a calibrated and checked submission.csv out.

python run_all.py [competition] [--data DIR] [--weights NAME=FILE ...] [--work DIR]
"""

import sys

from kit.__main__ import guarded, run_flow

if __name__ == "__main__":
    sys.exit(guarded(run_flow))
