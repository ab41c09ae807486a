"""A process is told apart from another one with its number, on this machine or another."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

from kit import processes
from kit.processes import Process


def test_this_process_is_alive_and_another_in_its_place_is_not() -> None:
    mine = processes.mine()
    assert mine == processes.mine() and mine.pid == os.getpid() and mine.is_here and not mine.is_dead
    assert replace(mine, start=mine.start + 1).is_dead


def test_a_process_that_ended_is_dead() -> None:
    program = "from kit import processes; print(processes.mine())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    child = Process.parse(done.stdout.strip())
    assert child is not None and child.is_here and child.is_dead


def test_nothing_is_known_of_a_process_of_another_machine() -> None:
    other = replace(processes.mine(), host="00000000", pid=999999999)
    assert not other.is_here and not other.is_dead


def test_a_fork_has_a_name_of_its_own() -> None:
    parent = processes.mine()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, str(processes.mine()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    found = Process.parse(os.read(reading, 100).decode())
    assert found is not None and found.pid == child and found.host == parent.host


def test_names_are_read_back_and_others_are_not_taken_for_them() -> None:
    mine = processes.mine()
    assert Process.parse(str(mine)) == mine
    assert [Process.parse(text) for text in ("", "a-b-c", "0a1b2c3d-4", "0a1b2c3d-4-x", "0a1b-4-5")] == [
        None
    ] * 5
