"""Lists as people write them: on Windows, on old Macs, by spreadsheets, with labels in words."""

import json
import unicodedata

import pytest

from ddl_d2.data.datasets import VideoOptions, load_dataset, load_video_set
from ddl_d2.errors import DatasetError
from tests.data.datasets.dataset_folders import rows_of, touch
from tests.video_files import write_video

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
ONE = VideoOptions(frames_per_video=1)


def names_of(rows):
    return {row["video_id"]: row["is_fake"] for row in rows}


# labels.txt.

LABELS = {
    "words": "a.png,real\nb.png,FAKE\n",
    "floats": "a.png,0.0\nb.png,1.0\n",
    "quotes": "\"a.png\",\"0\"\n'b.png' , '1'\n",
    "line ends of old Macs": "name,label\ra.png,0\rb.png,1\r",
    "line ends of Windows": "a.png,0\r\nb.png,1\r\n",
    "backslashes": "imgs\\a.png,0\nimgs\\b.png,1\n",
    "the folder of the images": "imgs/a.png,0\nimgs/b.png,1\n",
    "the path below the root": "./test/imgs/a.png,0\n./test/imgs/b.png,1\n",
    "a path on another machine": "C:\\data\\ddl\\test\\imgs\\a.png,0\nC:\\data\\ddl\\test\\imgs\\b.png,1\n",
    "any folder of images": "/home/me/pictures/a.png,0\n/home/me/pictures/b.png,1\n",
}


@pytest.mark.parametrize("spelling", LABELS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_labels_are_understood(tmp_path, spelling, encoding):
    touch(tmp_path / "test", "imgs/a.png", "imgs/b.png", "masks/b.png")
    (tmp_path / "test/labels.txt").write_bytes(LABELS[spelling].encode(encoding))
    rows, report = load_dataset(tmp_path, "test")
    assert rows_of(rows) == {"imgs/a.png": (0, None), "imgs/b.png": (1, "masks/b.png")}
    assert not report.counts


@pytest.mark.parametrize("prefix", ["test/imgs/", "data\\test\\imgs\\"])
def test_labels_of_another_split_are_not_taken(tmp_path, prefix):
    """One list of all splits, whose images have the same names."""
    touch(tmp_path / "test", "imgs/a.png", "imgs/b.png")
    lines = [
        f"{prefix}a.png,0",
        f"{prefix.replace('test', 'train')}a.png,1",
        f"{prefix.replace('test', 'train')}b.png,1",
    ]
    (tmp_path / "test/labels.txt").write_text("\n".join(lines))
    rows, report = load_dataset(tmp_path, "test")
    assert rows_of(rows) == {"imgs/a.png": (0, None), "imgs/b.png": (None, None)}
    assert report.counts == {"label_without_image": 2, "without_label": 1}
    (tmp_path / "test/labels.txt").write_text(lines[2])
    assert load_dataset(tmp_path, "test")[1].counts == {"label_without_image": 1, "without_label": 2}


def test_labels_that_are_not_understood_are_explained(tmp_path):
    touch(tmp_path / "test", "a.png", "b.png", "c.png", "d.png")
    (tmp_path / "test/labels.txt").write_text("a.png,maybe\nb.png,0.93\nc.png 1\nd.png,1\n")
    rows, report = load_dataset(tmp_path, "test", fake_without_mask="score")
    assert [row.get("is_fake") for row in rows] == [None, None, None, 1]
    assert report.counts["bad_line"] == 3
    assert report.examples["bad_line"][0] == "labels.txt line 1: a.png,maybe (labels are 0 or real, 1 or fake)"


@pytest.mark.parametrize(("on_disk", "listed"), [(NFC, NFD), (NFD, NFC)])
def test_names_in_two_forms_of_unicode(tmp_path, on_disk, listed):
    """macOS writes an accent as a character of its own."""
    root = touch(tmp_path, f"test/imgs/{on_disk}.png", f"test/masks/{listed}.png", f"{on_disk}/{on_disk}.jpg")
    (root / "test/labels.txt").write_text(f"{listed}.png,1\n")
    rows, report = load_dataset(root, "test")
    assert rows_of(rows) == {f"imgs/{on_disk}.png": (1, f"masks/{listed}.png")}
    assert not report.counts
    (root / "list.json").write_text(json.dumps([[f"{listed}/{listed}.jpg", f"test/masks/{listed}.png"]]))
    rows, report = load_dataset(root / "list.json")
    assert rows_of(rows) == {f"{on_disk}/{on_disk}.jpg": (1, f"test/masks/{listed}.png")}
    assert not report.counts


# JSON lists.


def test_json_lists_are_understood(tmp_path):
    touch(tmp_path, "Tp/a.jpg", "Gt/a.png", "Au/b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg")
    entries = [["Tp\\a.jpg", ".\\Gt\\a.png"], ["Au\\b.jpg", "NEGATIVE"], ["c.jpg", 0], ['"d.jpg"', "real"]]
    entries += [["e.jpg", "fake"], ["f.jpg", 1.0]]
    (tmp_path / "list.json").write_text(json.dumps(entries))
    rows, report = load_dataset(tmp_path / "list.json", fake_without_mask="score")
    assert rows_of(rows) == {
        "Tp/a.jpg": (1, "Gt/a.png"),
        **dict.fromkeys(("Au/b.jpg", "c.jpg", "d.jpg"), (0, None)),
        **dict.fromkeys(("e.jpg", "f.jpg"), (1, None)),
    }
    assert report.counts == {"fake_without_mask": 2}


def test_a_backslash_leads_nowhere(tmp_path):
    touch(tmp_path, "set/a.jpg", "outside.jpg")
    (tmp_path / "set/list.json").write_text(
        json.dumps([["a.jpg", 0], ["..\\outside.jpg", 0], ["x\\..\\..\\outside.jpg", 0]])
    )
    rows, report = load_dataset(tmp_path / "set/list.json")
    assert list(rows_of(rows)) == ["a.jpg"]
    assert report.counts == {"outside_root": 2}


@pytest.mark.parametrize("name", ["annotations.json", "instances_train2017.json"])
def test_a_coco_file_is_explained(tmp_path, name):
    content = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []}
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"is a COCO file \(images, annotations, categories\).*\[image, mask"):
        load_dataset(tmp_path / name)


