import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mmpt.audit import read_evidence
from mmpt.audit.files import read_judgements, read_pairs, read_table

SCORES = np.array([[0.5, 0.25, 0.125], [0.75, 0.5, 0.25]], dtype=np.float32)


def write(path, scores=SCORES):
    if path.suffix == ".npz":
        np.savez(path, scores=scores, other=np.zeros(3))
    elif path.suffix == ".npy":
        np.save(path, scores)
    elif path.suffix == ".pt":
        torch.save({"scores": torch.from_numpy(scores), "other": torch.zeros(3)}, path)
    elif path.suffix == ".safetensors":
        save_file({"scores": torch.from_numpy(scores), "other": torch.zeros(3)}, path)
    elif path.suffix == ".csv":
        path.write_text(
            ",a,b,c\n" + "".join(f"q{i},{','.join(map(str, row))}\n" for i, row in enumerate(scores))
        )
    elif path.suffix == ".json":
        run = {f"q{i}": dict(zip("abc", map(float, row), strict=True)) for i, row in enumerate(scores)}
        path.write_text(json.dumps({"mteb_model_meta": {"model_name": "m"}, "default": {"test": run}}))
    return path


@pytest.mark.parametrize("suffix", ["npz", "npy", "pt", "safetensors", "csv", "json"])
def test_a_matrix_is_read_from_every_kind_of_file(tmp_path, suffix):
    table = read_table(write(tmp_path / f"x.{suffix}"), "scores")
    assert table.values.tolist() == SCORES.tolist()
    if suffix in ("csv", "json"):
        assert (table.rows, table.columns) == (["q0", "q1"], ["a", "b", "c"])


def test_items_that_a_run_does_not_list_rank_below_those_that_any_run_lists(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"q0": {"a": 0.5, "b": 0.25}, "q1": {"c": -1.0}}))
    assert read_table(tmp_path / "run.json", "scores").values.tolist() == [
        [0.5, 0.25, -2.0],
        [-2.0, -2.0, -1.0],
    ]


def test_outputs_of_vlm2vec_are_read(tmp_path):
    queries, gallery = np.eye(2, 3, dtype=np.float32), np.eye(3, dtype=np.float32)
    (tmp_path / "set_qry").write_bytes(pickle.dumps(queries))
    (tmp_path / "set_tgt").write_bytes(pickle.dumps(dict(zip("abc", gallery, strict=True))))
    (tmp_path / "set_info.jsonl").write_text('{"label_name": "b"}\n{"label_name": ["c"]}\n')
    evidence = read_evidence(
        queries=tmp_path / "set_qry", gallery=tmp_path / "set_tgt", pairs=tmp_path / "set_info.jsonl"
    )
    assert (evidence.items, evidence.query_item.tolist()) == (["a", "b", "c"], [1, 2])
    (tmp_path / "set_pred.jsonl").write_text(
        '{"prediction": ["b", "a"], "label": ["a"], "rel_scores": null}\n'
    )
    evidence = read_evidence(scores=tmp_path / "set_pred.jsonl")
    assert evidence.items[evidence.query_item[0]] == "a" and evidence.scores.tolist() == [[0.0, -1.0]]


def test_pairs_are_matched_by_query_id_where_the_matrix_names_its_rows(tmp_path):
    (tmp_path / "pairs.csv").write_text("query_id,gallery_id\nq1,a\nq0,c\n")
    evidence = read_evidence(scores=write(tmp_path / "x.csv"), pairs=tmp_path / "pairs.csv")
    assert [evidence.items[i] for i in evidence.query_item] == ["c", "a"]


def test_queries_whose_item_the_gallery_lacks_are_left_out_and_counted(tmp_path):
    (tmp_path / "pairs.csv").write_text("query_id,gallery_id\nq0,gone\nq1,a\n")
    evidence = read_evidence(scores=write(tmp_path / "x.csv"), pairs=tmp_path / "pairs.csv")
    assert evidence.left_out == 1 and evidence.scores.tolist() == SCORES[1:].tolist()


def test_matrices_of_different_types_are_brought_to_the_widest(tmp_path):
    np.save(tmp_path / "q.npy", np.eye(3, dtype=np.float16))
    np.save(tmp_path / "g.npy", np.eye(3))
    evidence = read_evidence(
        queries=tmp_path / "q.npy", gallery=tmp_path / "g.npy", reranked=tmp_path / "q.npy"
    )
    assert evidence.queries.dtype == evidence.gallery.dtype == evidence.reranked.dtype == torch.float64


