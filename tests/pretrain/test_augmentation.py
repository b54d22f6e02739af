"""Augmentation: agreement with torchvision, randomness, shares, kinds of views."""

from __future__ import annotations

import math

import kornia.enhance
import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image, ImageFilter
from torchvision.transforms import AutoAugment as TorchvisionAutoAugment
from torchvision.transforms import AutoAugmentPolicy

from harness.errors import UserError
from pretrain.augmentation import AUGMENTATIONS, IMAGENET_MEAN, IMAGENET_STD
from pretrain.autoaugment import OPERATIONS, AutoAugment, imagenet_policy
from pretrain.groups import apply_to
from pretrain.hue import shift_hue


def photo(count=1, size=48, seed=0):
    """Smooth colourful images, uint8 [N, 3, size, size]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
    return (smooth * 255).round().to(torch.uint8)


def restore(normalised):
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return normalised * std + mean


def only(**options):
    """The standard augmentation with everything off but what is given."""
    off = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "jitter_probability": 1.0,
           "grey_probability": 0.0, "blur_probability": 0.0, "flip_probability": 0.0}
    return AUGMENTATIONS.get("standard")(**{**off, **options})


def test_none_only_normalises():
    images = photo(3)
    out = AUGMENTATIONS.get("none")()(images)
    for ours, image in zip(out, images, strict=True):
        torch.testing.assert_close(ours, TF.normalize(image / 255, IMAGENET_MEAN, IMAGENET_STD))


def test_everything_off_changes_nothing():
    images = photo(4)
    torch.testing.assert_close(only()(images), AUGMENTATIONS.get("none")()(images))


@pytest.mark.parametrize("name", AUGMENTATIONS.names())
def test_deterministic_and_input_untouched(name):
    images = photo(16)
    kept = images.clone()
    augment = AUGMENTATIONS.get(name)()
    torch.manual_seed(3)
    first = augment(images)
    torch.manual_seed(3)
    assert torch.equal(first, augment(images)) and torch.equal(images, kept)
    again = augment(images, generator=torch.Generator().manual_seed(3))
    assert torch.equal(first, again)
    if name != "none":
        assert not torch.equal(first, augment(images))
    assert first.dtype == torch.float32 and torch.isfinite(first).all()
    assert -1e-5 < restore(first).min() and restore(first).max() < 1 + 1e-5


@pytest.mark.parametrize("name", ["standard", "mix", "autoaugment"])
@pytest.mark.parametrize("key", [False, True])
def test_every_image_of_a_batch_is_augmented_on_its_own(name, key):
    images, generator = photo().expand(64, -1, -1, -1), torch.Generator().manual_seed(0)
    out = AUGMENTATIONS.get(name)()(images, key=key, generator=generator)
    different = len({image.numpy().tobytes() for image in out})
    assert different > (20 if name == "autoaugment" and not key else 40)


@pytest.mark.parametrize("name", ["standard", "mix"])
def test_views_of_other_images_do_not_matter(name):
    """An image's result depends on what was drawn for it, not on its neighbours in the batch."""
    augment = AUGMENTATIONS.get(name)()
    one, two = photo(8, seed=1), photo(8, seed=2)
    two[3] = one[3]
    first, second = (augment(batch, generator=torch.Generator().manual_seed(5)) for batch in (one, two))
    torch.testing.assert_close(first[3], second[3])


def test_flip_and_grey_shares():
    images = photo().expand(2000, -1, -1, -1)[..., :8, :8].contiguous()
    out = only(flip_probability=0.5)(images, generator=torch.Generator().manual_seed(0))
    flipped = (out - out[0]).abs().amax((1, 2, 3)) > 1e-4
    assert 0.45 < flipped.float().mean() < 0.55
    out = restore(only(grey_probability=0.2)(images, generator=torch.Generator().manual_seed(0)))
    grey = (out.amax(1) - out.amin(1)).amax((1, 2)) < 1e-4
    assert 0.17 < grey.float().mean() < 0.23
    torch.testing.assert_close(out[grey][0], TF.rgb_to_grayscale(images[0] / 255, 3), atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    "name,index,centre", [("brightness", 0, 1), ("contrast", 1, 1), ("saturation", 2, 1), ("hue", 3, 0)]
)
def test_jitter_equals_torchvision_over_its_range(name, index, centre):
    strength = 0.1 if name == "hue" else 0.4
    adjust, low, high = only(**{name: strength}).jitters[index]
    assert (low, high) == (pytest.approx(centre - strength), pytest.approx(centre + strength))
    image = photo(1)[0] / 255
    reference = getattr(TF, f"adjust_{name}")
    for factor in torch.linspace(low, high, 7).tolist():
        ours = adjust(image[None], torch.tensor([factor]))[0]
        torch.testing.assert_close(ours, reference(image, factor), atol=2e-3, rtol=0)


