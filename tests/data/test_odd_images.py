"""Folders of images that nobody prepared: what is not read, or not as it is, is refused or told of with counts."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from command import write_pipeline
from PIL import Image
from places import done

from altmin_dask import AltMinClassifier
from altmin_dask.data.open import open_source
from altmin_dask.errors import AltMinWarning, DataError
from altmin_dask.storage.model import Model


def saved(path, image=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.new("L", (3, 2), 7)).save(path, **options)
    return path


def test_images_below_classes_are_refused(tmp_path):
    """Half of a class was passed over; where it has nothing else, all of it was."""
    saved(tmp_path / "cats" / "a.png")
    saved(tmp_path / "dogs" / "b.png")
    deeper = saved(tmp_path / "dogs" / "more" / "of" / "c.JPG")
    with pytest.raises(DataError, match=r"in folders below those of its classes \(dogs/more/of/c\.JPG, …\)"):
        open_source(tmp_path)
    deeper.unlink()
    assert open_source(tmp_path).preparation.classes == ("cats", "dogs")


def test_what_is_hidden_is_no_image(tmp_path):
    """Copies of notebooks were a class, and the files that macOS leaves beside others were damaged images."""
    saved(tmp_path / "cats" / "a.png")
    saved(tmp_path / "dogs" / "b.png")
    saved(tmp_path / ".ipynb_checkpoints" / "c.png")
    saved(tmp_path / "dogs" / ".thumbnails" / "b.png")
    (tmp_path / "dogs" / "._b.png").write_bytes(b"\0\5\x16\7")
    source = open_source(tmp_path)
    assert (source.preparation.classes, source.rows) == (("cats", "dogs"), 2)


def test_images_of_kinds_that_are_not_read_are_told_of(tmp_path):
    saved(tmp_path / "cats" / "a.png")
    saved(tmp_path / "dogs" / "b.gif")
    for name in ("cats/c.HEIC", "cats/d.jfif", "cats/notes.txt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.warns(
        AltMinWarning, match=r"has 3 files of images that are not read \(cats/c\.HEIC, …\)"
    ) as told:
        assert open_source(tmp_path).rows == 1
    assert len(told) == 1


def test_a_colour_that_is_transparent_is_told_of(tmp_path):
    grey, red = Image.new("L", (3, 2), 7), Image.new("RGB", (3, 2), (200, 10, 0))
    palette = red.quantize(4)
    for folder, images in (
        ("grey", [(grey, 7), (grey, None)]),
        ("red", [(red, (200, 10, 0)), (red, None), (palette, 0), (palette, b"\0\x80")]),
    ):
        count = sum(colour is not None for _, colour in images)
        for number, (image, colour) in enumerate(images):
            saved(
                tmp_path / folder / f"{number}.png",
                image,
                **({} if colour is None else {"transparency": colour}),
            )
        with pytest.warns(
            AltMinWarning, match=f"has {count} images with transparency, which is left out"
        ) as told:
            x = np.concatenate([x for x, _ in open_source(tmp_path / folder).blocks(2)])
        assert len(told) == 1  # none of Pillow's
        assert (x == (7 if folder == "grey" else [200, 10, 0])).all()


@pytest.mark.parametrize("ending", ["tiff", "webp", "png"])
def test_frames_behind_the_first_one_are_told_of(ending, tmp_path):
    frames = [Image.new("RGB", (3, 2), (60 * number, 0, 0)) for number in range(3)]
    saved(tmp_path / f"a.{ending}", frames[0], save_all=True, append_images=frames[1:])
    saved(tmp_path / f"b.{ending}", frames[1])
    with pytest.warns(
        AltMinWarning, match="has 1 files with several frames or pages, of which only the first"
    ) as told:
        x, _ = next(open_source(tmp_path).blocks(2))
    assert len(told) == 1
    assert x.shape == (2, 2, 3, 3)


def test_the_preview_of_a_camera_is_no_frame(tmp_path):
    image = Image.new("RGB", (3, 2))
    saved(tmp_path / "a.jpg", image, format="MPO", save_all=True, append_images=[image])
    with Image.open(tmp_path / "a.jpg") as opened:
        assert (opened.format, opened.n_frames) == ("MPO", 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_source(tmp_path).rows == 1


@pytest.mark.filterwarnings("default::altmin_dask.errors.AltMinWarning")
def test_grey_images_are_read_as_the_coloured_ones_for_training(tmp_path, altmin):
    """A folder of grey ones alone was refused, as one number a pixel is not three."""
    colours = np.random.default_rng(0).integers(0, 255, (6, 2, 3, 3), np.uint8)
    for number, pixels in enumerate(colours):
        saved(tmp_path / "in" / "cats" / f"{number}.png", Image.fromarray(pixels))
        saved(tmp_path / "in" / "dogs" / f"{number}.png", Image.fromarray(255 - pixels))
        saved(tmp_path / "grey" / f"{number}.png", Image.fromarray(pixels).convert("L"))
        saved(tmp_path / "three" / f"{number}.png", Image.fromarray(pixels).convert("L").convert("RGB"))
    for kind, folder in (("classifier", "in"), ("autoencoder", "three")):
        run = tmp_path / kind
        tables = {"data": {"scale": 255}, "training": {"max_sweeps": 1}}
        write_pipeline(tmp_path / "p.toml", tmp_path / folder, kind=kind, **tables)
        done(altmin("train", tmp_path / "p.toml", "--run", run))
        told = done(altmin("predict", run, tmp_path / "grey", tmp_path / f"{kind}.npy")).err
        assert "grey has grey images, and those for training were coloured: they are read in colour" in told
        assert (
            "read in colour"
            not in done(altmin("predict", run, tmp_path / "three", tmp_path / f"{kind}3.npy")).err
        )
        given = np.load(tmp_path / f"{kind}3.npy")
        np.testing.assert_array_equal(np.load(tmp_path / f"{kind}.npy"), given)
    model = AltMinClassifier.load(tmp_path / "classifier")
    grey = Model.load(tmp_path / "classifier" / "model")
    with pytest.raises(
        DataError, match="if these are images, they have colours, and those had none: save them in grey"
    ):
        replace(grey, sample_shape=(2, 3)).check_shape("x", (2, 3, 3))
    with pytest.warns(AltMinWarning, match="they are read in colour"):
        again = model.predict(tmp_path / "grey")
    np.testing.assert_array_equal(again, model.predict(tmp_path / "three"))


def test_images_are_in_the_order_of_numbers_as_their_names_are(tmp_path, altmin):
    """2 stood behind 10, other than of tables; 1 and 01 in whatever order the file system lists them."""
    names = ["01", "1", "2", "9", "10", "11", "100"]
    for number, name in enumerate(reversed(names)):
        pixels = np.full((2, 3), 100 - number, np.uint8)
        saved(tmp_path / "in" / "a" / f"{name}.png", Image.fromarray(pixels))
        saved(tmp_path / "in" / "b" / f"{name}.png", Image.fromarray(255 - pixels))
    source = open_source(tmp_path / "in")
    x, y = next(source.blocks(99))
    ordered = [94, 95, 96, 97, 98, 99, 100]
    np.testing.assert_array_equal(x[:, 0, 0], ordered + [255 - each for each in ordered])
    np.testing.assert_array_equal(y, [0] * 7 + [1] * 7)
    write_pipeline(
        tmp_path / "p.toml",
        tmp_path / "in",
        kind="autoencoder",
        data={"scale": 255},
        network={"hidden_layer_sizes": [6], "output_activation": "identity"},
        training={"max_sweeps": 40},
    )
    done(altmin("train", tmp_path / "p.toml", "--run", tmp_path / "run"))
    done(altmin("predict", tmp_path / "run", tmp_path / "in", tmp_path / "p.csv"))
    predicted = pd.read_csv(tmp_path / "p.csv")
    files = [f"{label}/{name}.png" for label in "ab" for name in names]
    assert list(predicted["file"]) == files
    first = predicted.drop(columns="file").to_numpy()[:, 0]
    assert first[:7].max() < 127 < first[7:].min()
