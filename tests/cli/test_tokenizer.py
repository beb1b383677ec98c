"""A walk: a tokenizer is made, a text tower is trained with it, and its run is moved."""

import json
import shutil

import pytest
from PIL import Image

from calotype.training.recipes import load_recipe

RECIPE = {
    "name": "glide-walk",
    "stages": [
        {
            "stage": {
                "resolution": 16,
                "network": {
                    "kind": "adm_unet",
                    "levels": [{"channels": 8, "blocks": 1}, {"channels": 8, "blocks": 1}],
                    "text_dim": 1,
                    "text": {
                        "kind": "tokens",
                        "width": 16,
                        "layers": 1,
                        "heads": 2,
                        "context": 8,
                        "vocabulary": 262,
                    },
                    "head_dim": 8,
                    "norm_groups": 4,
                },
                "schedule": {"kind": "discrete"},
                "sampling": {"steps": 2, "threshold_percentile": None},
            },
            "text_encoder": "glide:tokenizer",
            "batch_size": 4,
            "total_images": 8,
            "checkpoint_images": 8,
        }
    ],
}


@pytest.mark.slow
def test_from_captions_to_a_moved_model(command, images, tmp_path):
    (tmp_path / "walk.json").write_text(json.dumps(RECIPE))
    words = ("train", "walk.json", "--data", str(images), "--out", "run", "--quiet")
    code, _, err = command(*words)
    told = f"calotype data tokenizer {images} --vocabulary 262 -o tokenizer"
    assert code == 2 and told in err and err.count("calotype: got") == 1
    assert not (tmp_path / "run").exists()

    code, out, err = command(*told.split()[1:])
    assert (code, err) == (0, "")
    assert "262  tokens in tokenizer, of SHA-256" in out and "8  captions of 8 images" in out
    code, _, err = command(*told.split()[1:])
    assert code == 2 and "got --out tokenizer, which is there" in err

    assert command(*words)[0] == 0
    shutil.rmtree(tmp_path / "tokenizer")
    shutil.move(tmp_path / "run", tmp_path / "moved")
    code, _, err = command("sample", "red left", "--model", "moved", "-o", "red.png")
    assert (code, err) == (0, "")
    assert Image.open(tmp_path / "red.png").size == (16, 16)
    assert "text encoder: glide:tokenizer" in command("info", "red.png")[1]  # no place of files


@pytest.mark.parametrize("name", ["glide-emoji-64", "glide-emoji-64-free", "glide-emoji-256"])
def test_emoji_recipes_name_the_tokenizer_of_their_commands(name):
    (config,) = load_recipe(name).stages
    assert config.text_encoder == "glide:tokenizer"
    if (tower := config.stage.token_tower) is not None:
        assert tower.vocabulary == 4096 and tower.context >= 20  # of the longest emoji caption
