"""Who is next: one image of each client in turn, so that nobody waits for another's hundred."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Items of clients; each client's come in order, clients take turns."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, deque[Item]] = OrderedDict()  # the first is next

    def __len__(self) -> int:
        return sum(len(line) for line in self._lines.values())

    def waiting(self, client: str) -> int:
        """Items of a client."""
        return len(self._lines.get(client, ()))

    def push(self, client: str, item: Item) -> None:
        """Add an item behind all of its client."""
        self._lines.setdefault(client, deque()).append(item)

    def pop(self, unless: Collection[str] = ()) -> Item | None:
        """Take the next item; None = none waits. Clients in `unless` have to wait."""
        client = next((name for name in self._lines if name not in unless), None)
        if client is None:
            return None
        line = self._lines[client]
        item = line.popleft()
        if line:
            self._lines.move_to_end(client)
        else:
            del self._lines[client]
        return item

    def remove(self, client: str, item: Item) -> bool:
        """Take an item out; whether it was there."""
        line = self._lines.get(client)
        if line is None or item not in line:
            return False
        line.remove(item)
        if not line:
            del self._lines[client]
        return True

    def in_order(self) -> Iterator[Item]:
        """All items as `pop` would take them."""
        place = 0
        longest = max((len(line) for line in self._lines.values()), default=0)
        while place < longest:
            for line in self._lines.values():
                if place < len(line):
                    yield line[place]
            place += 1
