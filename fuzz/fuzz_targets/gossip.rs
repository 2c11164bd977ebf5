//! Whatever the datagram: one that can be read is sealed, opened and written so that it is read
//! again as the same, and one that was changed on its way is not opened.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    assert!(cinchona_cluster::is_read_again(datagram));
    assert!(cinchona_cluster::is_opened_unchanged(datagram));
});
