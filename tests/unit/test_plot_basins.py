import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import same_color

from depthflow import plot
from depthflow.errors import ParameterError
from depthflow.plot._sphere import frame, lambert, pole, principal_sphere
from depthflow.plot._style import GREY
from tests.tolerances import EXACT, FLOAT64
from tests.unit.plot_results import DEPTHS, FEATURES, basins_result


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def marks(ax):
    """Positions of all samples' marks, and of the centers (the stars come last)."""
    *samples, centers = [part.get_offsets() for part in ax.collections]
    return np.concatenate([part for part in samples if len(part)]), centers


def test_the_projection_keeps_the_angle_from_the_pole_and_the_area():
    angle = np.array([0.0, 0.3, np.pi / 2, np.pi])
    points = np.stack([np.sin(angle), np.zeros(4), np.cos(angle)], axis=1)
    flat = lambert(points)
    # A cap of angle θ has the area 2π(1 − cos θ), and so has the disc that it becomes.
    np.testing.assert_allclose(np.pi * flat[:, 0] ** 2, 2 * np.pi * (1 - np.cos(angle)), **FLOAT64)
    np.testing.assert_allclose(flat[:, 1], 0, **FLOAT64)


def test_the_frame_is_a_rotation_that_looks_along_its_last_row():
    points = unit(np.random.default_rng(0).normal([2, 1, 0], 1, size=(50, 3)))
    up = unit(np.array([1.0, -2.0, 0.5]))
    turn = frame(points, up)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), **FLOAT64)
    np.testing.assert_allclose(np.linalg.det(turn), 1, **FLOAT64)
    np.testing.assert_allclose(turn @ up, [0, 0, 1], **FLOAT64)


def test_the_frame_stands_without_a_spread():
    turn = frame(np.array([[0.0, 0, 1]] * 4), np.array([0.0, 0, 1]))
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), **FLOAT64)


def test_the_pole_is_the_mean_direction_unless_a_landmark_lies_near_its_antipode():
    points = unit(np.random.default_rng(0).normal([3, 1, 0], 1, size=(50, 3)))
    mean = unit(points.mean(axis=0))
    np.testing.assert_allclose(pole(points, points[:4]), mean, **FLOAT64)
    across = unit(np.cross(mean, [0, 0, 1]))
    landmarks = np.stack([mean, -mean, across])
    assert (landmarks @ pole(points, landmarks)).min() > np.cos(1.7)


@pytest.mark.parametrize("points", [np.array([[1.0, 0, 0], [-1, 0, 0]]), np.eye(3)[[0, 0, 1]]])
def test_no_landmark_is_far_from_the_pole_where_that_can_be(points):
    assert (points @ pole(points, points)).min() > np.cos(1.7)


def test_the_kept_share_is_what_the_three_leading_singular_values_hold():
    directions = unit(np.random.default_rng(0).normal(size=(20, FEATURES)))
    basis, kept = principal_sphere(directions)
    values = np.linalg.svd(directions, compute_uv=False)
    np.testing.assert_allclose(kept.mean(), (values[:3] ** 2).sum() / (values**2).sum(), **FLOAT64)
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), **FLOAT64)


def test_directions_of_three_dimensions_lie_at_their_true_angles_from_the_mean():
    rng = np.random.default_rng(0)
    small = unit(rng.normal([3, 1, 0], 1, size=(9, 3)))
    embed = np.linalg.qr(rng.normal(size=(FEATURES, 3)))[0]
    ds = basins_result()
    ds["direction"] = (("sample", "feature"), small @ embed.T)
    ds["center"] = (("basin", "feature"), small[:4] @ embed.T)
    placed, centers = marks(plot.basins(ds))
    angle = np.arccos(small @ unit(small.mean(axis=0)))
    np.testing.assert_allclose(np.sort(np.hypot(*placed.T)), np.sort(2 * np.sin(angle / 2)), **FLOAT64)
    np.testing.assert_allclose(np.hypot(*centers.T), 2 * np.sin(angle[:4] / 2), **FLOAT64)


