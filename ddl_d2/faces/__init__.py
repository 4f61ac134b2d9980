"""Finding faces, remembering them, and cropping images to them. No forging here."""

from ddl_d2.faces.cache import CachedFaceFinder
from ddl_d2.faces.finders import DlibFaceFinder, Face, FaceFinder, YuNetFaceFinder, make_finder

__all__ = ["CachedFaceFinder", "DlibFaceFinder", "Face", "FaceFinder", "YuNetFaceFinder", "make_finder"]
