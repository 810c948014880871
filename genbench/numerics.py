"""Float64 kernels that metrics share: Fréchet distance and its sampling error, nearest neighbours, polynomial kernels, the jackknife.

Everything here is a pure function of arrays. Torch is imported inside functions; a listing of metrics stays light.

Fréchet distance of two Gaussians (Heusel et al. 2017, eq. 6), covariances with n − 1:

    FD = ‖μg − μr‖² + tr Σg + tr Σr − 2 Σ_i s_i,     s = singular values of Σg^½ Σr^½

`frechet` never forms a matrix square root: s² are the eigenvalues of Lᵀ Σg L with Σr = L Lᵀ, and where a covariance is singular or too
ill-conditioned for that, s are the singular values of the product of two factors F with F Fᵀ = Σ (Σ_i s_i is its nuclear norm).

Its sampling error (`frechet_spread`; derived and simulated for this project). With δ = μg − μr and Σg^½ Σr^½ = P diag(s) Qᵀ,

    w(x)  = diag(1/s) Qᵀ Σr^½ (x − μg)      IF_g(x) =  2 δ·(x − μg) + ‖x − μg‖² − Σ_i s_i w_i²   − mean
    w'(y) = diag(1/s) Pᵀ Σg^½ (y − μr)      IF_r(y) = −2 δ·(y − μr) + ‖y − μr‖² − Σ_i s_i w'_i²  − mean
    bias  = tr Σg/n + tr Σr/m + B_g/n + B_r/m,     B = ½ Σ_ij Var(w_i w_j) C_ij,     C_ij = s_i s_j/(s_i + s_j)
    v1    = Var(IF_g)/n + Var(IF_r)/m                                             (no normality assumed)
    v2    = Σ_ij [C_ij (V_g/n + V_r/m)_ij]² − ½ its diagonal + 2 ‖Σg/n + Σr/m‖²_F,     V_ij = Var(w_i w_j)

Distances. All comparisons d(x, y) <= radius are made as if in exact arithmetic: a matrix product gives every squared distance up to a
known rounding error, and wherever that error could change an answer the pair is computed again from float64 differences. Copies are at
distance exactly 0, ties are ties whatever the order of rows, the number of threads or the precision of the product.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.statistics import Features, Moments

Float = NDArray[np.floating[Any]]
Rows = Callable[[], tuple[Features | Moments, Features | Moments]]

Z95 = 1.959963984540054  # 97.5 % quantile of the normal law
T19 = 2.093024054408263  # 97.5 % quantile of Student's t with 19 degrees of freedom
TILE = 768  # rows and columns of one tile of a pairwise pass: 2.3 MiB in float32; half of a diagonal tile is computed for nothing
CACHED = 2**16  # float64 numbers that stay in the second-level cache, 512 KiB, through several operations
EPS = float(np.finfo(np.float64).eps)
SAME = 1e-12  # squared distances that differ by less, relatively, are one distance; their own rounding is below 1e-14


def _t(x: Any) -> Any:
    import torch

    return torch.as_tensor(np.ascontiguousarray(x, np.float64))


# -- Fréchet distance --------------------------------------------------------------------------------------------------------------


def cholesky(cov: Float) -> Any | None:
    """Lower Cholesky factor as a tensor; None where the matrix is not positive definite beyond rounding."""
    import torch

    factor, info = torch.linalg.cholesky_ex(_t(cov))
    if int(info) != 0:
        return None
    pivots = factor.diagonal() ** 2  # those of a singular matrix are not zero but up to about d rounding errors
    return factor if float(pivots.min()) > max(1e-13, 8 * len(pivots) * EPS) * float(pivots.max()) else None


def _centred(x: Features) -> Float:
    rows = x.x.astype(np.float64)
    return rows - rows.mean(axis=0)


def factor(x: Features | Moments) -> Any:
    """F (d, r) with F Fᵀ = Σ, for any rank.

    From rows it is accurate to rounding in every direction: the centred rows themselves where n <= d, the triangle of their QR
    decomposition otherwise. From moments alone it is made of eigenvectors, and variances below 1e-14 of the largest are zero.
    """
    import torch

    if isinstance(x, Features):
        rows = _t(_centred(x))
        triangle = rows if len(x) <= x.d else torch.linalg.qr(rows, mode="r").R
        return triangle.T / np.sqrt(len(x) - 1)
    lower = cholesky(x.cov) if x.n is None or x.n > x.d else None
    if lower is not None:
        return lower
    values, vectors = torch.linalg.eigh(_t(x.cov))
    keep = values > values.max().clamp_min(0) * 1e-14
    return vectors[:, keep] * values[keep].sqrt()


def _congruent(lower: Any, cov: Any) -> Any:
    """The upper triangle of Lᵀ C L, with a third of the multiplications of the two full products; below it nothing is to be read."""
    import torch

    out = torch.empty_like(cov)
    for a in range(0, len(cov), 256):
        out[a : a + 256, a:] = lower[a:, a : a + 256].T @ cov[a:, a:] @ lower[a:, a:]
    return out


def _mean_and_trace(x: Features | Moments) -> tuple[Float, float]:
    if isinstance(x, Moments):
        return x.mean, float(np.trace(x.cov))
    rows = _centred(x)
    return x.x.mean(axis=0, dtype=np.float64), float((rows * rows).sum() / (len(x) - 1))


def frechet(gen: Features | Moments, ref: Features | Moments, rows: Rows | None = None) -> float:
    """Fréchet distance of the Gaussians with these moments.

    Full rank: eigenvalues of Lᵀ Σg L. Where n <= d, a feature is constant, or the eigenvalues would lose more than nine digits of the
    result: the nuclear norm of the product of two factors, which is exact for n < d.

    Args:
        gen: n >= 2 rows (n, d), or their moments.
        ref: m >= 2 rows (m, d), or their moments.
        rows: gives the rows behind the moments; called only where a covariance is singular.

    Returns:
        The distance, in squared feature units; a true zero may read −1e-12 of the traces.
    """
    import torch

    d = gen.d
    delta: Any
    if all(not isinstance(x, Features) or len(x) > d for x in (gen, ref)):
        rows = rows or (lambda sides=(gen, ref): sides)  # type: ignore[misc]
        gen, ref = (x if isinstance(x, Moments) else Moments.of(x) for x in (gen, ref))
        (mean_g, trace_g), (mean_r, trace_r) = _mean_and_trace(gen), _mean_and_trace(ref)
        delta = mean_g - mean_r
        base = float(delta @ delta) + trace_g + trace_r
        full = all(x.n is None or x.n > d for x in (gen, ref))
        lower = cholesky(ref.cov) if full else None
        if lower is not None:
            squares = torch.linalg.eigvalsh(_congruent(lower, _t(gen.cov)), UPLO="U").clamp_min_(0)
            noise = 2 * EPS * float(squares.max())  # absolute error of an eigenvalue
            lost = noise / (2 * squares.sqrt().clamp_min(np.sqrt(noise) if noise else 1.0))
            if float(lost.square().sum().sqrt()) <= 1e-10 * base:
                return base - 2 * float(squares.sqrt().sum())
        gen, ref = (gen, ref) if lower is not None and cholesky(gen.cov) is not None else rows()
    else:
        gen, ref = rows() if rows else (gen, ref)
        (mean_g, trace_g), (mean_r, trace_r) = _mean_and_trace(gen), _mean_and_trace(ref)
        delta = mean_g - mean_r
        base = float(delta @ delta) + trace_g + trace_r
    product = factor(gen).T @ factor(ref)
    return base - 2 * (float(torch.linalg.svdvals(product).sum()) if product.numel() else 0.0)


@dataclass(frozen=True)
class FrechetSpread:
    """First- and second-order terms of the Fréchet distance's sampling error (module docstring).

    Args:
        bias: first-order bias of the raw value.
        v1: Var(IF_g)/n + Var(IF_r)/m.
        v2: variance of the second-order, degenerate part.
        inf_gen: (n,) centred influence of every generated row.
        inf_ref: (m,) of every reference row; None for a fixed reference.
    """

    bias: float
    v1: float
    v2: float
    inf_gen: Float
    inf_ref: Float | None

    @property
    def se(self) -> float:
        """Standard error sqrt(max(v1, v2)): sqrt(v1 + v2) is 1.7 times too wide where the laws are equal, as v1 then holds 2 v2."""
        return float(np.sqrt(max(self.v1, self.v2)))

    @property
    def tight(self) -> float:
        """Standard error sqrt(max(v1 − v2, v2)): the plug-in v1 holds 2 v2 of its own estimation noise where the laws are equal."""
        return float(np.sqrt(max(self.v1 - self.v2, self.v2)))


def frechet_spread(gen: Features, ref: Features | Moments, moments_gen: Moments, moments_ref: Moments) -> FrechetSpread:
    """Influence functions, first-order bias and variances of the Fréchet distance.

    Args:
        gen: n > d rows.
        ref: m > d rows, or moments for a reference without sampling error.
        moments_gen: of `gen`.
        moments_ref: of `ref`.
    """
    import torch

    cov_g, cov_r = _t(moments_gen.cov), _t(moments_ref.cov)
    f = factor(moments_ref)  # (d, r)
    squares, u = torch.linalg.eigh(f.T @ cov_g @ f)
    largest = float(squares.max()) if len(squares) else 0.0
    keep = squares > max(largest, 0.0) * 1e-14  # below it a direction has no variance on one side, and no w
    s, u = squares[keep].sqrt(), u[:, keep]
    delta = _t(moments_gen.mean - moments_ref.mean)
    c = s[:, None] * s[None, :] / (s[:, None] + s[None, :])
    project = f @ u
    to_g, to_r = project / s, (cov_g @ project) / s**2

    def side(x: Features, mean: Float, to: Any, sign: float) -> tuple[Float, Any]:
        influence, second = np.empty(len(x)), torch.zeros(len(s), len(s), dtype=torch.float64)
        for a in range(0, len(x), TILE):
            z = _t(x.x[a : a + TILE]) - _t(mean)  # (rows, d)
            w2 = (z @ to).square_()  # (rows, r)
            influence[a : a + len(z)] = (sign * 2 * (z @ delta) + z.square().sum(1) - w2 @ s).numpy()
            second += self_product(w2.T)
        second /= len(x)
        second.diagonal().sub_(1.0)  # E w_i² w_j² → Var(w_i w_j), as the w are uncorrelated with unit variance
        return influence - influence.mean(), second

    n = len(gen)
    inf_g, v_g = side(gen, moments_gen.mean, to_g, 1.0)
    bias = (float(cov_g.trace()) + 0.5 * float((v_g * c).sum())) / n
    v1 = float(inf_g.var(ddof=1)) / n
    v, cov = v_g / n, cov_g / n
    inf_r: Float | None = None
    if isinstance(ref, Features):
        m = len(ref)
        inf_r, v_r = side(ref, moments_ref.mean, to_r, -1.0)
        bias += (float(cov_r.trace()) + 0.5 * float((v_r * c).sum())) / m
        v1 += float(inf_r.var(ddof=1)) / m
        v, cov = v + v_r / m, cov + cov_r / m
    q = (c * v).square()
    v2 = float(q.sum() - 0.5 * q.diagonal().sum() + 2 * cov.square().sum())
    return FrechetSpread(bias, v1, v2, inf_g, inf_r)


# -- jackknife ---------------------------------------------------------------------------------------------------------------------


def block_moments(x: Features, blocks: int) -> list[Moments]:
    """Moments of the rows whose index mod `blocks` is 0, 1, ...

    Rows that are sorted, by class say, do no harm: every block takes its even share of each run.
    """
    return [Moments.of(Features(x.x[b::blocks], x.extractor)) for b in range(blocks)]


def without(parts: list[Moments], b: int) -> Moments:
    """The merged moments of all blocks but one."""
    return Moments.merge([p for i, p in enumerate(parts) if i != b])


def without_rows(x: Features, b: int, blocks: int) -> Features:
    """The rows of all blocks but one."""
    return Features(x.x[np.arange(len(x)) % blocks != b], x.extractor)


def student95(freedom: float) -> float:
    """97.5 % quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def jackknife_se(left_out: Float) -> Float:
    """Standard errors from the statistic with one of G equal blocks left out: sqrt((G − 1)/G Σ_b (θ_b − mean)²), along axis 0."""
    count = len(left_out)
    return np.sqrt((count - 1) / count * ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0))


