"""The batch augmentation against an independent implementation that takes one image at a time (SciPy)."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from mammoflow.config import AugmentConfig
from mammoflow.models import augment

FULL = AugmentConfig()
NONE = AugmentConfig(flips=False, rotation=0, shear=0, zoom=0, channel_shift=0)


def smooth_images(n: int, height: int, width: int) -> NDArray[np.float32]:
    noise = np.random.default_rng(0).random((n, height, width))
    blurred = np.stack([ndimage.gaussian_filter(image, 3) for image in noise])
    return (255 * (blurred - blurred.min()) / np.ptp(blurred)).astype(np.float32)


def per_image(image: NDArray[np.float32], u: NDArray[np.float64]) -> NDArray[np.float64]:
    """One image as the reference's generator changes it: linear, nearest fill, then flips, then shifts."""
    angle, shear = np.deg2rad(25) * (2 * u[2] - 1), 0.2 * (2 * u[3] - 1)
    zoom = np.diag(0.8 + 0.4 * u[4:6])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotation @ np.array([[1, -np.sin(shear)], [0, np.cos(shear)]]) @ zoom
    centre = (np.array(image.shape) - 1) / 2
    warped = ndimage.affine_transform(
        image.astype(np.float64), matrix, offset=centre - matrix @ centre, order=1, mode="nearest"
    )
    warped = warped[::-1] if u[0] < 0.5 else warped
    warped = warped[:, ::-1] if u[1] < 0.5 else warped
    return np.stack([np.clip(warped + 20 * (2 * shift - 1), 0, 255) for shift in u[6:9]])


@pytest.mark.parametrize(("height", "width"), [(56, 56), (72, 56), (41, 64)])
def test_equals_a_per_image_implementation(height: int, width: int) -> None:
    images = smooth_images(24, height, width)
    ids = [f"image {n}" for n in range(24)]
    got = augment.apply(torch.from_numpy(images), augment.draw(FULL, 7, 3, 1, ids)).numpy()
    expected = np.stack(
        [per_image(image, augment._uniform(7, 3, 1, [name])[0]) for image, name in zip(images, ids, strict=True)]
    )
    assert got.shape == (24, 3, height, width)
    assert np.abs(got - expected).max() < 0.02, "grey values of 255"


def test_what_happens_to_an_image_depends_on_nothing_else() -> None:
    images = torch.from_numpy(smooth_images(4, 32, 32))
    together = augment.apply(images, augment.draw(FULL, 1, 2, 0, ["a", "b", "c", "d"]))
    alone = augment.apply(images[2:3], augment.draw(FULL, 1, 2, 0, ["c"]))
    assert torch.equal(together[2:3], alone)
    others = [augment.draw(FULL, *where, ["c"]).affine for where in ((2, 2, 0), (1, 3, 0), (1, 2, 1))]
    assert (
        len({tuple(matrix.flatten().tolist()) for matrix in [*others, augment.draw(FULL, 1, 2, 0, ["c"]).affine]}) == 4
    )


def test_without_ranges_nothing_changes() -> None:
    images = torch.from_numpy(smooth_images(3, 20, 30))
    got = augment.apply(images, augment.draw(NONE, 0, 0, 0, ["a", "b", "c"]))
    assert torch.allclose(got, images[:, None].expand(-1, 3, -1, -1), atol=1e-3)


def test_ranges_are_the_papers_and_used_evenly() -> None:
    ids = [str(n) for n in range(20_000)]
    shift = augment.draw(FULL, 0, 0, 0, ids).shift
    assert shift.abs().max() <= 20
    assert abs(shift.mean()) < 0.3
    assert abs(shift.std() - 40 / np.sqrt(12)) < 0.1
    assert abs(np.corrcoef(shift.T.numpy())[0, 1]) < 0.03, "channels shift independently"

    flips = augment.draw(AugmentConfig(rotation=0, shear=0, zoom=0), 0, 0, 0, ids).affine
    signs = flips.diagonal(dim1=1, dim2=2)
    assert torch.equal(signs.abs(), torch.ones_like(signs))
    quarter = [float(((signs[:, 0] == v) & (signs[:, 1] == h)).double().mean()) for v in (1, -1) for h in (1, -1)]
    assert quarter == pytest.approx([0.25] * 4, abs=0.02)

    turned = augment.draw(AugmentConfig(flips=False, shear=0, zoom=0), 0, 0, 0, ids).affine
    angle = torch.rad2deg(torch.atan2(turned[:, 1, 0], turned[:, 0, 0]))
    assert (float(angle.min()), float(angle.max())) == pytest.approx((-25, 25), abs=0.05)

    zoomed = augment.draw(AugmentConfig(flips=False, rotation=0, shear=0), 0, 0, 0, ids).affine.diagonal(dim1=1, dim2=2)
    assert (float(zoomed.min()), float(zoomed.max())) == pytest.approx((0.8, 1.2), abs=1e-3)
    assert abs(np.corrcoef(zoomed.T.numpy())[0, 1]) < 0.03, "axes zoom independently"
