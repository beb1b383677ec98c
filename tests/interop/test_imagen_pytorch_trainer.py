import numpy as np
import pytest
import torch
from safetensors import safe_open

from calotype.errors import CalotypeError, ConfigError, UsageError
from calotype.interop.imagen_pytorch import Imagen, ImagenTrainer, Unet, load, save
from calotype.interop.imagen_pytorch.trainer_config import TrainerSettings

TINY = {
    "dim": 8,
    "cond_dim": 8,
    "dim_mults": (1, 2),
    "attn_dim_head": 8,
    "attn_heads": 2,
    "cond_on_text": False,
    "text_embed_dim": None,
    "max_text_len": 4,
}
IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def trainer(stages=1, **arguments):
    torch.manual_seed(0)
    unets = [Unet(**TINY) for _ in range(stages)]
    sizes = (8, 16)[:stages]
    imagen = Imagen(unets, image_sizes=sizes, condition_on_text=False, timesteps=2)
    return ImagenTrainer(imagen, verbose=False, **arguments)


def steps(one, count, number=1):
    for seed in range(count):
        torch.manual_seed(seed)
        one(IMAGES, unet_number=number)
        one.update(unet_number=number)
    return one


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_parts_of_a_batch_add_up_to_its_gradient(monkeypatch):
    one = trainer()
    levels, eps = torch.tensor([-2.0, 0.0, 1.0, 3.0]), torch.randn(4, 3, 8, 8)
    # The same level and noise for every image, whatever part it is in.
    stage = one.imagen.formulations[0]

    def loss(unet, x, inputs, number, noise):
        rows = [int((IMAGES * 2 - 1 - row).flatten(1).abs().sum(1).argmin()) for row in x]
        network = lambda z, t, s: unet.predict(z, t, inputs, self_cond=s)  # noqa: E731
        return stage.loss(network, x, levels[rows], eps=eps[rows]).mean()

    monkeypatch.setattr(one.imagen, "_loss", loss)
    one.imagen.eval()  # linear attention drops out; the trainer itself stays in training mode
    found = []
    for size in (None, 1, 3):
        total = one(IMAGES, max_batch_size=size)
        gradients = [p.grad for p in one.imagen.parameters() if p.grad is not None]
        found.append((total, [gradient.clone() for gradient in gradients]))
        one.imagen.zero_grad()
    for total, gradients in found[1:]:
        assert abs(total - found[0][0]) < 1e-5
        for a, b in zip(gradients, found[0][1], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_an_update_moves_one_unet_and_its_average():
    one = trainer(stages=2)
    before = [weights(unet) for unet in one.imagen.unets]
    averaged = weights(one.ema_unets[1])
    torch.manual_seed(0)
    loss = one(torch.rand(2, 3, 16, 16).numpy(), unet_number=2)
    one.update(unet_number=2)
    after = [weights(unet) for unet in one.imagen.unets]
    assert isinstance(loss, float)
    assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1])
    assert not torch.equal(weights(one.get_ema_unet(2)), averaged)
    assert one.num_steps_taken(2) == 1 and one.num_steps_taken(1) == 0
    assert all(p.grad is None for p in one.imagen.parameters())
    one(IMAGES, unet_number=1)  # several U-Nets in one process
    one.update(unet_number=1)
    assert one.steps.tolist() == [1, 1]


def test_evaluation_mode_adds_no_gradient_and_validation_uses_averages():
    one = trainer()
    one.add_valid_dataset(torch.utils.data.TensorDataset(IMAGES), batch_size=2)
    assert one.valid_step(unet_number=1, use_ema_unets=True) > 0
    assert one.training and all(p.grad is None for p in one.imagen.parameters())


def test_rates_warm_up_and_decay():
    one = trainer(
        stages=2, lr=(1e-3, 1e-4), warmup_steps=(4, None), cosine_decay_max_steps=(None, 8)
    )
    rates = [[], []]
    for _ in range(9):
        for index in (0, 1):
            rates[index].append(one.get_lr(index + 1))
        one.steps += 1
    np.testing.assert_allclose(rates[0][:5], [2e-4, 4e-4, 6e-4, 8e-4, 1e-3])
    np.testing.assert_allclose([rates[1][0], rates[1][4], rates[1][8]], [1e-4, 5e-5, 0], atol=1e-12)
    assert abs(TrainerSettings().ema_halflife - 69_311) < 2


def test_saving_and_loading_goes_on_as_if_nothing_had_happened(tmp_path):
    path = tmp_path / "runs" / "checkpoint.pt"
    one = steps(trainer(), 2)
    one.save(path, note={"epoch": 3})
    other = trainer(lr=1e-4)
    torch.nn.init.zeros_(other.imagen.unets[0].final_conv.bias)
    assert other.load(path) == {"note": {"epoch": 3}}
    for each in (one, other):
        steps(each, 1)
    assert torch.equal(weights(one.imagen), weights(other.imagen))
    assert torch.equal(weights(one.ema_unets), weights(other.ema_unets))
    assert torch.equal(one.steps, other.steps)
    with safe_open(path, framework="pt") as file:
        assert "imagen" in file.metadata()
    with pytest.raises(UsageError, match="exists"):
        one.save(path, overwrite=False)
    assert trainer().load(tmp_path / "none.pt", noop_if_not_exist=True) == {}
    with pytest.raises(CalotypeError, match="cannot read"):
        trainer().load(tmp_path / "none.pt")
    with pytest.raises(CalotypeError, match="does not fit"):
        trainer(stages=2).load(path)


