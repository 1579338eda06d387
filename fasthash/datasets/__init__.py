"""Data sets: clinc150 inside the package, and loaders of public ones as they are distributed. Nothing is downloaded."""

from fasthash.datasets.bags_of_words import BagsOfWords, svmlight_bags, uci_bags
from fasthash.datasets.captions import CocoCaptions, ConceptualCaptions, coco_captions, conceptual_captions
from fasthash.datasets.cifar import Images, cifar10, cifar100
from fasthash.datasets.clinc150 import Clinc150, Clinc150Names, clinc150, clinc150_hierarchy, clinc150_names
from fasthash.datasets.image_files import ImageFiles, image_archive, image_folder
from fasthash.datasets.movielens import MovieLens, movielens
from fasthash.datasets.planetoid import Planetoid, planetoid
from fasthash.datasets.pubmedqa import PubMedQA, pubmedqa

__all__ = [
    "BagsOfWords",
    "Clinc150",
    "Clinc150Names",
    "CocoCaptions",
    "ConceptualCaptions",
    "ImageFiles",
    "Images",
    "MovieLens",
    "Planetoid",
    "PubMedQA",
    "cifar10",
    "cifar100",
    "clinc150",
    "clinc150_hierarchy",
    "clinc150_names",
    "coco_captions",
    "conceptual_captions",
    "image_archive",
    "image_folder",
    "movielens",
    "planetoid",
    "pubmedqa",
    "svmlight_bags",
    "uci_bags",
]
