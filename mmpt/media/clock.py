"""The one rule of time, for pictures and sound alike: which time stamps of a file are believed.

A row of features is one second of presentation time. Stamps say when a frame is shown, but not every stamp
is true: recordings are joined, clocks jump, single stamps are wrong or absent. Packets pass here between
reading and decoding, and leave with stamps on one running clock:

- a single stamp far from its neighbours is dropped; the frame follows the one before it;
- a clock that goes on elsewhere (backwards, or ahead by more than the file can hold) is moved to go on where
  it was, by the same shift for all streams of the file, so that pictures and sound stay together;
- packets before the first stamp count back from it, by their durations;
- a hole within what the file says of its length is a hole: the last frame stays, sound is silent.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from typing import Any

JUMP_S = 3.0  # ahead by less is a hole without question
UNKNOWN_END_S = 10.0  # a hole of a file that does not say how long it is
LAST_GAP = 10  # the last frame comes later than any before by no larger factor
REORDER_S = 0.5  # file order goes back by less
LAG_S = 5.0  # between the times of decoding and showing a frame
HEAD_PACKETS = 4096  # looked at for a first stamp
GUESSED_PACKETS = 64  # of all streams, behind the first stamps
HELD_PACKETS = 256  # looked at for the next packet of a stream
TS_DISCONT = 0x200  # FFmpeg's mark of formats whose recordings may be joined: MPEG streams


class Clock:
    """Packets of one stream with believable stamps.

    Args:
        container: an open file of PyAV.
        stream: the one whose packets are wanted.

    Attributes:
        moved: whether the clock of the file had to be moved; times in it are then no places to seek.
        mended: whether any stamp of the stream had to be moved, made up or dropped.
        reached_s: end of the last packet of any stream, so far.
    """

    def __init__(self, container: Any, stream: Any):
        self.container, self.stream = container, stream
        self.joined = bool(container.format.flags & TS_DISCONT)
        self.moved = self.mended = False
        self.reached_s = 0.0
        self._end = None  # seconds beyond which no stamp is believed
        if container.duration and not self.joined:  # that of a joined file is made from its stamps
            self._end = ((container.start_time or 0) + container.duration) / 1e6 + JUMP_S
        self._shift = 0.0  # of the file, seconds
        # stream -> its shift; streams change over one after the other
        self._own: defaultdict[int, float] = defaultdict(float)
        self._last: dict[int, float] = {}  # stream -> seconds of its last packet, moved
        self._widest: defaultdict[int, float] = defaultdict(float)  # stream -> longest time between two
        self._ticks: dict[int, float] = {}  # stream -> seconds of a tick
        self._lag = 0  # of the wanted stream, ticks

    def packets(self) -> Iterator[Any]:
        """Packets of the stream, in file order, the empty one that ends them included."""
        # all streams together tell a jump of the clock from a hole in one of them, and where the file ends
        watched = [s for s in self.container.streams if s.type in ("video", "audio") and s.codec_context]
        demuxed = self._with_head(self.container.demux(watched))
        held: deque[Any] = deque()
        waiting: Counter[int] = Counter()
        for packet in demuxed:
            held.append(packet)
            waiting[packet.stream.index] += 1
            while held and (waiting[held[0].stream.index] > 1 or len(held) > HELD_PACKETS):
                yield from self._release(held, waiting)
        while held:
            yield from self._release(held, waiting)

    def _with_head(self, demuxed: Iterator[Any]) -> Iterator[Any]:
        """All packets; those of the stream before its first true stamp get theirs from it.

        Where one stream begins without stamps, those of the others are guesses of FFmpeg, counted from 0,
        until they go back to the true ones.
        """
        head: list[Any] = []
        untimed: set[int] = set()  # streams that begin without stamps, and have none yet
        guesses = False
        more = 0
        for packet in demuxed:
            head.append(packet)
            if packet.size and _stamp(packet) is None:
                untimed.add(packet.stream.index)
                guesses = True
            else:
                untimed.discard(packet.stream.index)
            more += guesses and not untimed
            begun = packet.stream is self.stream and not untimed
            if (begun and not guesses) or more > GUESSED_PACKETS or len(head) >= HEAD_PACKETS:
                break
        own = [packet for packet in head if packet.stream is self.stream and packet.size]
        stamps = [_stamp(packet) for packet in own]
        back = REORDER_S / float(self.stream.time_base)
        pairs = enumerate(itertools.pairwise(stamps) if guesses else (), start=1)
        starts = ((k, t) for k, (last, t) in pairs if t is not None and (last is None or t < last - back))
        first, time = next(starts, (0, 0))
        for packet in reversed(own[:first]):
            time -= packet.duration or 0
            packet.pts = packet.dts = time
            self.mended = True
        return itertools.chain(head, demuxed)

    def _release(self, held: deque[Any], waiting: Counter[int]) -> Iterator[Any]:
        packet = held.popleft()
        waiting[packet.stream.index] -= 1
        before = packet.pts
        if packet.size:
            self._check(packet, held)
        if packet.stream is self.stream:
            self.mended |= packet.size > 0 and (packet.pts is None or packet.pts != before)
            yield packet

    def _check(self, packet: Any, held: deque[Any]) -> None:
        """Moves the stamps of a packet, or takes them away."""
        index = packet.stream.index
        tick = self._ticks.get(index) or self._ticks.setdefault(index, float(packet.time_base))
        if packet.pts is not None and packet.dts is not None:
            if abs(packet.pts - packet.dts) * tick > LAG_S:
                packet.pts = packet.dts + self._lag  # shown after it was decoded, as the frames before it
            elif packet.stream is self.stream:
                self._lag = packet.pts - packet.dts
        stamp = _stamp(packet)
        if stamp is None:
            return
        time = stamp * tick
        if index in self._last and self._is_odd(time + self._own[index], index):
            later = (_stamp(p) for p in held if p.stream.index == index)
            following = next((stamp for stamp in later if stamp is not None), None)
            if not self._goes_on(time, None if following is None else following * tick, index):
                packet.pts = packet.dts = None  # alone with its stamp
                return
            if not self._is_believed(time + self._own[index], index):
                self._move(time, index, (packet.duration or 0) * tick)
        if index in self._last:
            self._widest[index] = max(self._widest[index], time + self._own[index] - self._last[index])
        self._last[index] = time + self._own[index]
        self.reached_s = max(self.reached_s, self._last[index] + (packet.duration or 0) * tick)
        ticks = round(self._own[index] / tick)
        if ticks:
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks

    def _is_odd(self, time: float, index: int) -> bool:
        return not -REORDER_S < time - self._last[index] < JUMP_S

    def _goes_on(self, time: float, following: float | None, index: int) -> bool:
        """Whether a stamp far from the last one of its stream is no single slip: the next one is near it, or
        behind it where frames are rare, as those of slides are."""
        if following is not None and abs(following - time) <= JUMP_S:
            return True
        own = self._own[index]
        if following is None:
            return time + own - self._last[index] <= LAST_GAP * self._widest[index]
        return following > time and all(self._is_believed(t + own, index) for t in (time, following))

    def _is_believed(self, time: float, index: int) -> bool:
        """Whether a stamp far from the last one of its stream, on which the next ones follow, can be true."""
        if time < self._last[index] - REORDER_S:
            return False
        running = max(self._last.values())
        if self.joined:
            return time < running + JUMP_S
        return time < (running + UNKNOWN_END_S if self._end is None else self._end)

    def _move(self, time: float, index: int, duration: float) -> None:
        """A shift with which `time` follows the last packet of its stream: the file's where another stream
        has gone over already, else a new one of the file."""
        if self._is_odd(time + self._shift, index):
            self._shift = self._last[index] + duration - time
        self._own[index] = self._shift
        self.moved = True


def _stamp(packet: Any) -> int | None:
    """When it is decoded, which rises from packet to packet, or else when it is shown."""
    return packet.pts if packet.dts is None else packet.dts


def timed(frames: Iterator[Any], stream: Any) -> Iterator[tuple[float, Any]]:
    """Decoded frames with the seconds at which they are shown; one without a stamp follows the one before."""
    rate = stream.average_rate or stream.guessed_rate if stream.type == "video" else None
    following = 0.0
    for frame in frames:
        time = following if frame.time is None else frame.time
        yield time, frame
        if stream.type == "audio":
            following = time + frame.samples / frame.sample_rate
        elif frame.duration:
            following = time + float(frame.duration * frame.time_base)
        else:
            following = time + (float(1 / rate) if rate else 0.0)
