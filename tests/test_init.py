"""What ``from kit import ...`` offers."""

from __future__ import annotations

import subprocess
import sys

import pytest

import kit


@pytest.mark.parametrize("name", kit.__all__)
def test_every_public_name_is_there_and_has_a_docstring(name: str) -> None:
    assert getattr(kit, name).__doc__
    assert name in dir(kit)


def test_a_name_that_is_not_there_is_an_ordinary_error() -> None:
    with pytest.raises(AttributeError, match="'kit' has no attribute 'Flow'"):
        _ = kit.Flow


def test_the_package_alone_imports_none_of_its_libraries() -> None:
    code = "import sys, kit; print(*{'numpy', 'pandas', 'torch', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
