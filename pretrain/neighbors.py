"""Exact nearest neighbours in the queue of backbone features, by one of several engines.

Source: Vandenhende (2022), section 7.4.3. Rows are L2-normalised, so that the inner product is the cosine
similarity. Nothing here carries gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import distributions

import torch
from torch import Tensor

from harness.errors import UserError
from harness.registry import Registry

Search = Callable[[Tensor, Tensor, int], Tensor]
"""``(query [N, C], queue [K, C], k) -> indices [N, k]``, most similar first."""

NEIGHBORS: Registry[Callable[[], Search]] = Registry("neighbour search")


@NEIGHBORS.register("torch")
class TorchSearch:
    """Matrix product and top-k: the fastest exact search on a CPU, and good on a GPU.

    Args:
        rows: queries of one matrix product; bounds the memory for similarities to ``rows`` times the
            length of the queue.
    """

    def __init__(self, rows: int = 2048) -> None:
        if rows < 1:
            raise UserError(f"neighbors.rows is {rows}: set it to 1 or more")
        self.rows = rows

    @torch.no_grad()
    def __call__(self, query: Tensor, queue: Tensor, k: int) -> Tensor:
        """Indices of the ``k`` rows of ``queue`` most similar to each query.

        Args:
            query: ``[N, C]``.
            queue: ``[K, C]``; a half-precision queue is searched in half precision, without a copy.
            k: neighbours, at most ``K``.

        Returns:
            int64 ``[N, k]``, most similar first.
        """
        return self.scored(query, queue, k)[1]

    @torch.no_grad()
    def scored(self, query: Tensor, queue: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The similarities, in the precision of the queue, and the indices; both ``[N, k]``, most similar first."""
        check_search(query, queue, k)
        with torch.autocast(query.device.type, enabled=False):
            found = [(part @ queue.T).topk(k, dim=1) for part in query.to(queue.dtype).split(self.rows)]
        return found[0] if len(found) == 1 else tuple(torch.cat(parts) for parts in zip(*found, strict=True))


@NEIGHBORS.register("faiss")
class FaissSearch:
    """Brute-force search by faiss, without building an index.

    Tensors on a GPU need faiss's GPU build (the ``gpu`` extra): it reads them where they are.
    """

    def __init__(self) -> None:
        try:
            import faiss
        except ImportError as error:
            raise UserError(
                "neighbors.name is 'faiss', but faiss is not installed: install faiss-cpu (or the gpu "
                "extra), or set neighbors.name to torch"
            ) from error
        _refuse_two_builds()
        self._faiss = faiss
        self._resources = None

    @torch.no_grad()
    def __call__(self, query: Tensor, queue: Tensor, k: int) -> Tensor:
        """As :meth:`TorchSearch.__call__`; computed in float32 (float16 stays so on a GPU)."""
        return self.scored(query, queue, k)[1]

    @torch.no_grad()
    def scored(self, query: Tensor, queue: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """As :meth:`TorchSearch.scored`."""
        check_search(query, queue, k)
        if query.is_cuda:
            return self._on_gpu(query, queue, k)
        query, queue = (tensor.detach().float().contiguous().numpy() for tensor in (query, queue))
        similarity, indices = self._faiss.knn(query, queue, k, metric=self._faiss.METRIC_INNER_PRODUCT)
        return torch.from_numpy(similarity), torch.from_numpy(indices)

    def _on_gpu(self, query: Tensor, queue: Tensor, k: int) -> tuple[Tensor, Tensor]:
        if not hasattr(self._faiss, "StandardGpuResources"):
            raise UserError(
                "the installed faiss is the CPU build, and the features are on a GPU: replace faiss-cpu by "
                "the gpu extra, or set neighbors.name to torch"
            )
        import faiss.contrib.torch_utils  # noqa: F401  lets faiss read and write torch tensors in place

        if self._resources is None:
            self._resources = faiss.StandardGpuResources()
        dtype = torch.float16 if queue.dtype == torch.float16 else torch.float32
        similarity, indices = faiss.knn_gpu(
            self._resources, query.detach().to(dtype).contiguous(), queue.detach().to(dtype).contiguous(), k,
            metric=faiss.METRIC_INNER_PRODUCT,
        )
        return similarity, indices


@torch.no_grad()
def search_scored(search: Search, query: Tensor, queue: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Neighbours with their similarities, from any engine.

    Args:
        search: one that has no ``scored`` of its own gives the indices, and the similarities are computed again.
        query: ``[N, C]``.
        queue: ``[K, C]``.
        k: neighbours, at most ``K``.

    Returns:
        Similarities and int64 indices, both ``[N, k]``, most similar first.
    """
    if hasattr(search, "scored"):
        return search.scored(query, queue, k)
    indices = search(query, queue, k)
    rows = max(1, (1 << 24) // (k * query.shape[-1]))  # not all vectors of all neighbours at once
    similarity = [torch.einsum("nc,nkc->nk", part, queue[some])
                  for part, some in zip(query.to(queue.dtype).split(rows), indices.split(rows), strict=True)]
    return torch.cat(similarity), indices


def _refuse_two_builds() -> None:
    """faiss's CPU and GPU distributions bring the same module: files of the one lie over those of the other."""
    names = {(found.metadata["Name"] or "").lower().replace("_", "-") for found in distributions()}
    gpu = sorted(name for name in names if name.startswith("faiss-gpu"))
    if gpu and "faiss-cpu" in names:
        raise UserError(f"both faiss-cpu and {gpu[0]} are installed, over each other: remove both, then install one "
                        f"(pip uninstall faiss-cpu {' '.join(gpu)})")


def check_search(query: Tensor, queue: Tensor, k: int) -> None:
    """Refuse shapes that cannot be searched.

    Raises:
        UserError: other channel counts, or fewer rows in the queue than neighbours asked for.
    """
    if query.shape[-1] != queue.shape[-1]:
        raise UserError(
            f"neighbour search: queries have {query.shape[-1]} channels, the queue has {queue.shape[-1]}: "
            "give both the same features"
        )
    if not 1 <= k <= len(queue):
        raise UserError(
            f"neighbour search: {k} neighbours of a queue of {len(queue)}: "
            f"set the neighbours between 1 and {len(queue)}, or make the queue longer"
        )
