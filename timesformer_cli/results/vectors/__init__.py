"""Files of vectors: what `writing` writes, `reading` opens."""
