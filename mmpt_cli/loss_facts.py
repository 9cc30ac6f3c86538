"""What the code of a loss does not say of itself: formula, paper, cost. `mmpt_cli.describe_losses` joins it
with what it does say."""

from __future__ import annotations

from typing import NamedTuple


class Facts(NamedTuple):
    """Of one loss."""

    formula: str
    paper: str
    cost: str
    note: str = ""


INTRODUCTION = """# Losses

<!-- Generated: python -m mmpt_cli.describe_losses > docs/losses.md -->

`loss.loss_cls` in a project file names the loss; the other keys of `loss:` are its own. A file that includes another and names another
`loss_cls` starts with that loss's defaults:

```yaml
includes: projects/toy/norton.yaml
loss:
  loss_cls: TempCLRLoss
```

All losses read the same batch by name, have no parameters, compute in float32 or better whatever the precision of their inputs, and name
their terms for the log. An unknown key, sizes that do not divide and a model that does not return what the loss reads are errors before the
first update. [compare_losses.md](compare_losses.md) trains them side by side.

Letters: N clips in the batch of a process, D width, L clips per sequence, V videos, K modalities besides the anchor, t captions, v clips;
`CE(scores)` is the mean cross entropy of each row against its own column. Cost leaves out the encoders, which take most of the time."""

FAMILIES = {
    "Clips and captions": ["MMContraLoss", "T2VContraLoss", "V2TContraLoss", "MILNCELoss", "NCE"],
    "Sequences": ["SequenceContrastLoss", "TempCLRLoss", "TempCLRLocalisationLoss", "FewShotAlignmentLoss"],
    "Views and crops": ["GDTLoss", "STiCALoss"],
    "Tuples of modalities": ["GRAMLoss", "PairwiseNCE", "TriangleLoss", "PMRLLoss", "SymileLoss"],
    "Sums": ["SumLoss"],
    "Masked and generated tokens": ["MFMMLM", "MTM", "NLGLoss"],
    "Labels": [
        "CrossEntropy",
        "ArgmaxCrossEntropy",
        "BCE",
        "MSE",
        "L1",
        "SmoothL1",
        "DummyLoss",
        "DummyK400Loss",
    ],
}

VIDEOCLIP = "Xu et al., VideoCLIP, EMNLP 2021, [arXiv 2109.14084](https://arxiv.org/abs/2109.14084)"
NORTON = "Lin et al., Norton, ICLR 2024, [arXiv 2401.16702](https://arxiv.org/abs/2401.16702)"
TEMPCLR = "Yang et al., TempCLR, ICLR 2023, [arXiv 2212.13738](https://arxiv.org/abs/2212.13738)"
VLM = "Xu et al., VLM, Findings of ACL 2021, [arXiv 2105.09996](https://arxiv.org/abs/2105.09996)"
ONE_MATRIX = "N^2 D operations, one N x N matrix."
COMMON = "textbook"
LABELS = "linear in the logits."