# -- distances ---------------------------------------------------------------------------------------------------------------------


class _Product:
    """Squared distances of two sets of rows by matrix products, tile by tile, with their rounding error.

    The sets are centred on their common mean, which keeps norms and so rounding small; tiles are converted when they are used, so that
    no second copy of the features is made. The mean is rounded to the product's precision: both sets move by the same vector.
    """

    def __init__(self, x: Float, y: Float, single: bool) -> None:
        import torch

        self.x, self.y = x, y
        self.dtype = torch.float32 if single else torch.float64
        total = x.sum(axis=0, dtype=np.float64)
        total = 2 * total if y is x else total + y.sum(axis=0, dtype=np.float64)
        self.mean = (total / (len(x) + len(y))).astype(np.float32 if single else np.float64)
        # Rounding of ‖x‖² + ‖y‖² − 2 x·y relative to ‖x‖² + ‖y‖²: a few additions and a dot product of d random terms.
        self.error = torch.finfo(self.dtype).eps * (8 + np.sqrt(x.shape[1]))

    @cached_property
    def nx(self) -> Any:
        """Squared norms of the centred rows of x."""
        return self._norms(self.x)

    @cached_property
    def ny(self) -> Any:
        """Those of y."""
        return self.nx if self.y is self.x else self._norms(self.y)

    def _norms(self, x: Float) -> Any:
        import torch

        out = np.empty(len(x))
        step = max(1, CACHED // x.shape[1])
        for a in range(0, len(x), step):
            part = (x[a : a + step] - self.mean).astype(np.float64, copy=False)
            out[a : a + step] = np.einsum("ij,ij->i", part, part)
        return torch.from_numpy(out)

    def along(self, of: Float) -> Any:
        """u·c + c²/2 of rows u centred on the mean c."""
        import torch

        c, out = self.mean.astype(np.float64), np.empty(len(of))
        step = max(1, CACHED // of.shape[1])
        for a in range(0, len(of), step):
            out[a : a + step] = (of[a : a + step] - self.mean) @ c
        return torch.from_numpy(out + float(c @ c) / 2)

    def rows(self, of: Float, where: Any) -> Any:
        """Centred rows in the product's precision."""
        import torch

        part = of[where]
        out = torch.empty(part.shape, dtype=self.dtype)
        np.subtract(part, self.mean, out=out.numpy())  # three times as fast as a fresh array of this size, whose pages are new
        return out

    def tile(self, a: Any, b: Any, na: Any, nb: Any) -> Any:
        """(rows of a, rows of b) squared distances."""
        import torch

        base = na.to(self.dtype)[:, None] + nb.to(self.dtype)[None, :]
        return base.add_(self_product(a), alpha=-2.0) if b is a else torch.addmm(base, a, b.T, alpha=-2.0)


def self_product(a: Any) -> Any:
    """A Aᵀ, by half the multiplications: NumPy takes the symmetric routine where both factors are one array."""
    import torch

    rows = a.numpy()
    return torch.from_numpy(rows @ rows.T)


def squared_differences(x: Float, i: NDArray[Any], y: Float, j: NDArray[Any]) -> NDArray[np.float64]:
    """‖x_i − y_j‖² of pairs, from float64 differences: exactly 0 for copies."""
    out = np.empty(len(i))
    step = max(1, CACHED // x.shape[1])
    for a in range(0, len(i), step):
        difference = x[i[a : a + step]].astype(np.float64)
        difference -= y[j[a : a + step]]
        out[a : a + step] = (difference[:, None, :] @ difference[:, :, None]).ravel()
    return out


def _single(*sets: Float) -> bool:
    # Below 64 dimensions the product is not what costs, and points of toy data lie close together compared with their norms.
    return all(x.dtype == np.float32 for x in sets) and sets[0].shape[1] >= 64


def _bounds(n: int) -> list[tuple[int, int]]:
    return [(a, min(a + TILE, n)) for a in range(0, n, TILE)]


def _smallest(product: _Product, rows: NDArray[Any] | None, keep: int, same: bool) -> tuple[Any, Any]:
    """Values and columns of the `keep` smallest approximate distances of every row; the pass is symmetric where all rows are asked for."""
    import torch

    n = len(product.x) if rows is None else len(rows)
    best = torch.full((n, keep), torch.inf, dtype=product.dtype)
    index = torch.full((n, keep), -1, dtype=torch.int64)

    def update(a: int, b: int, tile: Any, start: int) -> None:
        values, at = tile.topk(min(keep, tile.shape[1]), dim=1, largest=False, sorted=False)
        values, at = torch.cat([best[a:b], values], 1), torch.cat([index[a:b], at + start], 1)
        best[a:b], order = values.topk(keep, dim=1, largest=False)
        index[a:b] = at.gather(1, order)

    symmetric = same and rows is None
    for a, b in _bounds(n):
        where: Any = slice(a, b) if rows is None else rows[a:b]
        left, norms = product.rows(product.x, where), product.nx[where]
        for c, e in _bounds(len(product.y)):
            if symmetric and c < a:
                continue
            right = left if symmetric and a == c else product.rows(product.y, slice(c, e))
            tile = product.tile(left, right, norms, product.ny[c:e])
            if same:
                own = torch.arange(a, b) if rows is None else torch.as_tensor(rows[a:b])
                inside = (own >= c) & (own < e)
                tile[inside.nonzero()[:, 0], own[inside] - c] = torch.inf
            update(a, b, tile, c)
            if symmetric and c > a:
                update(c, e, tile.T.contiguous(), a)
    return best, index


def nearest(x: Float, y: Float | None, k: int, rows: NDArray[Any] | None = None) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The k nearest rows of y for rows of x, exactly.

    Time n m d, memory of a few tiles: nothing of size n × m is held. In float32 for float32 features of 64 or more dimensions, then the
    candidates from float64 differences; rows whose answer rounding could change are done again in float64, and at last from differences.

    Args:
        x: (n, d) float32 or float64.
        y: (m, d); None for the other rows of x.
        k: number of neighbours, at most m (n − 1 among the rows of x).
        rows: indices of the rows of x to do; None for all.

    Returns:
        (squared distances (n, k) ascending, their rows of y (n, k)). Copies are at distance exactly 0. Of equally distant rows any may
        come first.
    """
    same, other = y is None, x if y is None else y
    columns = len(other) - same
    if not 1 <= k <= columns:
        raise ValueError(f"k must be between 1 and {columns}, found {k}")
    count = len(x) if rows is None else len(rows)
    distance, index = np.empty((count, k)), np.empty((count, k), np.int64)
    todo = np.arange(count)
    keep = min(k + 3, columns)
    for single in [True, False] if _single(x, other) else [False]:
        if not len(todo):
            return distance, index
        product = _Product(x, other, single)
        asked = None if rows is None and len(todo) == count else (np.arange(count) if rows is None else rows)[todo]
        best, at = (v.numpy() for v in _smallest(product, asked, keep, same))
        own = np.arange(count) if asked is None else asked
        norm = product.nx.numpy()[own]

        def rounding(radius: Float, norm: Float = norm, error: float = product.error) -> Float:
            """Of the approximate distance to a row that is nearer than the radius, which bounds its norm."""
            found: Float = 2 * error * (norm + (np.sqrt(norm) + np.sqrt(radius)) ** 2)
            return found

        exact = np.full((len(own), keep), np.inf)
        exact[:, :k] = squared_differences(x, np.repeat(own, k), other, at[:, :k].ravel()).reshape(-1, k)
        if keep > k:  # of the further candidates only those that rounding could have put behind
            reach = exact[:, :k].max(axis=1)
            near = np.flatnonzero(best[:, k] - rounding(reach) < reach)
            more = squared_differences(x, np.repeat(own[near], keep - k), other, at[near, k:].ravel())
            exact[near, k:] = more.reshape(-1, keep - k)
        order = np.argsort(exact, axis=1, kind="stable")[:, :k]
        distance[todo], index[todo] = np.take_along_axis(exact, order, 1), np.take_along_axis(at, order, 1)
        # Rows left out are further than the last kept one, up to rounding.
        radius = distance[todo, k - 1]
        unclear = rounding(radius)
        sure = (best[:, -1] - unclear >= radius) | (unclear <= SAME * radius) | (radius == 0) | (keep == columns)
        todo = todo[~sure]
    for t in todo:
        i = t if rows is None else rows[t]
        every = squared_differences(x, np.full(len(other), i), other, np.arange(len(other)))
        if same:
            every[i] = np.inf
        index[t] = np.argsort(every, kind="stable")[:k]
        distance[t] = every[index[t]]
    return distance, index


SHARED = 5  # neighbours that are found where fewer are asked for, so that metrics with k up to 5 share one pass


def neighbours(
    x: Features, y: Features | None, k: int, rows: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """`nearest` of two feature sets, kept with x for all metrics that ask.

    Args:
        x: n rows.
        y: m rows; None for the other rows of x. Where y is x itself, every row's nearest is itself at distance 0.
        k: number of neighbours.
        rows: row numbers of x that matter; others are not computed unless they are known already.

    Returns:
        (squared distances (n, k) ascending, their rows of y (n, k)); of the asked rows only where `rows` is given.
    """
    if y is x:
        own = np.arange(len(x)) if rows is None else np.asarray(rows)
        distance, index = np.zeros((len(own), 1)), own[:, None]
        if k == 1:
            return distance, index
        others = neighbours(x, None, k - 1, rows)
        return np.hstack([distance, others[0]]), np.hstack([index, others[1]])
    key = ("neighbours", id(y))
    known = x.memo.get(key)
    if known is None or known[1].shape[1] < k:
        columns = len(x) - 1 if y is None else len(y)
        if rows is not None and 2 * len(rows) < len(x):
            return nearest(x.x, None if y is None else y.x, k, rows)
        found = nearest(x.x, None if y is None else y.x, min(max(k, SHARED), columns))
        known = x.memo[key] = (y, *found)
    distance, index = known[1][:, :k], known[2][:, :k]
    return (distance, index) if rows is None else (distance[rows], index[rows])


@dataclass(frozen=True)
class Manifold:
    """Precision, recall, density and coverage, in this order.

    Args:
        value: (4,) means of the units below.
        variance: (4,) variance of a unit: gen in any ref ball, ref in any gen ball, ref balls around gen over k, any gen in ref's ball.
        hanging: (4,) variance of the value that comes from single large balls: for precision Σ (u/n)² with u the gen rows that one ref
            ball alone holds, where they are more than 2 %; for recall likewise; for density with all that the ball holds over k; 0 for
            coverage.
    """

    value: NDArray[np.float64]
    variance: NDArray[np.float64]
    hanging: NDArray[np.float64]


def manifold(gen: Features, ref: Features, k: int, closed: bool = True) -> Manifold:
    """Counts of points in the closed balls that reach to the k-th neighbour (metrics/prdc.py).

    Three distance passes, within each side and across; beside the rows, memory is that of a few tiles and of the pairs within a ball.

    Args:
        gen: n > k rows.
        ref: m > k rows.
        k: neighbours that make a ball's radius.
        closed: count points at exactly the radius.
    """
    radius_g, radius_r = neighbours(gen, None, k)[0][:, -1], neighbours(ref, None, k)[0][:, -1]
    return _balls(gen.x, ref.x, radius_g, radius_r, k, closed)


def _balls(gen: Float, ref: Float, radius_g: Float, radius_r: Float, k: int, closed: bool) -> Manifold:
    n, m = len(gen), len(ref)
    held, inside, holds = np.zeros(m), np.zeros(n), np.zeros(m)
    owner_g, owner_r = np.zeros(n), np.zeros(m)  # sums of the holders' numbers: the holder, where there is one
    product = _Product(ref, gen, _single(ref, gen))
    norm_r, norm_g = product.nx.numpy(), product.ny.numpy()
    for a, b in _bounds(m):
        left = product.rows(ref, slice(a, b))
        for c, e in _bounds(n):
            tile = product.tile(left, product.rows(gen, slice(c, e)), product.nx[a:b], product.ny[c:e])
            slack = 2 * product.error * (norm_r[a:b].max() + norm_g[c:e].max())  # of any pair of the tile
            near = tile <= _t(radius_r[a:b] + slack).to(tile.dtype)[:, None]
            near |= tile <= _t(radius_g[c:e] + slack).to(tile.dtype)[None, :]
            i, j = (v.numpy() for v in near.nonzero(as_tuple=True))
            d2 = tile.numpy()[i, j].astype(np.float64)
            i, j = i + a, j + c
            rounding = 2 * product.error * (norm_r[i] + norm_g[j])
            unsure = (np.abs(d2 - radius_r[i]) <= rounding) | (np.abs(d2 - radius_g[j]) <= rounding)
            d2[unsure] = squared_differences(ref, i[unsure], gen, j[unsure])
            d2 *= 1 - SAME if closed else 1 + SAME
            in_ref, in_gen = (d2 <= radius if closed else d2 < radius for radius in (radius_r[i], radius_g[j]))
            held += np.bincount(i[in_ref], minlength=m)
            inside += np.bincount(j[in_ref], minlength=n)
            holds += np.bincount(i[in_gen], minlength=m)
            owner_g += np.bincount(j[in_ref], i[in_ref], minlength=n)
            owner_r += np.bincount(i[in_gen], j[in_gen], minlength=m)
    units = (inside > 0, holds > 0, inside / k, held > 0)
    owned = (np.bincount(owner[alone].astype(np.int64)) for owner, alone in ((owner_g, inside == 1), (owner_r, holds == 1)))
    shares = [u / size for u, size in zip(owned, (n, m), strict=True)] + [held / (n * k)]
    hanging = [(share[share > 0.02] ** 2).sum() for share in shares] + [0.0]
    return Manifold(np.array([u.mean() for u in units]), np.array([u.var() for u in units]), np.array(hanging))


def manifold_design(gen: Features, ref: Features, k: int, seed: int) -> NDArray[np.float64] | None:
    """(4,) design effects of `manifold`: its sampling variance over that of as many independent units, at least 1.

    Rows are parted at random, several times, into S disjoint parts of both sides. The variance of the statistic between parts, over what
    independent units would have there, is the effect of neighbourhoods that share points. It hardly depends on the size of the sample,
    while the units' variance does.

    A jackknife (rows left out) counts the interactions of r neighbours r times and gives up to 4.9 times the variance; a bootstrap makes
    ties; units taken as independent have as little as 0.3 of it.

    Args:
        gen: n rows.
        ref: m rows; the smaller size counts where they differ.
        k: neighbours.
        seed: of the parting, by position.

    Returns:
        The design effects; None where the parts would have too few rows (fewer than 4 (k + 5) in all).
    """
    smallest = min(len(gen), len(ref))
    parts = int(np.clip(smallest // 1000, 4 if smallest >= 16 * (k + 1) else 2, 20))
    if smallest // parts < 2 * (k + 5):
        return None
    draw = np.random.default_rng(seed)
    between, units = [], []
    for _ in range(-(-30 // (parts - 1))):  # 30 degrees of freedom
        order_g, order_r = draw.permutation(len(gen)), draw.permutation(len(ref))
        found = [manifold(gen.take(np.sort(order_g[p::parts])), ref.take(np.sort(order_r[p::parts])), k) for p in range(parts)]
        between.append(np.var([f.value for f in found], axis=0, ddof=1))
        units.append(np.mean([f.variance for f in found], axis=0))
    return np.maximum((smallest / parts) * np.mean(between, axis=0) / np.maximum(np.mean(units, axis=0), 1 / smallest), 1.0)


def wilson(p: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's interval of a proportion (Wilson 1927): both ends within [0, 1], p inside, and not empty for p = 0 or 1."""
    centre, scale = p + z * z / (2 * n), 1 + z * z / n
    half = z * float(np.sqrt(max(p * (1 - p), 0.0) / n + z * z / (4 * n * n)))
    return min(max((centre - half) / scale, 0.0), p), max(min((centre + half) / scale, 1.0), p)


def below_order_statistic(a: Float, b: Float, place: float) -> NDArray[np.float64]:
    """For each of a, whether it is below the order statistic of b of that number: between two of them a mean of both answers, at a tie
    the chance that a random order puts it first; for squared distances whose law is, below the first, at most linear in the distance."""
    b = np.sort(b)
    if place < 1 and b[0] > 0:
        return np.where(a < place**2 * b[0], 1.0, 0.0)
    inside = np.zeros(a.shape)
    for j, weight in ((int(place), 1 - place % 1), (int(place) + 1, place % 1)):
        if j > len(b):
            inside += weight
        elif j > 0:
            first, last = np.searchsorted(b, b[j - 1], "left"), np.searchsorted(b, b[j - 1], "right")
            inside += weight * np.where(a < b[j - 1], 1.0, np.where(a == b[j - 1], (j - first) / (last - first + 1), 0.0))
    return inside


def mover(value: float, one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """Two intervals of one value, each for another source of error, joined end by end as roots of squares (Zou & Donner 2008)."""
    return value - float(np.hypot(value - one[0], value - other[0])), value + float(np.hypot(one[1] - value, other[1] - value))


# -- kernels -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KernelSums:
    """Sums of a kernel matrix K_ij = k(x_i, y_j).

    Args:
        rows: (n,) row sums; without the diagonal where y is x.
        columns: (m,) column sums.
        squares: Σ K², without the diagonal where y is x.
    """

    rows: Float
    columns: Float
    squares: float


def polynomial_sums(x: Float, y: Float | None, degree: int = 3) -> KernelSums:
    """Sums of k(x, y) = (x·y/d + 1)^degree, tile by tile; half the products where y is x.

    With rows u and v centred on the common mean c, x·y = u·v + (u·c + c²/2) + (v·c + c²/2). For float32 features of 64 or more dimensions
    u·v is a float32 product, all else float64: its rounding is random and averages out, to about 1e-9 of the mean kernel in a mean
    over all pairs and to 1e-5 of the standard error of the distance (measured).

    Args:
        x: (n, d) float32 or float64.
        y: (m, d); None for x itself, without the diagonal.
        degree: at least 1.
    """
    import torch

    other, d = x if y is None else y, x.shape[1]
    single = _single(x, other) and max(float(max(z.max(), -z.min())) for z in (x, other)) < 1e15  # whose products float32 can hold
    product = _Product(x, other, single)
    px = product.along(x) / d + 0.5
    py = px if y is None else product.along(other) / d + 0.5
    rows, columns, squares = np.zeros(len(x)), np.zeros(len(other)), 0.0
    for a, b in _bounds(len(x)):
        left = product.rows(x, slice(a, b))
        for c, e in _bounds(len(other)):
            if y is None and c < a:
                continue
            own = y is None and a == c
            dots = self_product(left) if own else left @ product.rows(other, slice(c, e)).T
            k = (px[a:b, None] + py[None, c:e]).add_(dots, alpha=1 / d).pow_(degree)  # (rows, columns) float64
            if own:
                k.fill_diagonal_(0.0)
            rows[a:b] += k.sum(1).numpy()
            if y is None and not own:
                rows[c:e] += k.sum(0).numpy()
            elif y is not None:
                columns[c:e] += k.sum(0).numpy()
            squares += float(torch.dot(k.view(-1), k.view(-1))) * (1 if own or y is not None else 2)
    return KernelSums(rows, rows if y is None else columns, squares)


@dataclass(frozen=True)
class CubicMoments:
    """The first three moments of n rows, as tensors: all that Σ_j (x·y_j/d + 1)³ depends on.

    Args:
        n: number of rows.
        first: (d,) Σ y.
        second: (d, d) Σ y yᵀ.
        third: for each a the block (d − a, d − a) of Σ y_a y_b y_c with b, c >= a.
    """

    n: int
    first: Any
    second: Any
    third: list[Any]


CUBIC_ROWS = 4096  # rows whose products stay in the cache


def cubic_moments(y: Float) -> CubicMoments:
    """Moments of rows (m, d), in time linear in m."""
    import torch

    u = _t(y)
    d = u.shape[1]
    third = [torch.zeros(d - a, d - a, dtype=torch.float64) for a in range(d)]
    for start in range(0, len(u), CUBIC_ROWS):
        part = u[start : start + CUBIC_ROWS].T.contiguous()
        for a, block in enumerate(third):
            block.addmm_(part[a:] * part[a], part[a:].T)
    return CubicMoments(len(u), u.sum(0), u.T @ u, third)


def _weighted(block: Any) -> Any:
    """Each entry of a block times the orders of its three indices over the places it has in the block: 3; with the block's own index
    twice 3/2, thrice 1."""
    block = 3 * block
    block[0] /= 2
    block[:, 0] /= 2
    block[0, 0] *= 4 / 3
    return block


def cubic_total(x: CubicMoments, y: CubicMoments) -> float:
    """Σ_ij (x_i·y_j/d + 1)³ from the moments of both."""
    d = len(x.first)
    cubes = sum(float((_weighted(a) * b).sum()) for a, b in zip(x.third, y.third, strict=True))
    return x.n * y.n + 3 * float(x.first @ y.first) / d + 3 * float((x.second * y.second).sum()) / d**2 + cubes / d**3


def cubic_sums(x: Float, moments: list[CubicMoments]) -> list[NDArray[np.float64]]:
    """For each set of moments, (n,) sums Σ_j (x_i·y_j/d + 1)³ in time linear in n.

    (u + 1)³ = 1 + 3u + 3u² + u³ with u = x·y/d, and Σ_j u_j^p is a polynomial in x whose coefficients are the p-th moments of y.

    Args:
        x: (n, d).
        moments: of the sets y.
    """
    t = _t(x) / x.shape[1]
    out = []
    for m in moments:
        blocks, found = [_weighted(block) for block in m.third], np.empty(len(t))
        for start in range(0, len(t), CUBIC_ROWS):
            part = t[start : start + CUBIC_ROWS].T.contiguous()
            total = m.n + 3 * (m.first @ part) + 3 * ((m.second @ part) * part).sum(0)
            for a, block in enumerate(blocks):
                total.addcmul_(part[a], (block @ part[a:]).mul_(part[a:]).sum(0))
            found[start : start + len(total)] = total.numpy()
        out.append(found)
    return out


def polynomial_mmd(x: Float, y: Float, degree: int = 3) -> float:
    """Unbiased MMD² with k(x, y) = (x·y/d + 1)^degree: Gretton et al. 2012, eq. 3."""
    n, m = len(x), len(y)
    kxx, kyy, kxy = polynomial_sums(x, None, degree), polynomial_sums(y, None, degree), polynomial_sums(x, y, degree)
    return float(kxx.rows.sum() / (n * (n - 1)) + kyy.rows.sum() / (m * (m - 1)) - 2 * kxy.rows.sum() / (n * m))


def degenerate_within(k: KernelSums, n: int) -> float:
    """Mean of (K_ij − r_i − r_j + r̄)² over i ≠ j with r = row sums/(n − 1), from the sums alone."""
    r = k.rows / (n - 1)
    mean = float(r.mean())
    r = r - mean
    # With L = K − r̄, whose row sums are (n − 1) r and Σ r = 0, the sum over i ≠ j of (L − r_i − r_j)² is Σ L² − 2 n Σ r².
    return max(k.squares - n * (n - 1) * mean**2 - 2 * n * float(r @ r), 0.0) / (n * (n - 1))


def degenerate_across(k: KernelSums, n: int, m: int) -> float:
    """Mean of (K_ij − r_i − c_j + K̄)² with r and c the row and column means."""
    r, c = k.rows / m, k.columns / n
    return max(k.squares / (n * m) - float((r**2).mean() + (c**2).mean() - r.mean() ** 2), 0.0)


def mmd_interval(value: float, lift: float, influence_x: Float, influence_y: Float, n: int, m: int, v2: float) -> tuple[float, float]:
    """Ends of the 95 % interval of an unbiased squared maximum mean discrepancy: `square_interval` with the plug-in v1 of the influences.

    A kernel may have heavy tails: the quantile is Student's t with as many degrees of freedom as the influences' fourth moments leave
    to v1.

    Args:
        value: the unbiased estimate.
        lift: what the kernels' diagonals would add to it.
        influence_x: first-order influences of rows of the one side, all n or an even sample of them.
        influence_y: of the other.
        n: rows of the one side.
        m: of the other.
        v2: variance of the degenerate part.
    """
    v1, freedom = first_order((influence_x, n), (influence_y, m))
    return square_interval(value, lift, v1, v2, student95(freedom))


def first_order(*sides: tuple[Float, int]) -> tuple[float, float]:
    """Variance of a value from the influences of its sides' rows, Σ Var(h)/n, and the degrees of freedom that their kurtosis leaves to it.

    Args:
        sides: the influences, all of them or an even sample, and the number of rows n that they stand for.
    """
    parts = [(float(h.var(ddof=1)) / n, h) for h, n in sides]
    v1 = sum(v for v, _ in parts)
    noise = sum(v**2 * (kurtosis(h) - 1) / len(h) for v, h in parts)
    return v1, max(2 * v1**2 / noise, 4.0) if noise > 0 else 1e9


def square_interval(value: float, lift: float, v1: float, v2: float, t: float) -> tuple[float, float]:
    """Ends of the interval of an unbiased squared distance.

    Along the effect the estimate is a square, (√θ + noise)² less its mean, and the other directions add noise of their own. `along` is
    four times the variance of the first: v1 over the biased estimate, which 2 v2 of noise and θ share; at least what v1 − 2 v2 asks for.
    As θ is not negative, the lower end stops a quarter of the noise below zero, or below the estimate where that is negative.

    Args:
        value: the unbiased estimate.
        lift: what the diagonals would add to it.
        v1: plug-in variance of the first-order part; holds 2 v2 of noise.
        v2: variance of the degenerate part.
        t: quantile.
    """
    if v1 <= 0 or v2 <= 0:
        half = t * float(np.sqrt(max(v1, v2, 0.0)))
        return value - half, value + half
    along = max(v1 / max(value + lift, 0.05 * lift), (v1 - 2 * v2) / max(value, 2 * float(np.sqrt(v2))))
    # An effect in a steeper direction than the mean one is short at the upper end. sqrt(8 v2) is `along` were there one direction only:
    # with one there is none steeper, with very many each weighs little
    steep = along * max(2 - along / float(np.sqrt(8 * v2)), 1.0)
    ends = []
    for slope, sign in ((along, -1), (steep, 1)):
        root = float(np.sqrt(max(value + slope / 4, 0.0)))
        end = max(root + sign * t * float(np.sqrt(slope)) / 2, 0.0) ** 2
        ends.append(value + sign * float(np.sqrt(max(sign * (end - value), 0.0) ** 2 + t**2 * max(v2 - slope**2 / 8, 0.0))))
    return max(ends[0], min(value, 0.0) - 0.25 * float(np.sqrt(v2))), ends[1]


def kurtosis(h: Float) -> float:
    """Fourth standardised moment, at least 1; 1 for a constant."""
    centred = h - h.mean()
    variance = float((centred**2).mean())
    return float((centred**4).mean()) / variance**2 if variance > 0 else 1.0
