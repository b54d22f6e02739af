"""Train and measure Faster R-CNN on PASCAL VOC with Detectron2.

    python train.py --config-file voc_c4_24k.yaml --num-gpus 8 [--resume] [--eval-only] [OPTION VALUE …]

Everything is Detectron2's but for one layer that its C4 detector has not: the batch normalisation behind res5 (He et
al., 2020, Momentum contrast, appendix on detection), which keeps the features of any pretraining at one scale.
"""

from __future__ import annotations


def main(options):
    """Train, or only measure; what ``launch`` starts on every GPU."""
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import get_cfg
    from detectron2.engine import DefaultTrainer, default_setup
    from detectron2.evaluation import PascalVOCDetectionEvaluator
    from detectron2.layers import get_norm

    class Trainer(DefaultTrainer):
        @classmethod
        def build_model(cls, cfg):
            model = super().build_model(cfg)
            channels = 8 * cfg.MODEL.RESNETS.RES2_OUT_CHANNELS
            model.roi_heads.res5.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, channels).to(model.device))
            return model

        @classmethod
        def build_evaluator(cls, cfg, dataset_name, output_folder=None):
            return PascalVOCDetectionEvaluator(dataset_name)

    cfg = get_cfg()
    cfg.merge_from_file(options.config_file)
    cfg.merge_from_list(options.opts)
    cfg.freeze()
    default_setup(cfg, options)
    if options.eval_only:
        model = Trainer.build_model(cfg)
        DetectionCheckpointer(model, save_dir=cfg.OUTPUT_DIR).resume_or_load(cfg.MODEL.WEIGHTS, resume=options.resume)
        return Trainer.test(cfg, model)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=options.resume)
    return trainer.train()


if __name__ == "__main__":
    from detectron2.engine import default_argument_parser, launch

    given = default_argument_parser().parse_args()
    launch(main, given.num_gpus, num_machines=given.num_machines, machine_rank=given.machine_rank,
           dist_url=given.dist_url, args=(given,))
