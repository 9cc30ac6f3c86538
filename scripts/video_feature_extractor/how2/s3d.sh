#!/bin/bash
# S3D features of HowTo100M, as released. Run from the checkout: bash scripts/video_feature_extractor/how2/s3d.sh VIDEOS
python scripts/video_feature_extractor/extract.py \
    --vdir "${1:?folder of videos}" \
    --fdir data/feat/feat_how2_s3d \
    --type=s3d --num_decoding_thread=4 --batch_size 32 --half_precision 1
