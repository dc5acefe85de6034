"""Distances of image sets and images, against formulas, naive loops and other libraries."""

import math
import sys

import numpy as np
import pytest
import scipy.linalg
import torch

from multidiff.image.metrics.inception import inception_features
from multidiff.image.metrics.sets import (
    FeatureStatistics,
    accuracy,
    describe_all,
    frechet_distance,
    kernel_distance,
    precision_recall,
    psnr,
    ssim,
)
from multidiff.utils.errors import InputError


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlated(count, width, seed):
    return normal(count, width, seed=seed) @ normal(width, width, seed=seed + 100) + seed


def images(count, channels=1, size=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, size, size + 3), generator=generator).byte()


# ------------------------------------------------------------------------ Frechet distance


@pytest.mark.parametrize("sizes", [[50], [1, 1, 48], [20, 30], [7] * 7 + [1]])
def test_statistics_of_batches_are_those_of_the_whole(sizes):
    features = 1e4 + correlated(50, 4, seed=1)  # far from 0, where sums of squares cancel
    found = FeatureStatistics.of(features.float().split(sizes))
    rows = features.float().double().numpy()
    assert found.count == 50 and found.mean.dtype == torch.float64
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(rows.T), rtol=1e-9)


@pytest.mark.parametrize("count", [200, 6])  # 6 of 8 features: covariances without an inverse
def test_frechet_distance_is_the_papers_formula(count):
    sets = [correlated(count, 8, seed=seed).numpy() for seed in (1, 2)]
    means, covariances = [s.mean(axis=0) for s in sets], [np.cov(s.T) for s in sets]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    truth = ((means[0] - means[1]) ** 2).sum() + np.trace(sum(covariances) - 2 * root)
    one, other = (FeatureStatistics.of([torch.from_numpy(s)]) for s in sets)
    assert frechet_distance(one, other) == pytest.approx(truth, rel=1e-5)
    # Eigenvalues that are 0 but for rounding have roots of 1e-8, on some processors more.
    ratio, rest = (1e-9, 1e-6) if count > 8 else (1e-7, 1e-5)
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one), rel=ratio)
    assert frechet_distance(one, one) == pytest.approx(0, abs=rest)


def test_frechet_distance_of_gaussians_with_the_same_axes():
    """Their roots commute: the deviations differ as the means do."""
    axes = torch.linalg.qr(normal(3, 3)).Q
    deviations = torch.tensor([[1.0, 2, 0.5], [3.0, 0, 1]], dtype=torch.float64)
    means = torch.tensor([[0.0, 0, 0], [1.0, 2, 3]], dtype=torch.float64)
    one, other = (
        FeatureStatistics(mean, axes @ torch.diag(std**2) @ axes.T, 10)
        for mean, std in zip(means, deviations, strict=True)
    )
    assert frechet_distance(one, other) == pytest.approx(14 + 4 + 4 + 0.25, rel=1e-12)


def test_a_single_picture_has_no_covariance():
    one = FeatureStatistics.of([normal(1, 3)])
    with pytest.raises(ValueError, match="sets of 1 and 1"):
        frechet_distance(one, one)
    with pytest.raises(ValueError, match="no features"):
        FeatureStatistics.of([])


# ------------------------------------------------------------- kernel distance, diversity


def naive_discrepancy(one, other):
    def kernel(x, y):
        return (float(x @ y) / len(x) + 1) ** 3

    def within(rows):
        pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if i != j]
        return sum(kernel(rows[i], rows[j]) for i, j in pairs) / len(pairs)

    between = [kernel(x, y) for x in one for y in other]
    return within(one) + within(other) - 2 * sum(between) / len(between)


def test_kernel_distance_of_whole_sets_is_the_double_sum():
    one, other = normal(9, 5, seed=1), normal(9, 5, seed=2) + 1
    mean, spread = kernel_distance(one, other, subsets=3)
    assert mean == pytest.approx(naive_discrepancy(one, other), rel=1e-12)
    assert spread == pytest.approx(0, abs=1e-12)  # each subset is all there is


