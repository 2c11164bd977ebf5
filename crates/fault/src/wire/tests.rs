//! Bytes that pass, and bytes that replace an order.

use super::*;
use proptest::prelude::*;
use tokio_test::task;

/// Accepts as many bytes as each of its turns allows, and keeps them.
#[derive(Debug, Default)]
struct Sink {
    taken: Vec<u8>,
    turns: Vec<usize>,
}

impl AsyncWrite for Sink {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let most = self.turns.pop().unwrap_or(usize::MAX).max(1).min(buf.len());
        self.taken.extend(&buf[..most]);
        Poll::Ready(Ok(most))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn framed(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    bytes.extend(&length[1..]);
    bytes.extend([kind, 0]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    framed(RST_STREAM, stream, &code.to_be_bytes())
}

/// The output when each of these is written as a whole, and how it ends.
fn written(writes: &[Vec<u8>], turns: Vec<usize>) -> (Vec<u8>, bool) {
    let mut io = FaultIo::new(Sink { taken: Vec::new(), turns });
    let done = task::spawn(async {
        use tokio::io::AsyncWriteExt;
        for bytes in writes {
            io.write_all(bytes).await?;
        }
        io.flush().await
    })
    .poll();
    let Poll::Ready(done) = done else { panic!("a sink is never pending") };
    (io.io.taken, done.is_ok())
}

fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let any_frame = (0..12_u8, any::<u32>(), prop::collection::vec(any::<u8>(), 0..40))
        .prop_map(|(kind, stream, payload)| framed(kind, stream, &payload));
    // Payloads that look like orders are not orders.
    let sly = (0..9_usize).prop_map(|pad| framed(0, 1, &[vec![0; pad], reset(1, DROP)].concat()));
    let frame = prop_oneof![any_frame, sly, Just(reset(1, REFUSED_STREAM))];
    prop::collection::vec(frame, 0..9).prop_map(|mut frames| {
        frames.insert(0, framed(SETTINGS, 0, &[]));
        frames
    })
}

proptest! {
    #[test]
    fn what_is_no_order_passes_byte_for_byte_however_it_is_split(
        frames in frames(),
        turns in prop::collection::vec(1..30_usize, 0..40),
        is_whole: bool,
    ) {
        let all = frames.concat();
        let writes = if is_whole { vec![all.clone()] } else { frames };
        prop_assert_eq!(written(&writes, turns), (all, true));
    }

    #[test]
    fn an_order_is_obeyed_wherever_it_stands(
        frames in frames(),
        turns in prop::collection::vec(1..30_usize, 0..40),
        is_whole: bool,
    ) {
        let mut all = frames.clone();
        all.push(reset(5, GO_AWAY));
        all.extend(frames.clone());
        let writes = if is_whole { vec![all.concat()] } else { all };
        let goaway = framed(GOAWAY, 0, b"\x7f\xff\xff\xff\0\0\0\0");
        let expected = [frames.concat(), goaway, reset(5, 7), frames.concat()].concat();
        prop_assert_eq!(written(&writes, turns), (expected, true));
    }

    #[test]
    fn other_protocols_pass(bytes in prop::collection::vec(any::<u8>(), 1..40)) {
        let mut bytes = bytes;
        bytes[0] |= 1;
        let bytes = [bytes, reset(1, DROP)].concat();
        prop_assert_eq!(written(std::slice::from_ref(&bytes), Vec::new()), (bytes.clone(), true));
    }
}

#[test]
fn after_a_drop_nothing_passes_and_after_a_goaway_with_a_code_only_that() {
    let settings = framed(SETTINGS, 0, &[]);
    let writes = [settings.clone(), reset(1, DROP), settings.clone()];
    assert_eq!(written(&writes, Vec::new()), (settings.clone(), false));
    let order = Order::GoAway(Some(11)).code();
    let writes = [settings.clone(), reset(1, order), settings.clone()];
    let goaway = framed(GOAWAY, 0, b"\x7f\xff\xff\xff\0\0\0\x0b");
    assert_eq!(written(&writes, vec![3; 40]), ([settings, goaway].concat(), false));
}

#[test]
fn each_order_is_known_by_its_code() {
    for order in [Order::Drop, Order::GoAway(None), Order::GoAway(Some(0)), Order::GoAway(Some(13))]
    {
        assert_eq!(Order::of(order.code()), Some(order));
    }
    assert!((0..=13).all(|code| Order::of(code).is_none()));
}
