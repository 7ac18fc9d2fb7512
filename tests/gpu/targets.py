"""Every target with what is tried of it on a GPU, in few texts: each takes seconds to compile.

What a text depends on (head dimensions, tile shape, passes, whether keys have lengths, the sign of the scale) is fixed
by a case's place in its list, so that every pair of these is met; all else is drawn. Profiles that explore draw all.
"""

from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import splat_numba as splat
from splat_numba import attention_vjp
from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.plans import problem as gen_problem
from splat_numba.gen.plans.backward import KEYS, QUERIES
from splat_numba.gen.plans.machine import gpu_of
from splat_numba.gen.targets.simt import tile_shapes as simt_shapes
from splat_numba.gen.targets.simt.backward import tile_shapes as simt_gradients
from splat_numba.gen.targets.sm80 import tile_shapes as sm80_shapes
from splat_numba.gen.targets.sm80.backward import tile_shapes as sm80_gradients
from splat_numba.gen.targets.sm90 import tile_shapes as sm90_shapes
from splat_numba.gen.targets.sm90.backward import tile_shapes as sm90_gradients
from splat_numba.testing import Problem, check_attention, check_gradients
from tests.gpu.device_views import forced, forced_gradients
from tests.gradient_cases import WINDOW
from tests.profiles import EXPLORING, draws

