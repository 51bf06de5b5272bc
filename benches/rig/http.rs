//! As much of HTTP/1.1 as the benchmark's own ends need: heads that end, and bodies of a known length.

/// How many bytes the first message in here has, head and body. None: it is not whole.
pub(super) fn message_length(bytes: &[u8]) -> Option<usize> {
    let head_length = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_length]).expect("a head is ASCII here");
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let body_length = lengths.next().map_or(0, |(_, length)| length.trim().parse().expect("a length is a number"));
    (bytes.len() >= head_length + body_length).then_some(head_length + body_length)
}
