//! The mode of a switch, and how often it was off.

use cinchona_core::Mode;
use loom::{sync::Arc, thread};

mod mode {
    pub(super) use cinchona_core::Mode;
}

#[path = "../../src/switch/word.rs"]
mod word;

use word::Word;

#[test]
fn it_has_its_last_mode_and_each_change_to_off_counts_once() {
    loom::model(|| {
        let word = Arc::new(Word::default());
        let other = {
            let word = word.clone();
            thread::spawn(move || word.set(Mode::Off))
        };
        word.set(Mode::Off);
        word.set(Mode::Enforce);
        other.join().expect("it ends");
        // Off twice where the other came last, else once.
        let ended = (word.mode(), word.times_off());
        assert!(matches!(ended, (Mode::Off, 2) | (Mode::Enforce, 1)), "{ended:?}");
    });
}

#[test]
fn a_thread_that_sees_it_on_again_sees_that_it_was_off() {
    loom::model(|| {
        let word = Arc::new(Word::default());
        let other = {
            let word = word.clone();
            thread::spawn(move || [Mode::Off, Mode::Shadow].map(|mode| word.set(mode)))
        };
        if word.mode() == Mode::Shadow {
            assert_eq!(word.times_off(), 1);
        }
        other.join().expect("it ends");
        assert_eq!((word.mode(), word.times_off()), (Mode::Shadow, 1));
    });
}