HOPPER, LEAST_MEMORY = (9, 0), (8, 6)
NEAR_TILES = (0, 1, 63, 64, 65, 79, 80, 81, 127, 128, 129, 255, 256, 257)
FROZEN = ((), ("q",), ("k", "v"), (), ("v",), ("q", "k"))
fuzzed = settings(
    max_examples=draws(20), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@dataclass(frozen=True, slots=True)
class Tried:
    """types: of every test by name. kinds: (head_dim, value_dim, dtype) of fuzzed problems; shapes: (head_dim,
    value_dim, dtype, chip) whose tile shapes are all run; both of the forward pass and of gradients. strides: the
    same kinds for arrays at any strides, of dtypes that the CUDA array interface has. views: (head_dim, value_dim, how
    many numbers stand on both sides of a row) of gradients written into arrays of the caller's.
    """

    name: str
    types: tuple[str, ...]
    tiles: ModuleType
    kinds: tuple[tuple[int, int, str], ...]
    shapes: tuple[tuple[int, int, str, tuple[int, int]], ...]
    strides: tuple[tuple[int, int, str], ...]
    gradient_tiles: ModuleType
    gradient_kinds: tuple[tuple[int, int, str], ...]
    gradient_shapes: tuple[tuple[int, int, str, tuple[int, int]], ...]
    views: tuple[int, int, int]

    def check(self, problem, **options):
        return check_attention(problem, backend="cuda", target=self.name, **options)

    def check_gradients(self, problem, **options):
        return check_gradients(problem, backend="cuda", target=self.name, **options)

    def attend(self, q, k, v, mask, **options):
        return splat.attention(q, k, v, mask, backend="cuda", target=self.name, **options)

    def vjp(self, q, k, v, mask, **options):
        return attention_vjp(q, k, v, mask, backend="cuda", target=self.name, **options)

    def fits(self, problem):
        """simt has no tile for gradients of 256 float64 numbers a row."""
        return problem.dtype != "float64" or problem.head_dim + (problem.value_dim or problem.head_dim) <= 256


TARGETS = (
    Tried(
        "sm_90a", ("float16", "bfloat16"), sm90_shapes,
        (
            (1, 1, "float16"), (20, 20, "bfloat16"), (32, 64, "float16"), (64, 64, "bfloat16"), (80, 72, "bfloat16"),
            (96, 96, "float16"), (128, 128, "bfloat16"), (128, 40, "float16"), (192, 128, "float16"),
            (256, 256, "bfloat16"), (8, 256, "float16"), (256, 33, "bfloat16"),
        ),
        (
            (64, 64, "float16", HOPPER), (80, 72, "bfloat16", HOPPER), (128, 128, "bfloat16", HOPPER),
            (192, 192, "bfloat16", HOPPER), (256, 256, "float16", HOPPER),
        ),
        ((64, 64, "float16"), (40, 24, "float16"), (33, 17, "float16"), (128, 64, "float16")),
        sm90_gradients,
        ((20, 20, "bfloat16"), (64, 64, "float16"), (128, 128, "bfloat16"), (192, 256, "float16")),
        ((64, 64, "float16", HOPPER), (128, 128, "bfloat16", HOPPER), (256, 128, "bfloat16", HOPPER)),
        (36, 52, 4),
    ),
    Tried(
        "sm80", ("float16", "bfloat16", "float32"), sm80_shapes,
        (
            (1, 1, "float16"), (20, 20, "bfloat16"), (64, 64, "float16"), (80, 72, "float16"), (33, 17, "bfloat16"),
            (128, 128, "bfloat16"), (192, 128, "float16"), (256, 256, "bfloat16"), (24, 256, "float16"),
            (33, 17, "float32"), (64, 64, "float32"), (128, 128, "float32"),
        ),
        ((64, 64, "float16", HOPPER), (128, 72, "bfloat16", HOPPER), (256, 256, "float16", HOPPER)),
        ((64, 64, "float16"), (33, 17, "float32"), (128, 64, "float16")),
        sm80_gradients,
        (
            (1, 1, "float16"), (64, 64, "float16"), (80, 72, "bfloat16"), (256, 256, "bfloat16"), (33, 17, "float32"),
            (128, 128, "float32"),
        ),
        (
            (64, 64, "float32", HOPPER), (64, 64, "float16", HOPPER), (128, 72, "float16", HOPPER),
            (224, 256, "float16", LEAST_MEMORY), (256, 256, "float16", LEAST_MEMORY),
        ),
        (40, 56, 8),
    ),
    Tried(
        "simt", ("float32", "float64", "float16"), simt_shapes,
        (
            (1, 1, "float32"), (20, 20, "float64"), (64, 64, "float32"), (64, 64, "float64"), (80, 72, "float32"),
            (33, 17, "float16"), (128, 128, "float64"), (256, 256, "float32"), (192, 136, "float64"),
            (64, 64, "bfloat16"),
        ),
        ((64, 64, "float32", HOPPER), (128, 72, "float64", HOPPER), (256, 256, "float32", HOPPER)),
        ((64, 64, "float32"), (33, 17, "float64"), (128, 64, "float32")),
        simt_gradients,
        ((33, 17, "float64"), (64, 64, "float32"), (192, 256, "float32"), (64, 64, "bfloat16")),
        ((64, 64, "float32", HOPPER), (64, 40, "float64", HOPPER), (128, 128, "float32", HOPPER)),
        (36, 52, 4),
    ),
)  # fmt: skip
every_target = pytest.mark.parametrize("target", TARGETS, ids=lambda one: one.name)
every_type = pytest.mark.parametrize(
    ("target", "dtype"), [pytest.param(one, dtype, id=f"{one.name}-{dtype}") for one in TARGETS for dtype in one.types]
)


@dataclass(frozen=True, slots=True)
class Tiles:
    """Tile shapes that plans are forced to: of the forward pass, and those of the gradients of queries and of keys."""

    target: Tried
    forward: Traits
    queries: Traits | None = None
    keys: Traits | None = None

    @contextmanager
    def forced(self, monkeypatch, order=""):
        """Plans made inside have these, and of the orders of rows only those with ``order`` in the name."""
        with ExitStack() as stack:
            stack.enter_context(forced(monkeypatch, self.forward, order, self.target.tiles))
            for of, boxes in ((QUERIES, self.queries), (KEYS, self.keys)):
                if boxes is not None:
                    shapes = self.target.gradient_tiles
                    stack.enter_context(forced_gradients(monkeypatch, of, boxes, order, shapes))
            yield


def tile_shapes(target, head_dim, value_dim, dtype, chip=HOPPER):
    """Every tile shape that the planner may choose for these dimensions."""
    problem = gen_problem.Problem(64, 64, head_dim, value_dim, dtype)
    return [Tiles(target, one) for one in target.tiles.candidates(problem, gpu_of(chip))]


def gradient_tile_shapes(target, head_dim, value_dim, dtype, chip=HOPPER):
    """The same of gradients: every one of queries, beside every one of keys; and one of the forward pass."""
    problem = gen_problem.Problem(64, 64, head_dim, value_dim, dtype)
    forward = target.tiles.candidates(problem, gpu_of(HOPPER))[0]
    queries = target.gradient_tiles.candidates(problem, QUERIES, gpu_of(chip))[0]
    keys = target.gradient_tiles.candidates(problem.transposed(), KEYS, gpu_of(chip))[0]
    return [
        Tiles(target, forward, at(queries, place), at(keys, place)) for place in range(max(len(queries), len(keys)))
    ]


def at(found, place):
    """What stands at a place, again and again."""
    return found[place % len(found)]


@dataclass(frozen=True, slots=True)
class Kind:
    """What texts of fuzzed problems depend on. ragged: keys have lengths; tiles: None for those of the plan."""

    head_dim: int
    value_dim: int
    dtype: str
    ragged: bool
    negative: bool
    frozen: tuple[str, ...] = ()
    tiles: Tiles | None = None

    def of(self, problem, data):
        """The drawn problem as one of this kind."""
        kind = {"head_dim": self.head_dim, "value_dim": self.value_dim, "dtype": self.dtype}
        if EXPLORING:
            return replace(problem, **kind)
        scale = -0.3 if self.negative else problem.scale and abs(problem.scale)
        one = replace(problem, scale=scale, kv_lengths=None, **kind)
        return with_lengths(one, data) if self.ragged else one

    def drawn_frozen(self, data):
        return data.draw(st.sampled_from(FROZEN)) if EXPLORING else self.frozen

    def forced(self, monkeypatch):
        """A context in which plans have its tiles."""
        return nullcontext() if EXPLORING or self.tiles is None else self.tiles.forced(monkeypatch)


def with_lengths(problem, data):
    """Of keys, mostly where tiles end."""
    batch, longest = data.draw(st.sampled_from([1, 2, 5])), problem.seq_kv
    near = st.sampled_from([n for n in NEAR_TILES if n <= longest])
    one = st.one_of(near, st.just(longest), st.integers(0, longest))
    found = data.draw(st.lists(one, min_size=batch, max_size=batch))
    return replace(problem, batch=batch, heads_q=problem.heads_q or 1, kv_lengths=tuple(found))


def fuzzed_kinds(kinds_of, tiles_of):
    """Parametrise by (target, kind) of what a target has there. tiles_of: tile_shapes or gradient_tile_shapes."""
    found = []
    for target in TARGETS:
        for place, given in enumerate(kinds_of(target)):
            ragged, negative = place % 2 == 1, place // 2 % 2 == 1
            kind = Kind(*given, ragged, negative, at(FROZEN, place), at(tiles_of(target, *given), place))
            found.append(pytest.param(target, kind, id=f"{target.name}-{'x'.join(map(str, given))}"))
    return pytest.mark.parametrize(("target", "kind"), found)


def every_tile_shape(shapes_of, tiles_of):
    """Parametrise by (tiles, cases) of the head dimensions that a target has there, each with cases by its place."""
    found = []
    for target in TARGETS:
        for given in shapes_of(target):
            for tiles in tiles_of(target, *given):
                boxes = [one for one in (tiles.queries, tiles.keys) if one] or [tiles.forward]
                sizes = "-".join(f"{one.tile_q}x{one.tile_kv}" for one in boxes)
                name = f"{target.name}-{'x'.join(map(str, given[:3]))}-{sizes}"
                found.append(pytest.param(tiles, orders(at(boxes, len(found)), len(found)), id=name))
    return pytest.mark.parametrize(("tiles", "cases"), found)


def orders(boxes, place):
    """(order of rows, problem) of a tile shape: all orders of one pass, with lengths and scale by its place, which
    are in the text, and a mask with another text; all of them where new failures are looked for.
    """
    rows, keys, split = boxes.tile_q, boxes.tile_kv, splat.sparse_transformer_strided(13)
    masks = [
        ("order", splat.full(), rows + 1, keys - 1),
        ("order", splat.causal(), 3 * rows - 1, 2 * keys + 1),
        ("order", WINDOW, 2 * rows + 1, 2 * rows + 1),
        ("residue", splat.dilated(20, 5), 401, 399),
        ("grid", splat.neighborhood((20, 32), 7), 640, 640),
    ]
    others = [
        ("order", splat.full(), 2 * rows, 3 * keys),  # no mask at all
        (", then ", split, 389, 389),
        ("order", splat.blocked(192, 1), 3 * rows, 3 * rows),  # groups skip tiles
    ]
    ways = [{}, {"kv_lengths": True}, {"scale": -0.4}]
    dims = {"heads_q": 4, "heads_kv": 2, "head_dim": boxes.head_dim, "value_dim": boxes.value_dim, "dtype": boxes.dtype}
    found = []
    for way in ways if EXPLORING else [at(ways, place)]:
        for order, mask, seq_q, seq_kv in (*masks, *(others if EXPLORING else [at(others, place // len(ways))])):
            lengths = {"kv_lengths": (seq_kv, 0, seq_kv // 2 + 1)} if "kv_lengths" in way else {}
            problem = Problem(seq_q, seq_kv, mask, batch=3 if lengths else 1, **dims, **{**way, **lengths})
            found.append((order, problem))
    return found
