"""From raw medical images to a calibrated, checked and reproducible ``submission.csv``.

In a notebook, or in a declaration of your own::

    from kit import Competition, Run, Tables, WeightedLogLoss, read_table
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kit.competition import (
        Claim,
        Competition,
        Demo,
        FoldPlan,
        SecondLevel,
        Tables,
        TileGrid,
        Training,
        Tuning,
        find,
    )
    from kit.metrics import LogLoss, WeightedLogLoss
    from kit.show.notebook import Run
    from kit.tables import read_table

# Idle compute threads soon sleep instead of spinning: spinning takes the processor from the loader's
# workers and from other programs, at once sleeping slows a free machine. Read when OpenMP is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__version__ = "0.1.0"
__all__ = (
    "Claim",
    "Competition",
    "Demo",
    "FoldPlan",
    "LogLoss",
    "Run",
    "SecondLevel",
    "Tables",
    "TileGrid",
    "Training",
    "Tuning",
    "WeightedLogLoss",
    "find",
    "read_table",
)
_PLACES = {"LogLoss": "metrics", "WeightedLogLoss": "metrics", "Run": "show.notebook", "read_table": "tables"}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is: ``import kit`` alone takes no time."""
    if name not in __all__:
        raise AttributeError(f"module 'kit' has no attribute '{name}'")
    return getattr(import_module(f"kit.{_PLACES.get(name, 'competition')}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
