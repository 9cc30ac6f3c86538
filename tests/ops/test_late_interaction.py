import math

import pytest
import torch

from mmpt.ops.late_interaction import token_similarity


def inputs(n=5, m=4, words=6, frames=5, width=7, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    text, video = (
        torch.randn(*shape, generator=generator, dtype=dtype)
        for shape in ((n, words, width), (m, frames, width))
    )
    lengths = (
        torch.randint(1, words + 1, (n,), generator=generator),
        torch.randint(1, frames + 1, (m,), generator=generator),
    )
    return text, video, torch.arange(words) < lengths[0][:, None], torch.arange(frames) < lengths[1][:, None]


def slow_similarity(text, video, text_mask, video_mask, alpha, compat=False):
    def one_way(queries, query_mask, others, other_mask):
        out = torch.zeros(len(queries), len(others), dtype=queries.dtype)
        for a in range(len(queries)):
            for b in range(len(others)):
                valid = others[b][other_mask[b]]
                per_token = []
                for token, is_valid in zip(queries[a], query_mask[a], strict=True):
                    cosines = torch.nn.functional.cosine_similarity(token, valid, dim=-1)
                    if not is_valid:
                        per_token += [alpha * math.log(len(valid))] * compat
                    elif alpha:
                        per_token.append((alpha * torch.logsumexp(cosines / alpha, 0)).item())
                    else:
                        per_token.append(cosines.max().item())
                out[a, b] = sum(per_token) / query_mask[a].sum().item()
        return out

    return one_way(text, text_mask, video, video_mask), one_way(video, video_mask, text, text_mask).T


@pytest.mark.parametrize("alpha", [2.0, 1.0, 0.1, 0.02, 0.01, 0.001, 0])
@pytest.mark.parametrize("compat", [False, True])
def test_equals_a_loop_over_clips_and_tokens(alpha, compat):
    arguments = inputs()
    expected = slow_similarity(*arguments, alpha, compat)
    for got, want in zip(token_similarity(*arguments, alpha=alpha, compat=compat), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


def gradients(arguments, loss_scale=1.0, **options):
    text, video = (x.clone().requires_grad_() for x in arguments[:2])
    to_video, to_text = token_similarity(text, video, *arguments[2:], **options)
    weight = torch.linspace(-1, 2, to_video.numel(), dtype=to_video.dtype).view_as(to_video)
    ((to_video + 0.3 * to_text.square()) * weight * loss_scale).sum().backward()
    return to_video.detach(), to_text.detach(), text.grad, video.grad


@pytest.mark.parametrize("alpha", [1.0, 0.01, None])
def test_the_size_of_the_tiles_changes_neither_values_nor_gradients(alpha):
    arguments = inputs(n=9, m=8)
    whole = gradients(arguments, alpha=alpha, chunk=10_000)
    for chunk in (1, 7, 20):
        for got, want in zip(gradients(arguments, alpha=alpha, chunk=chunk), whole, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("alpha", [1.0, 0.1, 0.015])
def test_gradient_is_that_of_finite_differences(alpha):
    text, video, text_mask, video_mask = inputs(3, 3, 3, 2, 4)
    function = lambda t, v: token_similarity(t, v, text_mask, video_mask, alpha=alpha, chunk=4)  # noqa: E731
    assert torch.autograd.gradcheck(function, (text.requires_grad_(), video.requires_grad_()))


def test_text_and_video_may_change_places():
    text, video, text_mask, video_mask = inputs()
    to_video, to_text = token_similarity(text, video, text_mask, video_mask, alpha=0.5)
    swapped = token_similarity(video, text, video_mask, text_mask, alpha=0.5)
    torch.testing.assert_close(swapped, (to_text.T, to_video.T))


def test_more_padding_changes_nothing():
    text, video, text_mask, video_mask = inputs()
    longer = [torch.cat([x, torch.randn(len(x), 3, x.shape[-1], dtype=x.dtype)], 1) for x in (text, video)]
    masks = [torch.nn.functional.pad(m, (0, 3)) for m in (text_mask, video_mask)]
    for alpha in (1.0, 0.0):
        for got, want in zip(
            token_similarity(*longer, *masks, alpha=alpha),
            token_similarity(*inputs(), alpha=alpha),
            strict=True,
        ):
            torch.testing.assert_close(got, want)


def test_smooth_maximum_tends_to_the_maximum_and_to_the_mean():
    arguments = inputs()
    text, video, text_mask, video_mask = arguments
    hard, _ = token_similarity(*arguments, alpha=None)
    torch.testing.assert_close(token_similarity(*arguments, alpha=1e-4)[0], hard, rtol=0, atol=2e-4)
    unit_text, unit_video = (
        torch.nn.functional.normalize(x, dim=-1) * m[..., None]
        for x, m in ((text, text_mask), (video, video_mask))
    )
    lengths = text_mask.sum(1)[:, None], video_mask.sum(1)
    mean = torch.einsum("atd,bfd->ab", unit_text, unit_video) / lengths[0] / lengths[1]
    alpha = 1e4
    soft, _ = token_similarity(*arguments, alpha=alpha)
    torch.testing.assert_close(soft - alpha * lengths[1].double().log(), mean, rtol=0, atol=1e-4)


@pytest.mark.parametrize("alpha", [1.0, 0.025, 0.01])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_tokens_of_any_length_stay_finite_and_right(alpha, dtype):
    text, video, text_mask, video_mask = inputs(dtype=torch.float32)
    text, video = (text * 3000).to(dtype), (video * 1e-3).to(dtype)
    got = gradients((text, video, text_mask, video_mask), alpha=alpha)
    want = gradients((text.double(), video.double(), text_mask, video_mask), alpha=alpha)
    assert got[0].dtype == torch.float32 and got[2].dtype == dtype
    for g, w in zip(got[:2], want[:2], strict=True):
        torch.testing.assert_close(g.double(), w, rtol=1e-5, atol=1e-5)
    assert all(torch.isfinite(g).all() for g in got)


@pytest.mark.parametrize("alpha", [1.0, 0.01, 0.0])
def test_empty_clips_and_zero_vectors_are_finite_with_finite_gradients(alpha):
    text, video, text_mask, video_mask = inputs(dtype=torch.float32)
    text_mask[1], video_mask[2] = False, False
    text[0, 0], video[:, 1] = 0, 0
    to_video, to_text, grad_text, grad_video = gradients(
        (text, video, text_mask, video_mask), loss_scale=1e4, alpha=alpha
    )
    assert all(torch.isfinite(x).all() for x in (to_video, to_text, grad_text, grad_video))
    for direction in (to_video, to_text):
        assert not direction[1].any() and not direction[:, 2].any()
    assert not grad_text[1].any() and not grad_video[2].any() and not grad_text[0, 0].any()


def test_autocast_around_the_call_does_not_lower_a_precision_that_is_asked_for():
    arguments = inputs(dtype=torch.float32)
    plain = gradients(arguments, precision="float32")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = gradients(arguments, precision="float32")
    for got, want in zip(under_autocast, plain, strict=True):
        assert torch.equal(got, want)


def test_shapes_that_do_not_fit_are_named():
    text, video, text_mask, video_mask = inputs()
    with pytest.raises(ValueError, match=r"expects \(A, T, D\)"):
        token_similarity(text, video, video_mask, text_mask)
    with pytest.raises(ValueError, match="alpha=-1"):
        token_similarity(*inputs(), alpha=-1)


def test_nothing_of_the_size_of_all_token_pairs_is_kept_for_backward():
    text, video, text_mask, video_mask = inputs(n=40, m=40, dtype=torch.float32)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        token_similarity(text.requires_grad_(), video.requires_grad_(), text_mask, video_mask)
    assert max(saved) <= max(text.numel(), video.numel(), 40 * 40)


def test_bf16_products_stay_close_and_leave_the_global_setting_alone():
    arguments = inputs(n=30, m=30, width=64, dtype=torch.float32)
    before = torch.backends.mkldnn.matmul.fp32_precision
    got, want = gradients(arguments, precision="bf16"), gradients(arguments)
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    for g, w in zip(got, want, strict=True):
        assert (g - w).norm() < 1e-2 * w.norm()
    with pytest.raises(ValueError, match="precision='fp8'"):
        token_similarity(*arguments, precision="fp8")
