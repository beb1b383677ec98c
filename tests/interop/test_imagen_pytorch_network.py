import importlib.util
import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from calotype.diffusion import (
    EpsPrediction,
    denoising_loss,
    karras_levels,
    min_snr_weighting,
)
from calotype.errors import ConfigError, UsageError
from calotype.interop import imagen_pytorch
from calotype.interop.imagen_pytorch import ElucidatedImagen, Imagen, Unet
from calotype.interop.imagen_pytorch.formulation import SCHEDULES
from calotype.interop.imagen_pytorch.infer import infer_unet
from calotype.interop.imagen_pytorch.inputs import UnetInputs
from calotype.interop.imagen_pytorch.keys import own_name

HERE = Path(__file__).parent
DATA = HERE / "data"


def _peer_script():
    path = HERE / "peer_imagen_pytorch.py"
    spec = importlib.util.spec_from_file_location("peer_imagen_pytorch", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


peer = _peer_script()
RECORDED = load_file(DATA / "imagen_pytorch_peer.safetensors")
CASES = json.loads((DATA / "imagen_pytorch_peer.json").read_text())["cases"]


def foreign_weights(case):
    return {name: peer.made(name, tuple(shape)) for name, shape in case["weights"].items()}


def network(name):
    case = CASES[name]
    unet = getattr(imagen_pytorch, case["kind"])(**case["settings"]).eval()
    unet.load_state_dict(foreign_weights(case))
    return unet


def assert_as_recorded(ours, name):
    theirs = RECORDED[name]
    largest = theirs.abs().max().clamp_min(1)
    assert (ours - theirs).abs().max() <= 1e-5 * largest, name


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_outputs_are_those_of_the_real_package(name):
    assert_as_recorded(network(name)(**peer.inputs_of(CASES[name]["settings"])), f"{name}.output")


@torch.no_grad()
def test_null_caption_and_guidance_are_those_of_the_real_package():
    unet, told = network("base"), peer.inputs_of(CASES["base"]["settings"])
    assert_as_recorded(unet(**told, cond_drop_prob=1.0), "base.null")
    for project in (True, False):
        guided = unet.forward_with_cond_scale(
            **told, cond_scale=3.0, remove_parallel_component=project, keep_parallel_frac=0.25
        )
        assert_as_recorded(guided, f"base.guided_{project}")


@pytest.mark.parametrize("objective", ["noise", "x_start", "v"])
@pytest.mark.parametrize("loss_type", ["l2", "l1", "huber"])
@pytest.mark.parametrize("min_snr", [True, False])
@torch.no_grad()
def test_losses_are_those_of_the_real_package(objective, loss_type, min_snr):
    settings = CASES["base"]["settings"]
    imagen = Imagen(
        Unet(**settings), image_sizes=16, text_embed_dim=12, pred_objectives=objective,
        loss_type=loss_type, min_snr_loss_weight=min_snr,
    ).eval()  # fmt: skip
    imagen.unets[0].load_state_dict(foreign_weights(CASES["base"]))
    loss = imagen.formulations[0].loss(
        _bound(imagen.unets[0]), _image(), RECORDED["loss.logsnr"], eps=_told()["x"]
    )
    recorded = RECORDED[f"loss.{objective}.{loss_type}.{min_snr}"]
    torch.testing.assert_close(loss.mean(), recorded, rtol=2e-5, atol=1e-6)


@torch.no_grad()
def test_l2_is_the_loss_of_this_library():
    imagen = Imagen(Unet(**CASES["base"]["settings"]), image_sizes=16, text_embed_dim=12)
    bound, levels, eps = _bound(imagen.unets[0].eval()), torch.tensor([-1.0, 2.0]), _told()["x"]
    theirs = denoising_loss(
        lambda z, logsnr: bound(z, logsnr, None), _image(), levels, eps=eps,
        parametrization=EpsPrediction(), weighting=min_snr_weighting(5.0),
    )  # fmt: skip
    ours = imagen.formulations[0].loss(bound, _image(), levels, eps=eps)
    torch.testing.assert_close(ours, theirs)


@torch.no_grad()
def test_elucidated_is_the_real_package_in_the_letters_of_this_library():
    imagen = ElucidatedImagen(Unet(**CASES["base"]["settings"]), image_sizes=16, text_embed_dim=12)
    unet = imagen.unets[0].eval()
    unet.load_state_dict(foreign_weights(CASES["base"]))
    stage, bound, sigma = imagen.formulations[0], _bound(unet), torch.tensor([0.4, 6.0])
    logsnr, scale = -2 * sigma.log(), (1 + sigma.square()).rsqrt()[:, None, None, None]
    denoised = stage.estimate(bound, _told()["x"] * 2 * scale, logsnr)
    assert_as_recorded(denoised, "edm.denoised")
    loss = stage.loss(bound, _image(), logsnr, eps=_told()["x"])
    torch.testing.assert_close(loss.mean(), RECORDED["edm.loss"], rtol=2e-5, atol=1e-6)
    levels = karras_levels(8, sigma_max=80, sigma_min=0.002, rho=7)[:-1]
    sigmas = (-levels / 2).exp().float()
    torch.testing.assert_close(sigmas, RECORDED["edm.sigmas"][:-1], rtol=1e-4, atol=0)


def test_schedules_are_close_to_those_the_weights_were_trained_with():
    times = torch.linspace(0, 0.99, 12)
    for name, tolerance in (("cosine", 0.01), ("linear", 0.1)):
        ours = SCHEDULES[name].logsnr(times).float()
        assert (ours - RECORDED[f"schedule.{name}"]).abs().max() < tolerance
    assert (SCHEDULES["cosine"].logsnr(times[:1]) - 8.769).abs() < 1e-3


def test_own_weights_load_under_both_names_and_wrong_ones_are_refused():
    unet = network("memory_efficient")
    again = Unet(**CASES["memory_efficient"]["settings"])
    again.load_state_dict(unet.state_dict())
    names = {own_name(name) for name in CASES["memory_efficient"]["weights"]}
    assert names == set(unet.state_dict())
    broken = foreign_weights(CASES["memory_efficient"])
    broken.pop("downs.0.1.block1.norm.gamma")
    with pytest.raises(RuntimeError, match=r"down\.0\.entry\.block1"):
        again.load_state_dict(broken)


@pytest.mark.parametrize("name", CASES)
def test_arguments_are_read_off_the_weights(name):
    case = CASES[name]
    shapes = {own_name(key): tuple(shape) for key, shape in case["weights"].items()}
    told = ("scale_skip_connection", "use_linear_cross_attn", "self_cond", "cond_images_channels")
    given = {key: case["settings"][key] for key in told if key in case["settings"]}
    if name == "told_much":
        given["channels"] = 2
    unet = Unet(**infer_unet(shapes, given)).eval()
    assert {k: tuple(v.shape) for k, v in unet.state_dict().items()} == shapes
    unet.load_state_dict(foreign_weights(case))
    with torch.no_grad():
        assert_as_recorded(unet(**peer.inputs_of(case["settings"])), f"{name}.output")


def test_ambiguous_channels_are_asked_about():
    case = CASES["told_much"]
    shapes = {own_name(key): tuple(shape) for key, shape in case["weights"].items()}
    with pytest.raises(UsageError, match="self_cond"):
        infer_unet(shapes, {"channels": 2})


@torch.no_grad()
def test_padding_does_not_matter_and_length_is_cut():
    unet, told = network("base"), peer.inputs_of(CASES["base"]["settings"])
    longer = dict(told)
    longer["text_embeds"] = torch.cat((told["text_embeds"], torch.randn(2, 7, 12)), dim=1)
    longer["text_mask"] = torch.cat((told["text_mask"], torch.zeros(2, 7, dtype=torch.bool)), dim=1)
    torch.testing.assert_close(unet(**longer), unet(**told))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"out_dim": 3}, "channels_out"),
        ({"num_image_tokens": 8}, "ignores"),
        ({"dim_mult": (1, 2)}, "dim_mults"),
        ({"attn_heads": 1}, "attn_heads"),
        ({"layer_attns": (True,)}, "layer_attns"),
        ({"resize_mode": "lanczos"}, "resize_mode"),
        ({"init_cross_embed_kernel_sizes": (4,)}, "odd"),
        ({"cond_on_text": True, "text_embed_dim": None}, "text_embed_dim"),
    ],
)
def test_arguments_that_package_ignores_or_dies_of_are_refused(arguments, word):
    with pytest.raises(ConfigError, match=word):
        Unet(**{"dim": 16, **arguments})


