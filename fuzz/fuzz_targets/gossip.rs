//! Whatever the datagram: no panic, and one that can be read is written so that it is read again.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| assert!(cinchona_cluster::is_read_again(datagram)));
