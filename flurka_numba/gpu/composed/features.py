"""Features of a chunk of rows and the way back, as launches: elementwise maps in one, random ones with products."""

from __future__ import annotations

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.gpu.composed.launches import Launches
from flurka_numba.gpu.composed.matrix import Extent, Limit
from flurka_numba.problem import Problem
from flurka_numba.targets.simt.elementwise import ElementwisePullTraits, ElementwiseTraits
from flurka_numba.targets.simt.random_rows import RandomFinishTraits, RandomPullTraits, RandomTraits
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
        self.features = launches.scratch(largest, problem.features)
        rfa = problem.feature_map == "rfa"
        self._u = launches.scratch(largest, random_rows(self._problem)) if rfa else self.features

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
        self.gradient = self._launches.scratch(self._largest, self._problem.features)
        if not isinstance(self._problem.feature_map, FeatureMap):
            self._t = self._launches.scratch(self._largest, self._problem.head_dim)
            self._sums = self._launches.numbers(self._largest.pairs * self._largest.rows)

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