FACTS = {
    "MMContraLoss": Facts(
        "VideoCLIP:  CE(v t') + CE(t v')\n"
        "Norton:     CE(v t'; Y) + CE(t v'; Y') + weight * SequenceContrastLoss,  Y = beta Q + (1 - beta) "
        "I,\n"
        "            Q = transport plan of v t' with rows and columns of mass 1",
        f"{VIDEOCLIP}; {NORTON}",
        "N^2 D operations; with `sinkhorn_iterations` I, 2 I passes over an N x N matrix; with "
        "`sequence_contrast` that loss's cost.",
    ),
    "T2VContraLoss": Facts("CE(t v')", VIDEOCLIP, ONE_MATRIX),
    "V2TContraLoss": Facts("CE(v t')", VIDEOCLIP, ONE_MATRIX),
    "MILNCELoss": Facts(
        "mean_i -log( P_i / (P_i + N_i) ),  P_i = sum_c e(v_i, t_ic),\n"
        "N_i = sum_{j != i, c} [ e(v_i, t_jc) + e(v_j, t_ic) ],  e(v, t) = exp(v . t)",
        "Miech et al., CVPR 2020, [arXiv 1912.06430](https://arxiv.org/abs/1912.06430)",
        "C N^2 D operations with C candidates a clip, and C times as many captions to encode.",
        "Data: `task: MILNCETask` and `aligner: How2MILNCEAligner`; with one caption a clip any aligner.",
    ),
    "NCE": Facts(
        "mean_i -log( exp a_i / (exp a_i + sum_j exp n_j) ),  a aligned, n misaligned scores",
        VIDEOCLIP,
        "quadratic in the number of pairs.",
        "Model: `model_cls: MMFusionAlign`, which reads clip and caption together.",
    ),
    "SequenceContrastLoss": Facts(
        "C_ij = (w cos(t_i, v_j) + token similarity_ij) / (w + 1), each scaled to [0, 1]\n"
        "score(paragraph p, video q) = <Q_pq, C_pq> / tau,  Q_pq = transport plan of block C_pq with a "
        "bucket\n"
        "loss = CE(score) + CE(score')",
        NORTON,
        "N^2 (words x seconds) D operations for token similarity, tiled, memory linear in N; 2 I passes "
        "over (N / L)^2 problems of L x L.",
        "Alone it forgets dot products, on which retrieval runs; keep a clip loss beside it.",
    ),
    "TempCLRLoss": Facts(
        "(1 - w) [CE(v t') + CE(t v')] + w mean over videos of -log( e^-d(t, v) / sum over orders s of "
        "e^-d(s(t), v) )\n"
        "d = soft DTW or OTAM over 1 - cos",
        TEMPCLR,
        "that of MMContraLoss plus V M alignments of L x L (M orders).",
        "Needs `dataset.sort_clips` (the default) and enough disjoint clips a video: watch "
        "`qualifying_share` in the log.",
    ),
    "TempCLRLocalisationLoss": Facts(
        "(1 - w) BCE + w -log( e^-d(true order) / sum over orders of e^-d )",
        TEMPCLR,
        "M alignments of steps x frames for each video.",
    ),
    "FewShotAlignmentLoss": Facts(
        "CE over classes k of -mean over supports s of k of d(query, s)",
        "Cao et al., CVPR 2020, [arXiv 1906.11415](https://arxiv.org/abs/1906.11415)",
        "queries x supports alignments of frames x frames.",
    ),
    "GDTLoss": Facts(
        "mean over the hypothesis's pairs of views (a, b) of [CE(x_a y_b' / rho) + CE(y_a x_b' / rho)] / 2,\n"
        "x, y unit vectors of the two modalities; which pairs are positives and what counts as negative "
        "is the hypothesis",
        "Patrick et al., GDT, [arXiv 2003.04298](https://arxiv.org/abs/2003.04298)",
        "(S B)^2 D operations for B clips in S views; S times as many clips to encode.",
        "Data: `aligner: GDTAligner` with `dataset.views`, and `layout: item_major`. `python -m "
        "mmpt_cli.gdt_masks 8` shows a hypothesis.",
    ),
    "STiCALoss": Facts(
        "(1 - alpha) mean of CE over (small crop, large crop) and (large, large) pairs + alpha [CE(v a' / "
        "tau) + CE(a v' / tau)] / 2",
        "Patrick et al., STiCA, [arXiv 2103.10211](https://arxiv.org/abs/2103.10211)",
        "(crop pairs) N^2 D operations.",
        "Data and model: `model_cls: MMSTiCA`, which crops stored features in time, and stored feature "
        "maps (`map: [7, 7]`) also in space.",
    ),
    "GRAMLoss": Facts(
        "[CE(-V / tau) + CE(-V' / tau)] / 2,  V_ij = sqrt det Gram(anchor_i, modalities_j)\n"
        "two modalities: V = sqrt(1 - cos^2), the sine of the angle",
        "Cicchetti et al., GRAM, ICLR 2025, [arXiv 2412.11959](https://arxiv.org/abs/2412.11959)",
        "(K + 1) N^2 D operations, memory linear in N when chunked.",
    ),
    "PairwiseNCE": Facts(
        "mean over modalities m of [CE(a m' / tau) + CE(m a' / tau)] / 2, unit vectors",
        "the contrast of VAST ([arXiv 2305.18500](https://arxiv.org/abs/2305.18500)) and ImageBind "
        "([arXiv 2305.05665](https://arxiv.org/abs/2305.05665))",
        "K N^2 D operations.",
    ),
    "TriangleLoss": Facts(
        "[CE(-T / 2 tau) + CE(-T' / 2 tau)] / 2,  T = |u|^2 |w|^2 - (u . w)^2, edges u, w from the anchor",
        "TRIANGLE, [arXiv 2509.24734](https://arxiv.org/abs/2509.24734)",
        "3 N^2 D operations.",
        "Needs three modalities; text and video alone span no triangle.",
    ),
    "PMRLLoss": Facts(
        "mean_i -log softmax(s_i / tau_1)_1 + CE(u u' / tau_2),  s_i singular values of tuple i, u_i its "
        "leading left singular vector",
        "principled multimodal representation learning (PMRL)",
        "N singular value decompositions of (K + 1) x (K + 1) Gram matrices and N^2 D operations.",
    ),
    "SymileLoss": Facts(
        "mean over modalities m of CE( <x_m,i ; product of the other modalities of j> / tau )",
        "Symile, [arXiv 2411.01053](https://arxiv.org/abs/2411.01053)",
        "(K + 1) N^2 D operations.",
        "With two modalities the product is the dot product, and the loss is PairwiseNCE's.",
    ),
    "SumLoss": Facts("sum over parts of weight * part", "none", "the sum of its parts; encoders run once."),
    "MFMMLM": Facts("CE(frames) + CE(words)", VLM, LABELS),
    "MTM": Facts(
        "one cross entropy over masked frames and words, candidates of both modalities", VLM, LABELS
    ),
    "NLGLoss": Facts("CE of the next word", VLM, LABELS),
    "CrossEntropy": Facts("CE(logits, targets)", COMMON, LABELS),
    "ArgmaxCrossEntropy": Facts("CE(logits, argmax targets)", COMMON, LABELS),
    "BCE": Facts("mean of -[y log p + (1 - y) log(1 - p)],  p = sigmoid(logit)", COMMON, LABELS),
    "MSE": Facts("mean (logits - targets)^2", COMMON, LABELS),
    "L1": Facts("mean |logits - targets|", COMMON, LABELS),
    "SmoothL1": Facts("mean of d^2 / 2 where |d| < 1, |d| - 1/2 elsewhere", COMMON, LABELS),
    "DummyLoss": Facts("CE(logits, targets)", "none", LABELS),
    "DummyK400Loss": Facts("CE(logits, random classes)", "none", LABELS),
}

