//! How long a WAV file plays, from its header.

/// The length of a WAV file in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Length {
    /// Of the samples that the header announces, as far as they are there.
    pub(super) announced_ms: u64,
    /// Of everything behind the header: what a reader plays that does not stop there.
    pub(super) ms_max: u64,
}

/// Reads the header of a RIFF, RF64 or BW64 file with plain samples. `None` where that is not
/// what it is: then its bytes say little of its length.
pub(super) fn length(file: &[u8]) -> Option<Length> {
    let (kind, rest) = file.split_first_chunk::<4>()?;
    let is_wide = matches!(kind, b"RF64" | b"BW64");
    if !is_wide && kind != b"RIFF" || rest.get(4..8)? != b"WAVE" {
        return None;
    }
    let mut chunks = rest.get(8..)?;
    let mut wide_bytes = None;
    let mut bytes_per_second = None;
    loop {
        let (id, announced, inside) = chunk(chunks)?;
        let len = usize::try_from(announced).unwrap_or(usize::MAX);
        match id {
            b"data" => {
                let wide = wide_bytes.filter(|_| is_wide && announced == UNKNOWN);
                let announced = wide.unwrap_or(announced);
                return Some(of_samples(inside, announced, bytes_per_second?));
            }
            b"ds64" => wide_bytes = Some(u64::from_le_bytes(*inside.get(8..16)?.first_chunk()?)),
            // Of two formats either could count.
            b"fmt " if bytes_per_second.is_some() => return None,
            b"fmt " => bytes_per_second = Some(slowest(inside.get(..len)?)?),
            _ => {}
        }
        chunks = inside.get(padded(len)..)?;
    }
}

fn of_samples(behind: &[u8], announced: u64, bytes_per_second: u64) -> Length {
    let present = u64::try_from(behind.len()).unwrap_or(u64::MAX);
    let ms = |bytes: u64| bytes.saturating_mul(1000).div_ceil(bytes_per_second);
    // A writer that did not know the length beforehand announces nothing or everything.
    let is_known = announced != 0 && announced != UNKNOWN;
    let announced = if is_known { announced.min(present) } else { present };
    let len = usize::try_from(announced).unwrap_or(usize::MAX);
    let is_whole = behind.get(padded(len)..).is_none_or(only_notes);
    Length { announced_ms: ms(if is_whole { announced } else { present }), ms_max: ms(present) }
}

/// Whether these are chunks to the end, none of which is played.
fn only_notes(mut chunks: &[u8]) -> bool {
    while !chunks.is_empty() {
        let Some((id, announced, inside)) = chunk(chunks) else { return false };
        let len = usize::try_from(announced).unwrap_or(usize::MAX);
        if matches!(id, b"data" | b"fmt ") || inside.len() < len {
            return false;
        }
        chunks = inside.get(padded(len)..).unwrap_or_default();
    }
    true
}

fn chunk(chunks: &[u8]) -> Option<(&[u8; 4], u64, &[u8])> {
    let (id, rest) = chunks.split_first_chunk::<4>()?;
    let (len, inside) = rest.split_first_chunk::<4>()?;
    Some((id, u64::from(u32::from_le_bytes(*len)), inside))
}

/// Chunks begin at even offsets.
const fn padded(len: usize) -> usize {
    len.saturating_add(len % 2)
}

/// Bytes of one second by the reading that makes it longest: a header says it three times, and
/// who wrote it may have made them differ.
fn slowest(format: &[u8]) -> Option<u64> {
    let short = |at: usize| Some(u64::from(u16::from_le_bytes(*format.get(at..)?.first_chunk()?)));
    let long = |at: usize| Some(u64::from(u32::from_le_bytes(*format.get(at..)?.first_chunk()?)));
    let kind = match short(0)? {
        EXTENSIBLE => short(24)?,
        kind => kind,
    };
    let (channels, rate, per_second) = (short(2)?, long(4)?, long(8)?);
    let (frame_bytes, bits) = (short(12)?, short(14)?);
    let by_frames = rate * frame_bytes;
    let by_samples = rate * channels * bits.div_ceil(8);
    let slowest = per_second.min(by_frames).min(by_samples);
    (PLAIN.contains(&kind) && slowest > 0).then_some(slowest)
}

