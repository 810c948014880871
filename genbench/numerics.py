"""Float64 kernels that several metrics share: Fréchet distance and its influence functions, neighbours in blocks, polynomial kernels.

torch is imported inside functions only: its LAPACK and matrix products use every core. Nothing here holds an n × m matrix.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.statistics import Features, Moments

Float = NDArray[np.float64]
Z95 = 1.959963984540054  # the normal law's 97.5 % quantile
T95_19 = 2.0930240544082634  # Student's, 19 degrees of freedom: a jackknife over 20 blocks
BLOCKS = 20
_TILE = (512, 2048)  # 8 MB of float64: a tile that stays in the last cache is several times faster than one that does not


def _tensor(x: Any) -> Any:
    """A float64 tensor; shares memory with a float64 array."""
    import torch

    return torch.as_tensor(np.ascontiguousarray(x, np.float64))


# -- Fréchet distance --------------------------------------------------------------------------------------------------------------


def cholesky(cov: Float) -> Float | None:
    """Lower triangular L with L Lᵀ = cov; None where cov is not safely positive definite."""
    import torch

    factor, info = torch.linalg.cholesky_ex(_tensor(cov))
    diagonal = factor.diagonal()
    # Below 1e-6 of the largest pivot the squares that eigvalsh works on are lost in rounding: take the exact form instead.
    if int(info) != 0 or float(diagonal.min()) <= 1e-6 * float(diagonal.max()):
        return None
    return np.asarray(factor)


def root(cov: Float) -> Float:
    """F (d, r) with F Fᵀ = cov, r its numerical rank."""
    import torch

    values, vectors = (np.asarray(v) for v in torch.linalg.eigh(_tensor(cov)))
    keep = values > values.max(initial=0.0) * 1e-14
    return vectors[:, keep] * np.sqrt(values[keep])


def factor(x: Features | Moments) -> Float:
    """F (d, r) with F Fᵀ = cov(x): the centred rows themselves where they are fewer than d, which loses nothing."""
    if isinstance(x, Features) and len(x) <= x.d:
        rows = x.x.astype(np.float64)
        return (rows - rows.mean(axis=0)).T / np.sqrt(len(x) - 1)
    return root(x.cov if isinstance(x, Moments) else Moments.of(x).cov)


def frechet(gen: Moments, ref: Moments, rows: tuple[Features | Moments, Features | Moments] | None = None) -> float:
    """Fréchet distance of the Gaussians with these moments: ‖μg−μr‖² + tr Σg + tr Σr − 2 tr (ΣgΣr)^½.

    tr (ΣgΣr)^½ is the sum of the square roots of the eigenvalues of Lᵀ Σg L with Σr = L Lᵀ; where Σr has no safe Cholesky factor, the
    nuclear norm of FgᵀFr with Σ = F Fᵀ, which is exact for n <= d and for constant features.

    Args:
        gen: moments of the generated samples.
        ref: moments of the reference.
        rows: what they were made of, for the exact form.
    """
    import torch

    delta = gen.mean - ref.mean
    cov_g, cov_r = gen.cov, ref.cov
    base = float(delta @ delta + np.trace(cov_g) + np.trace(cov_r))
    lower = cholesky(cov_r) if all(m.n is None or m.n > m.d for m in (gen, ref)) else None
    if lower is not None:
        left = _tensor(lower)
        return base - 2 * float(torch.linalg.eigvalsh(left.T @ _tensor(cov_g) @ left).clamp_min(0).sqrt().sum())
    a, b = (factor(x) for x in (rows or (gen, ref)))
    return base - 2 * float(torch.linalg.svdvals(_tensor(a.T @ b)).sum()) if a.size and b.size else base


@dataclass(frozen=True)
class FrechetSpread:
    """Sampling error of a Fréchet distance.

    Args:
        bias: first-order bias of the raw value.
        v1: Var(IF_g)/n + Var(IF_r)/m, no normality assumed.
        v2: the second-order part, which is what remains where the two laws are equal.
        gen: (n,) centred influence of every generated row.
        ref: (m,) of every reference row; None for a fixed reference.
    """

    bias: float
    v1: float
    v2: float
    gen: Float
    ref: Float | None

    @property
    def se(self) -> float:
        """sqrt(v1 + v2)."""
        return float(np.sqrt(self.v1 + self.v2))


def frechet_spread(gen: Features, ref: Features | Moments, mg: Moments, mr: Moments) -> FrechetSpread:
    """Influence functions, bias and variance of the raw Fréchet distance.

    With d = μg−μr, Σr = F Fᵀ and FᵀΣgF = U diag(s²) Uᵀ (one eigendecomposition; U takes the place of the singular vectors of Σg^½Σr^½):
        w(x)  = diag(1/s)  Uᵀ Fᵀ (x−μg)         IF_g(x) =  2 d·(x−μg) + ‖x−μg‖² − Σ s_i w_i²  − mean
        w'(y) = diag(1/s²) Uᵀ Fᵀ Σg (y−μr)      IF_r(y) = −2 d·(y−μr) + ‖y−μr‖² − Σ s_i w'_i² − mean
        bias  = tr Σg/n + tr Σr/m + B_g/n + B_r/m,   B = ½ Σ_ij Var(w_i w_j) C_ij,   C_ij = s_i s_j/(s_i+s_j)
        v2    = Σ [C (V_g/n + V_r/m)]² − ½ its diagonal + 2 ‖Σg/n + Σr/m‖²_F,        V = Var(w_i w_j)

    Args:
        gen: generated rows, more than d.
        ref: reference rows; Moments for a fixed reference, whose terms are dropped.
        mg: moments of gen.
        mr: moments of ref.
    """
    import torch

    cov_g, cov_r = mg.cov, mr.cov
    lower = cholesky(cov_r)
    f = _tensor(lower if lower is not None else root(cov_r))  # (d, r)
    values, u = torch.linalg.eigh(f.T @ _tensor(cov_g) @ f)
    keep = values > (float(values.max()) * 1e-20 if len(values) else 0.0)
    s, u = values[keep].sqrt(), u[:, keep]
    delta = _tensor(mg.mean - mr.mean)
    c = s[:, None] * s[None, :] / (s[:, None] + s[None, :])
    to_g = f @ (u / s)
    to_r = _tensor(cov_g) @ (f @ (u / s**2))

    def side(x: Features, mean: Float, to: Any, sign: float) -> tuple[Float, Any]:
        influence, second = np.empty(len(x)), torch.zeros(len(s), len(s), dtype=torch.float64)
        for start in range(0, len(x), 4096):
            z = _tensor(x.x[start : start + 4096]) - _tensor(mean)
            w2 = (z @ to).square_()
            influence[start : start + len(z)] = (sign * 2 * (z @ delta) + (z * z).sum(1) - w2 @ s).numpy()
            second.addmm_(w2.T, w2)
        second /= len(x)
        second.diagonal().sub_(1.0)  # w has unit covariance: E[w_i w_j]² is the identity
        return influence - influence.mean(), second

    influence_g, v_g = side(gen, mg.mean, to_g, 1.0)
    n = len(gen)
    bias = (float(np.trace(cov_g)) + 0.5 * float((v_g * c).sum())) / n
    v1, v, cov = float(influence_g.var(ddof=1)) / n, v_g / n, _tensor(cov_g) / n
    influence_r: Float | None = None
    if isinstance(ref, Features):
        m = len(ref)
        influence_r, v_r = side(ref, mr.mean, to_r, -1.0)
        bias += (float(np.trace(cov_r)) + 0.5 * float((v_r * c).sum())) / m
        v1, v, cov = v1 + float(influence_r.var(ddof=1)) / m, v + v_r / m, cov + _tensor(cov_r) / m
    q = (c * v).square()
    v2 = float(q.sum() - 0.5 * q.diagonal().sum() + 2 * cov.square().sum())
    return FrechetSpread(bias, v1, v2, influence_g, influence_r)


def block_moments(x: Features, blocks: int) -> list[Moments]:
    """Moments of the rows whose index mod `blocks` is 0, 1, ..., so that a sorted folder gives equal blocks."""
    return [Moments.of(Features(x.x[b::blocks], x.extractor)) for b in range(blocks)]


def without(parts: Sequence[Moments], b: int) -> Moments:
    """The merged moments of all blocks but one."""
    return Moments.merge([p for i, p in enumerate(parts) if i != b])


# -- neighbours --------------------------------------------------------------------------------------------------------------------


def centre(*sets: Features) -> list[Float]:
    """The sets in float64 around their common mean: smaller norms, smaller rounding."""
    mean = sum(s.x.sum(axis=0, dtype=np.float64) for s in sets) / sum(len(s) for s in sets)
    return [s.x.astype(np.float64) - mean for s in sets]


def squared_distances(a: Float, b: Float) -> Iterator[tuple[int, int, int, int, Any]]:
    """Tiles of squared distances between rows of a and rows of b: (row start, row stop, column start, column stop, float64 tensor).

    ‖x‖² + ‖y‖² − 2 x·y by matrix products; a value that this cannot tell from zero is computed again as Σ (x−y)², so that exact copies
    are at distance exactly 0. Tiles come row by row; a tile is only valid until the next one is asked for.
    """
    x, y = _tensor(a), _tensor(b)
    nx, ny = (x * x).sum(1), (y * y).sum(1)
    largest = float(ny.max()) if len(ny) else 0.0
    for i in range(0, len(x), _TILE[0]):
        left, norms = x[i : i + _TILE[0]], nx[i : i + _TILE[0], None]
        for j in range(0, len(y), _TILE[1]):
            right = y[j : j + _TILE[1]]
            d2 = (left @ right.T).mul_(-2.0).add_(norms).add_(ny[j : j + _TILE[1]])
            if float(d2.min()) <= 1e-11 * (float(norms.max()) + largest):
                p, q = (d2 <= 1e-11 * (norms + ny[j : j + _TILE[1]])).nonzero(as_tuple=True)
                for k in range(0, len(p), 4096):
                    pk, qk = p[k : k + 4096], q[k : k + 4096]
                    d2[pk, qk] = (left[pk] - right[qk]).square_().sum(1)
            yield i, i + len(left), j, j + len(right), d2


def _slack(norms: Float, radii: Float) -> Float:
    """Radii widened by what rounding can move a squared distance: a tie stays a tie."""
    return radii + 4e-14 * (radii + norms)


def neighbour_radii(x: Float, k: int, blocks: int = 1) -> Float:
    """Squared distance of every row to its k-th nearest other row, with slack for rounding.

    Args:
        x: (n, d) with n > k.
        k: which neighbour.
        blocks: 1, or the number of blocks (row index mod blocks) that are left out in turn.

    Returns:
        (1, n), or (blocks + 1, n): all rows, then without block 0, 1, ...
    """
    import torch

    n = len(x)
    order = np.argsort(np.arange(n) % blocks, kind="stable")  # the blocks side by side
    width = -(-n // blocks)
    place = np.empty(n, np.int64)  # column of row i, blocks padded to one width
    place[order] = np.concatenate([b * width + np.arange(len(range(b, n, blocks))) for b in range(blocks)])
    kept = min(k, width)
    near = np.full((blocks, n, kept), np.inf)
    y = x[order]
    columns = place[order]
    held = torch.empty(0)
    for i, stop, j, end, d2 in squared_distances(x, y):
        if j == 0:
            held = torch.full((stop - i, blocks * width), torch.inf, dtype=torch.float64)
        held[:, torch.from_numpy(columns[j:end])] = d2
        if end == n:
            held[torch.arange(stop - i), torch.from_numpy(place[i:stop])] = torch.inf  # a row is not its own neighbour
            near[:, i:stop] = held.view(stop - i, blocks, width).topk(kept, largest=False).values.transpose(0, 1).numpy()
    norms = (x * x).sum(1)
    everything = near.transpose(1, 0, 2).reshape(n, -1)
    found = [np.partition(everything, k - 1, axis=1)[:, k - 1]]
    if blocks > 1:
        found += [np.partition(np.delete(near, b, axis=0).transpose(1, 0, 2).reshape(n, -1), k - 1, axis=1)[:, k - 1] for b in range(blocks)]
    return _slack(norms, np.stack(found))


def manifolds(gen: Features, ref: Features, k: int, blocks: int = 1) -> Float:
    """Precision, recall, density and coverage of k-NN manifolds, and their values with each block of rows left out.

    Args:
        gen: generated rows, more than k.
        ref: reference rows, more than k.
        k: neighbours of a ball's radius.
        blocks: 1, or the number of blocks for a jackknife; more than k rows must remain without one.

    Returns:
        (1, 4) or (blocks + 1, 4).
    """
    import torch

    g, r = centre(gen, ref)
    rounds = blocks + 1 if blocks > 1 else 1
    rad_g, rad_r = neighbour_radii(g, k, blocks), neighbour_radii(r, k, blocks)
    block_g, block_r = np.arange(len(g)) % blocks, np.arange(len(r)) % blocks
    inside = np.zeros((rounds, len(g)), np.int64)  # balls of the reference around every generated row
    recalled, covered = np.zeros((rounds, len(r)), bool), np.zeros((rounds, len(r)), bool)
    wide_g, wide_r = torch.from_numpy(rad_g.max(axis=0)), torch.from_numpy(rad_r.max(axis=0))
    for i, stop, j, end, d2 in squared_distances(r, g):
        # Few pairs are within the widest radius of any round; only those are looked at again.
        a, b = (t.numpy() for t in (d2 <= wide_r[i:stop, None]).nonzero(as_tuple=True))
        c, e = (t.numpy() for t in (d2 <= wide_g[None, j:end]).nonzero(as_tuple=True))
        d_ref, d_gen = d2.numpy()[a, b], d2.numpy()[c, e]
        a, b, c, e = a + i, b + j, c + i, e + j
        for t in range(rounds):
            hit = d_ref <= rad_r[t, a]
            near = d_gen <= rad_g[t, e]
            if t:
                hit &= (block_r[a] != t - 1) & (block_g[b] != t - 1)
                near &= block_g[e] != t - 1
            inside[t] += np.bincount(b[hit], minlength=len(g))
            covered[t, a[hit]] = True
            recalled[t, c[near]] = True
    out = np.empty((rounds, 4))
    for t in range(rounds):
        kept_g, kept_r = (block_g != t - 1, block_r != t - 1) if t else (slice(None), slice(None))
        out[t] = ((inside[t, kept_g] > 0).mean(), recalled[t, kept_r].mean(), inside[t, kept_g].mean() / k, covered[t, kept_r].mean())
    return out


def jackknife(leave_one_out: Float) -> Float:
    """Standard error from the values with each of G blocks left out: sqrt((G−1)/G Σ (θ_b − mean)²)   (Efron & Tibshirani 1993, eq. 11.5)."""
    count = len(leave_one_out)
    return np.sqrt((count - 1) / count * ((leave_one_out - leave_one_out.mean(axis=0)) ** 2).sum(axis=0))


# -- polynomial kernels ------------------------------------------------------------------------------------------------------------


def polynomial_sums(x: Float, y: Float, degree: int, *, same: bool = False) -> tuple[Float, Float, float]:
    """Row sums, column sums and sum of squares of k(x, y) = (x·y/d + 1)^degree, in tiles.

    Args:
        x: (n, d).
        y: (m, d).
        degree: at least 1.
        same: x is y: the diagonal is left out.
    """
    import torch

    a, b = _tensor(x) / x.shape[1], _tensor(y)
    rows, columns, squares = torch.zeros(len(a), dtype=torch.float64), torch.zeros(len(b), dtype=torch.float64), 0.0
    for i in range(0, len(a), _TILE[0]):
        for j in range(0, len(b), _TILE[1]):
            base = (a[i : i + _TILE[0]] @ b[j : j + _TILE[1]].T).add_(1.0)
            k = base.clone()
            for _ in range(degree - 1):
                k.mul_(base)
            if same:
                p = torch.arange(max(i, j), max(i, j, min(i + len(k), j + k.shape[1])))
                k[p - i, p - j] = 0.0
            rows[i : i + len(k)] += k.sum(1)
            columns[j : j + k.shape[1]] += k.sum(0)
            squares += float(torch.dot(k.view(-1), k.view(-1)))
    return np.asarray(rows), np.asarray(columns), squares


def cubic_row_sums(x: Float, y: Float) -> Float:
    """Σ_j (x_i·y_j/d + 1)³ for every i in time linear in n and m, from the first three moments of y.

    (u + 1)³ = 1 + 3u + 3u² + u³ with u = x·y/d, and Σ_j u_j^p is a polynomial in x whose coefficients are the p-th moments of y.

    Args:
        x: (n, d).
        y: (m, d).
    """
    import torch

    d = x.shape[1]
    upper = torch.triu_indices(d, d)
    twice = torch.where(upper[0] == upper[1], 1.0, 2.0).to(torch.float64)  # y_b y_c and y_c y_b
    step = max(64, int(2**22 / len(twice)))
    t, u = _tensor(x) / d, _tensor(y)
    third = torch.zeros(d, len(twice), dtype=torch.float64)
    for start in range(0, len(u), step):
        part = u[start : start + step]
        third.addmm_(part.T, part[:, upper[0]] * part[:, upper[1]])
    first, second = u.sum(0), u.T @ u
    out = np.empty(len(t))
    for start in range(0, len(t), step):
        part = t[start : start + step]
        pairs = (part[:, upper[0]] * part[:, upper[1]]).mul_(twice)
        out[start : start + len(part)] = (
            len(u) + 3 * (part @ first) + 3 * ((part @ second) * part).sum(1) + ((part @ third) * pairs).sum(1)
        ).numpy()
    return out
