"""The code of a bundle: the kit as it is here, a user's own declaration, and what the kernel must know."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kit.deliver import archive, declared, kaggle, kernel_script
from kit.errors import SettingError
from kit.files import write_json, write_text
from kit.state import Run

CODE, ABOUT, FOLDS = "kit-code.whl", "bundle.json", "folds.csv"  # a .zip would be unpacked by Kaggle
STAGES = {"predict": (), "tile": ("tile",), "train": ("fold", "tile", "tune", "train", "predict")}


def files(run: Run) -> dict[str, Path]:
    """What the archive of code holds: the package, and ``task/`` with a declaration and its own modules."""
    root = Path(__file__).parents[1]
    found = {f"kit/{path.relative_to(root).as_posix()}": path for path in _sources(root)}
    if run.asked.endswith(".py"):
        top = Path(run.asked).parent
        found |= {f"task/{path.relative_to(top).as_posix()}": path for path in _with_own(Path(run.asked))}
    if (own := requirements_of(run)) is not None:
        found[f"task/{own.name}"] = own
    return found


def _sources(root: Path) -> Iterator[Path]:
    """The files of a package, without what Python or an editor left there."""
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root).parts
        if path.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in inside):
            yield path


def _with_own(declaration: Path) -> list[Path]:
    """A declaration, and those modules beside it that it imports, or that these import."""
    found, todo = [declaration], [declaration]
    while todo:
        for name in imported(todo.pop()):
            module, package = declaration.with_name(f"{name}.py"), declaration.with_name(name)
            beside = list(_sources(package)) if (package / "__init__.py").is_file() else []
            new = [path for path in (module, *beside) if path.is_file() and path not in found]
            found += new
            todo += [path for path in new if path.suffix == ".py"]
    return found


def imported(path: Path) -> set[str]:
    """The top-level names that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names - {"kit"}


def requirements_of(run: Run) -> Path | None:
    """The file ``my_task-requirements.txt`` beside a user's own ``my_task.py``, if there is one."""
    if not run.asked.endswith(".py"):
        return None
    path = Path(run.asked)
    found = path.with_name(f"{path.stem}-requirements.txt")
    return found if found.is_file() else None


def write(run: Run, folder: Path, about: Mapping[str, Any]) -> None:
    """Write the part: the archive, ``bundle.json``, and the fold table where it was given."""
    folder.mkdir(parents=True, exist_ok=True)
    archive.pack(files(run), folder / CODE)
    if about["folds_file"]:
        shutil.copyfile(run.folds, folder / FOLDS)
    write_json(folder / ABOUT, about)


def about(run: Run, stage: str, limits: Mapping[str, float]) -> dict[str, Any]:
    """What ``bundle.json`` says without looking at weights or wheels."""
    task = run.competition
    predicts = stage == "predict"
    return {
        "stage": stage,
        "stages": list(STAGES[stage]),
        "run": run.submission.name if predicts else "",
        "declared": declared.written(run),
        "task": f"task/{Path(run.asked).name}" if run.asked.endswith(".py") else None,
        "tables": tables(run),
        "slug": task.kaggle,
        "folds_file": FOLDS if stage == "train" and needs_folds(run) else None,
        "prior": prior(run) if predicts else [1 / len(task.classes)] * len(task.classes),
        "unit": task.unit,
        "classes": list(task.classes),
        "limits": dict(limits),
    }


def needs_folds(run: Run) -> bool:
    """Whether the folds cannot be drawn again from the tables alone."""
    return run.folds_given or bool(run.competition.folds.duplicates)


def prior(run: Run) -> list[float]:
    """What a unit without a usable image gets."""
    content = json.loads((run.folder("combine") / "second_level.json").read_text())
    return [float(value) for value in content["scored_prior"]]


def tables(run: Run) -> list[str]:
    """The names by which a kernel knows the data folder: of the tables at its top that the task must have.

    Others beside them, as the truth of a demo, need not be there where a hidden test is mounted.
    """
    raw = run.competition.load(run.data)
    sources = [frame.attrs.get("source") for frame in (raw.train, raw.test, raw.sample) if frame is not None]
    if None in sources:  # a declaration of one's own that does not use kit.tables
        return sorted(path.name for path in run.data.glob("*.csv"))
    return sorted({Path(str(source)).name for source in sources if Path(str(source)).parent == run.data})


def require_found(run: Run, names: Sequence[str], stage: str) -> None:
    """The script will know the data folder by these tables, and find the ids that are asked for.

    Raises:
        SettingError: it will not; says what it looks for.
    """
    task, hint = run.competition, "bring the tables to the top of the data folder, under Kaggle's names"
    if not names:
        raise SettingError(f"no table of {task.name} is at the top of {run.data}: a kernel looks there", hint)
    if stage != "predict":
        return
    try:
        tables = {name: kernel_script.rows(run.data / name) for name in names}
        kernel_script.asked(tables, task.unit, task.classes)
    except kernel_script.Fault as fault:
        asked = f"a sample with the columns {','.join((task.unit, *task.classes))}, or test.csv"
        raise SettingError(f"a kernel would not know what to predict: {fault}", f"{hint}: {asked}") from fault


# -- the script


def script(values: Mapping[str, Any]) -> str:
    """The kernel's script: `kit.deliver.kernel_script` with its constants set to these values.

    Raises:
        KeyError: the script has no constant of such a name that it must have.
    """
    source = Path(__file__).with_name("kernel_script.py").read_text(encoding="utf-8")
    return rendered(source, values)


def rendered(source: str, values: Mapping[str, Any]) -> str:
    """Python source whose assignments at top level to these names assign other values.

    >>> rendered("A: int = 1  # a note\\nB = 2\\n", {"A": (3,), "C": 0})
    'A = (3,)\\nB = 2\\n'
    """
    lines = source.splitlines(keepends=True)
    for node in reversed(ast.parse(source).body):
        targets: Sequence[ast.expr] = (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AnnAssign)
            else []
        )
        names = [target.id for target in targets if isinstance(target, ast.Name) and target.id in values]
        if names:
            assert node.end_lineno is not None
            lines[node.lineno - 1 : node.end_lineno] = [f"{names[0]} = {values[names[0]]!r}\n"]
    return "".join(lines)


def write_script(folder: Path, values: Mapping[str, Any]) -> None:
    """Write the kernel's one file."""
    write_text(folder / kaggle.SCRIPT, script(values))
