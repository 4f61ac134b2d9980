"""Files that a list names: which of them there are."""

from __future__ import annotations

import os

from ddl_d2.data.datasets.listed_names import spellings
from ddl_d2.data.datasets.listing import Lister, is_within


class ListedFiles:
    """The files that a list may name: those inside the root; each folder is listed once.

    Args:
        lister: its root is what paths are relative to; its report receives what cannot be used.
    """

    def __init__(self, lister: Lister) -> None:
        self.lister = lister
        self.root = lister.root
        # Folder -> file name -> "" (usable) or the kind of problem.
        self._folders: dict[str, dict[str, str]] = {}

    def resolve(self, text: str) -> str | None:
        """Give a path relative to the root, with "/"; None, and an entry in the report, if it cannot be used.

        Paths with backslashes, and names in another form of Unicode than on disk, are found, too.
        """
        path, state = self._look(text)
        for spelling in spellings(text) if state == "missing_file" else ():
            path, state = self._look(spelling)
            if state != "missing_file":
                break
        if not state:
            return path
        self.lister.report.add(state, text[:200])
        return None

    def _look(self, path: str) -> tuple[str, str]:
        """(path relative to the root, the kind of problem or "")."""
        if path[0] in "/." or "/." in path or "//" in path:
            full = os.path.normpath(os.path.join(self.root, path))
            if not full.startswith(self.root.rstrip("/") + "/"):
                return path, "outside_root"
            path = os.path.relpath(full, self.root)
        folder, _, name = path.rpartition("/")
        states = self._folders.get(folder)
        if states is None:
            states = self._folders[folder] = self._list(os.path.join(self.root, folder) if folder else self.root)
        return path, states.get(name, "missing_file")

    def _list(self, folder: str) -> dict[str, str]:
        states: dict[str, str] = {}
        try:
            inside = is_within(folder, self.root)
            self.lister.stamps.note(folder)
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_file(follow_symlinks=False):
                        states[entry.name] = "" if inside else "outside_root"
                    elif entry.is_symlink():
                        states[entry.name] = "" if is_within(entry.path, self.root) else "link_outside"
                        if not states[entry.name] and not os.path.isfile(entry.path):
                            states[entry.name] = "not_a_file"
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name that no system takes
            return states
        except OSError:
            self.lister.stamps.complete = False
        return states
