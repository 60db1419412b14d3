"""Learning-rate schedules in the syntax that users of A1111's Train tab know, and shapes laid over them.

`0.005:100, 1e-3:1000, 1e-5`: a rate holds while the updates done are fewer than the number behind it; the last may be
bare and holds to the end. No interpolation. Warm-up, cosine and line multiply it, by the same factors as diffusers'
`get_cosine_schedule_with_warmup` and `get_linear_schedule_with_warmup`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["LearningRate", "ScheduleError", "parse_learning_rate"]


class ScheduleError(ValueError):
    """A learning rate cannot be read; the message names the position in the text."""


@dataclass(frozen=True)
class LearningRate:
    """Pieces of (rate, end): the rate holds for updates numbered below `end`, counted from 0."""

    pieces: tuple[tuple[float, float], ...]
    warmup: int = 0  # updates in which the rate rises from 0
    cosine_end: int | None = None  # update at which half a cosine has brought the rate down to 0
    linear_end: int | None = None  # update at which a straight line has

    def at(self, done: int) -> float:
        """Return the rate of the update after `done` updates; the last rate holds for ever."""
        rate = next((rate for rate, end in self.pieces if done < end), self.pieces[-1][0])
        if done < self.warmup:
            return rate * done / self.warmup
        if self.linear_end is not None:
            return rate * max(0.0, (self.linear_end - done) / max(1, self.linear_end - self.warmup))
        if self.cosine_end is None:
            return rate
        share = (done - self.warmup) / max(1, self.cosine_end - self.warmup)
        return rate * (1 + math.cos(math.pi * min(1.0, share))) / 2


def parse_learning_rate(text: float | str) -> LearningRate:
    """Read a number or a schedule. Raises `ScheduleError` naming the position of what is wrong."""
    if not isinstance(text, str):
        text = repr(text)
    pieces: list[tuple[float, float]] = []
    position = 1
    parts = text.split(",")
    for index, part in enumerate(parts):
        rate_text, colon, end_text = part.partition(":")
        rate = _number(rate_text, position, text)
        end = math.inf
        if colon:
            end = _number(end_text, position + len(rate_text) + 1, text)
            if end != int(end) or end <= (pieces[-1][1] if pieces else 0):
                raise ScheduleError(
                    f"learning rate {text!r}, position {position + len(rate_text) + 1}: steps are whole and increase"
                )
        elif index < len(parts) - 1:
            raise ScheduleError(f"learning rate {text!r}, position {position}: only the last rate may lack `:step`")
        pieces.append((rate, end))
        position += len(part) + 1
    return LearningRate(tuple(pieces))


def _number(text: str, position: int, whole: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value <= 0:
        raise ScheduleError(f"learning rate {whole!r}, position {position}: {text.strip()!r} is not a number above 0")
    return value
