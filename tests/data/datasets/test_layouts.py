"""What is found in the folders and lists that datasets come as, and what is said about their oddities."""

import json
import os

import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

from ddl_d2.data.datasets import datasets_at, find_splits, listing, load_dataset, load_folder, register_datasets
from ddl_d2.errors import DatasetError, ImageReadError
from ddl_d2.io.rows import read_row_image
from tests.data.datasets.dataset_folders import LAYOUT_A, ROWS_A, age, rows_of, touch
from tests.data.datasets.test_registration import config
from tests.video_files import write_video

# Layouts.


@pytest.mark.parametrize("wrapper", ["", "track1", "phase1/track1_inner/track1"])
@pytest.mark.parametrize("masks", ["masks", "mask"])
def test_layout_a(tmp_path, wrapper, masks):
    split = tmp_path / wrapper / "train"
    touch(split, *(name.replace("masks/", f"{masks}/") for name in LAYOUT_A))
    touch(tmp_path / wrapper / "valid", "real/z.jpg")
    rows, report = load_dataset(tmp_path, "train")
    assert rows_of(rows) == {k: (v, m and m.replace("masks/", f"{masks}/")) for k, (v, m) in ROWS_A.items()}
    assert not report.counts
    assert rows.root == str(split)
    assert all(os.path.isfile(row["file_name"]) for row in rows)
    assert rows_of(load_dataset(split)[0]) == rows_of(rows)  # the split's own folder will do
    assert rows_of(load_dataset(split, "train")[0]) == rows_of(rows)
    assert list(find_splits(str(tmp_path))) == ["train", "valid"]


@pytest.mark.parametrize("images", ["imgs/", "images/", ""])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_layout_b(tmp_path, images, ending, encoding):
    split = tmp_path / "phase2" / "track1" / "test"
    touch(split, *(images + name for name in ("a.png", "b.png", "ü.png")), "masks/b.png")
    lines = ["name,label", "a.png,0", "", "b.png, 1 ", "ü.png,1", ""]
    (split / "labels.txt").write_bytes(ending.join(lines).encode(encoding))
    rows, report = load_dataset(tmp_path, "test", fake_without_mask="score")
    assert rows_of(rows) == {
        f"{images}a.png": (0, None),
        f"{images}b.png": (1, "masks/b.png"),
        f"{images}ü.png": (1, None),
    }
    assert report.problems == {"fake_without_mask": 1}


@pytest.mark.parametrize("images", ["imgs/", ""])
def test_layout_c(tmp_path, images):
    touch(tmp_path / "test", f"{images}0a.png", f"{images}0b.png", "masks/0a.png")
    rows, _ = load_dataset(tmp_path, "test")
    assert rows_of(rows) == {f"{images}0a.png": (None, None), f"{images}0b.png": (None, None)}
    assert rows.labels.tolist() == [-1, -1]


def test_plain_folders(tmp_path):
    touch(tmp_path, "x/a.jpg", "x/y/b.webp", "c.TIF", "masks/c.png", "notes.txt")
    rows, report = load_dataset(tmp_path)
    assert set(rows_of(rows)) == {"x/a.jpg", "x/y/b.webp", "c.TIF"}
    assert report.counts == {"other_file": 1}
    assert not report.problems


def test_labeled_folder_with_subfolders(tmp_path):
    touch(tmp_path, "real/p/a.jpg", "fake/p/a.jpg", "fake/q/a.jpg", "masks/p/a.png", "masks/q/a.png")
    assert rows_of(load_folder(str(tmp_path))[0]) == {
        "real/p/a.jpg": (0, None),
        "fake/p/a.jpg": (1, "masks/p/a.png"),
        "fake/q/a.jpg": (1, "masks/q/a.png"),
    }


def test_tampered_folders(tmp_path):
    touch(tmp_path, "Tp/x.tif", "Tp/y.jpg", "Gt/x_gt.png", "Gt/y.png", "Au/z.jpg")
    assert rows_of(load_dataset(tmp_path)[0]) == {
        "Au/z.jpg": (0, None),
        "Tp/x.tif": (1, "Gt/x_gt.png"),
        "Tp/y.jpg": (1, "Gt/y.png"),
    }


