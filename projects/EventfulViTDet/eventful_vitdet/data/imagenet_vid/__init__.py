"""ImageNet VID: the official layout, the archive of the paper's authors, and converters to and from COCO-VID."""
