"""Points of one or two objectives in layers by non-dominated rank, kept up as points arrive.

Layer r is the front of what is left without the layers before it. A layer of the plane is a
staircase, so a binary search finds the rank of a new point, and what the point dominates there is
one stretch of the staircase, which moves to the next layer and displaces a stretch there in turn
(incremental non-dominated sorting, Yakupov & Buzdalov 2015). A layer that would move as a whole
stays as it is, and the new one goes in before it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable

# Layers to a block: counting those before one sums over blocks, then over one block's layers.
_BLOCK = 128
# Members of a wide layer that a new one is compared with, evenly spaced.
_SAMPLE = 64


class Point:
    """One pair of values, with how many trials have it and the least tie-break among them."""

    __slots__ = ("key", "trials", "x", "y")

    def __init__(self, x: float, y: float, key: float) -> None:
        """Make a point of one trial."""
        self.x, self.y, self.key, self.trials = x, y, key, 1


class Layer:
    """A staircase: x ascending and y descending; `depth` is y negated, for bisect."""

    __slots__ = ("depth", "points", "trials", "x")

    def __init__(self, points: list[Point]) -> None:
        """Make a layer of points that do not dominate one another, by ascending x."""
        self.points = points
        self.x = [point.x for point in points]
        self.depth = [-point.y for point in points]
        self.trials = sum(point.trials for point in points)

    def dominates(self, x: float, y: float) -> bool:
        """Whether a member is nowhere worse than (x, y) and somewhere better."""
        last = bisect_right(self.x, x) - 1
        if last < 0:
            return False
        lowest = -self.depth[last]
        return lowest < y or (lowest == y and self.x[last] < x)

    def find(self, x: float, y: float) -> Point | None:
        """Look up the member at (x, y)."""
        at = bisect_left(self.x, x)
        if at < len(self.x) and self.x[at] == x and self.depth[at] == -y:
            return self.points[at]
        return None

    def displaced(self, first: Point, last: Point) -> tuple[int, int]:
        """The stretch that a stretch of the layer before, from first to last, dominates."""
        start = bisect_left(self.x, first.x)
        return start, max(start, bisect_right(self.depth, -last.y))

    def exchange(self, start: int, end: int, points: list[Point]) -> list[Point]:
        """Put points in the place of a stretch, and give back what was there."""
        gone = self.points[start:end]
        self.points[start:end] = points
        self.x[start:end] = [point.x for point in points]
        self.depth[start:end] = [-point.y for point in points]
        self.trials += sum(p.trials for p in points) - sum(p.trials for p in gone)
        return gone


class Layers:
    """All layers, in blocks so that one can be put in between at the cost of its block."""

    def __init__(self) -> None:
        """Start without a point."""
        self.blocks: list[list[Layer]] = []
        self.totals: list[int] = []

    def add(self, x: float, y: float, key: float) -> None:
        """Add a trial with values x and y, both to be minimised; key breaks ties, least first."""
        block, at = self._where(x, y)
        layer = self._layer(block, at)
        twin = layer.find(x, y) if layer else None
        if layer and twin:
            twin.key = min(twin.key, key)
            twin.trials += 1
            layer.trials += 1
            self.totals[block] += 1
            return
        moving = [Point(x, y, key)]
        while layer:
            start, end = layer.displaced(moving[0], moving[-1])
            if end - start == len(layer.points):
                break
            before = layer.trials
            moving = layer.exchange(start, end, moving)
            self.totals[block] += layer.trials - before
            if not moving:
                return
            block, at = (block, at + 1) if at + 1 < len(self.blocks[block]) else (block + 1, 0)
            layer = self._layer(block, at)
        self._insert(block, at, Layer(moving))

    def before(self, x: float, y: float) -> tuple[int, Layer | None]:
        """How many trials are in layers before that of (x, y), and this layer."""
        block, at = self._where(x, y)
        count = sum(self.totals[:block])
        if block < len(self.blocks):
            count += sum(layer.trials for layer in self.blocks[block][:at])
        return count, self._layer(block, at)

    def to_list(self) -> list[list[Point]]:
        """All layers' points, the front first."""
        return [layer.points for block in self.blocks for layer in block]

    def _where(self, x: float, y: float) -> tuple[int, int]:
        """Block and place of the first layer of which no member dominates (x, y)."""
        low, high = 0, len(self.blocks)
        while low < high:
            middle = (low + high) // 2
            if self.blocks[middle][-1].dominates(x, y):
                low = middle + 1
            else:
                high = middle
        block = low
        if block == len(self.blocks):
            return block, 0
        layers = self.blocks[block]
        low, high = 0, len(layers) - 1
        while low < high:
            middle = (low + high) // 2
            if layers[middle].dominates(x, y):
                low = middle + 1
            else:
                high = middle
        return block, low

    def _layer(self, block: int, at: int) -> Layer | None:
        return self.blocks[block][at] if block < len(self.blocks) else None

    def _insert(self, block: int, at: int, layer: Layer) -> None:
        if block == len(self.blocks):
            if not self.blocks or len(self.blocks[-1]) >= _BLOCK:
                self.blocks.append([])
                self.totals.append(0)
            block, at = len(self.blocks) - 1, len(self.blocks[-1])
        layers = self.blocks[block]
        layers.insert(at, layer)
        self.totals[block] += layer.trials
        if len(layers) > _BLOCK:
            half = len(layers) // 2
            self.blocks.insert(block + 1, layers[half:])
            del layers[half:]
            moved = sum(one.trials for one in self.blocks[block + 1])
            self.totals[block] -= moved
            self.totals.insert(block + 1, moved)


def place_in_layer(
    layer: Layer,
    x: float,
    y: float,
    key: float,
    share_x: Callable[[float], float],
    share_y: Callable[[float], float],
) -> float:
    """How many trials of its layer come before the one at (x, y): those that add more volume.

    A point's hypervolume contribution is the rectangle that it alone dominates, in coordinates
    that `share_x` and `share_y` give (in [0, 1], reference point 1). Of trials with the same
    values that with the least key stands for all; the others add nothing and come last. In a
    layer of more than 64 points it is compared with 64 of them, evenly spaced.
    """
    points = layer.points
    at = bisect_left(layer.x, x)
    mine = points[at]
    if key > mine.key:
        return len(points) + key * (layer.trials - len(points))

    def contribution(i: int) -> float:
        right = share_x(points[i + 1].x) if i + 1 < len(points) else 1.0
        top = share_y(points[i - 1].y) if i else 1.0
        return (right - share_x(points[i].x)) * (top - share_y(points[i].y))

    own = (-contribution(at), key)
    step = -(-len(points) // _SAMPLE)
    others = [i for i in range(0, len(points), step) if i != at]
    better = sum((-contribution(i), points[i].key) < own for i in others)
    return better if step == 1 else better / len(others) * (len(points) - 1)