def test_json_list(tmp_path):
    touch(tmp_path, "Tp/a.jpg", "Gt/a.png", "Au/b.jpg", "c.png", "c_mask.png")
    entries = [
        ["Tp/a.jpg", "./Gt/a.png"],
        [str(tmp_path / "Au" / "b.jpg"), "Negative"],
        ["Au/../c.png", "c_mask.png"],
    ]
    path = tmp_path / "list.json"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes(json.dumps(entries, indent=1).replace("\n", "\r\n").encode(encoding))
        rows, report = load_dataset(path)
        assert rows_of(rows) == {"Tp/a.jpg": (1, "Gt/a.png"), "Au/b.jpg": (0, None), "c.png": (1, "c_mask.png")}
        assert not report.counts


# Files whose names do not say what they are.


def write_images(root, *names, **options):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (200, 0, 0)).save(root / name, **{"format": "JPEG", **options})


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.mark.parametrize("labels", [True, False])
def test_images_are_told_by_content_where_their_names_say_nothing(tmp_path, labels):
    """No suffix, rare and foreign ones; and what is passed over is counted and named."""
    fakes = ("a.jfif", "b.JPE", "c", "d.data1", "e.jpg")
    write_images(tmp_path, *(f"{'fake/' if labels else ''}{name}" for name in fakes))
    top = tmp_path / "fake" if labels else tmp_path
    (top / "f.HEIC").write_bytes(HEIC)
    (top / "g.avif").write_bytes(HEIC.replace(b"heic", b"avif"))
    Image.new("P", (4, 4)).save(top / "h.gif")
    (top / "notes").write_text("nothing to see")
    (top / "readme.txt").write_bytes((top / "e.jpg").read_bytes())  # not opened: it says what it is
    (top / "clip").write_bytes(write_video(tmp_path.parent / "clip.mp4", 2).read_bytes())
    if labels:
        write_images(tmp_path, "masks/a", "masks/c.jfif", "masks/f.png")
    rows, report = load_dataset(tmp_path, fake_without_mask="score")
    prefix = "fake/" if labels else ""
    assert set(rows_of(rows)) == {prefix + name for name in (*fakes, "f.HEIC", "g.avif", "h.gif")}
    assert {kind: report.counts[kind] for kind in ("other_file", "unread_format")} == {
        "other_file": 3,
        "unread_format": 3,
    }
    assert sorted(report.examples["other_file"]) == ["clip", "notes", "readme.txt"]
    assert "f.HEIC: HEIC" in report.examples["unread_format"]
    if labels:
        masks = {name: mask for name, (_, mask) in rows_of(rows).items() if mask}
        assert masks == {"fake/a.jfif": "masks/a", "fake/c": "masks/c.jfif", "fake/f.HEIC": "masks/f.png"}
    reasons = {}
    for row in rows:
        try:
            assert read_row_image(row).shape == (4, 6, 3)
        except ImageReadError as error:
            reasons[row["image_id"].removeprefix(prefix)] = error.reason
    assert reasons == {
        name: f"is a {kind} image, which is not read: save it as JPEG or PNG"
        for name, kind in (("f.HEIC", "HEIC"), ("g.avif", "AVIF"), ("h.gif", "GIF"))
    }


def test_a_folder_of_images_without_suffixes_is_a_dataset(tmp_path):
    write_images(tmp_path, "test/0a1b", "test/2c3d")
    assert set(rows_of(load_dataset(tmp_path, "test")[0])) == {"0a1b", "2c3d"}
    touch(tmp_path, "valid/notes", "valid/more")
    with pytest.raises(DatasetError, match="no valid split"):
        load_dataset(tmp_path, "valid")


def test_only_files_whose_names_say_nothing_are_opened(tmp_path, monkeypatch):
    touch(tmp_path, *(f"real/{i}.jpg" for i in range(20)), *(f"real/x.{e}" for e in ("txt", "json", "csv", "npy")))
    touch(tmp_path, *(f"real/y.{e}" for e in ("pth", "zip", "mp4", "PDF")), "real/.hidden", "real/strange")
    opened = []
    monkeypatch.setattr(listing, "read_head", lambda path: opened.append(os.path.basename(path)) or b"")
    rows, report = load_dataset(tmp_path)
    assert len(rows) == 20
    assert opened == ["strange"]
    assert report.counts == {"other_file": 9}


