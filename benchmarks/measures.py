"""CPU seconds of the measures that take longest, on one thread and random input of published sizes.

    python -m benchmarks.measures [--rounds 3]

odsF of an image at 99 thresholds; k-means of a ResNet-50's last map into 15 segments (beside faiss and scipy, which
are given the interpolated pixels); a frame of DAVIS at 480 × 854: a ResNet-50 at stride 8, the propagation of labels
from 21 frames, and the boundaries of an object. Medians over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import faiss
import numpy as np
import timm
import torch
import torch.nn.functional as F
from scipy import ndimage
from scipy.cluster.vq import kmeans2

from harness.program import run_program
from pretrain.evaluation.k_means import k_means
from pretrain.evaluation.propagation import Propagation
from pretrain.evaluation.region_and_boundary import boundary_accuracy
from transfer.metrics.edge import Edge

CLUSTERS, ITERATIONS = 15, 20
FRAMES = 21


def odsf(height: int, width: int) -> Callable[[], object]:
    """An image whose true edges are those of blobs, and a blurred prediction of them with noise."""
    draw = np.random.default_rng(0)
    truth = np.abs(ndimage.sobel(ndimage.gaussian_filter(draw.normal(size=(height, width)), 6) > 0)) > 0
    noise = ndimage.gaussian_filter(draw.normal(size=(height, width)), 1.5)
    score = torch.from_numpy(6 * (4 * ndimage.gaussian_filter(truth.astype(float), 2) + 0.6 * noise) - 3).float()
    label = torch.from_numpy(truth.astype(np.int64))
    return lambda: Edge().update(score[None, None], label[None])


def measures() -> Iterator[tuple[str, Callable[[], object]]]:
    """What is measured, by name."""
    yield "odsF, 240 × 320", odsf(240, 320)
    yield "odsF, 480 × 640", odsf(480, 640)
    features = torch.randn(2048, 12, 16)
    pixels = F.interpolate(features[None], (94, 125), mode="bilinear")[0].flatten(1).T.contiguous().numpy()
    yield "k-means, 2048 × 12 × 16 to 94 × 125", lambda: k_means(features, (94, 125), CLUSTERS,
                                                                 np.random.default_rng(0), ITERATIONS)
    yield "k-means, faiss on the pixels", lambda: faiss.Kmeans(
        2048, CLUSTERS, niter=ITERATIONS, seed=0, max_points_per_centroid=10**6).train(pixels)
    yield "k-means, scipy on the pixels", lambda: kmeans2(pixels, CLUSTERS, ITERATIONS, minit="++", seed=0)
    network, frame = timm.create_model("resnet50", num_classes=0, output_stride=8).eval(), torch.rand(1, 3, 480, 854)
    yield "frame, ResNet-50 to its third stage", lambda: network.forward_intermediates(
        frame, indices=[3], intermediates_only=True, stop_early=True)
    labels = torch.rand(4, 60, 107).softmax(0)
    propagation = Propagation(torch.randn(1024, 60, 107), labels)
    for _ in range(FRAMES - 1):
        propagation.step(torch.randn(1024, 60, 107))
    step = torch.randn(1024, 60, 107)
    yield "frame, propagation", lambda: propagation.step(step)
    masks = [ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(480, 854)), 30) > 0 for seed in (0, 1)]
    yield "frame, boundaries of an object", lambda: boundary_accuracy(*masks)


@torch.no_grad()
def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.measures", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    print("| measure | CPU seconds |\n|---|---:|")
    for name, measure in measures():
        seconds = []
        for _ in range(arguments.rounds):
            start = time.process_time()
            measure()
            seconds.append(time.process_time() - start)
        print(f"| {name} | {statistics.median(seconds):.3g} |", flush=True)
    return 0


if __name__ == "__main__":
    run_program(main)
