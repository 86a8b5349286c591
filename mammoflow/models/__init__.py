"""Plain PyTorch: backbones, top layers, classifiers, augmentation. No Ray, no files."""
