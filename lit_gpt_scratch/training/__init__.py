"""How a model is trained: the LightningModule, its optimizer, its numbers, its callbacks."""
