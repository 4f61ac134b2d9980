"""Finding faces, remembering them, and cropping images to them."""

from ddl_d2.faces.cache import CachedFaceFinder
from ddl_d2.faces.dlib_finder import DlibFaceFinder
from ddl_d2.faces.face import Face, FaceFinder
from ddl_d2.faces.finders import make_finder
from ddl_d2.faces.yunet_finder import YuNetFaceFinder

__all__ = ["CachedFaceFinder", "DlibFaceFinder", "Face", "FaceFinder", "YuNetFaceFinder", "make_finder"]
