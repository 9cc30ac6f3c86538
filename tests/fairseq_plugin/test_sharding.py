"""Who trains on what: fairseq shares an epoch among ranks and workers without overlap or loss."""

import multiprocessing
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from fairseq.data.iterators import EpochBatchIterator

from mmpt.datasets import MMDataset
from mmpt.fairseq_plugin.dataset import FairseqMMDataset
from mmpt.fairseq_plugin.task import FairseqMMTask, end_loader
from mmpt.processors import (
    ShardedHow2VideoRetriMetaProcessor,
    ShardedVideoRetriTextProcessor,
    ShardedVideoRetriVideoProcessor,
    VideoRetriOverlappedAligner,
)
from tests.processors.helpers import SPECIAL, how2

VIDEOS, GROUP = 26, 2


pytestmark = pytest.mark.filterwarnings("ignore:.*pin_memory")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    config = how2(tmp_path_factory.mktemp("shards"), n_videos=VIDEOS, num_video_per_batch=GROUP)
    parts = (
        ShardedHow2VideoRetriMetaProcessor(config),
        ShardedVideoRetriVideoProcessor(config),
        ShardedVideoRetriTextProcessor(config),
    )
    return FairseqMMDataset(MMDataset(*parts, VideoRetriOverlappedAligner(config, SPECIAL)))


def share(dataset, rank, ranks, workers, skip=0):
    """The batches that one rank draws in epoch 1, dummy ones left out."""
    iterator = EpochBatchIterator(
        dataset=dataset,
        collate_fn=dataset.collater,
        batch_sampler=dataset.batch_by_size(dataset.ordered_indices(), max_sentences=1),
        seed=1,
        num_shards=ranks,
        shard_id=rank,
        num_workers=workers,
        epoch=1,
    )
    iterator.persistent_workers = False  # as the task sets it
    batches = iterator.next_epoch_itr(shuffle=True).skip(skip)
    drawn = [batch for batch in batches if batch]
    del batches
    end_loader(iterator)
    return drawn


def test_loader_processes_end_with_their_epoch(dataset):
    before = multiprocessing.active_children()
    begin = time.perf_counter()
    share(dataset, 0, 2, 2)
    assert multiprocessing.active_children() == before
    assert time.perf_counter() - begin < 4  # torch waits 5 s for a process that was not asked to end


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (1, 2), (2, 0), (2, 2), (3, 2), (5, 1)])
def test_every_video_is_drawn_once_whatever_the_ranks_and_workers(dataset, ranks, workers):
    drawn = Counter(
        video
        for rank in range(ranks)
        for batch in share(dataset, rank, ranks, workers)
        for video in batch["video_id"][0]
    )
    assert drawn == Counter(f"v{i}" for i in range(VIDEOS))


def test_workers_change_neither_order_nor_content(dataset):
    for one, other in zip(share(dataset, 1, 2, 0), share(dataset, 1, 2, 2), strict=True):
        assert (
            one["video_id"] == other["video_id"]
            and one["caps"].equal(other["caps"])
            and one["vfeats"].equal(other["vfeats"])
        )


def test_ranks_together_draw_what_one_process_draws_in_turns(dataset):
    alone = [batch["video_id"] for batch in share(dataset, 0, 1, 0)]
    assert alone[1::2] == [batch["video_id"] for batch in share(dataset, 1, 2, 0)]


def test_a_rank_that_comes_back_goes_on_where_it_stopped(dataset):
    whole = share(dataset, 0, 2, 2)
    rest = share(dataset, 0, 2, 2, skip=3)
    assert [batch["video_id"] for batch in rest] == [batch["video_id"] for batch in whole[3:]]


@pytest.mark.parametrize(("before", "now"), [(2, 1), (1, 2), (2, 3), (3, 2), (4, 3)])
@pytest.mark.parametrize("done", [1, 2, 3])
def test_another_number_of_ranks_draws_what_is_left_and_at_most_one_turn_again(dataset, before, now, done):
    def drawn(ranks, first, last=None):
        batches = [batch for rank in range(ranks) for batch in share(dataset, rank, ranks, 0)[first:last]]
        return Counter(video for batch in batches for video in batch["video_id"][0])

    task = object.__new__(FairseqMMTask)
    task.args = SimpleNamespace(distributed_world_size=now)
    task.mmtask, task.share = SimpleNamespace(resume=lambda state, epoch: None), None
    position = {"epoch": 1, "iterations_in_epoch": done}
    task.resume({"train_iterator": position, "mmtask": {"processes": before}})
    both = drawn(before, 0, done) + drawn(now, position["iterations_in_epoch"])
    assert both.keys() == {f"v{i}" for i in range(VIDEOS)}
    twice = [video for video, times in both.items() if times > 1]
    assert max(both.values()) <= 2 and len(twice) < now * GROUP
