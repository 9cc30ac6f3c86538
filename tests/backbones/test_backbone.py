"""Video, audio and word backbones against reference outputs under synthetic weights."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest
import torch
from torch import nn

from mmpt.backbones.audio import AudioResNet
from mmpt.backbones.backbone import VideoBackbone
from mmpt.backbones.r2plus1d import R2Plus1D
from mmpt.backbones.s3d import MAX_WORDS, S3D, same_max_pool, space_to_depth
from mmpt.backbones.words import WordEncoder
from mmpt.checkpoints.weights import load_weights
from mmpt.models.gdt import AVGDT, STiCANetwork, VidTextGDT
from mmpt.ops.crops import Crop
from mmpt.utils.vocabulary import CASED_WORDS, LOWER_CASE_WORDS, Vocabulary
from tests.backbones.synthetic_weights import gdt_state, synthetic
from tests.conftest import GOLDEN, golden_cases, load_golden


def s3d_array(name, shape, seed):
    """Synthetic value of one S3D tensor, as the reference arrays' README defines it."""
    draw = np.random.RandomState(zlib.crc32(name.encode()) + seed)
    if name.endswith("running_var"):
        return 0.5 + draw.rand(*shape)
    if name.endswith("running_mean"):
        return 0.1 * draw.randn(*shape)
    if ".bn" in name and name.endswith("weight"):
        return 0.8 + 0.4 * draw.rand(*shape)
    if len(shape) > 1:
        return draw.randn(*shape) * np.sqrt(2 / np.prod(shape[1:]))
    return 0.1 * draw.randn(*shape)


@pytest.mark.parametrize("path", golden_cases("norton_s3d*.npz"))
def test_golden_norton_s3d(path):
    arrays = load_golden(path)
    network = S3D(Vocabulary(arrays["dictionary"], MAX_WORDS, LOWER_CASE_WORDS)).eval()
    own = network.state_dict()
    named = zip(arrays["param_names"], arrays["param_shapes"], strict=True)
    shapes = {str(name): tuple(int(size) for size in str(shape).split("x") if size) for name, shape in named}
    assert {name: tuple(tensor.shape) for name, tensor in own.items()} == shapes
    seed = int(arrays["seed"])
    state = {
        name: torch.from_numpy(np.asarray(s3d_array(name, shape, seed))).float()
        for name, shape in shapes.items()
        if shape
    }
    network.load_state_dict(state, strict=False)
    with torch.no_grad():
        got = network(torch.from_numpy(arrays["video"]).float())
        text = network.encode_text([str(s) for s in arrays["sentences"]])
    for name in ("video_embedding", "mixed_5c"):
        np.testing.assert_allclose(
            got[name].numpy(), arrays[name], rtol=1e-5, atol=1e-5 * np.abs(arrays[name]).max()
        )
    np.testing.assert_allclose(text.numpy(), arrays["text_embedding"], rtol=1e-5, atol=1e-6)


def test_s3d_names_a_wrong_frame_shape():
    with pytest.raises(ValueError, match=r"even T, H, W; got \(1, 3, 3, 8, 8\)"):
        S3D(n_words=2)(torch.zeros(1, 3, 3, 8, 8))


def test_s3d_without_word_list_cannot_encode_text():
    with pytest.raises(ValueError, match=r"s3d_dict\.npy"):
        S3D(n_words=2).encode_text(["cut the onion"])


def test_space_to_depth_orders_channels_by_time_row_column_colour():
    frames = torch.arange(2 * 3 * 4 * 6 * 2).float().reshape(1, 3, 4, 6, 4)
    got = space_to_depth(frames)
    for dt, dh, dw, colour in np.ndindex(2, 2, 2, 3):
        assert torch.equal(
            got[0, ((dt * 2 + dh) * 2 + dw) * 3 + colour], frames[0, colour, dt::2, dh::2, dw::2]
        )


def test_same_max_pool_halves_odd_sizes_upwards():
    assert same_max_pool(torch.zeros(1, 1, 5, 7, 8), (3, 3, 3), (2, 2, 2)).shape == (1, 1, 3, 4, 4)


