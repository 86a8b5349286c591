"""Plain PyTorch: backbones, top layers, classifiers, augmentation. No Ray, no files."""

STRIDE = 32
"""Pixels between neighbouring cells of every trunk's feature map."""
