"""What can be prepared: folders of images with classes or tables of labels, and scikit-learn's digits."""
