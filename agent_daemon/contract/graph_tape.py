"""The memory that a graph of computations needs when its results share one buffer, as ggml shares it. PURE.

A tape records steps in the order in which they are computed: how many bytes each result takes, and which earlier
results it reads. `peak` then places the results as ggml's graph allocator does (ggml-alloc.c: inputs first, each
result in the smallest free block that holds it, in the place of an operand where the operation allows it, given back
after its last reader), and returns the bytes that the buffer must have. Sizes are bytes.
"""

from dataclasses import dataclass, field

_ENDLESS = 1 << 100


@dataclass(frozen=True, slots=True)
class Result:
    """A result on a tape. `shape` tells results apart that cannot stand in for each other; `viewed` is one that is
    read through another shape or order, which ggml never overwrites in place."""

    place: int
    shape: tuple[int, ...]
    viewed: bool = False

    def view(self) -> "Result":
        """The same bytes, read in another shape or order."""
        return Result(self.place, (), True)


@dataclass(slots=True)
class _Step:
    reads: tuple[Result, ...]
    makes: int | None
    shape: tuple[int, ...]
    in_place: bool


@dataclass(slots=True)
class Tape:
    """Records; make a new one for each graph."""

    _sizes: list[int] = field(default_factory=list)
    _inputs: list[int] = field(default_factory=list)
    _steps: list[_Step] = field(default_factory=list)
    _kept: set[int] = field(default_factory=set)

    def input(self, size: int) -> Result:
        """Bytes that are there before anything is computed; given back after their last reader, if there is one."""
        self._sizes.append(size)
        self._inputs.append(len(self._sizes) - 1)
        return Result(self._inputs[-1], (), True)

    def make(self, *reads: Result, rows: tuple[int, ...], size: int | None = None) -> Result:
        """A result of a place of its own: f32 of that shape, or `size` bytes."""
        return self._add(reads, rows, size, in_place=False)

    def alter(self, *reads: Result, rows: tuple[int, ...] | None = None) -> Result:
        """A result that may take the place of an operand of its shape which nobody reads afterwards. `rows` None: the
        shape of the first operand."""
        return self._add(reads, reads[0].shape if rows is None else rows, None, in_place=True)

    def read(self, *reads: Result) -> None:
        """A step that writes to memory of its own, such as the cache."""
        self._steps.append(_Step(reads, None, (), False))

    def keep(self, result: Result) -> None:
        """An output of the graph: it is never given back, nor overwritten."""
        self._kept.add(result.place)

    def _add(
        self, reads: tuple[Result, ...], rows: tuple[int, ...], size: int | None, *, in_place: bool
    ) -> Result:
        if size is None:
            size = 4
            for length in rows:
                size *= max(0, length)
        self._sizes.append(size)
        place = len(self._sizes) - 1
        self._steps.append(_Step(reads, place, rows, in_place))
        return Result(place, rows)

    def peak(self, alignment: int = 32) -> int:
        """Bytes of the buffer."""
        sizes = [-(-size // alignment) * alignment for size in self._sizes]
        readers = [0] * len(sizes)
        viewers = [0] * len(sizes)
        for step in self._steps:
            for read in step.reads:
                (viewers if read.viewed else readers)[read.place] += 1
        buffer = _Buffer()
        where: list[int | None] = [None] * len(sizes)
        for place in self._inputs:
            where[place] = buffer.take(sizes[place])
        for step in self._steps:
            if step.makes is not None:
                self._put(step, step.makes, where, sizes, readers, viewers, buffer)
            for read in step.reads:
                (viewers if read.viewed else readers)[read.place] -= 1
                place = read.place
                offset = where[place]
                if readers[place] == 0 == viewers[place] and offset is not None and place not in self._kept:
                    buffer.give_back(offset, sizes[place])
                    where[place] = None
        return buffer.most

    def _put(
        self,
        step: _Step,
        place: int,
        where: list[int | None],
        sizes: list[int],
        readers: list[int],
        viewers: list[int],
        buffer: "_Buffer",
    ) -> None:
        if step.in_place:
            for read in step.reads:
                spent = readers[read.place] == 1 and viewers[read.place] == 0
                same = not read.viewed and read.shape == step.shape
                if same and spent and where[read.place] is not None and read.place not in self._kept:
                    where[place], where[read.place] = where[read.place], None
                    return
        where[place] = buffer.take(sizes[place])


class _Buffer:
    """Free blocks by offset; the last one has no end."""

    def __init__(self) -> None:
        self._free: list[list[int]] = [[0, _ENDLESS]]
        self.most = 0

    def take(self, size: int) -> int:
        """The offset of the smallest free block that holds `size`, of equal ones the last."""
        best, least = len(self._free) - 1, _ENDLESS
        for index in range(len(self._free) - 1):
            length = self._free[index][1]
            if size <= length <= least:
                best, least = index, length
        block = self._free[best]
        offset = block[0]
        block[0] += size
        block[1] -= size
        if not block[1]:
            del self._free[best]
        self.most = max(self.most, offset + size)
        return offset

    def give_back(self, offset: int, size: int) -> None:
        """Makes a block free again, and one with its neighbours."""
        if not size:
            return
        index = next(index for index, block in enumerate(self._free) if block[0] > offset)
        following = self._free[index]
        before = self._free[index - 1] if index else None
        joins_before = before is not None and before[0] + before[1] == offset
        joins_after = offset + size == following[0]
        if before is not None and joins_before:
            before[1] += size
            if joins_after:
                before[1] += following[1]
                del self._free[index]
        elif joins_after:
            following[0] = offset
            following[1] += size
        else:
            self._free.insert(index, [offset, size])
