"""Figures that papers state, in the units of this project's metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One row of a published table.

    Attributes:
        source: paper and table.
        dataset: name of the data set here.
        backbone: timm name, or the paper's word where there is none; empty where the table does not say.
        architecture: name of the architecture here, or the paper's.
        note: balance, auxiliary tasks and the like.
        values: ``{task: {metric: value}}``; a task ``*`` is the mean over all tasks of the run.
        delta: Δ_MTL in percent against the paper's own single-task networks, or None.
    """

    source: str
    dataset: str
    backbone: str
    architecture: str
    note: str
    values: dict[str, dict[str, float]]
    delta: float | None = None


VANDENHENDE, LIU, SENER = "Vandenhende 2022", "Liu 2018", "Sener and Koltun 2018"
PASCAL, WU = "Pascal 2021", "Wu 2023"

# One block per table: paper, table, data set, backbone, columns; then a line per row: architecture | note | figures.
# "–" stands for a figure that is not given; a last column "delta" is Δ_MTL.
_TABLES = (
    (VANDENHENDE, "5.1a", "nyud", "hrnet_w18", "semseg.mIoU depth.RMSE delta", """
        single_task |  | 33.18 .667 0
        baseline |  | 32.09 .668 -1.71
        pad_net |  | 32.80 .660 -.02
        pad_net | auxiliary normals | 33.85 .658 1.65
        pad_net | auxiliary normals, edge | 32.92 .655 .52
        mti_net | without feature propagation | 34.38 .640 3.85
        mti_net | without feature propagation, auxiliary normals | 34.49 .642 3.84
        mti_net | without feature propagation, auxiliary normals, edge | 34.68 .637 4.48
        mti_net |  | 35.12 .620 6.40
        mti_net | auxiliary normals | 36.22 .600 9.57
        mti_net | auxiliary normals, edge | 37.49 .607 10.91"""),
    (VANDENHENDE, "5.1b", "pascal", "hrnet_w18",
     "semseg.mIoU parts.mIoU saliency.max_mIoU edge.odsF normals.mean_angle delta", """
        single_task |  | 60.07 60.74 67.18 69.70 14.59 0
        baseline | without edge and normals | 54.53 59.54 65.60 – – -4.26
        baseline |  | 53.60 58.45 65.13 70.60 15.08 -3.70
        mti_net | without edge and normals | 64.06 62.39 68.09 – – 3.35
        mti_net | auxiliary edge | 64.98 62.90 67.84 – – 3.98
        mti_net | auxiliary normals | 63.74 61.75 67.90 – – 2.69
        mti_net | auxiliary edge, normals | 64.33 62.33 68.00 – – 3.36
        mti_net |  | 64.27 62.06 68.00 73.40 14.75 2.74"""),
    (VANDENHENDE, "5.4", "pascal", "resnet18",
     "semseg.mIoU parts.mIoU saliency.max_mIoU edge.odsF normals.mean_angle delta", """
        single_task | neck fpn | 64.5 57.4 66.4 68.2 14.8 0
        mti_net | neck fpn | 65.7 61.1 66.8 73.9 14.6 3.41"""),
    (VANDENHENDE, "5.4", "pascal", "resnet50",
     "semseg.mIoU parts.mIoU saliency.max_mIoU edge.odsF normals.mean_angle delta", """
        single_task | neck fpn | 67.7 61.8 67.2 71.1 14.8 0
        single_task | head deeplab | 68.3 60.7 65.4 72.7 14.6 0
        astmt | neck fpn | 66.8 61.1 66.1 70.9 14.7 -.74
        astmt | head deeplab | 68.9 61.1 65.7 72.4 14.7 -.04
        mti_net | neck fpn | 66.6 63.3 66.6 74.9 14.6 1.32"""),
    (VANDENHENDE, "5.4", "pascal", "resnet26",
     "semseg.mIoU parts.mIoU saliency.max_mIoU edge.odsF normals.mean_angle delta", """
        single_task | head deeplab | 64.9 57.1 64.2 71.3 14.9 0
        astmt | head deeplab | 64.6 57.3 64.7 71.0 15.0 -.11"""),
    (VANDENHENDE, "5.4", "pascal", "hrnet_w18",
     "semseg.mIoU parts.mIoU saliency.max_mIoU edge.odsF normals.mean_angle delta", """
        pad_net |  | 53.6 59.6 65.8 72.5 15.3 -5.58
        mti_net |  | 64.3 62.1 68.0 73.4 14.6 3.15"""),
    (VANDENHENDE, "5.5", "nyud", "hrnet_w48",
     "depth.RMSE depth.abs_rel depth.d1 depth.d2 depth.d3 semseg.pixel_accuracy semseg.mean_accuracy semseg.mIoU", """
        single_task |  | .547 .138 82.8 96.6 99.3 73.4 58.1 45.7
        mti_net |  | .529 .138 83.0 96.9 99.3 75.3 62.9 49.0"""),
    (VANDENHENDE, "6.2b", "nyud", "resnet50", "semseg.mIoU depth.RMSE delta", """
        single_task |  | 43.9 .585 0
        baseline | balance fixed | 44.4 .587 .41
        baseline | balance uncertainty | 44.0 .590 -.23
        baseline | balance dwa | 44.1 .591 -.28
        baseline | balance gradnorm | 44.2 .581 1.45
        baseline | balance mgda | 43.2 .576 .02"""),
    (VANDENHENDE, "6.2c", "pascal", "resnet50",
     "semseg.mIoU parts.mIoU normals.mean_angle saliency.max_mIoU edge.odsF delta", """
        single_task |  | 66.2 59.9 13.9 66.3 68.8 0
        baseline | balance fixed, weights searched | 63.8 58.6 14.9 65.1 69.2 -2.86
        baseline | balance uncertainty | 65.4 59.2 16.5 65.6 68.6 -4.60
        baseline | balance dwa | 63.4 58.9 14.9 65.1 69.1 -2.94
        baseline | balance gradnorm | 64.7 59.0 15.4 64.5 67.0 -3.97
        baseline | balance mgda | 64.9 57.9 15.6 62.5 61.4 -6.81"""),
    (VANDENHENDE, "7.10", "nyud", "resnet50", "semseg.mIoU depth.RMSE", """
        single_task | supervised pretraining | 43.6 .599
        single_task | MoCo pretraining | 44.7 .590
        baseline | supervised pretraining | 43.7 .593
        baseline | MoCo pretraining | 45.2 .581"""),
    (VANDENHENDE, "6.2a", "celeba", "resnet18", "*.mean_accuracy", """
        single_task |  | 91.52
        baseline | balance fixed | 91.91
        baseline | balance uncertainty | 91.62
        baseline | balance gradnorm | 91.76
        baseline | balance dwa | 91.84
        baseline | balance mgda | 91.30"""),
    (VANDENHENDE, "4.3", "celeba", "vgg16_thin32", "*.mean_accuracy", "branched |  | 91.46"),
    (VANDENHENDE, "4.3", "celeba", "vgg16_thin64", "*.mean_accuracy", "branched |  | 91.73"),
    (VANDENHENDE, "4.1", "cityscapes", "resnet50",
     "semseg.mIoU instance_center.px_error disparity.px_error delta", """
        single_task |  | 65.2 11.7 2.57 0
        baseline |  | 61.5 11.8 2.66 -3.33
        mtan |  | 62.8 11.8 2.66 -2.53
        cross_stitch |  | 65.1 11.6 2.55 .42
        nddr |  | 65.6 11.6 2.54 .89
        branched | 107 M parameters | 62.1 11.7 2.66 -2.68
        branched | 114 M parameters | 62.7 11.7 2.62 -1.84
        branched | 116 M parameters | 64.1 11.6 2.62 -.96"""),
    (VANDENHENDE, "4.2", "taskonomy", "resnet50",
     "depth.abs semseg.mIoU scene.top5_overlap edge.L1 keypoints.L1 delta", """
        single_task |  | .60 43.5 66.0 .0099 .0023 0
        baseline |  | .75 47.8 56.0 .0137 .0034 -22.50
        mtan |  | .71 43.8 59.6 .0186 .0040 -37.36
        cross_stitch |  | .61 44.0 58.2 .0135 .0050 -32.29
        nddr |  | .66 45.9 64.5 .0105 .0045 -21.02
        branched | 174 M parameters | .76 47.6 63.3 .0112 .0029 -11.88
        branched | 188 M parameters | .74 48.0 63.6 .0096 .0035 -12.66
        branched | 196 M parameters | .74 47.9 64.5 .0094 .0026 -4.93"""),
    (SENER, "1", "celeba", "resnet18", "*.mean_accuracy", """
        single_task |  | 91.23
        baseline | balance equal | 90.38
        baseline | balance uncertainty | 90.47
        baseline | balance gradnorm | 91.56
        baseline | balance mgda_ub | 91.75"""),
    (SENER, "3", "multimnist", "", "left.accuracy right.accuracy", """
        single_task |  | 97.23 95.90
        baseline | balance equal | 96.46 94.99
        baseline | balance uncertainty | 96.47 95.29
        baseline | balance gradnorm | 96.27 94.84
        baseline | balance mgda_ub | 97.26 95.90"""),
    (SENER, "4", "cityscapes", "resnet50", "semseg.mIoU instance_center.px_error disparity.px_error", """
        single_task |  | – 11.34 2.78
        baseline | balance equal | 54.59 10.38 2.96
        baseline | balance uncertainty | 64.21 11.54 2.65
        baseline | balance gradnorm | 64.81 11.31 2.57
        baseline | balance mgda_ub | 66.63 10.25 2.54"""),
    # validation; rows of equal weights are those of table 3.2, and MTAN's mIoU with dwa is left out: it is not legible
    (LIU, "2.1", "cityscapes_npy", "segnet", "semseg.mIoU inverse_depth.rel", """
        single_task | 7 classes | 50.97 .5027
        stan_segnet | 7 classes | 52.00 .5535
        split_segnet | 7 classes, balance uncertainty | 49.57 .5726
        split_segnet | 7 classes, balance dwa | 51.12 .4969
        mtlbl1_segnet | 7 classes, balance uncertainty | 51.26 .5352
        mtlbl1_segnet | 7 classes, balance dwa | 52.02 .4491
        mtlbl2_segnet | 7 classes, balance uncertainty | 51.30 .5440
        mtlbl2_segnet | 7 classes, balance dwa | 51.88 .4786
        mtan_segnet | 7 classes, balance uncertainty | 51.52 .4768
        mtan_segnet | 7 classes, balance dwa | – .4104"""),
    (LIU, "3.2", "cityscapes_npy", "segnet", "semseg.mIoU inverse_depth.rel", """
        single_task | 7 classes | 50.97 –
        stan_segnet | 7 classes | 52.00 –
        split_segnet | 7 classes, balance equal | 50.67 .5666
        mtlbl1_segnet | 7 classes, balance equal | 51.64 .5166
        mtlbl2_segnet | 7 classes, balance equal | 51.61 .5019
        mtan_segnet | 7 classes, balance equal | 52.68 .4246
        single_task | 2 classes | 80.04 –
        mtan_segnet | 2 classes, balance equal | 81.12 .6067
        single_task | 19 classes | 26.75 –
        mtan_segnet | 19 classes, balance equal | 28.43 .4513"""),
    (PASCAL, "3.2", "celeba", "resnet18", "*.precision *.recall *.F1", """
        single_task |  | 67.10 61.99 64.07
        baseline |  | 68.67 59.54 62.95
        baseline | balance gradnorm | 70.36 59.49 63.55
        baseline | balance mgda_ub | 68.64 60.21 63.56
        baseline | partition squeeze_excite | 71.10 62.64 65.85
        baseline | partition task_routing | 71.71 61.75 65.51
        baseline | partition maximum_roaming | 71.24 63.04 66.23"""),
    (PASCAL, "4.3", "celeba", "celeba_cnn9", "*.mean_accuracy *.F1", """
        baseline | schedule shared | 90.80 68.66
        baseline | schedule individual, 8 groups | 90.90 68.93
        baseline | schedule individual_optimizers, 4 groups | 90.89 69.48
        baseline | balance gradnorm | 90.84 69.16
        baseline | balance pcgrad | 90.84 69.26
        baseline | balance mgda_ub | 90.58 67.68
        baseline | partition maximum_roaming | 90.88 69.21"""),
    (PASCAL, "3.3", "cityscapes_npy", "segnet", "*.IoU *.pixel_accuracy inverse_depth.abs", """
        single_task | a task for each class | 58.57 97.46 .0141
        split_segnet | a task for each class | 56.57 97.36 .0170
        split_segnet | a task for each class, balance gradnorm | 56.77 97.37 .0199
        split_segnet | a task for each class, balance mgda_ub | 56.19 97.33 .0130
        split_segnet | a task for each class, partition squeeze_excite | 55.45 97.24 .0160
        split_segnet | a task for each class, partition task_routing | 56.52 97.24 .0155
        split_segnet | a task for each class, partition maximum_roaming | 57.93 97.37 .0143"""),
    (PASCAL, "3.4", "nyuv2_npy", "segnet",
     "*.IoU *.pixel_accuracy normals.mean_angle normals.median_angle", """
        single_task | a task for each class | 13.12 94.58 29.77 23.93
        split_segnet | a task for each class | 15.98 94.22 32.43 27.43
        split_segnet | a task for each class, balance gradnorm | 16.13 94.43 34.45 30.98
        split_segnet | a task for each class, balance mgda_ub | 2.96 82.87 46.96 45.15
        split_segnet | a task for each class, partition squeeze_excite | 16.02 94.56 32.22 26.12
        split_segnet | a task for each class, partition task_routing | 16.54 94.58 30.93 25.51
        split_segnet | a task for each class, partition maximum_roaming | 17.40 94.86 30.58 24.67"""),
    (PASCAL, "4.1", "nyuv2_npy", "U-Net", "semseg.mIoU semseg.pixel_accuracy", """
        unet | schedule shared | 24.29 48.79
        unet | schedule individual | 24.93 48.91
        unet | schedule individual_optimizers | 29.48 54.06
        unet | balance gradnorm | 28.09 52.91
        unet | balance pcgrad | 24.51 48.87
        unet | partition maximum_roaming | 28.82 53.77"""),
    (PASCAL, "5.1, from scratch", "refuge", "vgg16_bn", "glaucoma.AUC disc.Dice cup.Dice fovea.distance", """
        single_task |  | 90.09 89.25 80.61 5.46
        unet | schedule shared | 89.79 87.81 74.40 36.51
        unet | schedule individual | 85.47 82.88 70.57 9.06
        unet | schedule individual_optimizers | 92.91 92.07 81.37 5.60
        unet | balance gradnorm | 86.31 80.32 68.93 28.48
        unet | balance pcgrad | 85.51 85.23 71.08 34.45"""),
    (PASCAL, "5.2, pretrained", "refuge", "vgg16_bn", "glaucoma.AUC disc.Dice cup.Dice fovea.distance", """
        single_task |  | 94.30 95.29 85.86 5.42
        unet | schedule shared | 94.96 93.94 84.62 11.55
        unet | schedule individual | 96.06 93.94 83.89 5.36
        unet | schedule individual_optimizers | 96.15 94.24 83.95 5.22
        unet | partition maximum_roaming | 92.92 94.00 84.23 5.50
        unet | balance gradnorm | 88.06 81.37 67.69 32.38
        unet | balance pcgrad | 95.24 94.41 84.56 5.34"""),
    (WU, "1", "mnist_parity", "lenet", "even.accuracy odd.accuracy", """
        single_task |  | 99.41 98.77
        baseline | balance equal | 99.60 99.51
        baseline | balance cagrad | 99.67 99.51
        baseline | balance graddrop | 99.65 99.53
        baseline | balance mgda | 99.63 99.47
        baseline | balance pcgrad | 99.66 99.51
        cooperative | schedule cooperative | 99.72 99.62"""),
    (WU, "2", "refuge", "U-Net",
     "cup.Dice disc.Dice glaucoma.accuracy glaucoma.AUC glaucoma.sensitivity glaucoma.specificity", """
        single_task |  | 95.14 86.87 90.0 90.2 65.8 92.7
        baseline | balance equal | 91.19 77.36 90.7 89.5 65.8 93.5
        baseline | balance cagrad | 92.67 81.71 91.4 90.4 65.8 94.2
        baseline | balance graddrop | 91.70 78.91 90.9 92.2 71.6 93.0
        baseline | balance mgda | 93.87 83.87 89.5 91.4 63.3 92.4
        baseline | balance pcgrad | 91.74 79.80 91.1 89.8 67.5 93.7
        cooperative | schedule cooperative | 94.37 86.18 93.7 94.2 75.0 95.8"""),
    (WU, "3", "hrf_av", "U-Net",
     "artery.pixel_accuracy artery.F1 vein.pixel_accuracy vein.F1 vessels.pixel_accuracy vessels.F1", """
        single_task |  | 98.14 69.99 98.21 74.92 96.91 78.31
        baseline | balance equal | 96.22 35.37 96.61 51.71 96.91 78.35
        baseline | balance cagrad | 96.87 47.54 96.96 55.20 96.90 77.90
        baseline | balance graddrop | 97.08 51.27 97.16 57.36 96.86 77.42
        baseline | balance mgda | 96.36 23.43 96.32 53.15 96.91 77.93
        baseline | balance pcgrad | 96.71 42.62 96.81 53.87 96.87 77.63
        cooperative | schedule cooperative | 98.01 66.71 98.11 71.35 97.01 79.12"""),
)


def published() -> list[Published]:
    """Every row of every table."""
    rows = []
    for paper, table, dataset, backbone, columns, text in _TABLES:
        names = columns.split()
        for line in filter(None, map(str.strip, text.split("\n"))):
            architecture, note, figures = (part.strip() for part in line.split("|"))
            values: dict[str, dict[str, float]] = {}
            delta = None
            for name, figure in zip(names, figures.split(), strict=True):
                if name == "delta":
                    delta = float(figure)
                elif figure != "–":
                    task, metric = name.split(".")
                    values.setdefault(task, {})[metric] = float(figure)
            rows.append(Published(f"{paper}, table {table}", dataset, backbone, architecture, note, values, delta))
    return rows
