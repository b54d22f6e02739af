"""The same numbers as torchmetrics, where it defines the same."""

from __future__ import annotations

import pytest
import torch
import torchmetrics.functional as plain
import torchmetrics.functional.classification as tm
from test_metrics import make, measure


def test_segmentation():
    task, prediction, target = make("semseg")
    got, found = measure(task, prediction, target, 4), prediction.argmax(1)
    truth = target.long()
    options = {"num_classes": task.channels, "ignore_index": 255}
    iou = tm.multiclass_jaccard_index(found, truth, average="none", **options)
    seen = [c for c in range(task.channels) if (truth == c).any() or (found[truth != 255] == c).any()]
    assert got["mIoU"] == pytest.approx(100 * float(iou[seen].mean()), abs=1e-3)
    assert got["pixel_accuracy"] == pytest.approx(100 * float(tm.multiclass_accuracy(
        found, truth, average="micro", **options)), abs=1e-3)
    recall = tm.multiclass_recall(found, truth, average="none", **options)
    true = [c for c in range(task.channels) if (truth == c).any()]
    assert got["mean_accuracy"] == pytest.approx(100 * float(recall[true].mean()), abs=1e-3)


def test_binary_segmentation():
    task, prediction, target = make("binary_segmentation")
    got, score, truth = measure(task, prediction, target, 4), prediction[:, 0].sigmoid(), target.long()
    for name, function in (("IoU", tm.binary_jaccard_index), ("F1", tm.binary_f1_score), ("Dice", tm.binary_f1_score),
                           ("pixel_accuracy", tm.binary_accuracy)):
        assert got[name] == pytest.approx(100 * float(function(score, truth, ignore_index=255)), abs=1e-3), name


@pytest.mark.parametrize("classes", [2, 6])
def test_classification(classes):
    from transfer.tasks import build_task

    task = build_task("classification", "kind", [str(c) for c in range(classes)])
    draw = torch.Generator().manual_seed(classes)
    target = torch.randint(0, classes, (60,), generator=draw)
    prediction = torch.randn(60, classes, generator=draw) + torch.eye(classes)[target]
    prediction = (prediction * 4).round() / 4  # ties
    target[:4] = -1
    got, keep = measure(task, prediction, target, 7), target >= 0
    shares, truth = prediction[keep].softmax(1), target[keep]
    if classes == 2:
        score = shares[:, 1]
        expected = {"accuracy": tm.binary_accuracy(prediction[keep].argmax(1), truth),
                    "F1": tm.binary_f1_score(prediction[keep].argmax(1), truth), "AUC": tm.binary_auroc(score, truth),
                    "sensitivity": tm.binary_recall(prediction[keep].argmax(1), truth),
                    "specificity": tm.binary_specificity(prediction[keep].argmax(1), truth)}
    else:
        expected = {"accuracy": tm.multiclass_accuracy(shares, truth, classes, average="micro"),
                    "top5": tm.multiclass_accuracy(shares, truth, classes, average="micro", top_k=5),
                    "F1": tm.multiclass_f1_score(shares, truth, classes),
                    "AUC": tm.multiclass_auroc(shares, truth, classes),
                    "sensitivity": tm.multiclass_recall(shares, truth, classes),
                    "specificity": tm.multiclass_specificity(shares, truth, classes)}
    for name, value in expected.items():
        assert got[name] == pytest.approx(100 * float(value), abs=1e-3), name


def test_attributes():
    task, prediction, target = make("attributes")
    keep = [0, 1, 2, 4]  # number 3 occurs nowhere
    got = measure(task, prediction, target, 4)
    score, truth = prediction[:, keep].sigmoid(), target[:, keep].long()
    options = {"num_labels": 4, "ignore_index": 255, "average": "macro"}
    for name, function in (("F1", tm.multilabel_f1_score), ("precision", tm.multilabel_precision),
                           ("recall", tm.multilabel_recall)):
        assert got[name] == pytest.approx(100 * float(function(score, truth, **options)), abs=1e-3), name


@pytest.mark.parametrize(("kind", "names"), [("depth", ("RMSE", "abs", "abs_rel")),
                                             ("disparity", ("RMSE", "px_error", "rel")),
                                             ("inverse_depth", ("RMSE", "abs", "rel"))])
def test_errors_of_positive_quantities(kind, names):
    task, prediction, target = make(kind)
    got, keep = measure(task, prediction, target, 4), target > 0
    found, truth = prediction[:, 0][keep].double(), target[keep].double()
    expected = (plain.mean_squared_error(found, truth, squared=False), plain.mean_absolute_error(found, truth),
                plain.mean_absolute_percentage_error(found, truth))
    for name, value in zip(names, expected, strict=True):
        assert got[name] == pytest.approx(float(value), rel=1e-5), name
