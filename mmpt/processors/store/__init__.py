"""Where features and tokens lie: folders, shards, remote copies, id index."""