def test_arguments_that_package_ignores_act_here():
    torch.manual_seed(0)
    tiny = CASES["base"]["settings"]
    dropping = Unet(**{**tiny, "dropout": 0.5}).train()
    assert sum(isinstance(m, torch.nn.Dropout) and m.p == 0.5 for m in dropping.modules()) > 4
    without = Unet(**{**tiny, "layer_attns_add_text_cond": False})
    assert not any("to_context" in name for name in without.state_dict())
    assert any("to_context" in name for name in Unet(**tiny).state_dict())
    crossed = Unet(**{**tiny, "cross_embed_downsample": True})  # that package dies of it
    assert crossed(**peer.inputs_of(tiny)).shape == (2, 3, 16, 16)


def test_images_that_do_not_fit_are_refused():
    unet, told = network("base"), peer.inputs_of(CASES["base"]["settings"])
    with pytest.raises(UsageError, match="multiples of 2"):
        unet(**{**told, "x": torch.randn(2, 3, 15, 15)})
    with pytest.raises(UsageError, match="lowres_cond"):
        unet(**told, lowres_cond_img=told["x"], lowres_noise_times=told["time"])
    with pytest.raises(UsageError, match="cond_images"):
        unet(**told, cond_images=told["x"])


def test_presets_have_the_sizes_of_that_package():
    with torch.device("meta"):
        sizes = [
            sum(p.numel() for p in kind(text_embed_dim=4096, cond_dim=512, **more).parameters())
            for kind, more in (
                (imagen_pytorch.BaseUnet64, {}),
                (imagen_pytorch.SRUnet256, {"lowres_cond": True}),
                (imagen_pytorch.SRUnet1024, {"lowres_cond": True}),
            )
        ]
    assert [round(size / 1e6) for size in sizes] == [1627, 744, 734]


