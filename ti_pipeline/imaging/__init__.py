"""Pictures: decoding, audit, curation, focal crops, contact sheets. Not here: downloading them (`sources`)."""
