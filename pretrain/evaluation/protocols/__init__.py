"""One protocol in each file, registered by name in :data:`pretrain.evaluation.base.PROTOCOLS`."""
