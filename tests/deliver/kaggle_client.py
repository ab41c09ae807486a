"""Runs Kaggle's own client on bundles without its network; prints JSON of what it would send.

A program of its own, started by the tests: ``python kaggle_client.py FOLDER...``; a folder with a kernel is
pushed, any other is created as a data set. The package ``kaggle`` logs in when it is imported, so its modules
are loaded without it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import socket
import sys
import types
from pathlib import Path
from typing import Any


class Recorder:
    """Stands for the connection to Kaggle: any call is noted and answered with what it was given."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def __getattr__(self, name: str) -> Recorder:
        return self

    def __call__(self, request: Any) -> Any:
        self.sent.append(request)
        return types.SimpleNamespace(error="", status="ok")


def load() -> Any:
    """The module of the client, of the installed package, which is not itself run."""
    spec = importlib.util.find_spec("kaggle")
    assert spec is not None and spec.submodule_search_locations
    package = types.ModuleType("kaggle")
    package.__path__ = list(spec.submodule_search_locations)
    package.__version__ = "0"  # type: ignore[attr-defined]
    sys.modules["kaggle"] = package
    return importlib.import_module("kaggle.api.kaggle_api_extended")


def client(module: Any, recorder: Recorder) -> Any:
    """The client without its login and its network."""

    class Offline(module.KaggleApi):  # type: ignore[misc, name-defined]
        def build_kaggle_client(self) -> Any:
            return contextlib.nullcontext(recorder)

        def dataset_status(self, dataset: str) -> str:
            raise module.HTTPError("there is none yet")

        def _upload_file(self, name: str, *_: Any) -> Any:
            return types.SimpleNamespace(token=name, description="", columns=None)

        def with_retry(self, call: Any, *_: Any) -> Any:
            return call

    api = Offline()
    api.config_values = {"username": "somebody"}
    return api


def main(folders: list[str]) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the client wanted the network")

    socket.socket.connect = refuse  # type: ignore[method-assign, assignment]
    found, module = {}, load()
    for folder in folders:
        recorder = Recorder()
        api = client(module, recorder)
        with contextlib.redirect_stdout(sys.stderr):
            if (Path(folder) / "kernel-metadata.json").is_file():
                api.kernels_push(folder)
            else:
                api.dataset_create_new(folder, dir_mode="zip")
        (request,) = recorder.sent
        found[folder] = json.loads(request.to_json(request)) if hasattr(request, "to_json") else str(request)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