def with_state(network: nn.Module, state):
    """Loads strictly but for BatchNorm counters and the classifier that no model uses."""
    used = {k: v for k, v in state.items() if "fc." not in k or k in network.state_dict()}
    result = network.load_state_dict(used, strict=False)
    assert not result.unexpected_keys and all(k.endswith("num_batches_tracked") for k in result.missing_keys)
    return network.eval()


def assert_close(got, expected):
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def backbone_input(arrays, kind):
    shape = arrays["stica.video_shape" if kind == "stica_video" else f"{kind}_shape"]
    return torch.from_numpy(synthetic(int(arrays[f"input_index_{kind}"]), tuple(shape))).float()


@pytest.mark.parametrize("path", golden_cases("gdt_backbone*.npz"))
class TestGDT:
    def test_golden_gdt_backbone_video(self, path):
        arrays = load_golden(path)
        network = with_state(R2Plus1D(), gdt_state("av_gdt", "video_network.base."))
        assert_close(network(backbone_input(arrays, "video")), arrays["av.video_feat"])

    def test_golden_gdt_backbone_audio(self, path):
        arrays = load_golden(path)
        network = with_state(AudioResNet(), gdt_state("av_gdt", "audio_network.base."))
        assert_close(network(backbone_input(arrays, "spec")), arrays["av.audio_feat"])

    def test_golden_gdt_backbone_words(self, path):
        arrays = load_golden(path)
        network = with_state(WordEncoder(7), gdt_state("vid_text_gdt", "text_network."))
        assert_close(network(torch.from_numpy(arrays["token_ids"])), arrays["vt.text_feat"])

    def test_golden_gdt_backbone_audio_video_model(self, path):
        arrays = load_golden(path)
        got = with_state(AVGDT(), gdt_state("av_gdt", ""))(
            backbone_input(arrays, "video"), backbone_input(arrays, "spec")
        )
        assert_close(got["pooled_video"], arrays["av.video_nce"])
        assert_close(got["pooled_audio"], arrays["av.audio_nce"])

    def test_golden_gdt_backbone_video_text_model(self, path):
        arrays = load_golden(path)
        network = with_state(VidTextGDT(7), gdt_state("vid_text_gdt", ""))
        got = network(backbone_input(arrays, "video"), torch.from_numpy(arrays["token_ids"]))
        assert_close(got["pooled_video"], arrays["vt.video_nce"])
        assert_close(got["pooled_text"], arrays["vt.text_nce"])

    def test_golden_gdt_backbone_stica_model(self, path):
        arrays = load_golden(path)
        steps, height, width = arrays["stica.feature_map"].shape[2:]
        crops = [Crop("sl", 0, steps, *box.tolist()) for box in arrays["stica.crop_boxes_hw"]]
        crops += [Crop("tl", *span.tolist(), 0, height, 0, width) for span in arrays["stica.crop_spans_t"]]
        network = with_state(STiCANetwork(), gdt_state("stica_2layer", ""))
        with torch.no_grad():
            got = network(backbone_input(arrays, "stica_video"), backbone_input(arrays, "spec"), crops)
        for name, key in [
            ("pooled_video_2", "video"),
            ("pooled_audio", "audio"),
            ("sl2", "crop"),
            ("tl2", "tcrop"),
        ]:
            assert_close(got[name], arrays[f"stica.{key}_nce"])

    def test_golden_gdt_backbone_feature_map(self, path):
        arrays = load_golden(path)
        network = with_state(R2Plus1D(pool=False), gdt_state("stica_2layer", "video_network.base."))
        assert_close(network(backbone_input(arrays, "stica_video")), arrays["stica.feature_map"])


