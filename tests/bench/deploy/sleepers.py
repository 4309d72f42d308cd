"""A simulated fleet: when its devices are awake, day by day. Nothing is kept: every day can be asked for at any time.

Assumptions, from public knowledge, rounded:
- 62 % of office devices are laptops, 23 % desktops, 15 % workstations and servers that are always on. 2.5 % of the laptops
  lie in a drawer and are never opened.
- A laptop is awake in office hours: from about 8:45 for about 8.75 hours (standard deviations 45 minutes and one hour), on
  half of the days with a break of 45 minutes. On a travel day (15 %) it is opened twice, for half an hour to two hours. One
  evening in five and one weekend day in seven it is opened for an hour or two. A lid that is closed suspends everything;
  timers go on when it is opened (CLOCK_MONOTONIC stands still meanwhile).
- About six of ten desktops are left on (turn-off rates of 36 % to 44 % in LBNL's after-hours surveys of offices); the
  others are switched off after work.
- People are away on one workday in eight: half of them take a holiday of one or two weeks that touches the first six weeks
  (25 days of leave and 10 public holidays of 260 workdays in a year), and 5 % of days are illness or elsewhere.
- Time zones as in a company on three continents: Pacific 12 %, Eastern 23 %, London 15 %, Central Europe 28 %, India 14 %,
  Singapore 8 %.
- 0.3 % of days a machine that is left on is down.
"""

from array import array
from collections.abc import Iterator
from math import cos, log, pi, sqrt

DAY = 86_400.0
HOUR = 3_600.0
HORIZON = 60
"""Days after which a device counts as gone."""

_ZONES = ((-8.0, 0.12), (-5.0, 0.35), (0.0, 0.50), (1.0, 0.78), (5.5, 0.92), (8.0, 1.0))
"""Hours from UTC, and the part of the fleet up to there."""
_MASK = (1 << 64) - 1

Interval = tuple[float, float]


def chance(*keys: int) -> float:
    """A number in [0, 1) that depends on the keys alone (splitmix64): the same day is the same whenever it is asked
    for, and no generator has to be kept for each device."""
    state = 0
    for key in keys:
        state = (state + key + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state / (_MASK + 1)


def normal(mean: float, deviation: float, *keys: int) -> float:
    """Normally distributed, by the same keys (Box-Muller)."""
    first, second = chance(*keys, 1), chance(*keys, 2)
    return mean + deviation * sqrt(-2 * log(1 - first)) * cos(2 * pi * second)


class Fleet:
    """`size` devices, numbered from 0, drawn by `seed`. Times are seconds since a Monday 00:00 UTC."""

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size = size
        self.seed = seed
        self._kinds = [self._kind(device) for device in range(size)]
        self._zones = array("d", (self._zone(device) for device in range(size)))

    def kind(self, device: int) -> str:
        """`laptop`, `drawer` (a laptop that is never opened), `office` (a desktop that is switched off), `on` (never)."""
        return self._kinds[device]

    def _kind(self, device: int) -> str:
        drawn = chance(self.seed, device, 10)
        if drawn < 0.62:
            return "drawer" if chance(self.seed, device, 13) < 0.025 else "laptop"
        return "on" if drawn >= 0.85 or chance(self.seed, device, 12) < 0.6 else "office"

    def keeps_time(self, device: int) -> bool:
        """Whether it sleeps, with its timers; a desktop is switched off, and its agent starts anew."""
        return self.kind(device) != "office"

    def awake(self, device: int, day: int) -> list[Interval]:
        """The times of one local day in which the device is awake, in order."""
        begin = day * DAY - self._zones[device] * HOUR
        kind = self.kind(device)
        if kind == "on":
            return [] if chance(self.seed, device, day, 11) < 0.003 else [(begin, begin + DAY)]
        if kind == "drawer" or self._away(device, day):
            return []
        hours = self._weekend(device, day, kind) if day % 7 >= 5 else self._workday(device, day, kind)
        return [(begin + start * HOUR, begin + min(end, 24.0) * HOUR) for start, end in hours]

    def awake_from(self, device: int, now: float) -> Iterator[Interval]:
        """What is left of the time in which it is awake now, and all later ones; those that touch are one, up to two
        days."""
        first = int((now + self._zones[device] * HOUR) // DAY)
        held: Interval | None = None
        for day in range(first, first + HORIZON):
            for start, end in self.awake(device, day):
                if end <= now:
                    continue
                start = max(start, now)
                if held and start <= held[1] < held[0] + DAY:
                    held = (held[0], end)
                    continue
                if held:
                    yield held
                held = (start, end)
        if held:
            yield held

    def awake_for(self, device: int, now: float, seconds: float) -> float | None:
        """When the device has been awake for so long from now on; None when that is beyond the horizon."""
        for start, end in self.awake_from(device, now):
            if end - start >= seconds:
                return start + seconds
            seconds -= end - start
        return None

    def until(self, device: int, now: float) -> float | None:
        """When a device that is awake now may go to sleep; None for one that sleeps."""
        found = next(self.awake_from(device, now), None)
        return found[1] if found and found[0] <= now else None

    def _zone(self, device: int) -> float:
        drawn = chance(self.seed, device, 14)
        return next(hours for hours, below in _ZONES if drawn < below)

    def _away(self, device: int, day: int) -> bool:
        if chance(self.seed, device, 15) < 0.5:
            begins = int(chance(self.seed, device, 16) * 56) - 14
            if begins <= day < begins + (7 if chance(self.seed, device, 17) < 0.5 else 14):
                return True
        return chance(self.seed, device, day, 18) < 0.05

    def _workday(self, device: int, day: int, kind: str) -> list[Interval]:
        keys = (self.seed, device, day)
        if kind == "laptop" and chance(*keys, 20) < 0.15:
            return [
                (hour, hour + 0.5 + 1.5 * chance(*keys, 21, place)) for place, hour in enumerate((9.0, 15.0))
            ]
        # somebody begins at about the same time every day
        begins = normal(normal(8.75, 0.6, self.seed, device, 22), 0.45, *keys, 23)
        ends = begins + max(2.0, normal(8.75, 1.0, *keys, 24))
        if kind == "office" or chance(*keys, 25) < 0.5:
            found = [(begins, ends)]
        else:
            found = [(begins, 12.5), (13.25, ends)] if begins < 12 and ends > 14 else [(begins, ends)]
        if kind == "laptop" and ends < 20 and chance(*keys, 26) < 0.2:
            found.append((20.0, 20.5 + 1.5 * chance(*keys, 27)))
        return found

    def _weekend(self, device: int, day: int, kind: str) -> list[Interval]:
        keys = (self.seed, device, day)
        if kind == "office" or chance(*keys, 28) >= 1 / 7:
            return []
        begins = 9.0 + 10.0 * chance(*keys, 29)
        return [(begins, begins + 1.0 + chance(*keys, 30))]
