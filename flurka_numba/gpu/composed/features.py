"""Features of a chunk of rows and the way back, as launches: elementwise maps in one, random ones with products."""

from __future__ import annotations

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.gpu.composed.launches import Launches
from flurka_numba.gpu.composed.matrix import ALONE, Extent, Fused, Limit
from flurka_numba.problem import Problem
from flurka_numba.targets.simt.elementwise import ElementwisePullTraits, ElementwiseTraits
from flurka_numba.targets.simt.random_rows import RandomFinishTraits, RandomPullTraits, RandomTraits
from flurka_numba.targets.sm80.product_ends import Slope
from splat_numba.gen.schedules.schedule import Place
from splat_numba.gen.schedules.tensor import Tensor


def random_rows(problem: Problem) -> int:
    """Of omega."""
    return problem.features // (2 if problem.feature_map == "rfa" else 1)


class Features:
    """Of rows of one side, queries or keys, in chunks of at most ``largest``.

    tops: of favor's keys, the place of the largest exponent of each head, None for queries, which have one a row.
    """

    def __init__(self, problem: Problem, launches: Launches, omega: Tensor | None, largest: Extent) -> None:
        self._problem, self._launches, self._omega, self._largest = problem, launches, omega, largest
        self.in_products = launches.fuses and isinstance(problem.feature_map, FeatureMap)
        if self.in_products:
            return
        self.features = launches.scratch(largest, problem.features)
        rfa = problem.feature_map == "rfa"
        self._u = launches.scratch(largest, random_rows(self._problem)) if rfa else self.features

    def operand(self, x: Tensor, extent: Extent, limit: Limit, tops: Place | None) -> tuple[Tensor, Fused]:
        """phi of every row as a product's A: the rows themselves, where the product takes them through the map."""
        phi = self._problem.feature_map
        if self.in_products and isinstance(phi, FeatureMap):
            return x, Fused(phi)
        return self.make(x, extent, limit, tops), ALONE

    def make(self, x: Tensor, extent: Extent, limit: Limit, tops: Place | None) -> Tensor:
        """phi of every row, 0 in rows beyond a key length."""
        problem, phi = self._problem, self._problem.feature_map
        if isinstance(phi, FeatureMap):
            text = ElementwiseTraits(phi, x.dtype)
            self._launches.of_rows(text, extent, {"x": x}, {"y": self.features}, limit, columns=problem.head_dim)
            return self.features
        self.exponents(x, extent)
        eps, rows = problem.eps if phi == "favor" else 0.0, random_rows(problem)
        random = RandomTraits(str(phi), problem.head_dim, rows, eps, x.dtype)
        self._launches.of_rows(random, extent, {"x": x}, {"u": self._u, "y": self.features}, limit, {"tops": tops})
        return self.features

    def largest(self, x: Tensor, extent: Extent, limit: Limit, tops: Place | None, *, adding: bool) -> None:
        """The largest exponents of the heads, of favor's keys."""
        rows = random_rows(self._problem)
        self._launches.largest(self.exponents(x, extent), extent, rows, tops, limit, adding=adding)

    def exponents(self, x: Tensor, extent: Extent) -> Tensor:
        """x omega^T."""
        if self._omega is None:
            raise TypeError(self._problem)  # elementwise maps have none
        sizes = (extent.rows, self._problem.head_dim, random_rows(self._problem))
        self._launches.product(x, self._omega.turned, self._u, (extent.batch, extent.heads), sizes)
        return self._u

    def prepare_pull(self) -> None:
        """Scratch for pull()."""
        if self.in_products:
            return
        self.gradient = self._launches.scratch(self._largest, self._problem.features)
        if not isinstance(self._problem.feature_map, FeatureMap):
            self._t = self._launches.scratch(self._largest, self._problem.head_dim)
            self._sums = self._launches.numbers(self._largest.pairs * self._largest.rows)

    def pull_product(
        self, a: Tensor, b: Tensor, x: Tensor, extent: Extent, limit: Limit, result: Tensor, *, a_ones: bool = False
    ) -> None:
        """The gradient of x from that of its features, which is A B. a_ones: see Launches.product()."""
        depth, grid = b.sizes[2], (extent.batch, extent.heads)
        sizes, limited = (extent.rows, depth, self._problem.features), "rows" if limit.lengths else None
        phi = self._problem.feature_map
        if self.in_products and isinstance(phi, FeatureMap):
            fused, to = Fused(end=Slope(phi, x.dtype), matrices=(("x", x),)), result
        else:
            fused, to = ALONE, self.gradient
        self._launches.product(a, b, to, grid, sizes, limited=limited, limit=limit, a_ones=a_ones, fused=fused)
        if not self.in_products:
            self.pull(x, extent, limit, result)

    def pull(self, x: Tensor, extent: Extent, limit: Limit, result: Tensor) -> None:
        """The gradient of x, from that of ``features`` as make() left them, in ``gradient``, which is lost."""
        problem, phi = self._problem, self._problem.feature_map
        if isinstance(phi, FeatureMap):
            text = ElementwisePullTraits(phi, x.dtype, result.dtype)
            results = {"dy": self.gradient, "result": result}
            self._launches.of_rows(text, extent, {"x": x}, results, limit, columns=problem.head_dim)
            return
        if self._omega is None:
            raise TypeError(problem)
        random = RandomPullTraits(str(phi), random_rows(self._problem), problem.eps if phi == "favor" else 0.0)
        results = {"y": self.features, "dy": self.gradient}
        self._launches.of_rows(random, extent, {}, results, limit, {"sums": self._sums})
        sizes = (extent.rows, random_rows(self._problem), problem.head_dim)
        self._launches.product(self.gradient, self._omega, self._t, (extent.batch, extent.heads), sizes)
        finish = RandomFinishTraits(str(phi), problem.head_dim, x.dtype, result.dtype)
        results = {"t": self._t, "result": result}
        self._launches.of_rows(finish, extent, {"x": x}, results, limit, {"sums": self._sums})
