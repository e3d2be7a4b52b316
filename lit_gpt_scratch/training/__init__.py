"""Training: the LightningModule, optimizers, checkpoints and callbacks."""
