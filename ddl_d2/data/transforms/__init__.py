"""Augmentations of training images and their forgery masks, as Detectron2 `Augmentation`s."""
