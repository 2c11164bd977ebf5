//! The frames of a server on its connection before, beside and after its answers.

/// Follows the HTTP/2 frames of a server ([RFC 9113, 4.1]), by their heads alone.
///
/// A TLS connection cannot be read, and is not followed.
///
/// [RFC 9113, 4.1]: https://www.rfc-editor.org/rfc/rfc9113#section-4.1
#[derive(Debug)]
pub(crate) struct Frames {
    stage: Stage,
    /// The head of a frame, as far as it has arrived.
    head: [u8; HEAD],
    filled: usize,
    /// The rest of the payload that has not arrived.
    left: usize,
    /// The payload of a GOAWAY, as far as it matters.
    farewell: Vec<u8>,
    /// Of SETTINGS, the setting that is coming.
    setting: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Only SETTINGS may come first.
    First,
    Rest,
    Goaway,
    /// TLS, or not HTTP/2.
    Opaque,
}

/// An event of the server's frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// It speaks HTTP/2, and can be sent requests.
    Settings,
    /// The largest header list that it takes (SETTINGS_MAX_HEADER_LIST_SIZE).
    MostHeaders(u32),
    /// It takes no more requests on this connection.
    Goaway(Goaway),
    /// It begins a TLS session.
    Tls,
    /// It does not speak HTTP/2, but this.
    Other(&'static str),
}

/// Why a server takes no more requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Goaway {
    /// An error code of RFC 9113, 7.
    pub(crate) code: u32,
    pub(crate) debug: String,
}

const HEAD: usize = 9;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

/// The length of a setting, and the name of that of header lists (RFC 9113, section 6.5).
const SETTING: usize = 6;
const MAX_HEADER_LIST_SIZE: [u8; 2] = [0, 6];

/// How much of a GOAWAY is kept: the last stream, the code, and part of the text.
const KEPT: usize = 8 + 64;

// === impl Frames ===

impl Frames {
    pub(crate) fn new() -> Self {
        Self {
            stage: Stage::First,
            head: [0; HEAD],
            filled: 0,
            left: 0,
            farewell: Vec::new(),
            setting: None,
        }
    }

    /// Reads on; returns each event once.
    pub(crate) fn read(&mut self, mut bytes: &[u8], mut says: impl FnMut(Said)) {
        if self.stage == Stage::First
            && self.filled == 0
            && let Some(other) = bytes.first().and_then(|first| at_first_sight(*first))
        {
            self.stage = Stage::Opaque;
            says(other);
        }
        while !bytes.is_empty() && self.stage != Stage::Opaque {
            if self.left > 0 {
                let (payload, rest) = bytes.split_at(self.left.min(bytes.len()));
                self.left -= payload.len();
                bytes = rest;
                if self.stage == Stage::Goaway {
                    self.keep(payload);
                }
                if let Some(setting) = &mut self.setting {
                    hear(setting, payload, &mut says);
                }
                if self.left == 0 {
                    self.ends(&mut says);
                }
                continue;
            }
            let count = (HEAD - self.filled).min(bytes.len());
            let (part, rest) = bytes.split_at(count);
            self.head[self.filled..self.filled + count].copy_from_slice(part);
            self.filled += count;
            bytes = rest;
            if self.filled == HEAD {
                self.begins(&mut says);
            }
        }
    }

    /// The head of a frame has arrived.
    fn begins(&mut self, says: &mut impl FnMut(Said)) {
        self.filled = 0;
        let [high, middle, low, kind, flags, ..] = self.head;
        self.left = u32::from_be_bytes([0, high, middle, low]) as usize;
        let is_settings = kind == SETTINGS && flags & 1 == 0;
        self.setting = is_settings.then(Vec::new);
        match self.stage {
            Stage::First if is_settings => {
                self.stage = Stage::Rest;
                says(Said::Settings);
            }
            // An overloaded server may send just that.
            Stage::First if kind != GOAWAY => {
                self.stage = Stage::Opaque;
                says(Said::Other("something else"));
            }
            _ if kind == GOAWAY => self.stage = Stage::Goaway,
            _ => {}
        }
        if self.left == 0 {
            self.ends(says);
        }
    }

    fn keep(&mut self, payload: &[u8]) {
        let room = KEPT - self.farewell.len();
        self.farewell.extend_from_slice(&payload[..room.min(payload.len())]);
    }

    fn ends(&mut self, says: &mut impl FnMut(Said)) {
        self.setting = None;
        if self.stage == Stage::Goaway {
            let farewell = std::mem::take(&mut self.farewell);
            let code = farewell.get(4..8).and_then(|code| code.try_into().ok());
            let debug = String::from_utf8_lossy(farewell.get(8..).unwrap_or_default()).into_owned();
            self.stage = Stage::Rest;
            says(Said::Goaway(Goaway { code: code.map_or(0, u32::from_be_bytes), debug }));
        }
    }
}

/// Reads on in SETTINGS; `begun` is the part of a setting that has arrived.
fn hear(begun: &mut Vec<u8>, payload: &[u8], says: &mut impl FnMut(Said)) {
    for byte in payload {
        begun.push(*byte);
        if let [high, low, value @ ..] = &begun[..]
            && begun.len() == SETTING
        {
            if let (MAX_HEADER_LIST_SIZE, Ok(value)) = ([*high, *low], value.try_into()) {
                says(Said::MostHeaders(u32::from_be_bytes(value)));
            }
            begun.clear();
        }
    }
}

