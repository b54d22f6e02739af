"""One set of labelled images in each file, registered by name in :data:`pretrain.evaluation.labelled.LABELLED`."""