/// The length of a chunk that is longer than its header can say.
const UNKNOWN: u64 = 0xFFFF_FFFF;
const EXTENSIBLE: u64 = 0xFFFE;
/// Integers, floats, A-law and µ-law: every sample has the same size.
const PLAIN: [u64; 4] = [1, 3, 6, 7];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file of 16-bit mono samples.
    fn wav(rate: u32, samples: usize) -> Vec<u8> {
        let bytes = u32::try_from(samples * 2).expect("a short file");
        file(b"RIFF", &[&format(1, 1, rate, 16)[..], &chunk(b"data", bytes, &vec![1; samples * 2])])
    }

    fn file(kind: &[u8; 4], chunks: &[&[u8]]) -> Vec<u8> {
        [&kind[..], &[0; 4], b"WAVE", &chunks.concat()].concat()
    }

    fn chunk(id: &[u8; 4], len: u32, inside: &[u8]) -> Vec<u8> {
        [&id[..], &len.to_le_bytes(), inside].concat()
    }

    fn format(kind: u16, channels: u16, rate: u32, bits: u16) -> Vec<u8> {
        let frame = channels * bits.div_ceil(8);
        format_saying(kind, channels, rate, rate * u32::from(frame), frame, bits)
    }

    fn format_saying(
        kind: u16,
        channels: u16,
        rate: u32,
        per_second: u32,
        frame: u16,
        bits: u16,
    ) -> Vec<u8> {
        let mut inside = Vec::new();
        inside.extend(kind.to_le_bytes());
        inside.extend(channels.to_le_bytes());
        inside.extend(rate.to_le_bytes());
        inside.extend(per_second.to_le_bytes());
        inside.extend(frame.to_le_bytes());
        inside.extend(bits.to_le_bytes());
        chunk(b"fmt ", 16, &inside)
    }

    fn check(file: &[u8], announced_ms: u64, ms_max: u64) {
        assert_eq!(length(file), Some(Length { announced_ms, ms_max }));
    }

    #[test]
    fn plain_samples_last_as_long_as_there_are_of_them() {
        check(&wav(16_000, 16_000), 1000, 1000);
        check(&wav(16_000, 1), 1, 1);
        check(&wav(16_000, 0), 0, 0);
        let samples = chunk(b"data", 96_000, &vec![0; 96_000]);
        check(&file(b"RIFF", &[&format(3, 2, 8_000, 32), &samples]), 1500, 1500);
        check(&file(b"RIFF", &[&format(7, 1, 8_000, 8), &samples]), 12_000, 12_000);
    }

    #[test]
    fn chunks_around_the_samples_are_passed_over() {
        let note = chunk(b"LIST", 3, b"abc\0");
        let (format, samples) = (format(1, 1, 8_000, 8), chunk(b"data", 8_000, &[0; 8_000]));
        check(&file(b"RIFF", &[&note, &format, &note, &samples]), 1000, 1000);
        check(&file(b"RIFF", &[&format, &samples, &note]), 1000, 1002);
    }

    #[test]
    fn a_length_that_is_not_announced_or_not_true_is_that_of_the_bytes() {
        let format = format(1, 1, 8_000, 8);
        for announced in [0, u32::MAX, 9_000] {
            let samples = chunk(b"data", announced, &[0; 8_000]);
            check(&file(b"RIFF", &[&format, &samples]), 1000, 1000);
        }
        // Announced short, with something behind it that is no chunk, or more samples.
        check(&file(b"RIFF", &[&format, &chunk(b"data", 8, &[1; 8_000])]), 1000, 1000);
        let more = [chunk(b"data", 8, &[0; 8]), chunk(b"data", 7_984, &[0; 7_984])].concat();
        check(&file(b"RIFF", &[&format, &more]), 1000, 1000);
    }

    #[test]
    fn wide_files_say_their_length_elsewhere() {
        let size = chunk(b"ds64", 28, &[&[0; 8], &8_000_u64.to_le_bytes()[..], &[0; 12]].concat());
        let format = format(1, 1, 8_000, 8);
        for kind in [b"RF64", b"BW64"] {
            let samples = chunk(b"data", u32::MAX, &[0; 8_000]);
            let note = chunk(b"LIST", 0, b"");
            check(&file(kind, &[&size, &format, &samples, &note]), 1000, 1001);
        }
    }

    #[test]
    fn a_header_that_contradicts_itself_is_read_as_the_longest() {
        let samples = chunk(b"data", 8_000, &[0; 8_000]);
        for format in [
            format_saying(1, 1, 8_000, 1_000, 1, 8),
            format_saying(1, 8, 1_000, 8_000, 1, 8),
            format_saying(1, 1, 1_000, 64_000, 64, 8),
        ] {
            check(&file(b"RIFF", &[&format, &samples]), 8_000, 8_000);
        }
    }

    #[test]
    fn what_is_not_plain_samples_is_not_read() {
        let samples = chunk(b"data", 8, &[0; 8]);
        let plain = format(1, 1, 8_000, 8);
        for chunks in [
            vec![&samples[..]],
            vec![&plain, &plain, &samples],
            vec![&plain],
            vec![&format(0x55, 1, 8_000, 8), &samples],
            vec![&format(1, 0, 8_000, 8), &samples],
            vec![&format(1, 1, 0, 8), &samples],
        ] {
            assert_eq!(length(&file(b"RIFF", &chunks)), None);
        }
        assert_eq!(length(&file(b"RIFX", &[&plain, &samples])), None);
        let mut other = wav(8_000, 8);
        other[8..12].copy_from_slice(b"AVI ");
        assert_eq!(length(&other), None);
    }

    proptest! {
        #[test]
        fn noise_is_never_a_panic(noise in any::<Vec<u8>>(), head in 0..44_usize) {
            length(&noise);
            let cut = [&wav(8_000, 0)[..head], &noise].concat();
            if let Some(Length { announced_ms, ms_max }) = length(&cut) {
                prop_assert!(announced_ms <= ms_max);
            }
        }
    }
}
