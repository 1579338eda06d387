"""Pictures: `ImageHasher` learns codes of them; `ImageLoader` reads them in batches for `fasthash.train.encode`.

Needs Pillow: pip install 'fasthash[images]'.
"""

from fasthash.images.files import image_files
from fasthash.images.image_hasher import ImageHasher
from fasthash.images.labelled import LabelledImages, labelled_images
from fasthash.images.loader import ImageLoader
from fasthash.images.reading import ImageError, read_image

__all__ = ["ImageError", "ImageHasher", "ImageLoader", "LabelledImages", "image_files", "labelled_images", "read_image"]
