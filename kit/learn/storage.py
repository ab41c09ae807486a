"""Where the studies of a search are kept: a journal file in the work folder, or a database.

Any number of processes may read and write either at once; those of several machines need a database.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from pathlib import Path

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, journal

from kit.errors import SettingError
from kit.files import locked
from kit.state import Run

# What seconds to wait are called: for a server that does not answer, or a file that another writes.
TIMEOUTS = {"postgresql": "connect_timeout", "mysql": "connect_timeout", "sqlite": "timeout"}
TIMEOUT = 20
RACES = 5  # times that tables are looked for again, which another process makes at this moment
EXAMPLE = "postgresql+psycopg://USER@HOST/DATABASE"
log = logging.getLogger("kit")


def open_storage(run: Run) -> BaseStorage:
    """The journal of the work folder, or the database that ``tune.storage`` names.

    Raises:
        SettingError: the database cannot be reached, or has no driver here.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = run.competition.tuning.storage
    if url:
        return _database(url)
    path = journal_path(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    return journal.JournalStorage(journal.JournalFileBackend(str(path), lock_obj=_Lock(path)))


def journal_path(run: Run) -> Path:
    """The file where studies are kept unless a database is named."""
    return run.folder("tune") / "study.journal"


def masked(text: str) -> str:
    """The text without the passwords of addresses in it.

    >>> masked("postgresql+psycopg://me:secret@host/db"), masked("mysql://host/db?user=me&password=secret")
    ('postgresql+psycopg://me:***@host/db', 'mysql://host/db?user=me&password=***')
    """
    text = re.sub(r"(://[^/@\s:]*):[^@\s]*@", r"\1:***@", text)
    return re.sub(r"(passw\w*=)[^&\s]*", r"\1***", text)


def _database(url: str) -> BaseStorage:
    """A database whose tables are there.

    Raises:
        SettingError: it cannot be used; says why, without the password.
    """
    shown = masked(url)
    try:
        address = sqlalchemy.make_url(url)
        name = TIMEOUTS.get(address.get_backend_name())
        options = {"connect_args": {name: TIMEOUT}} if name else {}
        return optuna.storages.get_storage(_with_tables(url, options))
    except (sqlalchemy.exc.ArgumentError, ValueError) as error:
        hint = f"write it as {EXAMPLE}, or leave it out: the journal in the work folder needs no server"
        raise SettingError(f"tune.storage cannot be '{shown}': {_reason(error, url)}", hint) from None
    except ImportError:
        hint = (
            f"type: pip install 'psycopg[binary]', and write {EXAMPLE}; or install the driver that you name"
        )
        raise SettingError(f"tune.storage: no driver for '{shown}' is installed", hint) from None
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
        hint = "start the server, or correct host, user and database; a password may also stand in ~/.pgpass"
        raise SettingError(f"tune.storage: '{shown}' cannot be used: {_reason(error, url)}", hint) from None


def _with_tables(url: str, options: dict[str, dict[str, int]]) -> optuna.storages.RDBStorage:
    """Optuna's tables, made if they are not there; another process may be making them at this moment."""
    for _ in range(RACES):
        with contextlib.suppress(sqlalchemy.exc.ProgrammingError, sqlalchemy.exc.IntegrityError):
            return optuna.storages.RDBStorage(url, engine_kwargs=options)
        time.sleep(0.5)
    return optuna.storages.RDBStorage(url, engine_kwargs=options)


def _reason(error: Exception, url: str) -> str:
    """The first line of what a library says, without the password."""
    cause = getattr(error, "orig", None) or error
    text = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
    with contextlib.suppress(Exception):  # an address that no library reads holds no password that it repeats
        if password := sqlalchemy.make_url(url).password:
            text = text.replace(password, "***")
    return masked(text)


class _Lock(journal.JournalFileOpenLock):
    """Lets one process write at a time; what a kill left of a line is cut off before the next is written.

    Optuna's own locks are files, which a killed process leaves behind; this one the system frees.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._held = contextlib.ExitStack()

    def acquire(self) -> bool:
        held = contextlib.ExitStack()
        held.enter_context(locked(self._path.with_suffix(".lock")))
        self._held = held
        drop_torn_line(self._path)
        return True

    def release(self) -> None:
        self._held.close()


def drop_torn_line(path: Path) -> None:
    """Cut off what a kill left of a line, so that the next entry begins on a line of its own."""
    with contextlib.suppress(FileNotFoundError), path.open("r+b") as stream:
        if not stream.seek(0, 2):
            return
        stream.seek(-1, 2)
        if stream.read() != b"\n":
            stream.seek(0)
            stream.truncate(stream.read().rfind(b"\n") + 1)
