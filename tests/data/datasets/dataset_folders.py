"""Datasets of empty files, and a short way to write down what was found in one."""

from __future__ import annotations

import os


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def rows_of(dataset):
    """image_id -> (label or None, mask relative to the root or None)."""
    return {
        row["image_id"]: (
            row.get("is_fake"),
            os.path.relpath(row["mask_file_name"], dataset.root) if "mask_file_name" in row else None,
        )
        for row in dataset
    }


LAYOUT_A = ("real/a.jpg", "real/b.PNG", "fake/a.jpg", "fake/c.jpeg", "masks/a.jpg", "masks/c.png")
ROWS_A = {
    "real/a.jpg": (0, None),
    "real/b.PNG": (0, None),
    "fake/a.jpg": (1, "masks/a.jpg"),
    "fake/c.jpeg": (1, "masks/c.png"),
}


def age(root, seconds=60):
    """Make all folders and files look older, so that an index of them is kept."""
    for folder, _, files in os.walk(root):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            if not os.path.islink(path):
                status = os.stat(path)
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - int(seconds * 1e9)))
