//! Decompresses messages, as a tonic handler would, up to a limit.

use flate2::read::{GzDecoder, ZlibDecoder};
use ruzstd::decoding::StreamingDecoder;
use std::io::{self, Read};

/// The supported compressions, as in `grpc-accept-encoding`.
pub(crate) const ENCODINGS: &str = "gzip,deflate,zstd,identity";

/// Why a message cannot be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compressed {
    /// Its compression is not supported.
    Unknown,
    /// Its flag says that it is compressed, and the headers name no compression.
    Unsaid,
    Broken,
    TooLarge,
}

/// The largest window that every zstd decoder must support ([RFC 8878], 3.1.1.1.2).
///
/// [RFC 8878]: https://www.rfc-editor.org/rfc/rfc8878#section-3.1.1.1.2
const WINDOW: u64 = 8 << 20;

/// `data`, decompressed as `grpc-encoding` says, at most `limit` bytes.
pub(crate) fn decompress(
    encoding: Option<&[u8]>,
    data: &[u8],
    limit: usize,
) -> Result<Vec<u8>, Compressed> {
    match encoding {
        None | Some(b"identity") => Err(Compressed::Unsaid),
        Some(b"gzip") => read(GzDecoder::new(data), data.len(), limit),
        Some(b"deflate") => read(ZlibDecoder::new(data), data.len(), limit),
        Some(b"zstd") => zstd(data, limit),
        Some(_) => Err(Compressed::Unknown),
    }
}

/// One frame after the other.
fn zstd(mut data: &[u8], limit: usize) -> Result<Vec<u8>, Compressed> {
    let (mut whole, length) = (Vec::new(), data.len());
    while !data.is_empty() {
        let window = WINDOW.max(limit as u64);
        let frame = StreamingDecoder::new_with_max_window_size(&mut data, window);
        let frame = frame.map_err(|_| Compressed::Broken)?;
        whole.append(&mut read(frame, length, limit - whole.len())?);
    }
    Ok(whole)
}

fn read(from: impl Read, length: usize, limit: usize) -> Result<Vec<u8>, Compressed> {
    let mut whole = Vec::with_capacity(length.saturating_mul(2).min(limit));
    let most = (limit as u64).saturating_add(1);
    let read: io::Result<usize> = from.take(most).read_to_end(&mut whole);
    read.map_err(|_| Compressed::Broken)?;
    if whole.len() > limit { Err(Compressed::TooLarge) } else { Ok(whole) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use flate2::{
        Compression,
        write::{GzEncoder, ZlibEncoder},
    };
    use proptest::prelude::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    use std::io::Write;

    pub(crate) fn compress(encoding: &str, data: &[u8]) -> Vec<u8> {
        match encoding {
            "gzip" => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            "deflate" => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            "zstd" => compress_to_vec(data, CompressionLevel::Fastest),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_bomb_is_read_up_to_the_limit() {
        let zeros = vec![0; 4 << 20];
        for encoding in ["gzip", "deflate", "zstd"] {
            let bomb = compress(encoding, &zeros);
            let read = |limit| decompress(Some(encoding.as_bytes()), &bomb, limit);
            assert_eq!(read(zeros.len()).unwrap().len(), zeros.len(), "{encoding}");
            for limit in [0, 1, 1000, zeros.len() - 1] {
                assert_eq!(read(limit), Err(Compressed::TooLarge), "{encoding} {limit}");
            }
        }
        let two = compress("zstd", b"one").repeat(2);
        assert_eq!(decompress(Some(b"zstd"), &two, 6).unwrap(), b"oneone");
        assert_eq!(decompress(Some(b"zstd"), &two, 5), Err(Compressed::TooLarge));
    }

    #[test]
    fn unknown_missing_and_broken_compressions_are_distinguished() {
        for (encoding, why) in [
            (None, Compressed::Unsaid),
            (Some("identity"), Compressed::Unsaid),
            (Some("snappy"), Compressed::Unknown),
            (Some("GZIP"), Compressed::Unknown),
            (Some("gzip"), Compressed::Broken),
            (Some("deflate"), Compressed::Broken),
            (Some("zstd"), Compressed::Broken),
        ] {
            let encoding = encoding.map(str::as_bytes);
            assert_eq!(decompress(encoding, b"plain", 100), Err(why), "{encoding:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_back(data in prop::collection::vec(any::<u8>(), 0..300)) {
            for encoding in ["gzip", "deflate", "zstd"] {
                let compressed = compress(encoding, &data);
                let plain = decompress(Some(encoding.as_bytes()), &compressed, data.len());
                prop_assert_eq!(plain.as_ref(), Ok(&data));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(
            data in prop::collection::vec(any::<u8>(), 0..100),
            begins in any::<bool>(),
            flip in any::<(usize, u8)>(),
        ) {
            for encoding in ["gzip", "deflate", "zstd"] {
                let mut broken = if begins { compress(encoding, &data) } else { data.clone() };
                if !broken.is_empty() {
                    let at = flip.0 % broken.len();
                    broken[at] ^= flip.1;
                }
                let _ = decompress(Some(encoding.as_bytes()), &broken, 1000);
            }
        }
    }
}