@pytest.mark.slow
@pytest.mark.skipif(
    "CALOTYPE_PEER_IMAGEN" not in os.environ,
    reason="CALOTYPE_PEER_IMAGEN names no Python with imagen-pytorch 2.1.0",
)
def test_the_record_is_what_the_real_package_computes(tmp_path):
    python = os.environ["CALOTYPE_PEER_IMAGEN"]
    command = [python, str(HERE / "peer_imagen_pytorch.py"), str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    again = load_file(tmp_path / "imagen_pytorch_peer.safetensors")
    assert again.keys() == RECORDED.keys()
    for name, value in again.items():
        torch.testing.assert_close(value, RECORDED[name], rtol=1e-4, atol=1e-4)
    table = json.loads((tmp_path / "imagen_pytorch_peer.json").read_text())
    assert table["cases"] == CASES


def _told():
    return peer.inputs_of(CASES["base"]["settings"])


def _image():
    return peer.made("input.image", (2, 3, 16, 16)).sigmoid() * 2 - 1


def _bound(unet):
    told = _told()
    keep = torch.ones(2, dtype=torch.bool)
    inputs = UnetInputs(unet.encode_text(told["text_embeds"], told["text_mask"], keep))
    return lambda z, time, self_cond: unet.predict(z, time, inputs, self_cond=self_cond)