# Celeb-DF: no video of the test list may be trained on, however the list is written.


@pytest.fixture(scope="module")
def celeb_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("celeb")
    for name in ("Celeb-real/id0_0", "Celeb-real/id1_0", "YouTube-real/00170", "Celeb-synthesis/id0_id1_0"):
        write_video(root / f"{name}.mp4", 2)
    write_video(root / "Celeb-synthesis/id1_id0_0.mp4", 2)
    return root


TEST = {"YouTube-real/00170.mp4": 0, "Celeb-synthesis/id0_id1_0.mp4": 1}
TRAIN = {"Celeb-real/id0_0.mp4": 0, "Celeb-real/id1_0.mp4": 0, "Celeb-synthesis/id1_id0_0.mp4": 1}
REAL, FAKE = TEST
CELEB_LISTS = {
    "as published": f"1 {REAL}\n0 {FAKE}\n",
    "old Macs": f"1 {REAL}\r0 {FAKE}\r",
    "Windows": f"1 {REAL}\r\n0 {FAKE}\r\n".replace("/", "\\"),
    "tabs": f"1\t{REAL}\n0\t{FAKE}\n",
    "commas": f"{REAL},1\n{FAKE},0\n",
    "quotes": f'"1" "{REAL}"\n"0" "{FAKE}"\n',
    "words": f"real {REAL}\nfake {FAKE}\n",
    "floats": f"1.0 {REAL}\n0.0 {FAKE}\n",
    "longer paths": f"1 ./Celeb-DF-v2/{REAL}\n0 /data/Celeb-DF-v2/{FAKE}\n",
}


@pytest.mark.parametrize("spelling", CELEB_LISTS)
def test_the_list_of_celeb_df_is_understood(celeb_root, spelling):
    (celeb_root / "List_of_testing_videos.txt").write_bytes(CELEB_LISTS[spelling].encode())
    rows, report = load_dataset(celeb_root, "test", video=ONE)
    assert names_of(rows) == TEST
    assert not report.counts
    assert names_of(load_dataset(celeb_root, "train", video=ONE)[0]) == TRAIN


@pytest.mark.parametrize(
    "line",
    [FAKE, f"? {FAKE}", "id0_id1_0.mp4", "0 id0_id1_0", f"file={FAKE}|label=0", f"0 1 {FAKE}", "video (id0_id1_0)"],
)
def test_what_is_not_understood_is_not_trained_on(celeb_root, line):
    (celeb_root / "List_of_testing_videos.txt").write_text(f"1 {REAL}\n{line}\n")
    rows, report = load_dataset(celeb_root, "train", video=ONE)
    assert names_of(rows) == TRAIN
    assert report.counts == {"bad_line": 1}
    assert names_of(load_dataset(celeb_root, "test", video=ONE)[0]) == {REAL: 0}


@pytest.mark.parametrize("text", ["", "\n\n", "see the paper\n", '<html lang="en">404</html>'])
def test_without_a_list_that_is_understood_nobody_trains(celeb_root, text):
    (celeb_root / "List_of_testing_videos.txt").write_text(text)
    for split in ("train", "test"):
        with pytest.raises(DatasetError, match="no line of it can be understood.*Expected the test split as lines"):
            load_dataset(celeb_root, split, video=ONE)
    assert len(names_of(load_dataset(celeb_root, video=ONE)[0])) == 5


# DFDC.


def test_dfdc_lists_are_understood(tmp_path):
    for name in ("a", "b", "c"):
        write_video(tmp_path / f"part/{name}.mp4", 2)
    (tmp_path / "part/labels.csv").write_bytes(b'"Filename";x\r')
    with pytest.raises(DatasetError, match='expected the columns "filename" and "label"'):
        load_video_set("dfdc", tmp_path)
    (tmp_path / "part/labels.csv").write_bytes(b'"FileName","label"\r"a.mp4",1.0\rb.mp4,REAL\r.\\c.mp4,Fake\rd.mp4,x\r')
    rows, report = load_video_set("dfdc", tmp_path, options=ONE)
    assert names_of(rows) == {"part/a.mp4": 1, "part/b.mp4": 0, "part/c.mp4": 1}
    assert report.counts == {"bad_line": 1}


def test_a_split_that_is_not_known_is_not_trained_on(tmp_path):
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", 2)
    labels = {"a.mp4": {"label": "FAKE", "split": "Train"}, "b.mp4": {"label": "FAKE", "split": "holdout"}}
    (tmp_path / "metadata.json").write_text(json.dumps(labels))
    rows, report = load_dataset(tmp_path, "train", video=ONE)
    assert names_of(rows) == {"a.mp4": 1}
    assert report.examples["bad_line"] == ["metadata.json: b.mp4: the split holdout is not known"]


def test_deepfakebench_with_names_in_another_form(tmp_path):
    touch(tmp_path, f"F/{NFC}/000.png")
    content = {"X": {"X_real": {"test": {"v": {"frames": [f"F\\{NFD}\\000.png"]}}}}}
    (tmp_path / "bench.json").write_text(json.dumps(content))
    rows, report = load_dataset(tmp_path / "bench.json", "test")
    assert [row["image_id"] for row in rows] == [f"F/{NFC}/000.png"]
    assert not report.counts