def test_kernel_distance_has_no_bias():
    """Of sets from one source it is 0 on average; with the pairs of equals it would be 1.4."""
    values = torch.tensor(
        [
            kernel_distance(normal(8, 5, seed=2 * i), normal(8, 5, seed=2 * i + 1), subsets=1)[0]
            for i in range(800)
        ]
    )
    error = float(values.std()) / math.sqrt(len(values))
    assert error < 0.1 and abs(float(values.mean())) < 3 * error


def test_kernel_distance_draws_its_subsets():
    one, other = normal(40, 5, seed=1), normal(60, 5, seed=2)
    found = kernel_distance(one, other, subsets=20, subset_size=10)
    assert found[1] > 0
    assert found == kernel_distance(one, other, subsets=20, subset_size=10)
    rng = torch.Generator().manual_seed(1)
    assert found != kernel_distance(one, other, subsets=20, subset_size=10, rng=rng)
    rows = torch.Generator().manual_seed(0)
    drawn = [one[torch.randperm(40, generator=rows)[:10]]]
    drawn += [other[torch.randperm(60, generator=rows)[:10]]]
    first = kernel_distance(one, other, subsets=1, subset_size=10)[0]
    assert first == pytest.approx(naive_discrepancy(*drawn), rel=1e-12)
    with pytest.raises(ValueError, match="subsets of 1"):
        kernel_distance(one, other, subset_size=1)


def test_precision_and_recall_are_the_loops(monkeypatch):
    monkeypatch.setattr("multidiff.image.metrics.sets.BLOCK", 7)
    real, made = normal(30, 3, seed=1), 0.7 * normal(20, 3, seed=2) + 1.2

    def ratio(asked, members):
        apart = [sorted(float((a - b).norm()) for b in members) for a in members]
        inside = [
            any(float((x - m).norm()) <= apart[i][3] for i, m in enumerate(members)) for x in asked
        ]
        return sum(inside) / len(inside)

    found = precision_recall(real, made)
    assert found == (pytest.approx(ratio(made, real)), pytest.approx(ratio(real, made)))
    assert 0 < found[1] < found[0] < 1


def test_precision_and_recall_tell_quality_from_diversity():
    real = normal(200, 4)
    assert precision_recall(real, real) == (1, 1)
    assert precision_recall(real, real + 100) == (0, 0)
    collapsed = real[0] + 1e-3 * normal(200, 4, seed=3)
    precision, recall = precision_recall(real, collapsed)
    assert precision == 1 and recall < 0.05
    with pytest.raises(ValueError, match="3 neighbours in sets of 3 and 200"):
        precision_recall(real[:3], real)


def test_set_distances_are_another_librarys():
    fid = pytest.importorskip("torchmetrics.image.fid")
    kid = pytest.importorskip("torchmetrics.image.kid")
    real, made = correlated(300, 16, seed=1), correlated(300, 16, seed=2)
    one, other = FeatureStatistics.of([real]), FeatureStatistics.of([made])
    truth = fid._compute_fid(one.mean, one.covariance, other.mean, other.covariance)
    assert frechet_distance(one, other) == pytest.approx(float(truth), rel=1e-9)
    assert kernel_distance(real, made, subsets=1)[0] == pytest.approx(
        float(kid.poly_mmd(real, made)), rel=1e-9
    )


# ------------------------------------------------------------------------- one by one


def test_accuracy_counts_the_likeliest():
    logits = torch.tensor([[0.0, 2, 1], [3, 2, 1], [0, 0, 1], [1, 0, 0]])
    assert accuracy(logits, torch.tensor([1, 0, 1, 0])) == 0.75


def test_psnr_of_a_known_error():
    original = images(3).clamp(10, 200)
    made = original.clone()
    made[1] += 1
    made[2, :, ::2] += 10
    found = psnr(original, made)
    assert found[0] == math.inf
    assert float(found[1]) == pytest.approx(20 * math.log10(255))
    assert float(found[2]) == pytest.approx(10 * math.log10(255**2 / 50), rel=1e-6)
    assert torch.allclose(psnr(original / 127.5 - 1, made / 127.5 - 1, peak=2.0)[1:], found[1:])