def test_a_file_that_cannot_be_opened_is_named(tmp_path, cache, monkeypatch):
    touch(tmp_path, "real/a.jpg", "real/b")
    age(tmp_path)

    def denied(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(listing, "read_head", denied)
    _, report = load_dataset(tmp_path)
    assert report.problems == {"unopened_file": 1}
    assert report.examples["unopened_file"] == ["b: Permission denied"]
    assert not list(cache.iterdir())


def test_a_file_that_becomes_an_image_is_noticed(tmp_path):
    touch(tmp_path, "real/a.jpg", "real/b")
    age(tmp_path)
    assert len(load_dataset(tmp_path)[0]) == 1
    (tmp_path / "real/b").write_bytes(b"\xff\xd8\xff")
    assert len(load_dataset(tmp_path)[0]) == 2


# Pairing and oddities.


def test_oddities_are_counted(tmp_path):
    touch(tmp_path, "real/a.jpg", "real/Thumbs.db", "real/.hidden", "masks/lost.png")
    touch(tmp_path, "fake/full.jpg", "masks/full.jpg", "fake/stem.JPG", "masks/stem.png", "fake/bare.jpg")
    touch(tmp_path, "fake/twice.jpg", "fake/twice.png", "masks/twice.png")  # by full name: only the png
    touch(tmp_path, "fake/two.jpg", "masks/two.png", "masks/two.bmp")  # which of the two masks?
    rows, report = load_dataset(tmp_path, fake_without_mask="score")
    assert rows_of(rows) == {
        "real/a.jpg": (0, None),
        "fake/full.jpg": (1, "masks/full.jpg"),
        "fake/stem.JPG": (1, "masks/stem.png"),
        "fake/bare.jpg": (1, None),
        "fake/twice.jpg": (1, None),
        "fake/twice.png": (1, "masks/twice.png"),
        "fake/two.jpg": (1, None),
    }
    assert report.counts == {"fake_without_mask": 1, "ambiguous_mask": 2, "mask_without_fake": 1, "other_file": 1}
    assert report.examples["mask_without_fake"] == ["masks/lost.png"]
    assert all("To do:" in line for line in report.lines())


@pytest.mark.parametrize("policy", ["skip", "full", "score", "error"])
def test_fakes_without_mask(tmp_path, policy):
    touch(tmp_path, "real/a.jpg", "fake/b.jpg", "fake/c.jpg", "masks/c.png")
    if policy == "error":
        with pytest.raises(DatasetError, match=r"1 fake images have no mask \(the first: fake/b.jpg\)"):
            load_dataset(tmp_path, fake_without_mask=policy)
        return
    rows, report = load_dataset(tmp_path, fake_without_mask=policy)
    assert report.counts["fake_without_mask"] == 1
    assert ("fake/b.jpg" in rows_of(rows)) == (policy != "skip")
    assert [row.get("fully_forged") for row in rows if row["image_id"] == "fake/b.jpg"] == {
        "skip": [],
        "full": [True],
        "score": [None],
    }[policy]
    assert not any("annotations" in row for row in rows)


def test_labels_txt_oddities(tmp_path):
    touch(tmp_path, "imgs/a.png", "imgs/b.png", "imgs/c.png", "imgs/d.png", "masks/b.png", "masks/a.png")
    (tmp_path / "outside.png").touch()
    (tmp_path / "labels.txt").write_bytes(
        b"a.png,0\na.png,0\nb.png,1\nc.png,0\nc.png,1\n../outside.png,0\n/etc/passwd,1\nb.png;1\nb.png,2\n\xff\xfe.png,1\n"
    )
    rows, report = load_dataset(tmp_path)
    assert rows_of(rows) == {"imgs/a.png": (0, None), "imgs/b.png": (1, "masks/b.png"), "imgs/d.png": (None, None)}
    assert report.counts == {
        "duplicate_entry": 1,
        "conflicting_label": 1,
        "label_without_image": 3,
        "bad_line": 2,
        "without_label": 1,
        "mask_without_fake": 1,
    }
    json.dumps(report.to_dict()).encode()


def test_json_list_oddities(tmp_path):
    root = tmp_path / "set"
    touch(root, "a.png", "b.png", "m.png", "c.png")
    touch(tmp_path, "outside.png")
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    (root / "inner.png").symlink_to(root / "c.png")
    (root / "folder").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    entries = [
        ["a.png", "m.png"],
        ["a.png", "m.png"],
        ["b.png", "Negative"],
        ["b.png", "m.png"],
        ["../outside.png", "Negative"],
        ["/etc/passwd", "Negative"],
        ["x/../../outside.png", "Negative"],
        ["link.png", "Negative"],
        ["folder/outside.png", "Negative"],
        ["loop/x.png", "Negative"],
        ["inner.png", "../outside.png"],
        ["gone.png", "Negative"],
        ["nul\0.png", "Negative"],
        ["a.png"],
        "a.png",
        ["a.png", None],
        ["", "m.png"],
        {"image": "a.png"},
    ]
    (root / "list.json").write_text(json.dumps(entries))
    rows, report = load_dataset(root / "list.json", fake_without_mask="score")
    assert rows_of(rows) == {"a.png": (1, "m.png"), "inner.png": (1, None)}
    assert report.counts == {
        "duplicate_entry": 1,
        "conflicting_label": 1,
        "outside_root": 5,
        "link_outside": 1,
        "missing_file": 3,
        "bad_line": 5,
    }


def test_nothing_outside_the_root(tmp_path):
    root = tmp_path / "set"
    touch(root, "real/a.jpg", "fake/b.jpg", "masks/b.png", "elsewhere/c.jpg")
    touch(tmp_path, "secret/x.jpg", "secret/b.png")
    (root / "real" / "file.jpg").symlink_to(tmp_path / "secret" / "x.jpg")
    (root / "real" / "folder").symlink_to(tmp_path / "secret")
    (root / "real" / "loop").symlink_to(root / "real")
    (root / "real" / "self.jpg").symlink_to("self.jpg")
    (root / "real" / "inside.jpg").symlink_to(root / "elsewhere" / "c.jpg")
    os.mkfifo(root / "real" / "pipe.jpg")
    rows, report = load_dataset(root)
    assert set(rows_of(rows)) == {"real/a.jpg", "real/inside.jpg", "fake/b.jpg"}
    assert report.counts == {"link_outside": 2, "other_file": 1, "not_a_file": 2}


def test_a_linked_split(tmp_path):
    touch(tmp_path, "store/real/a.jpg", "set/valid/real/b.jpg")
    (tmp_path / "set" / "train").symlink_to(tmp_path / "store")
    with pytest.raises(DatasetError, match="no train split"):
        load_dataset(tmp_path / "set", "train")
    (tmp_path / "inside").symlink_to(tmp_path / "set")  # the root itself may be a link
    assert len(load_dataset(tmp_path / "inside", "valid")[0]) == 1
    touch(tmp_path, "set/files/a.jpg")
    (tmp_path / "set" / "valid" / "fake").symlink_to(tmp_path / "set" / "files")
    assert len(load_dataset(tmp_path / "set", "valid", fake_without_mask="score")[0]) == 2


def test_wrappers_that_loop(tmp_path):
    touch(tmp_path, "x/train/real/a.jpg")
    (tmp_path / "x" / "again").symlink_to(tmp_path)
    assert find_splits(str(tmp_path)) == {"train": [str(tmp_path / "x" / "train")]}


def test_names_that_cannot_be_used(tmp_path):
    touch(tmp_path, "real/ok ü 漢.jpg", "real/new\nline.jpg")
    with open(os.fsencode(tmp_path) + b"/real/\xff\xfe.jpg", "w"):
        pass
    rows, report = load_dataset(tmp_path)
    assert set(rows_of(rows)) == {"real/ok ü 漢.jpg"}
    assert report.counts == {"unreadable_name": 2}
    "".join(report.lines()).encode()


# Errors say what was looked for and what was found.


def test_errors(tmp_path):
    touch(tmp_path, "both/train/real/a.jpg", "both/valid/real/a.jpg", "empty/readme.md", "twin/x/train/real/a.jpg")
    touch(tmp_path, "twin/y/train/real/a.jpg", "file.txt", "list.json")
    cases = [
        (("missing",), "no such file or folder"),
        (("file.txt",), "not a .json list"),
        (("list.json",), "cannot be read as JSON"),
        (("list.json", "train"), "has no splits"),
        (("both",), "several splits: train .*valid"),
        (("both", "test"), r"no test split. Looked for .*test/.*Found the splits train \(train\), valid"),
        (("twin", "train"), "several folders look like the train split: x/train, y/train"),
        (("empty",), "nothing usable"),
        (("empty", "train"), "Found readme.md"),
    ]
    for (name, *split), message in cases:
        with pytest.raises(DatasetError, match=message):
            load_dataset(tmp_path / name, *split)
    with pytest.raises(DatasetError, match="not one of skip"):
        load_dataset(tmp_path / "both", "train", fake_without_mask="drop")


@pytest.mark.parametrize("text", ["{}", "3", "[" * 100_000, "[[", "\udcff"])
def test_bad_json(tmp_path, text):
    (tmp_path / "a.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DatasetError):
        load_dataset(tmp_path / "a.json")


# Lists of videos that are none.

STRAY = {
    "metadata.json": ['{"license": {"name": "CC"}, "author": "me"}', '{"a.jpg": {"label": "REAL"}}', "[]", "", "{"],
    "labels.csv": ["filename,label\na.jpg,0\n", "name;class\n", "", "filename,label\n"],
    "dataset.json": ['{"name": "mine"}', '{"images": [], "annotations": []}', '{"a.mp4": {"label": "fake"}}'],
    "List_of_testing_videos.txt": ["1 YouTube-real/00170.mp4\n", ""],
}


@pytest.mark.parametrize("name", STRAY)
@pytest.mark.parametrize("place", ["splits", "one set", "wrapped", "a list of labels", "no labels", "deep"])
def test_a_stray_file_is_not_taken_for_a_set_of_videos(tmp_path, name, place):
    names = {
        "splits": ("train/real/a.jpg", "train/fake/b.jpg"),
        "one set": ("real/a.jpg", "fake/b.jpg"),
        "wrapped": ("x/y/train/real/a.jpg", "x/y/train/fake/b.jpg"),
        "a list of labels": ("train/imgs/a.jpg", "train/imgs/b.jpg"),
        "no labels": ("train/a.jpg", "train/b.jpg"),
        "deep": ("some/where/a.jpg", "b.jpg"),
    }[place]
    touch(tmp_path, *names)
    if place == "a list of labels":
        (tmp_path / "train/labels.txt").write_text("a.jpg,0\nb.jpg,1\n")
    for content in STRAY[name]:
        (tmp_path / name).write_text(content)
        rows, _ = load_dataset(tmp_path, fake_without_mask="score")
        assert sorted(os.path.basename(image_id) for image_id in rows_of(rows)) == ["a.jpg", "b.jpg"]
        if place in ("splits", "wrapped", "no labels", "a list of labels"):
            assert len(load_dataset(tmp_path, "train", fake_without_mask="score")[0]) == 2
            assert datasets_at(tmp_path) == [(str(tmp_path), "train")]
        else:
            assert datasets_at(tmp_path) == [(str(tmp_path), None)]


def test_real_and_fake_images_come_before_videos(tmp_path):
    """Also where the list beside them is one of videos."""
    touch(tmp_path, "train/real/a.jpg", "train/fake/b.jpg", "x.mp4")
    for name, entry in (("metadata.json", {"label": "FAKE"}), ("dataset.json", {"label": "fake", "set": "train"})):
        (tmp_path / name).write_text(json.dumps({"x.mp4": entry}))
        assert set(rows_of(load_dataset(tmp_path, "train", fake_without_mask="score")[0])) == {
            "real/a.jpg",
            "fake/b.jpg",
        }


def test_a_list_of_videos_without_images_is_told_by_its_name(tmp_path):
    (tmp_path / "metadata.json").write_text("[]")
    touch(tmp_path, "a.mp4")
    with pytest.raises(DatasetError, match="holds a JSON list; expected"):
        load_dataset(tmp_path, "train")


def test_training_and_checking_find_the_same(tmp_path):
    touch(tmp_path, "train/real/a.jpg", "valid/real/b.jpg", "x/test/c.jpg", "twin/test/d.jpg", "metadata.json")
    found = datasets_at(tmp_path)
    assert found == [
        *((str(tmp_path), split) for split in ("train", "valid")),
        *((str(tmp_path / name), None) for name in ("twin/test", "x/test")),
    ]
    assert [len(load_dataset(*one)[0]) for one in found] == [1, 1, 1, 1]
    register_datasets(config(FOLDER_ROOT=str(tmp_path / "train"), DDL_ROOT=str(tmp_path)))
    for name, expected in (("folder", "real/a.jpg"), ("ddl_i_train", "real/a.jpg"), ("ddl_i_valid", "real/b.jpg")):
        assert list(rows_of(DatasetCatalog.get(name))) == [expected]
    (tmp_path / "train/metadata.json").write_text('{"x.mp4": {"label": "FAKE"}}')
    assert list(rows_of(DatasetCatalog.get("folder"))) == ["real/a.jpg"]