def test_a_rotation_of_the_features_changes_no_distance_in_the_picture():
    ds = basins_result()
    turned = ds.copy()
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(FEATURES, FEATURES)))[0]
    for name in ("direction", "center"):
        turned[name] = (ds[name].dims, ds[name].values @ rotation)
    one, other = (np.concatenate(marks(plot.basins(part))) for part in (ds, turned))
    distances = [np.linalg.norm(part[:, None] - part, axis=-1) for part in (one, other)]
    np.testing.assert_allclose(*distances, **FLOAT64)


def test_the_picture_states_what_it_leaves_out():
    ds = basins_result()
    kept = (ds["direction"].values @ principal_sphere(ds["direction"].values)[0]) ** 2
    text = plot.basins(ds).get_xlabel().replace("\n", " ")
    assert text.startswith(f"3 of 11 dimensions hold {kept.sum(axis=1).mean():.0%} of the squared length (samples: ")


def test_directions_that_lie_mostly_out_of_view_are_hollow():
    ds = basins_result()
    shown = principal_sphere(ds["direction"].values)[1] >= 0.5
    assert 0 < shown.sum() < len(shown)
    ax = plot.basins(ds)
    filled = sum(len(part.get_offsets()) for part in ax.collections[:-1] if len(part.get_facecolors()))
    assert filled == shown.sum()
    assert "hollow: below 50%" in ax.get_xlabel().replace("\n", " ")


def test_every_sample_and_center_is_drawn_and_numbered():
    ds = basins_result()
    ax = plot.basins(ds)
    placed, centers = marks(ax)
    assert (len(placed), len(centers)) == (ds.sizes["sample"], 4)
    texts = [text.get_text() for text in ax.texts]
    assert [text for text in texts if "rad" not in text] == ["0", "1", "2", "3"]
    assert any(text.endswith(" rad") for text in texts)
    assert ax.get_legend() is None


def test_coloured_by_label_with_a_legend():
    ax = plot.basins(basins_result(), color="label")
    assert ax.get_legend().get_title().get_text() == "label"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b", "c"]


def test_directions_of_two_features_are_drawn():
    ds = basins_result().isel(feature=[0, 1])
    for name in ("direction", "center"):
        ds[name] = (ds[name].dims, unit(ds[name].values))
    assert plot.basins(ds).get_xlabel().startswith("2 of 2 dimensions hold 100%")


def test_basins_errors_name_what_is_missing():
    ds = basins_result()
    with pytest.raises(ParameterError, match=r"needs the variable 'direction', which `depthflow\.basins` makes"):
        plot.basins(ds.drop_vars("direction"))
    with pytest.raises(ParameterError, match=r"got 'colour'\. Choose among .*'basin', 'commitment_depth', 'label'"):
        plot.basins(ds, color="colour")
    many = ds.isel(sample=np.arange(21) % 9).assign_coords(label=("sample", np.arange(21)))
    with pytest.raises(ParameterError, match="at most 20 groups apart; 'label' has 21"):
        plot.basins(many, color="label")
    assert plt.get_fignums() == []


def test_agreement_draws_the_scores_and_the_share_that_commits_at_each_depth():
    ds = basins_result()
    ax = plot.agreement(ds)
    for line, name in zip(ax.lines, ["ari", "nmi"], strict=True):
        np.testing.assert_allclose(line.get_ydata(), ds[name], **EXACT)
        assert line.get_xdata().tolist() == list(range(DEPTHS))
    np.testing.assert_allclose([bar.get_height() * 9 for bar in ax.patches], [1, 0, 2, 3, 0, 3], **FLOAT64)
    centers = [bar.get_x() + bar.get_width() / 2 for bar in ax.patches]
    np.testing.assert_allclose(centers, range(DEPTHS), **FLOAT64)
    assert ax.get_ylim()[0] < -0.1
    assert ax.get_xticks().tolist() == list(range(DEPTHS))


def test_agreement_beside_its_null():
    ax = plot.agreement(basins_result(), null=basins_result(), null_label="shuffled")
    assert [line.get_label() for line in ax.lines] == ["ARI", "NMI", "shuffled, ARI", "shuffled, NMI"]
    assert all(same_color(line.get_color(), GREY) for line in ax.lines[2:])


def test_agreement_without_labels_is_an_error():
    with pytest.raises(ParameterError, match=r"plot\.agreement needs the variable 'ari', .*`depthflow\.basins`"):
        plot.agreement(basins_result().drop_vars("ari"))
