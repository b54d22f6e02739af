"""One file for each class of object; each registers its builder."""
