import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddl_d2.errors import ForgeryError
from ddl_d2.forging.canvas import ComposeOptions, Photo, compose, draw_cells
from ddl_d2.forging.forged_dataset import ForgedDatasetSettings, make_forged_dataset
from ddl_d2.forging.photos import PhotoFile, find_faces, folder_photos, split_photos
from ddl_d2.io.image import read_image, read_mask, write_png


@pytest.fixture
def photos(tmp_path, astronaut):
    """Five photographs (the same face under five names)."""
    for i in range(5):
        write_png(tmp_path / "photos" / f"p{i}.png", astronaut[:300, 80:380])
    return folder_photos(tmp_path / "photos")


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def settings(**changes) -> ForgedDatasetSettings:
    return ForgedDatasetSettings(
        **{"source": "test", "count": 8, "seed": 3, "size": 96, "valid_share": 0.25, **changes}
    )


def test_photographs_are_told_by_content_and_the_others_named(tmp_path, caplog):
    for name, content in (("a", b"\xff\xd8\xff"), ("b.jfif", b""), ("notes.txt", b""), ("c.mp4", b""), (".x", b"")):
        (tmp_path / name).write_bytes(content)
    assert [photo.name for photo in folder_photos(tmp_path)] == ["a", "b.jfif"]
    assert "2 files are no images and were passed over: c.mp4, notes.txt" in caplog.text


@pytest.mark.parametrize("seed", range(20))
def test_cells_cover_the_canvas_once(seed):
    cover = np.zeros((96, 96), int)
    for x0, y0, x1, y1 in draw_cells(96, np.random.default_rng(seed), ComposeOptions()):
        cover[y0:y1, x0:x1] += 1
    assert (cover == 1).all()


def test_faces_follow_the_composition(finder, astronaut, astronaut_face):
    photo = Photo("a", astronaut, (astronaut_face,))
    canvas = compose([photo], [(0, 0, 256, 256)], np.random.default_rng(8))
    (placed,) = canvas.faces
    found = min(finder(canvas.image), key=lambda face: np.abs(face.landmarks - placed.landmarks).mean())
    assert np.abs(found.landmarks - placed.landmarks).mean() < 0.05 * placed.width


def test_a_photograph_without_faces_is_refused(astronaut):
    with pytest.raises(ValueError, match="has no face"):
        compose([Photo("a", astronaut, ())], [(0, 0, 64, 64)], np.random.default_rng(0))


