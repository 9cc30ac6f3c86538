"""Media files -> features: decoding, networks, passports, packing into shards."""