@pytest.mark.parametrize("path", golden_cases("gdt_heads*.npz"))
def test_golden_gdt_heads_words(path):
    arrays = load_golden(path)
    words = Vocabulary(arrays["dict"], int(arrays["max_words"]), CASED_WORDS)
    ids = words.encode([str(s) for s in arrays["sentences"]])
    assert ids.tolist() == arrays["token_ids"].tolist()
    weights = {
        k.removeprefix("text."): torch.from_numpy(v) for k, v in arrays.items() if k.startswith("text.")
    }
    encoder = with_state(
        WordEncoder(*weights["word_embd.weight"].shape, hidden_dim=len(weights["fc1.bias"])), weights
    )
    assert_close(encoder(ids), arrays["text_out"])
    assert_close(encoder(ids.flip(1)), arrays["text_out_reversed_tokens"])


def test_masked_padding_makes_a_sentence_independent_of_its_padding():
    encoder = WordEncoder(9, 4, 5, mask_padding=True)
    assert torch.equal(encoder(torch.tensor([[3, 5]])), encoder(torch.tensor([[3, 5, 0, 0]])))


@pytest.mark.parametrize(("frames", "expected"), [(30, 4), (60, 8), (90, 12), (120, 15)])
def test_feature_map_has_one_step_per_eight_frames(frames, expected):
    with torch.device("meta"):
        assert R2Plus1D(pool=False)(torch.zeros(1, 3, frames, 16, 16)).shape[2] == expected


def test_deeper_networks_have_their_blocks():
    with torch.device("meta"):
        assert [len(getattr(R2Plus1D(34), f"layer{i}")) for i in range(1, 5)] == [3, 4, 6, 3]
        assert [len(getattr(AudioResNet(18), f"layer{i}")) for i in range(1, 5)] == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("variant", "build"),
    [
        ("av_gdt", AVGDT),
        ("vid_text_gdt", lambda: VidTextGDT(7)),
        ("stica_2layer", STiCANetwork),
        ("stica_gap", lambda: STiCANetwork(layers=0)),
    ],
)
def test_golden_gdt_state_dict_names(variant, build):
    names = json.loads((GOLDEN / "gdt_state_dict_names.json").read_text())[variant]
    published = {name: tuple(shape) for name, shape in names if not name.startswith("audio_network.base.fc.")}
    with torch.device("meta"):
        assert {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()} == published


@pytest.mark.parametrize("network", [R2Plus1D, AudioResNet])
def test_unknown_depth_is_refused(network):
    with pytest.raises(ValueError, match="got 50"):
        network(50)


def test_published_audio_checkpoint_with_its_unused_classifier_loads(tmp_path):
    source = AudioResNet()
    torch.save(
        {"model": source.state_dict() | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}},
        tmp_path / "a.pth",
    )
    assert load_weights(AudioResNet(), tmp_path / "a.pth").unexpected == ["fc.weight", "fc.bias"]


@pytest.mark.parametrize("size", [4, 5, 7, 8])
@pytest.mark.parametrize(
    ("kernel", "stride"),
    [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2)), ((3, 3, 3), (1, 1, 1))],
)
def test_same_max_pool_is_the_pool_of_the_padded_input(size, kernel, stride):
    x = torch.rand(1, 2, size, size + 1, 6, generator=torch.Generator().manual_seed(size))
    before = [(k - s) // 2 for k, s in zip(kernel, stride, strict=True)]
    padding = [
        p for b, k, s in zip(before[::-1], kernel[::-1], stride[::-1], strict=True) for p in (b, k - s - b)
    ]
    expected = nn.functional.max_pool3d(nn.functional.pad(x, padding), kernel, stride, ceil_mode=True)
    assert torch.equal(same_max_pool(x, kernel, stride), expected)


@pytest.mark.parametrize("fetched", [True, False])
def test_a_backbone_whose_build_returns_no_network_is_named(tmp_path, fetched):
    weights = tmp_path / "weights.pt"
    weights.touch()

    class Mine(VideoBackbone):
        form = "<folder>" if fetched else ""

        def build(self, model):
            pass

    Mine.fetched = fetched
    with pytest.raises(TypeError, match="'mine.*': Mine.build returned NoneType; expected a torch.nn.Module"):
        Mine("mine:x") if fetched else Mine("mine", weights)
