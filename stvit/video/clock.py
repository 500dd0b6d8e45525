"""Time stamps of clips that were joined byte by byte: they start again with each part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from av.packet import Packet

BACK_S, AHEAD_S = 0.1, 10.0  # beyond these, FFmpeg's own tools too take a step of the clock for a join


class Clock:
    """Shifts the time stamps of one stream so that its parts follow each other.

    Args:
        start_s, joins_s: as in ``ClipInfo``.
        joined: whether to look for further joins.

    Attributes:
        starts_s: ``start_s`` and ``joins_s``, with the joins that were found.
        step_s: from the packet before to the last one.
    """

    def __init__(self, start_s: float, joins_s: Sequence[float] = (), joined: bool = False) -> None:
        self.starts_s = [start_s, *joins_s]
        self._joined = joined or bool(joins_s)
        self._part, self._last_s, self.step_s = 0, None, 0.0

    def correct(self, packet: Packet) -> None:
        """Shift a packet's times to the clock of the first part; packets come in the order of the file."""
        if not self._joined or packet.dts is None:
            return
        clock_s, last_s = float(packet.dts * packet.time_base), self._last_s
        if last_s is not None and not -BACK_S <= clock_s - last_s <= AHEAD_S:
            last_s -= self.starts_s[self._part]
            self._part += 1
            if self._part == len(self.starts_s):
                self.starts_s.append(clock_s - last_s - self.step_s)
        elif last_s is not None:
            self.step_s = clock_s - last_s
        self._last_s = clock_s
        shift = round((self.starts_s[self._part] - self.starts_s[0]) / packet.time_base)
        packet.dts -= shift
        if packet.pts is not None:
            packet.pts -= shift


@dataclass(frozen=True)
class Joined:
    """A clip by all packets of its picture.

    Attributes:
        joins_s: as in ``ClipInfo``; empty where nothing was joined.
        duration_s, frames, fps: of all parts together.
    """

    joins_s: tuple[float, ...]
    duration_s: float
    frames: int
    fps: float


def find_joins(packets: Iterable[Packet], start_s: float) -> Joined:
    """Find the parts of a clip in the packets of its picture."""
    clock, times_s = Clock(start_s, joined=True), [start_s]
    for packet in packets:
        clock.correct(packet)
        if packet.pts is not None:
            times_s.append(float(packet.pts * packet.time_base))
    frames, end_s = len(times_s) - 1, max(times_s) + clock.step_s
    fps = frames / max(end_s - min(times_s[1:], default=0.0), 1e-3)
    return Joined(tuple(clock.starts_s[1:]), end_s - start_s, frames, fps)
