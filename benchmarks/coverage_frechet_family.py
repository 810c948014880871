"""Coverage settings of fid_infinity, sfid, class_fd and realism.

Targets: the Fréchet distance of the two laws, in closed form, for the debiased and the extrapolated values (its mean over the classes
for class_fd_debiased); for the others the mean over new samples of the same sizes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from coverage import Law, collapsed_pair, gaussian_pair, heavy_pair, skewed_pair
from simulate import Setting

from genbench.statistics import Features


def _pair(law: Law, n: int, m: int) -> Callable[[np.random.Generator], Mapping[str, Features]]:
    return lambda rng: {"gen": Features(law.gen(rng, n).astype(np.float32)), "ref": Features(law.ref(rng, m).astype(np.float32))}


def _classes(law: Law, d: int, sizes: Sequence[int]) -> Callable[[np.random.Generator], Mapping[str, Features]]:
    """The same pair of laws in every class, about centres of its own; `sizes` rows a class in gen, a quarter more in ref."""
    centres = 3 * np.random.default_rng(0).standard_normal((len(sizes), d))

    def side(draw: Callable[[np.random.Generator, int], np.ndarray], rng: np.random.Generator, counts: Sequence[int]) -> Features:
        labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
        return Features((draw(rng, len(labels)) + centres[labels]).astype(np.float32), labels=labels)

    return lambda rng: {"gen": side(law.gen, rng, sizes), "ref": side(law.ref, rng, [5 * n // 4 for n in sizes])}


def settings() -> Iterator[Setting]:
    """One Setting per line of the table."""
    for d, n, m, count in ((2, 200, 200, 400), (16, 64, 64, 400), (16, 400, 1000, 400), (64, 256, 256, 200)):
        for law in (gaussian_pair(d, 0, 1), gaussian_pair(d, 0.5, 1.2), skewed_pair(d, 0.5), heavy_pair(d, 0.5)):
            yield Setting("fid_infinity", law.name, d, n, m, count, _pair(law, n, m), {"fid_infinity": law.fd})
    for law in (gaussian_pair(64, 0, 1), skewed_pair(64, 0.5)):
        yield Setting("fid_infinity", law.name, 64, 1000, 1000, 200, _pair(law, 1000, 1000), {"fid_infinity": law.fd})
    for d, n, m, count in ((16, 64, 64, 400), (16, 400, 1000, 400), (64, 256, 256, 300), (64, 1000, 2000, 400), (256, 1024, 1024, 300)):
        for law in (gaussian_pair(d, 0, 1), gaussian_pair(d, 0.5, 1.2), skewed_pair(d, 0.5), heavy_pair(d, 0.5)):
            yield Setting("sfid", law.name, d, n, m, count, _pair(law, n, m), {"sfid_debiased": law.fd})
    yield Setting(
        "sfid", collapsed_pair(64).name, 64, 500, 500, 200, _pair(collapsed_pair(64), 500, 500), {"sfid_debiased": collapsed_pair(64).fd}
    )
    for d, sizes, count in ((2, [40, 60, 80, 200], 400), (16, [64] * 10, 300), (16, [40, 80] * 10, 200), (64, [256] * 10, 300)):
        for law in (gaussian_pair(d, 0, 1), gaussian_pair(d, 0.5, 1.2), skewed_pair(d, 0.5), heavy_pair(d, 0.5)):
            n = sum(sizes)
            name = f"{law.name}, {len(sizes)} classes"
            yield Setting("class_fd", name, d, n, 5 * n // 4, count, _classes(law, d, sizes), {"class_fd_debiased": law.fd})
    for d, n, m, count in ((2, 300, 300, 400), (8, 100, 400, 400), (8, 1000, 300, 200), (16, 500, 500, 200)):
        for law in (gaussian_pair(d, 0, 1), gaussian_pair(d, 0.5, 1.2), skewed_pair(d, 0.5), heavy_pair(d, 0.5)):
            yield Setting("realism", law.name, d, n, m, count, _pair(law, n, m))
    for law in (gaussian_pair(64, 0, 1), skewed_pair(64, 0.5)):
        yield Setting("realism", law.name, 64, 1000, 1000, 300, _pair(law, 1000, 1000))
