"""What is kept in memory: a few open things that are lent out, and bytes up to a bound."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Thing = TypeVar("Thing")


@dataclass(eq=False)
class _Place(Generic[Thing]):
    """One thing: how many use it now, and what it weighs."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    thing: Thing | None = None
    users: int = 0
    weight: int = 0


class Shelf(Generic[Key, Thing]):
    """Open things, of which those used last are kept; none is closed while it is lent.

    Args:
        make: opens a thing.
        close: is called once, when it is put away.
        weigh: what a thing counts.
        most: what all that are kept may weigh together.
    """

    def __init__(
        self,
        make: Callable[[Key], Thing],
        close: Callable[[Thing], None],
        weigh: Callable[[Thing], int],
        most: int,
    ) -> None:
        self._make, self._close, self._weigh, self._most = make, close, weigh, most
        self._lock = threading.Lock()
        self._places: OrderedDict[Key, _Place[Thing]] = OrderedDict()

    @contextmanager
    def lent(self, key: Key) -> Iterator[Thing]:
        """A thing, opened by the first who asks for it while others wait; raises what ``make`` does."""
        with self._lock:
            place = self._places.setdefault(key, _Place())
            self._places.move_to_end(key)
            place.users += 1
        try:
            with place.lock:
                if place.thing is None:
                    place.thing = self._make(key)
                    place.weight = self._weigh(place.thing)
            yield place.thing
        finally:
            with self._lock:
                place.users -= 1
                left = self._surplus(self._most)
                if not place.users and self._places.get(key) is not place and place not in left:
                    left.append(place)  # it was dropped while it was lent
            self._put_away(left)

    def drop(self, key: Key) -> None:
        """Put a thing away, now or when nobody uses it any more; who asks next gets a new one."""
        with self._lock:
            place = self._places.pop(key, None)
            left = [] if place is None or place.users else [place]
        self._put_away(left)

    def __len__(self) -> int:
        return len(self._places)

    def clear(self) -> None:
        """Put away all that nobody uses."""
        with self._lock:
            left = self._surplus(0)
        self._put_away(left)

    def _surplus(self, most: int) -> list[_Place[Thing]]:
        """Take off the shelf what could not be opened, and what is too much, longest unused first."""
        idle = [key for key, place in self._places.items() if not place.users]
        found = [self._places.pop(key) for key in idle if self._places[key].thing is None]
        for key in idle:
            if sum(place.weight for place in self._places.values()) <= most:
                break
            if key in self._places:
                found.append(self._places.pop(key))
        return found

    def _put_away(self, places: list[_Place[Thing]]) -> None:
        for place in places:
            if place.thing is not None:
                self._close(place.thing)


class Cache:
    """Bytes by name, those used last, up to ``most`` bytes in all."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self.size = 0

    def get(self, name: Hashable, make: Callable[[], bytes]) -> bytes:
        """What is kept under a name, or what ``make`` gives; two who ask at once may both make it."""
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name]
        made = make()
        if not made:  # there may be something later
            return made
        with self._lock:
            self.size += len(made) - len(self._kept.pop(name, b""))
            self._kept[name] = made
            while self.size > self._most:
                self.size -= len(self._kept.popitem(last=False)[1])
        return made