/// The head of SETTINGS begins with a zero: frames of that length need a setting first.
const fn at_first_sight(first: u8) -> Option<Said> {
    match first {
        0 => None,
        // Of TLS records: an alert, and a handshake.
        0x15 => Some(Said::Other("TLS")),
        0x16 => Some(Said::Tls),
        b'H' => Some(Said::Other("HTTP/1")),
        _ => Some(Said::Other("something else")),
    }
}

// === impl Goaway ===

impl Goaway {
    /// Whether the server was pinged more often than it allows (gRFC A8).
    pub(crate) fn is_too_many_pings(&self) -> bool {
        const ENHANCE_YOUR_CALM: u32 = 11;
        self.code == ENHANCE_YOUR_CALM && self.debug == "too_many_pings"
    }
}

impl std::fmt::Display for Goaway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the server said GOAWAY ({:?}", h2_reason(self.code))?;
        match &*self.debug {
            "" => f.write_str(")"),
            debug => write!(f, ", {debug:?})"),
        }
    }
}

fn h2_reason(code: u32) -> impl std::fmt::Debug {
    h2::Reason::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let [.., high, middle, low] = (payload.len() as u32).to_be_bytes();
        [&[high, middle, low, kind, flags, 0, 0, 0, 0], payload].concat()
    }

    fn goaway(code: u8, debug: &str) -> Vec<u8> {
        frame(GOAWAY, 0, &[&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, code], debug.as_bytes()].concat())
    }

    fn said(parts: &[&[u8]]) -> Vec<Said> {
        let (mut frames, mut all) = (Frames::new(), Vec::new());
        parts.iter().for_each(|part| frames.read(part, |said| all.push(said)));
        all
    }

    #[test]
    fn a_server_that_speaks_http_2_begins_with_settings() {
        assert_eq!(said(&[&frame(SETTINGS, 0, &[0; 12])]), [Said::Settings]);
        assert_eq!(said(&[&frame(SETTINGS, 0, &[])]), [Said::Settings]);
        let answer = [frame(SETTINGS, 0, &[]), frame(1, 4, b"head"), frame(0, 1, b"HTTP/1")];
        assert_eq!(said(&[&answer.concat()]), [Said::Settings]);
    }

    #[test]
    fn a_server_says_how_large_a_header_list_it_takes_and_may_say_so_again() {
        let settings = [[0, 4, 0, 16, 0, 0], [0, 6, 0, 0, 64, 0]].concat();
        let frames = [frame(SETTINGS, 0, &settings), frame(SETTINGS, 0, &[0, 6, 0, 0, 0, 9])];
        let expected = [Said::Settings, Said::MostHeaders(16384), Said::MostHeaders(9)];
        assert_eq!(said(&[&frames.concat()]), expected);
    }

    #[test]
    fn what_is_no_http_2_is_called_by_its_name() {
        for (bytes, expected) in [
            (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], Said::Other("HTTP/1")),
            (&[0x15, 3, 3, 0, 2, 2, 70], Said::Other("TLS")),
            (&[0x16, 3, 3, 0, 100], Said::Tls),
            (b"SSH-2.0-OpenSSH", Said::Other("something else")),
            (&frame(1, 4, b"a head before the settings"), Said::Other("something else")),
            (&frame(SETTINGS, 1, &[]), Said::Other("something else")),
        ] {
            assert_eq!(said(&[bytes]), [expected]);
        }
    }

    #[test]
    fn a_goaway_has_its_reason() {
        let calm = goaway(11, "too_many_pings");
        let all = said(&[&frame(SETTINGS, 0, &[]), &calm, &goaway(0, "")]);
        let [Said::Settings, Said::Goaway(calm), Said::Goaway(graceful)] = &*all else {
            panic!("{all:?}");
        };
        assert!(calm.is_too_many_pings() && !graceful.is_too_many_pings());
        let text = "the server said GOAWAY (ENHANCE_YOUR_CALM, \"too_many_pings\")";
        assert_eq!(calm.to_string(), text);
        assert_eq!(graceful.to_string(), "the server said GOAWAY (NO_ERROR)");
        let long = said(&[&goaway(2, &"x".repeat(1000)), &goaway(0, "")]);
        assert_eq!(long.len(), 2, "a long farewell hides nothing");
    }

    proptest! {
        #[test]
        fn however_the_bytes_come_the_same_is_said(
            cuts in prop::collection::vec(0..200_usize, 0..9),
        ) {
            let frames = [
                frame(SETTINGS, 0, &[7; 18]), frame(0, 0, &[1; 90]), goaway(11, "too_many_pings"),
                frame(6, 1, &[0; 8]), frame(SETTINGS, 0, &[0, 6, 1, 2, 3, 4]), goaway(0, ""),
            ]
            .concat();
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < frames.len()).collect();
            cuts.extend([0, frames.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|cut| &frames[cut[0]..cut[1]]).collect();
            prop_assert_eq!(said(&parts), said(&[&frames]));
        }

        #[test]
        fn no_bytes_are_too_odd(bytes: Vec<u8>, more: Vec<u8>) {
            said(&[&bytes, &more]);
            said(&[&frame(SETTINGS, 0, &[]), &bytes, &more]);
        }
    }
}
