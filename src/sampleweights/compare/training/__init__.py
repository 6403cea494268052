"""From entries and folds to logits out of fold."""
