"""How fast training is: `python -m training.bench` prints one JSON document.

Our way (vision once an image, the head once a prompt) and the plain way (transformers' own model, one prompt a
forward, vision again for every prompt) take turns in one process on the same weights, optimiser and batches.
"""
