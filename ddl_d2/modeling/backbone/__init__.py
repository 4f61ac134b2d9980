"""Encoders as Detectron2 backbones."""