def test_brightness_factors_fill_their_range():
    images = torch.full((4000, 3, 2, 2), 100, dtype=torch.uint8)
    out = restore(only(brightness=0.4)(images, generator=torch.Generator().manual_seed(0)))
    factors = out[:, 0, 0, 0] * 255 / 100
    assert 0.6 <= factors.min() < 0.61 and 1.39 < factors.max() <= 1.4 + 1e-5
    assert abs(factors.mean() - 1) < 0.02


def test_jitter_order_varies_and_probability_holds():
    augment = only(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, jitter_probability=0.8)
    images = photo(1, 8).expand(2000, -1, -1, -1)
    out = augment(images, generator=torch.Generator().manual_seed(0))
    unchanged = (out - AUGMENTATIONS.get("none")()(images[:1])).abs().amax((1, 2, 3)) < 1e-5
    assert 0.17 < unchanged.float().mean() < 0.23
    seen = []
    names = [adjust.__name__ for adjust, _, _ in augment.jitters]
    augment.jitters = tuple(
        (lambda x, f, name=name: seen.append((name, len(x))) or x, low, high)
        for name, (_, low, high) in zip(names, augment.jitters, strict=True)
    )
    augment(images, generator=torch.Generator().manual_seed(0))
    for step in range(4):  # at every place of the order each of the four has a quarter of the images
        part = dict(seen[4 * step : 4 * step + 4])
        assert set(part) == set(names) and all(330 < count < 470 for count in part.values())


def test_shift_hue_equals_the_colour_space_route():
    images = torch.rand(8, 3, 16, 16)
    images[0] = 0.5
    images[1, 1] = images[1, 0]
    turns = torch.linspace(-0.5, 0.5, 8)
    reference = kornia.enhance.adjust_hue(images, turns * 2 * math.pi)
    torch.testing.assert_close(shift_hue(images, turns), reference, atol=2e-6, rtol=0)


def test_blur_resembles_pillows():
    image = photo(1, 64)
    image[:, :, 20:40, 20:40] = 255
    augment = only(blur_probability=1.0, blur_sigma=(1.5, 1.5))
    ours = (restore(augment(image)[0]) * 255).permute(1, 2, 0).numpy()
    theirs = Image.fromarray(image[0].permute(1, 2, 0).numpy()).filter(ImageFilter.GaussianBlur(1.5))
    assert np.abs(ours - np.asarray(theirs, np.float32))[8:-8, 8:-8].mean() < 2


@pytest.mark.parametrize("size", [1, 2, 5, 7])
@pytest.mark.parametrize("name", AUGMENTATIONS.names())
def test_tiny_views_and_empty_batches(name, size):
    augment = AUGMENTATIONS.get(name)()
    assert torch.isfinite(augment(torch.zeros(40, 3, size, size, dtype=torch.uint8))).all()
    assert augment(torch.zeros(0, 3, size, size, dtype=torch.uint8)).shape == (0, 3, size, size)


def count_autoaugmented(augment, images, **options):
    """How many images a call sends through AutoAugment."""
    counts = []
    augment.autoaugment = lambda x, generator: counts.append(len(x)) or x
    augment(images, **options)
    return sum(counts)


def test_mix_flips_a_fair_coin_but_never_for_the_key():
    images = photo(1, 8).expand(4000, -1, -1, -1)
    generator = torch.Generator().manual_seed(0)
    mix = AUGMENTATIONS.get("mix")()
    assert abs(count_autoaugmented(mix, images, generator=generator) / 4000 - 0.5) < 0.03
    assert count_autoaugmented(mix, images, generator=generator, key=True) == 0
    alone = AUGMENTATIONS.get("autoaugment")()
    assert count_autoaugmented(alone, images, generator=generator) == 4000
    assert count_autoaugmented(alone, images, generator=generator, key=True) == 0


def test_mix_gives_autoaugmented_views_no_jitter_grey_or_blur():
    mix = AUGMENTATIONS.get("mix")(autoaugment_probability=1.0)
    mix.standard = None  # would raise
    mix(photo(16))