def test_a_checkpoint_makes_the_cascade_it_was_made_of(tmp_path):
    one = steps(trainer(), 1)
    one.save(tmp_path / "a.pt", without_optim_and_sched=True)
    again = ImagenTrainer(imagen_checkpoint_path=tmp_path / "a.pt", verbose=False)
    assert torch.equal(weights(again.imagen), weights(one.imagen))
    assert again.imagen.settings == one.imagen.settings
    assert again.imagen.sample(batch_size=1).shape == (1, 3, 8, 8)
    model = load(save(one.imagen, tmp_path / "folder"))
    assert torch.equal(weights(model), weights(one.imagen))
    assert torch.isfinite(model(IMAGES))


def test_checkpoint_folders_keep_the_newest(tmp_path):
    options = {"checkpoint_path": str(tmp_path), "checkpoint_every": 1, "max_checkpoints_keep": 2}
    steps(trainer(**options), 3)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["checkpoint.2.pt", "checkpoint.3.pt"]
    assert trainer(**options).num_steps_taken(1) == 3
    other = trainer(**options)
    other.load_from_checkpoint_folder(2)
    assert other.num_steps_taken(1) == 2


def test_one_network_is_kept_in_a_file(tmp_path):
    unet = trainer().imagen.unets[0]
    unet.persist_to_file(tmp_path / "unet.pt")
    again = Unet.hydrate_from_file(tmp_path / "unet.pt")
    config, state = unet.to_config_and_state_dict()
    third = Unet.from_config_and_state_dict(config, state)
    assert again.settings == third.settings == unet.settings
    assert torch.equal(weights(again), weights(unet)) and torch.equal(weights(third), weights(unet))
    whole = (tmp_path / "unet.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[:-9])
    torch.save({"state_dict": state}, tmp_path / "theirs.pt")
    trainer().save(tmp_path / "trainer.pt")
    for name in ("cut.pt", "theirs.pt", "trainer.pt", "none.pt"):
        with pytest.raises(CalotypeError):
            Unet.hydrate_from_file(tmp_path / name)


def test_pickles_are_not_read(tmp_path):
    torch.save({"model": {}}, tmp_path / "theirs.pt")
    with pytest.raises(CalotypeError, match="calotype convert"):
        trainer().load(tmp_path / "theirs.pt")


def test_datasets_never_end_and_are_split():
    one = trainer(split_valid_from_train=True, split_valid_fraction=0.25)
    one.add_train_dataset(torch.utils.data.TensorDataset(IMAGES), batch_size=2)
    losses = [one.train_step(unet_number=1) for _ in range(3)]
    assert all(loss > 0 for loss in losses) and one.num_steps_taken(1) == 3
    assert one.valid_step(unet_number=1) > 0
    with pytest.raises(UsageError, match="second training"):
        one.add_train_dataloader([])
    with pytest.raises(UsageError, match="add_valid_dataset"):
        trainer().valid_step(unet_number=1)


def test_sampling_in_parts_with_and_without_averages():
    one = steps(trainer(), 1)
    assert one.sample(batch_size=5, max_batch_size=2, use_tqdm=False).shape == (5, 3, 8, 8)
    images = one.sample(batch_size=3, max_batch_size=2, return_pil_images=True, use_non_ema=True)
    assert len(images) == 3
    everything = one.sample(batch_size=3, max_batch_size=2, return_all_unet_outputs=True)
    assert [tuple(x.shape) for x in everything] == [(3, 3, 8, 8)]


def test_bf16_trains_and_fp16_wants_a_gpu():
    one = trainer(precision="bf16", max_grad_norm=0.5)
    before = weights(one.imagen)
    steps(one, 1)
    assert not torch.equal(before, weights(one.imagen))
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="bf16"):
            trainer(fp16=True)(IMAGES)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"accelerate_cpu": True}, "one process"),
        ({"ema_power": 0.5}, "half-life"),
        ({"amsgrad": True}, "unknown"),
        ({"checkpoint_fs": object()}, "another tool"),
        ({"checkpoint_path": "x"}, "checkpoint_every"),
        ({"fp16": True, "precision": "bf16"}, "both"),
        ({"group_wd_params": False, "weight_decay": 0.1}, "never decayed"),
        ({"lr": (1e-4, 1e-4)}, "2 values"),
        ({"precision": "int8"}, "bf16"),
    ],
)
def test_arguments_that_do_nothing_here_are_refused(arguments, word):
    with pytest.raises(ConfigError, match=word):
        trainer(**arguments)
