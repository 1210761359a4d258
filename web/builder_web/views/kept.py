"""Answers that are given again as they are while nothing has changed."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable

import trio
from attrs import define, field
from starlette.responses import Response

MAX_BYTES = 32 * 1024 * 1024
"""Bytes of answers that are kept, the last used ones."""

_MAX_ANSWER = 4 * 1024 * 1024
_Key = tuple[str, ...]


@define
class KeptAnswers:
    """Answers by what was asked for, and by what the database was then."""

    _answers: OrderedDict[_Key, tuple[object, Response]] = field(factory=OrderedDict)
    _size: int = 0
    _making: dict[_Key, trio.Lock] = field(factory=dict)

    async def get(self, key: _Key, state: object, make: Callable[[], Awaitable[Response]]) -> Response:
        """Return the answer that was made of the same state, or make it: once, however many ask at the same time."""
        if (found := self._find(key, state)) is not None:
            return found
        lock = self._making.setdefault(key, trio.Lock())
        try:
            async with lock:
                if (found := self._find(key, state)) is not None:
                    return found
                made = await make()
                self._keep(key, state, made)
                return made
        finally:
            if not lock.statistics().tasks_waiting:
                self._making.pop(key, None)

    def last(self, key: _Key) -> Response | None:
        """Return the last answer, whatever it was made of."""
        kept = self._answers.get(key)
        return kept[1] if kept is not None else None

    def _find(self, key: _Key, state: object) -> Response | None:
        kept = self._answers.get(key)
        if kept is None or kept[0] != state:
            return None
        self._answers.move_to_end(key)
        return kept[1]

    def _keep(self, key: _Key, state: object, answer: Response) -> None:
        if (before := self._answers.pop(key, None)) is not None:
            self._size -= len(before[1].body)
        if len(answer.body) > _MAX_ANSWER:
            return
        self._answers[key] = state, answer
        self._size += len(answer.body)
        while self._size > MAX_BYTES:
            _, (_, gone) = self._answers.popitem(last=False)
            self._size -= len(gone.body)
