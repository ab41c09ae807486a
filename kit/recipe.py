"""A recipe is a TOML file of settings: ``[train]`` with ``epochs = 60`` is ``--set train.epochs=60``.

It is nothing but settings, above those of the competition and below the user's own ``--set``. A recipe may
begin with ``base = "NAME"``: the recipe that it changes.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from kit import settings
from kit.competition import Competition
from kit.errors import SettingError, did_you_mean

FOLDER = Path(__file__).with_name("recipes")


def names() -> list[str]:
    """The recipes that come with the kit."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def find(name: str, beside: Path | None = None) -> Path:
    """The file of a recipe: a name of the kit's own, or a path.

    Args:
        beside: the file that names it as its base; its folder is where a path begins.

    Raises:
        SettingError: there is none.
    """
    if name in names():
        return FOLDER / f"{name}.toml"
    path = Path(name) if beside is None else beside.parent / name
    if not path.is_file():
        hint = did_you_mean(name, names()) + "; or give the path of your own FILE.toml"
        message = f"there is no recipe '{name}'"
        raise SettingError(message if beside is None else f"{beside}: its base '{name}' does not exist", hint)
    return path


def apply(task: Competition, name: str) -> Competition:
    """The competition with the settings of a recipe.

    Raises:
        SettingError: no such recipe, no TOML, or a group, key or value that does not exist; says which
            file, key and value, and what is close.
    """
    for path in _with_bases(find(name)):
        for key, text in pairs(path):
            try:
                task = settings.apply(task, [(key, text)])
            except SettingError as error:
                raise SettingError(f"{path}: {error.message}", error.hint) from error
    return task


def pairs(path: Path) -> list[tuple[str, str]]:
    """The settings of one file as ``--set`` takes them, without those of its base.

    Raises:
        SettingError: no TOML, an unknown group, or a value that no setting takes.
    """
    found = []
    for group, content in _read(path).items():
        if group == "base":
            continue
        if group not in settings.GROUPS:
            raise SettingError(f"{path}: there is no group '{group}'", did_you_mean(group, settings.GROUPS))
        if not isinstance(content, dict):
            raise SettingError(f"{path}: '{group}' is a group", f"write [{group}] and KEY = VALUE below it")
        found += [(f"{group}.{key}", _text(path, f"{group}.{key}", value)) for key, value in content.items()]
    return found


def _with_bases(path: Path) -> list[Path]:
    """A recipe's file after those that it rests on."""
    chain = [path]
    while base := _read(chain[0]).get("base"):
        if not isinstance(base, str):
            raise SettingError(f"{chain[0]}: base cannot be {base!r}", 'it is one name: base = "strip-paper"')
        before = find(base, chain[0])
        if before in chain:
            raise SettingError(f"{chain[0]}: its base '{base}' rests on itself", "take one base out")
        chain.insert(0, before)
    return chain


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        hint = 'it is TOML: [train], and below it lines such as epochs = 60 or optimiser = "adam"'
        raise SettingError(f"{path} cannot be read: {error}", hint) from error


def _text(path: Path, key: str, value: Any) -> str:
    """A TOML value as ``--set`` would be given it.

    Raises:
        SettingError: a table, a date, or a list whose items do not survive commas.
    """
    if isinstance(value, list):
        items = [_text(path, key, item) for item in value]
        if comma := [item for item in items if "," in item]:
            raise SettingError(f"{path}: {key} has '{comma[0]}'", "an item of a list cannot hold a comma")
        return ",".join(items)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    hint = "a setting is a number, a string, true or false, or a list of such"
    raise SettingError(f"{path}: {key} cannot be {value!r}", hint)
