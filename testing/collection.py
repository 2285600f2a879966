"""Facts about the files in the collection of real, odd and broken videos."""

# The error kind of each file of the collection that must be refused.
KINDS = {
    "audio_only.mp4": "no_video_stream",
    "audio_with_cover.m4a": "no_video_stream",
    "encrypted_cenc.mp4": "unsupported",
    "header_only_index.mp4": "decode",
    "truncated_no_moov.mp4": "decode",
    "zero_byte.mp4": "decode",
    "text_renamed.mp4": "decode",
    "zeros_200k.mp4": "decode",
    "jpeg_renamed.mp4": "unsupported",
    "playlist_concat.mp4": "unsupported",
    "playlist_hls_local.mp4": "unsupported",
    "playlist_hls_http.m3u8": "unsupported",
}
