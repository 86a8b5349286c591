"""The stages that write phantoms, decoded images and patches into the lake with Ray Data. No training, no models.

Each stage cuts its work into shards named by their content (`shards`). One task does a whole shard (read, decode,
reduce, write), so only small results cross the object store.
"""

from mammoflow.data.ingest.images import decode_images
from mammoflow.data.ingest.patches import cut_patches, cut_shard, shard_jobs
from mammoflow.data.ingest.phantoms import draw_phantoms

__all__ = ["cut_patches", "cut_shard", "decode_images", "draw_phantoms", "shard_jobs"]
