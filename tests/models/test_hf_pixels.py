"""What a native folder says about pixels: read as transformers' processor reads it, or refused."""

import json

import pytest

import tiny_internvl
from vedere.cli import main
from vedere.errors import CheckpointError
from vedere.models.checkpoints import read_config
from vedere.models.hf_pixels import read_pixels
from vedere.vision.pixels import mean_std

TILE = 28


def write(folder, name="preprocessor_config.json", **fields):
    (folder / name).write_text(json.dumps(fields))
    return folder


def cut(folder):
    found = read_pixels(folder, TILE)
    return tuple(found[key] for key in ("dynamic_image_size", "min_dynamic_patch", "max_dynamic_patch"))


def test_no_file_says_nothing(tmp_path):
    assert read_pixels(tmp_path, TILE) == read_pixels(None, TILE) == {}


def test_the_processor_cuts_whatever_the_file_says(tmp_path):
    """As released conversions have it: they leave the image processor's own default, which is off."""
    assert cut(write(tmp_path, crop_to_patches=False, min_patches=2, max_patches=6)) == (True, 2, 6)
    assert cut(write(tmp_path, crop_to_patches=False)) == (True, 1, 12)
    assert cut(write(tmp_path, crop_to_patches=False, max_patches=1)) == (False, 1, 1)
    assert cut(write(tmp_path, max_patches=1)) == (True, 1, 1)


def test_a_processor_that_holds_its_image_processor_goes_before(tmp_path):
    write(tmp_path, max_patches=3)
    write(tmp_path, "processor_config.json", image_seq_length=4)
    assert cut(tmp_path) == (True, 1, 3)
    write(tmp_path, "processor_config.json", image_seq_length=4, image_processor={"max_patches": 5})
    assert cut(tmp_path) == (True, 1, 5)
    write(tmp_path, "processor_config.json", image_processor={"max_patches": 5, "do_rescale": False})
    with pytest.raises(CheckpointError, match=r"processor_config\.json: 'image_processor\.do_rescale' is False"):
        read_pixels(tmp_path, TILE)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": {"height": 384, "width": 384}}, "'size' is {'height': 384, 'width': 384}; expected tiles of 28 px"),
        ({"size": 56}, "'size' is 56; expected tiles of 28 px"),
        ({"size": {"height": [28]}}, ".*; expected tiles of 28 px"),
        ({"image_mean": list(mean_std("clip")[0])}, "'image_mean' is .*; expected .*, ImageNet's"),
        ({"image_std": [0.5, 0.5, 0.5]}, "'image_std' is .*; expected .*, ImageNet's"),
        ({"image_mean": [0.485]}, "'image_mean' is .*; expected .*, ImageNet's"),
        ({"image_mean": 0.5}, "'image_mean' is 0.5; expected a list of positive numbers"),
        ({"do_normalize": False}, "'do_normalize' is False; expected one of True, None"),
        ({"do_resize": "yes"}, "'do_resize' is 'yes'; expected one of True, None"),
        ({"resample": 2}, "'resample' is 2; expected one of 3"),
        ({"rescale_factor": 1.0}, "'rescale_factor' is 1.0; expected 1 / 255"),
        ({"max_patches": "six"}, "'max_patches' is 'six'; expected an integer"),
        ({"crop_to_patches": "yes"}, "'crop_to_patches' is 'yes'; expected one of True, False, None"),
    ],
)
def test_pixels_that_are_not_made_here_are_refused(tmp_path, fields, message):
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: " + message):
        read_pixels(write(tmp_path, **fields), TILE)


@pytest.mark.parametrize(("text", "message"), [("[", "is not JSON"), ("[]", "holds a JSON list")])
def test_damaged_files_are_refused(tmp_path, text, message):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_pixels(tmp_path, TILE)


@pytest.mark.parametrize("fields", [{"dynamic_image_size": False, "max_dynamic_patch": 9}, {"max_dynamic_patch": 1}])
def test_what_a_folder_said_about_tiles_survives_the_way_to_native_and_back(tmp_path, fields):
    source = tiny_internvl.folder(tmp_path / "a", "original", qkv_bias=False)
    config = json.loads((source / "config.json").read_text()) | fields
    (source / "config.json").write_text(json.dumps(config))
    place = source
    for name, layout in (("b", "hf"), ("c", "original")):
        assert main(["convert", str(place), str(tmp_path / name), "--layout", layout]) == 0
        place = tmp_path / name
        assert read_config(place).extras.items() >= fields.items()
    assert json.loads((place / "config.json").read_text()) == config


@pytest.mark.peer
@pytest.mark.parametrize(
    "fields", [{"crop_to_patches": False}, {"crop_to_patches": False, "max_patches": 1}, {"max_patches": 2}]
)
def test_the_processor_of_transformers_makes_as_many_tiles(tmp_path, processor_class, fields):
    import numpy as np
    from PIL import Image

    from vedere.infer.prompts import Question
    from vedere.infer.session import load

    source, folder = tiny_internvl.folder(tmp_path / "own"), tmp_path / "hf"
    assert main(["convert", str(source), str(folder), "--layout", "hf"]) == 0
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    picture = Image.fromarray(np.zeros((50, 97, 3), np.uint8))
    peer = processor_class.from_pretrained(folder)(images=picture, text="<IMG_CONTEXT>", return_tensors="pt")
    request = load(folder, device="cpu").prompts.make(Question(text="What?", images=[picture])).request
    assert len(request.pixels) == len(peer["pixel_values"])
