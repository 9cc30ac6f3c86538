"""Settings of a world that is written in a moment."""

from mmpt.synthetic.settings import SIZES, Settings

FEW = {
    "train_videos": 6,
    "tasks": 3,
    "val_videos": 1,
    "labelled_videos": 4,
    "test_groups": 1,
    "test_singles": 1,
}
MINI = Settings().with_knobs({**vars(SIZES["tiny"]), **FEW})