def naive_ssim(one, other, peak):
    """Every window of one channel by itself."""
    position = np.arange(-5, 6)
    window = np.exp(-(position[:, None] ** 2 + position**2) / (2 * 1.5**2))
    window /= window.sum()
    first, second = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    values = []
    for row in range(one.shape[0] - 10):
        for column in range(one.shape[1] - 10):
            x, y = (p[row : row + 11, column : column + 11].astype(float) for p in (one, other))
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            both = (window * (x - mx) * (y - my)).sum()
            light = (2 * mx * my + first) / (mx**2 + my**2 + first)
            values.append(light * (2 * both + second) / (vx + vy + second))
    return np.mean(values)


def test_ssim_is_the_mean_over_windows():
    one = images(2, channels=3)
    other = (0.6 * one + 0.4 * images(2, channels=3, seed=1)).byte()
    found = ssim(one, other)
    for number in range(2):
        channels = [naive_ssim(a.numpy(), b.numpy(), 255) for a, b in
                    zip(one[number], other[number], strict=True)]  # fmt: skip
        assert float(found[number]) == pytest.approx(np.mean(channels), rel=1e-9)
    assert torch.allclose(ssim(one, one), torch.ones(2, dtype=torch.float64))
    with pytest.raises(ValueError, match="10, 13"):
        ssim(images(1, size=10), images(1, size=10))


def test_ssim_and_psnr_are_another_librarys():
    image = pytest.importorskip("torchmetrics.functional.image")
    one = images(4, channels=3, size=40).double()
    other = (one + 30 * normal(*one.shape)).clamp(0, 255)
    arguments = {"data_range": 255.0, "reduction": "none"}
    everywhere = image.structural_similarity_index_measure(
        other, one, return_full_image=True, **arguments
    )[1]
    truth = everywhere[:, :, 5:-5, 5:-5].mean(dim=(1, 2, 3))  # windows beyond the edge are theirs
    assert torch.allclose(ssim(one, other), truth, rtol=1e-6)
    truth = image.peak_signal_noise_ratio(other, one, dim=(1, 2, 3), **arguments)
    assert torch.allclose(psnr(one, other), truth, rtol=1e-6)


# -------------------------------------------------------------------------- Inception


def untrained_inception(monkeypatch):
    """The package's network with the weights it begins with; its own constructor wants a file."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    kind = module.FeatureExtractorInceptionV3
    with monkeypatch.context() as patch:
        patch.setattr(module.torch, "load", lambda *_, **__: {})
        patch.setattr(kind, "load_state_dict", lambda *_: None)
        return kind("inception", ["2048"], "nowhere")


def test_inception_features_are_the_packages(monkeypatch, tmp_path):
    from safetensors.torch import save_file

    network = untrained_inception(monkeypatch)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    color, grey = images(2, channels=3), images(1)
    for name in ("weights.pth", "weights.safetensors"):
        describe = inception_features(tmp_path / name)
        found = describe_all([color, grey], describe)
        assert found.shape == (3, 2048) and found.dtype == torch.float32
        assert torch.allclose(found[:2], network(color)[0], atol=1e-6)
        assert torch.allclose(found[2:], network(grey.repeat(1, 3, 1, 1))[0], atol=1e-6)


class Harmful:
    def __reduce__(self):
        return print, ("this ran",)


def test_inception_weights_that_are_none(tmp_path, capsys):
    def refused(path, match):
        with pytest.raises(InputError, match=match) as reported:
            inception_features(path)
        assert str(path) in str(reported.value) and "\n" not in str(reported.value)

    refused(tmp_path / "none.pth", "no such weights file")
    harmful = tmp_path / "harmful.pth"
    torch.save({"Conv2d_1a_3x3.conv.weight": Harmful()}, harmful)
    refused(harmful, "holds objects besides tensors, which could run code")
    assert "this ran" not in capsys.readouterr().out
    cut = tmp_path / "cut.pth"
    cut.write_bytes(harmful.read_bytes()[:200])
    refused(cut, "is not a whole torch file")
    pytest.importorskip("torch_fidelity")
    for content in ({"weight": torch.zeros(3)}, torch.zeros(3)):
        torch.save(content, tmp_path / "other.pth")
        refused(tmp_path / "other.pth", "other weights than torch-fidelity's")


def test_inception_without_its_package(monkeypatch, tmp_path):
    torch.save({}, tmp_path / "weights.pth")
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(InputError, match=r'pip install --upgrade "multidiff\[metrics\]"'):
        inception_features(tmp_path / "weights.pth")
