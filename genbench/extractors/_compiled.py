"""The Inception network by a compiler, the extra [fast]: the weights and operations that torch runs, summed in another order.

Everything is float32 (the compiler's own choice on recent processors is bfloat16, which moves FID by 6 %). A feature differs from
torch's by at most 2e-4; a record names the runtime as its device, and the feature cache keeps the two apart.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

from genbench.extractors.inception import P3, SIZE, STEM, Conv, Network

if TYPE_CHECKING:
    import torch


@cache
def _core() -> Any:
    """OpenVINO, once per process and for good.

    Each of its cores sets a stack for signals and puts back, when it goes, the one that it found. Where that was another core's, gone
    before, the next signal (Ctrl-C, the end of a child) would kill the process.
    """
    import openvino

    return openvino.Core()


class Compiled(Network):
    """An Inception network run by OpenVINO on the CPU, with torch's number of threads; called as the one it is made of.

    Args:
        network: with its weights, on the CPU.
    """

    def __init__(self, network: Network) -> None:
        self._convs, self._head = network._convs, network._head
        self._made: dict[tuple[int, str | None, bool], Any] = {}

    def outputs(self, x: "torch.Tensor", inner: str | None = None) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]":
        features, logits, *rest = self._results(x, inner, whole=True)
        return features, logits, next(iter(rest), None)

    def inner(self, x: "torch.Tensor", stop: str) -> "torch.Tensor":
        return self._results(x, stop, whole=False)[0]

    def _results(self, x: "torch.Tensor", inner: str | None, *, whole: bool) -> "list[torch.Tensor]":
        import torch

        key = len(x), inner, whole
        if key not in self._made:
            self._made[key] = self._compiled(*key)
        # The arrays are the compiler's own, and are written again by the next call.
        return [torch.from_numpy(a.copy()) for a in self._made[key](x.contiguous().numpy()).values()]

    def _compiled(self, n: int, inner: str | None, whole: bool) -> Any:
        """The network for batches of n, down to its end or to the block `inner`."""
        import openvino
        import torch
        from openvino import opset13 as ops

        x = ops.parameter([n, 3, SIZE, SIZE])
        parts = super().outputs(x, inner) if whole else (super().inner(x, str(inner)),)
        model = openvino.Model([p for p in parts if p is not None], [x])
        return _core().compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "NUM_STREAMS": 1,
                "ENABLE_CPU_PINNING": False,
            },
        )

    # -- the operations ------------------------------------------------------------------------------------------------------------

    def _stem(self, x: Any) -> Any:
        return self._run(x, STEM, "")[0]

    def _conv(self, x: Any, conv: Conv, prefix: str) -> Any:
        from openvino import opset13 as ops

        name, _, _, (kh, kw), stride, padded = conv
        weight, bias = self._convs[prefix + name]
        pad = [kh // 2, kw // 2] if padded else [0, 0]
        y = ops.convolution(x, weight.contiguous().numpy(), [stride, stride], pad, pad, [1, 1])
        return ops.relu(ops.add(y, bias.reshape(1, -1, 1, 1).numpy()))

    def _pool(self, x: Any, kind: str) -> Any:
        from openvino import opset1 as ops

        if kind == "mean":
            return ops.avg_pool(x, [1, 1], [1, 1], [1, 1], list(P3), True)
        step, pad = ([2, 2], [0, 0]) if kind == "halve" else ([1, 1], [1, 1])
        return ops.max_pool(x, step, pad, pad, list(P3))

    def _join(self, parts: list[Any]) -> Any:
        from openvino import opset13 as ops

        return ops.concat(parts, 1)

    def _end(self, x: Any) -> tuple[Any, Any]:
        from openvino import opset13 as ops

        features = ops.reduce_mean(x, [2, 3])
        return features, ops.matmul(features, self._head.numpy(), False, True)