def test_an_item_of_no_relevance_is_not_the_right_one(tmp_path):
    (tmp_path / "qrels.json").write_text('{"q0": {"a": 0, "b": 1}}')
    assert read_pairs(tmp_path / "qrels.json") == [("q0", "b", "")]


def test_a_judgement_of_zero_is_none(tmp_path):
    (tmp_path / "j.csv").write_text("query_id,gallery_id,score\nq0,a,1\nq0,b,0\n")
    assert read_judgements(tmp_path / "j.csv") == {"q0": {"a"}}


def test_arrays_ask_for_no_more_memory_than_their_file_can_hold(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", scores=np.zeros((1000, 1000)))
    assert read_table(tmp_path / "x.npz", "scores").values.shape == (1000, 1000)
    monkeypatch.setattr("mmpt.utils.shardedtensor.UNPACKED", 1 << 20)
    with pytest.raises(ValueError, match=r"x\.npz: .*unpacks to far more than its size"):
        read_table(tmp_path / "x.npz", "scores")
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (10000000, 100000)}\n"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + bytes([len(header), 0]) + header)
    with pytest.raises(ValueError, match=r"x\.npy: .* bytes, expected 40000000000"):
        read_table(tmp_path / "x.npy", "scores")


def test_arrays_of_another_order_of_bytes_are_read(tmp_path):
    np.save(tmp_path / "x.npy", np.asarray(SCORES, ">f4"))
    assert read_table(tmp_path / "x.npy", "scores").values.tolist() == np.float32(SCORES).tolist()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", ",a,b\nq0,1\n", "line 2: 2 fields, the head has 3"),
        ("x.csv", ",a\nq0,high\n", "expected numbers"),
        ("x.jsonl", '{"prediction": []}\n', "line 1: expected the keys 'prediction' and 'label'"),
        (
            "x.json",
            '{"default": {"test": {"q": {"a": 1}}, "dev": {"q": {"a": 1}}}}',
            "one subset and one split",
        ),
        ("x.txt", "1 2", "unknown suffix '.txt'"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / name, "scores")


def test_files_that_do_not_fit_together_are_refused(tmp_path):
    with pytest.raises(ValueError, match="2 queries and 3 columns: say which column"):
        read_evidence(scores=write(tmp_path / "x.npy"))
    (tmp_path / "ids.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match="2 gallery ids for 3 columns"):
        read_evidence(scores=tmp_path / "x.npy", gallery_ids=tmp_path / "ids.txt")
    (tmp_path / "pairs.csv").write_text("query_id,gallery_id\nq0,a\nq1,b\n")
    (tmp_path / "list.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match="1 of 3 gallery items are not on the published list .first: 'c'"):
        read_evidence(
            scores=write(tmp_path / "x.csv"), pairs=tmp_path / "pairs.csv", listed=tmp_path / "list.txt"
        )
    (tmp_path / "other.txt").write_text("x\ny\n")
    with pytest.raises(ValueError, match="no item of the claim's list is in the gallery: the list has 'x'"):
        read_evidence(
            scores=tmp_path / "x.csv", pairs=tmp_path / "pairs.csv", claimed_list=tmp_path / "other.txt"
        )
    np.save(tmp_path / "bank.npy", np.zeros((4, 7)))
    with pytest.raises(ValueError, match="bank is 7 wide; expected 3: one score an item"):
        read_evidence(scores=tmp_path / "x.csv", pairs=tmp_path / "pairs.csv", bank=tmp_path / "bank.npy")
    (tmp_path / "pairs.csv").write_text("query_id,gallery_id\nq0,a\nq1,b\nq1,c\n")
    with pytest.raises(ValueError, match="names 3 items for 2 queries; expected one right item a query"):
        read_evidence(scores=tmp_path / "x.csv", pairs=tmp_path / "pairs.csv")
    with pytest.raises(ValueError, match="either a score matrix, or embeddings"):
        read_evidence(queries=tmp_path / "x.npy")


def test_what_predict_keeps_is_read_by_its_own_names(tmp_path):
    arrays = {"pooled_text": np.ones((2, 3)), "pooled_video": np.zeros((4, 3)), "texts": np.array(["a", "b"])}
    np.savez(tmp_path / "predictions.npz", **arrays)
    for name, array in (("queries", "pooled_text"), ("gallery", "pooled_video")):
        assert read_table(tmp_path / "predictions.npz", name).values.tolist() == arrays[array].tolist()