TENSORS = {
    "pooled_video, pooled_text": "(N, D) one vector a clip and a caption; further modalities are "
    "`pooled_<name>`",
    "video_outputs, text_outputs": "(N, seconds + 2, D), (N, words + 2, D) token states",
    "video_mask_outputs, text_mask_outputs": "bool, the same without D: tokens that are pooled",
    "logit_scale": "scalar, logarithm of the inverse temperature, from models with "
    "`model.learnable_temperature`",
    "clips_per_video": "number of consecutive rows that come from one video",
    "text_start, text_end": "(N,) caption indices of a clip's text, end exclusive",
    "video_start, video_end": "(N,) seconds of a clip, end exclusive",
    "view_valid": "(S*B,) bool, false where a view could not be made",
    "present": "modality -> (N,) bool, false where it is missing",
    "logits, targets": "scores of classes and what they should be; video_seq, sequence_targets, vmasks: "
    "see the loss",
    "video_logits, text_logits, text_label": "scores of masked frames and words, and the words themselves "
    "(-100: not masked)",
    "support, query, support_labels, query_labels": "an episode: frame features (videos, T, D) and classes",
    "crops, pooled_video_1, pooled_video_2": "crops by kind and version (n, B, D), and the two versions "
    "of the whole clip",
    "generator, num_updates": "random generator of drawn orders; number of the update",
}