def test_layout_pairs_and_manifest(tmp_path, photos, finder):
    root = tmp_path / "set"
    manifest = make_forged_dataset(root, photos, settings(), finder=finder, progress=False)
    assert manifest["complete"]
    assert manifest["images"] == {"train": {"real": 3, "fake": 3}, "valid": {"real": 1, "fake": 1}}
    assert not set(manifest["photographs"]["train"]) & set(manifest["photographs"]["valid"])
    rows = [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    for row in rows:
        real, fake, mask = read_image(root / row["real"]), read_image(root / row["fake"]), read_mask(root / row["mask"])
        assert real.shape == fake.shape == (96, 96, 3)
        assert mask.shape == (96, 96)
        with Image.open(root / row["mask"]) as stored:
            assert stored.mode == "1"
        assert mask.mean() == pytest.approx(row["forged_share"], abs=1e-4)
        difference = np.abs(real.astype(int) - fake).mean(2)
        assert difference[mask].mean() > 3 * difference[~mask].mean()


def test_workers_and_interruptions_change_no_byte(tmp_path, photos, finder):
    one, two = tmp_path / "one", tmp_path / "two"
    make_forged_dataset(one, photos, settings(), finder=finder, progress=False)
    make_forged_dataset(two, photos, settings(), finder=finder, workers=2, progress=False)
    assert contents(one) == contents(two)
    (two / "train/fake/000001.jpg").unlink()
    lines = (two / "manifest.jsonl").read_text()
    (two / "manifest.jsonl").write_text(lines[: len(lines) - 40])  # cut off while writing
    kept = (two / "train/fake/000000.jpg").stat().st_mtime_ns
    make_forged_dataset(two, photos, settings(), finder=finder, existing="resume", progress=False)
    assert contents(one) == contents(two)
    assert (two / "train/fake/000000.jpg").stat().st_mtime_ns == kept


def test_a_set_of_combinations(tmp_path, photos, finder):
    """Whole photographs at most so large, with something of another photograph of the same split in each fake."""
    one, two = tmp_path / "one", tmp_path / "two"
    manifest = make_forged_dataset(one, photos, settings(style="combination"), finder=finder, progress=False)
    make_forged_dataset(two, photos, settings(style="combination"), finder=finder, workers=2, progress=False)
    assert contents(one) == contents(two)
    groups = manifest["photographs"]
    assert sorted(map(len, groups.values())) == [2, 3]  # two at least in each
    assert not set(groups["train"]) & set(groups["valid"])
    for line in (one / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        donors = {insertion["donor"] for insertion in row["insertions"]}
        assert donors <= set(groups[row["split"]]) - {row["photograph"]}
        real, fake, mask = read_image(one / row["real"]), read_image(one / row["fake"]), read_mask(one / row["mask"])
        assert real.shape == fake.shape == (96, 96, 3)
        difference = np.abs(real.astype(int) - fake).mean(2)
        assert difference[mask].mean() > 3 * difference[~mask].mean()
    with pytest.raises(ForgeryError, match="two photographs with a face"):
        make_forged_dataset(tmp_path / "x", photos[:1], settings(style="combination"), finder=finder, progress=False)


def test_another_seed_gives_other_images(tmp_path, photos, finder):
    make_forged_dataset(tmp_path / "one", photos, settings(), finder=finder, progress=False)
    make_forged_dataset(tmp_path / "two", photos, settings(seed=4), finder=finder, progress=False)
    assert (tmp_path / "one/train/real/000000.jpg").read_bytes() != (
        tmp_path / "two/train/real/000000.jpg"
    ).read_bytes()


def test_what_is_there_is_left_alone(tmp_path, photos, finder):
    root = tmp_path / "set"
    make_forged_dataset(root, photos, settings(), finder=finder, progress=False)
    before = contents(root)
    with pytest.raises(ForgeryError, match="--resume"):
        make_forged_dataset(root, photos, settings(), finder=finder, progress=False)
    with pytest.raises(ForgeryError, match="other settings"):
        make_forged_dataset(root, photos, settings(seed=9), finder=finder, existing="resume", progress=False)
    with pytest.raises(ForgeryError, match="other photographs"):
        make_forged_dataset(root, photos[:4], settings(), finder=finder, existing="resume", progress=False)
    assert contents(root) == before
    make_forged_dataset(root, photos, settings(seed=9, count=4), finder=finder, existing="overwrite", progress=False)
    assert len(list(root.glob("*/fake/*.jpg"))) == 2


@pytest.mark.parametrize("existing", ["refuse", "resume", "overwrite"])
def test_a_folder_of_something_else_is_left_alone(tmp_path, photos, finder, existing):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mine.txt").write_text("mine")
    with pytest.raises(ForgeryError):
        make_forged_dataset(tmp_path, photos, settings(), finder=finder, existing=existing, progress=False)
    assert (tmp_path / "train" / "mine.txt").read_text() == "mine"


def test_few_photographs_are_shared_and_it_says_so(tmp_path, photos, finder):
    manifest = make_forged_dataset(tmp_path / "set", photos[:2], settings(), finder=finder, progress=False)
    assert manifest["photographs"]["train"] == manifest["photographs"]["valid"]
    assert "SAME photographs" in manifest["note"]


def test_bad_photographs_are_skipped_and_listed(tmp_path, photos, finder):
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no image")
    write_png(tmp_path / "photos" / "empty.png", np.zeros((64, 64, 3), np.uint8))
    found, skipped = find_faces(folder_photos(tmp_path / "photos"), finder)
    assert [photo.name for photo in found] == [photo.name for photo in photos]
    assert skipped["broken.jpg"].startswith("unreadable")
    assert skipped["empty.png"].startswith("no face")
    lonely = [PhotoFile("empty.png", tmp_path / "photos" / "empty.png")]
    with pytest.raises(ForgeryError, match="none of the 1 photographs"):
        make_forged_dataset(tmp_path / "set", lonely, settings(), finder=finder, progress=False)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("number", "share", "train", "valid"), [(10, 0.2, 8, 2), (4, 0.01, 3, 1), (4, 0.99, 1, 3), (3, 0.3, 3, 3)]
)
def test_split_of_photographs(number, share, train, valid):
    groups, disjoint = split_photos([PhotoFile(str(i), Path(str(i))) for i in range(number)], share)
    assert (len(groups["train"]), len(groups["valid"])) == (train, valid)
    assert disjoint is (number >= 4)
    groups, _ = split_photos([PhotoFile(str(i), Path(str(i))) for i in range(number)], share, fewest=2)
    assert min(len(groups["train"]), len(groups["valid"])) >= 2


@pytest.mark.parametrize("changes", [{"count": 1}, {"valid_share": 1.0}, {"size": 8}, {"seed": -1}])
def test_settings_are_checked(changes):
    with pytest.raises(ForgeryError):
        settings(**changes)


def test_plain_forgeries_are_whole_faces_that_stay_in_place(tmp_path, photos, finder):
    plain = settings(count=12, size=256, style="plain")
    make_forged_dataset(tmp_path / "set", photos, plain, finder=finder, progress=False)
    rows = [json.loads(line) for line in (tmp_path / "set" / "manifest.jsonl").read_text().splitlines()]
    regions = [region for row in rows for face in row["faces"] for region in face["regions"]]
    assert [region["region"] for region in regions] == ["face"] * len(rows) == ["face"] * 6
    # Moved as a whole, as in self-blended images, but nowhere dragged.
    assert {move["kind"] for region in regions for move in region["displacements"]} <= {"scale"}


def test_narrow_faces_are_left_out(tmp_path, photos, finder):
    (face,) = finder(photos[0].read())
    make_forged_dataset(
        tmp_path / "kept", photos, settings(min_face_width=face.width - 1), finder=finder, progress=False
    )
    with pytest.raises(ForgeryError, match="has a face to forge"):
        make_forged_dataset(
            tmp_path / "none", photos, settings(min_face_width=face.width + 1), finder=finder, progress=False
        )
    with pytest.raises(ForgeryError, match="at least 1 pixel"):
        settings(min_face_width=0)