def test_policy_is_torchvisions():
    theirs = TorchvisionAutoAugment(AutoAugmentPolicy.IMAGENET).policies
    names = {"auto_contrast": "AutoContrast", "shear_x": "ShearX"}
    ours = [[(names.get(n, n.capitalize()), *rest) for n, *rest in entries] for entries in imagenet_policy]
    assert ours == [list(policy) for policy in theirs]


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_and_magnitudes_equal_torchvision(name):
    """Each operation at each level of the policy, on 8-bit images."""
    space = TorchvisionAutoAugment()._augmentation_space(10, (48, 48))
    image = photo(1, 48, seed=4)
    operation = OPERATIONS[name]
    references = {
        "auto_contrast": lambda x, _: TF.autocontrast(x), "equalize": lambda x, _: TF.equalize(x),
        "invert": lambda x, _: TF.invert(x), "posterize": lambda x, size: TF.posterize(x, int(size)),
        "solarize": TF.solarize, "color": lambda x, size: TF.adjust_saturation(x, 1 + size),
        "contrast": lambda x, size: TF.adjust_contrast(x, 1 + size),
        "sharpness": lambda x, size: TF.adjust_sharpness(x, 1 + size),
    }
    theirs_name = {"auto_contrast": "AutoContrast", "shear_x": "ShearX"}.get(name, name.capitalize())
    magnitudes, signed = space[theirs_name]
    levels = {level for entries in imagenet_policy for n, _, level in entries if n == name} - {None}
    for level in sorted(levels) or [0]:
        value = operation.value(torch.tensor([float(level)]))
        for sign in (1, -1) if signed else (1,):
            size = float(magnitudes[level]) * sign if magnitudes.ndim else 0.0
            drawn = value if operation.neutral is None else operation.neutral + sign * value
            ours = operation.apply(image / 255, drawn)[0] * 255
            if name in ("rotate", "shear_x"):  # resampled and filled otherwise: compare the angles
                assert drawn.item() == pytest.approx(size, abs=1e-5)
                continue
            difference = (ours - references[name](image, size)[0].float()).abs()
            assert difference.quantile(0.999) <= 2, (level, sign, difference.max())


def test_rotation_and_shear_move_content_and_fill_with_grey():
    image = torch.zeros(1, 3, 33, 33)
    image[:, :, 4, 16] = 1
    turned = OPERATIONS["rotate"].apply(image, torch.tensor([90.0]))
    assert turned[0, 0, 16, 4] > 0.9  # counter-clockwise, as torchvision
    assert TF.rotate(image, 90)[0, 0, 16, 4] == 1
    tilted = OPERATIONS["rotate"].apply(image, torch.tensor([30.0]))
    torch.testing.assert_close(tilted[0, :, 0, 0], torch.full((3,), 0.5))


@pytest.mark.parametrize("amount", [0.3, -0.3])
def test_shear_moves_rows_as_torchvisions(amount):
    image = photo(1, 48, seed=1) / 255
    ours = OPERATIONS["shear_x"].apply(image, torch.tensor([amount]))
    angle = math.degrees(math.atan(amount))
    theirs = TF.affine(
        image, 0, [0, 0], 1, [-angle, 0], TF.InterpolationMode.BILINEAR, fill=[0.5] * 3, center=[0, 0]
    )
    assert (ours - theirs).abs().mean() < 0.02 < (ours - image).abs().mean()


def test_autoaugment_uses_every_sub_policy_and_its_probabilities():
    augment = AutoAugment()
    images = photo(1, 8).expand(5000, -1, -1, -1) / 255
    calls = {}
    original = dict(OPERATIONS)
    try:
        for name, operation in original.items():
            def count(x, v, name=name):
                calls[name] = calls.get(name, 0) + len(x)
                return x
            OPERATIONS[name] = type(operation)(count, operation.value, operation.neutral)
        augment(images.clone(), torch.Generator().manual_seed(0))
    finally:
        OPERATIONS.update(original)
    for name in augment.names:
        expected = 5000 * sum(p for entries in imagenet_policy for n, p, _ in entries if n == name) / 25
        assert abs(calls[name] - expected) < 5 * math.sqrt(expected) + 5


def test_apply_to_equals_a_loop():
    images = torch.rand(9, 2)
    chosen, factors = torch.rand(9) < 0.5, torch.rand(9)
    expected = torch.stack([x * f if c else x for x, c, f in zip(images, chosen, factors, strict=True)])
    assert torch.equal(apply_to(images, chosen, lambda x, f: x * f[:, None], factors), expected)


@pytest.mark.parametrize(
    "options,name",
    [({"hue": 0.6}, "hue"), ({"brightness": -1}, "brightness"), ({"blur_sigma": (0, 1)}, "blur_sigma"),
     ({"flip_probability": 1.5}, "flip_probability")],
)
def test_bad_options_are_named(options, name):
    with pytest.raises(UserError, match=name):
        AUGMENTATIONS.get("mix")(**options)


def test_float_images_are_refused():
    with pytest.raises(UserError, match="uint8"):
        AUGMENTATIONS.get("standard")()(torch.rand(1, 3, 8, 8))
