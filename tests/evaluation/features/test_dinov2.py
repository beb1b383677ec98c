"""DINOv2 from a folder of transformers, with random weights."""

import json

import pytest
import torch

from calotype.errors import CalotypeError, UsageError
from calotype.evaluation.features.extractor import load_extractor

transformers = pytest.importorskip("transformers")


@pytest.fixture
def folder(tmp_path):
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    torch.manual_seed(0)
    transformers.Dinov2Model(config).save_pretrained(tmp_path / "dino")
    return tmp_path / "dino"


def test_features_are_the_class_token_after_the_norm(folder):
    extractor = load_extractor("dinov2", weights=folder)
    assert (extractor.name, extractor.dimension) == ("dinov2", 16)
    assert extractor.description.startswith("DINOv2 (dino), 28 x 28")
    images = torch.randint(0, 256, (3, 3, 28, 28), dtype=torch.uint8)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    model = transformers.Dinov2Model.from_pretrained(folder).eval()
    with torch.no_grad():
        states = model(pixel_values=(images / 255 - mean) / std).last_hidden_state
    torch.testing.assert_close(extractor(images), states[:, 0], rtol=1e-5, atol=1e-5)
    assert extractor(torch.zeros(1, 3, 9, 70, dtype=torch.uint8)).shape == (1, 16)


def test_the_fingerprint_is_of_weights_and_settings(folder):
    before = load_extractor("dinov2", weights=folder).fingerprint
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "layer_norm_eps": 1e-3}))
    assert load_extractor("dinov2", weights=folder).fingerprint != before


def test_other_folders_are_refused(folder, tmp_path):
    with pytest.raises(UsageError, match="model_type 'dinov2'"):
        load_extractor("dinov2", weights=tmp_path)
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(UsageError, match="not pickles"):
        load_extractor("dinov2", weights=folder)
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(CalotypeError, match="cannot be read") as raised:
        load_extractor("dinov2", weights=folder)
    assert "\n" not in str(raised.value)
    weights.write_bytes(data)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(CalotypeError, match="weights missing"):
        load_extractor("dinov2", weights=folder)


def test_code_in_a_folder_is_not_run(folder):
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('run')")
    assert load_extractor("dinov2", weights=folder).dimension == 16
