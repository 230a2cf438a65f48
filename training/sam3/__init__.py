"""SAM3 on transformers' classes: what they lack for fine-tuning, and nothing they have."""
