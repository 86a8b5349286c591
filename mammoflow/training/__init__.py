"""From patches and images to trained classifiers."""
