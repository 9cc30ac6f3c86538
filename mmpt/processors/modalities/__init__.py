"""Items of several modalities: streams of features, subtitles, raw clips."""
