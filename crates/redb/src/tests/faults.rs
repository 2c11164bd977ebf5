//! Disks that fail, files that are damaged, and callbacks that panic.

use super::*;
use cinchona_core::Rng;
use cinchona_idempotency::State;
use rand::RngExt;
use redb::{StorageBackend, backends::FileBackend};
use std::{
    fs::{self, OpenOptions},
    io,
    path::PathBuf,
    sync::atomic::AtomicI64,
};
use tonic::{Code, Status};

/// A disk with room for so many more writes; all later ones fail.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    room: Arc<AtomicI64>,
}

impl Disk {
    fn takes(&self) -> io::Result<()> {
        if self.room.fetch_sub(1, Ordering::Relaxed) > 0 {
            return Ok(());
        }
        Err(io::ErrorKind::StorageFull.into())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.takes()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.takes()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.takes()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// A store on a disk, and the disk's room.
fn on_a_disk(dir: &TempDir, options: Options) -> (RedbStore, Arc<AtomicI64>) {
    let path = dir.path().join("calls.redb");
    let room = Arc::new(AtomicI64::new(i64::MAX));
    let left = room.clone();
    let place = move |builder: &redb::Builder| {
        let mut file = OpenOptions::new();
        file.read(true).write(true).create(true).truncate(false);
        let file = FileBackend::new(file.open(&path)?)?;
        builder.create_with_backend(Disk { file, room: left.clone() })
    };
    let last = Last::beside(&dir.path().join("calls.redb"));
    let place = Place { open: Box::new(place), last };
    (RedbStore::over(place, options).unwrap(), room)
}

fn number(bytes: Option<&Bytes>) -> u32 {
    bytes.map_or(0, |bytes| u32::from_be_bytes(bytes[..].try_into().unwrap()))
}

async fn add_one(store: &RedbStore) -> Result<u32, Status> {
    let add = |values: &mut [Option<Bytes>]| {
        let after = number(values[0].as_ref()) + 1;
        values[0] = Some(Bytes::copy_from_slice(&after.to_be_bytes()));
        Ok(after)
    };
    store.update(&["n"], add).await
}

/// Writes until one succeeds; returns how many did not.
async fn back(store: &RedbStore) -> u32 {
    for failures in 0..1000 {
        if add_one(store).await.is_ok() {
            return failures;
        }
        // real clock: the file is reopened at a limited rate.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it is not back: {:?}", store.failure());
}

// real clock: the disk is one.
// catalogue: S-E2
#[tokio::test]
async fn a_store_reports_a_full_disk_and_recovers_once_there_is_room() {
    let rng = Rng::seeded(7);
    let dir = tempfile::tempdir().unwrap();
    let (store, room) = on_a_disk(&dir, Options::default());
    let (mut acknowledged, mut open) = (0, 0);
    for _ in 0..20 {
        // In the middle of a commit, or of reopening the file.
        room.store(rng.draw().random_range(0..25), Ordering::Relaxed);
        loop {
            match add_one(&store).await {
                Ok(after) => {
                    assert!((acknowledged + 1..=acknowledged + open + 1).contains(&after));
                    (acknowledged, open) = (after, 0);
                }
                Err(status) => {
                    assert_eq!(status.code(), Code::Unavailable);
                    open += 1;
                    break;
                }
            }
        }
        for _ in 0..3 {
            assert!(add_one(&store).await.is_err(), "there is no room");
            assert!(store.failure().is_some());
            assert!(
                store.read("n").await.is_err(),
                "a store that cannot write does not serve old values"
            );
            open += 1;
        }
        room.store(i64::MAX, Ordering::Relaxed);
        assert!(back(&store).await < 100);
        assert_eq!(store.failure(), None);
        let now = number(store.read("n").await.unwrap().as_ref());
        assert!((acknowledged + 1..=acknowledged + open + 1).contains(&now));
        (acknowledged, open) = (now, 0);
    }
    drop(store);
    let reopened = super::open(&dir, Options::default());
    assert_eq!(number(reopened.read("n").await.unwrap().as_ref()), acknowledged);
}

// real clock: the disk is one.
// catalogue: S-E5
#[tokio::test]
async fn claims_that_the_disk_did_not_take_block_no_call_and_do_not_count_as_lapsed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, room) = on_a_disk(&dir, Options::default());
    store.claim(b"begun", 1, 1, LEASE).await.unwrap();
    room.store(0, Ordering::Relaxed);
    store.release(b"begun", 1).await.unwrap();
    store.claim(b"not begun", 1, 2, LEASE).await.unwrap_err();
    _ = store.release(b"not begun", 2).await;
    room.store(i64::MAX, Ordering::Relaxed);
    back(&store).await;
    for key in [&b"begun"[..], b"not begun"] {
        let again = store.claim(key, 1, 3, LEASE).await.unwrap();
        assert!(matches!(again, Claim::Granted { lapsed: false }), "{again:?}");
        assert!(store.finish(key, 3, b"answer").await.unwrap());
    }
}

// catalogue: S-E3
#[tokio::test]
async fn a_change_that_panics_fails_its_own_call_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = super::open(&dir, Options::default());
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..60 {
        let store = store.clone();
        calls.spawn(async move {
            if n % 3 > 0 {
                return add_one(&store).await.map(drop).map_err(|status| status.code());
            }
            let panicking = |values: &mut [Option<Bytes>]| -> Result<u32, Status> {
                values[0] = None;
                panic!("a user's")
            };
            store.update(&["n"], panicking).await.map(drop).map_err(|status| status.code())
        });
    }
    let ended = calls.join_all().await;
    assert_eq!(ended.iter().filter(|ended| **ended == Err(Code::Internal)).count(), 20);
    assert_eq!(ended.iter().filter(|ended| ended.is_ok()).count(), 40);
    assert_eq!(add_one(&store).await.unwrap(), 41);
    assert_eq!(store.failure(), None);
}

const VALUES: u32 = 100;

/// A file with many known values and records, closed cleanly or not.
async fn filled(dir: &TempDir, is_closed: bool) -> PathBuf {
    let path = dir.path().join("calls.redb");
    let store = super::open(dir, Options { durable_claims: false, ..Options::default() });
    for n in 0..VALUES {
        let value = n.to_be_bytes().repeat(30);
        let key = format!("value {n}");
        let set = move |values: &mut [Option<Bytes>]| {
            values[0] = Some(value.clone().into());
            Ok(n)
        };
        store.update(&[&key], set).await.unwrap();
        let token = u128::from(n);
        store.claim(key.as_bytes(), token, token, LEASE).await.unwrap();
        assert!(store.finish(key.as_bytes(), token, key.repeat(10).as_bytes()).await.unwrap());
    }
    let killed = dir.path().join("killed.redb");
    fs::copy(&path, &killed).unwrap();
    fs::copy(dir.path().join("calls.redb.last"), dir.path().join("killed.redb.last")).unwrap();
    drop(store);
    if is_closed { path } else { killed }
}

/// Whether all values that can be read are intact.
async fn holds_what_was_written(store: &RedbStore) -> bool {
    for n in 0..VALUES {
        let key = format!("value {n}");
        match store.read(&key).await {
            Ok(Some(value)) if value == n.to_be_bytes().repeat(30) => {}
            Ok(_) => return false,
            Err(status) => assert_eq!(status.code(), Code::DataLoss),
        }
        match store.claim(key.as_bytes(), n.into(), 1000 + u128::from(n), LEASE).await {
            Ok(Claim::Done(record)) if record == key.repeat(10) => {}
            Ok(_) => return false,
            Err(error) => assert_eq!(error.to_string(), DAMAGED),
        }
    }
    true
}

// real clock: the disk is one.
// catalogue: S-E13
#[tokio::test]
async fn a_file_with_flipped_bits_is_refused_or_serves_intact_values() {
    let rng = Rng::seeded(13);
    let (mut refused, mut served) = (0, 0);
    for is_closed in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let path = filled(&dir, is_closed).await;
        let last = path.with_extension("redb.last");
        let (whole, commits) = (fs::read(&path).unwrap(), fs::read(&last).unwrap());
        for flips in [1, 1, 1, 2, 5, 20, 20, 20].repeat(8) {
            let mut bytes = whole.clone();
            for _ in 0..flips {
                let bit = rng.draw().random_range(0..bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            fs::write(&path, &bytes).unwrap();
            fs::write(&last, &commits).unwrap();
            match RedbStore::open(&path, Options::default()) {
                Err(_) => refused += 1,
                Ok(store) => {
                    served += 1;
                    assert!(holds_what_was_written(&store).await, "{is_closed} {flips}");
                }
            }
        }
    }
    assert!(refused > 20 && served > 20, "{refused} {served}");
}

// real clock: the disk is one.
// catalogue: S-E13
#[tokio::test]
async fn a_commit_that_was_torn_is_taken_back_unless_it_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (path, last) = (dir.path().join("calls.redb"), dir.path().join("calls.redb.last"));
    let store = super::open(&dir, Options::default());
    for _ in 0..100 {
        add_one(&store).await.unwrap();
    }
    let (before, unacknowledged) = (fs::read(&path).unwrap(), fs::read(&last).unwrap());
    add_one(&store).await.unwrap();
    let (after, acknowledged) = (fs::read(&path).unwrap(), fs::read(&last).unwrap());
    drop(store);
    // The pages of the last commit are as before it, except the first, which refers to it.
    let torn = [&after[..4096], &before[4096..]].concat();
    let all = [(acknowledged, true), (unacknowledged, false), (b"none".to_vec(), false)];
    for (commits, is_refused) in all {
        fs::write(&path, &torn).unwrap();
        fs::write(&last, &commits).unwrap();
        // The second attempt has the same result.
        for _ in 0..2 {
            let opened = RedbStore::open(&path, Options::default());
            assert_eq!(opened.is_err(), is_refused);
            let Ok(store) = opened else { continue };
            assert_eq!(number(store.read("n").await.unwrap().as_ref()), 100);
        }
    }
}

// real clock: the disk is one.
// catalogue: S-E13
#[tokio::test]
async fn a_file_that_was_emptied_or_removed_while_open_is_not_taken_for_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let (path, last) = (dir.path().join("calls.redb"), dir.path().join("calls.redb.last"));
    let store = super::open(&dir, Options::default());
    add_one(&store).await.unwrap();
    drop(store);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, b"").unwrap();
    for _ in 0..2 {
        let refused = RedbStore::open(&path, Options::default()).unwrap_err().to_string();
        assert!(refused.contains("it has 0 of") && refused.contains(".last"), "{refused}");
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(add_one(&super::open(&dir, Options::default())).await.unwrap(), 2);
    // It is accepted once the file beside it is removed.
    fs::write(&path, b"").unwrap();
    fs::remove_file(&last).unwrap();
    assert_eq!(add_one(&super::open(&dir, Options::default())).await.unwrap(), 1);
    // Removed while open, which is found when it is reopened.
    let (store, room) = on_a_disk(&dir, Options::default());
    fs::remove_file(&path).unwrap();
    room.store(0, Ordering::Relaxed);
    assert!(add_one(&store).await.is_err());
    room.store(i64::MAX, Ordering::Relaxed);
    // real clock: the file is reopened at a limited rate.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(add_one(&store).await.is_err());
    assert!(store.failure().unwrap().contains("emptied or an old one"), "{:?}", store.failure());
}

// real clock: the disk is one.
// catalogue: S-E13
#[tokio::test]
async fn a_file_that_is_damaged_while_it_is_open_serves_what_was_written_or_nothing() {
    let rng = Rng::seeded(14);
    let dir = tempfile::tempdir().unwrap();
    let path = filled(&dir, true).await;
    let whole = fs::read(&path).unwrap();
    for _ in 0..10 {
        fs::write(&path, &whole).unwrap();
        fs::remove_file(path.with_extension("redb.last")).unwrap();
        let store = super::open(&dir, Options::default());
        let mut bytes = fs::read(&path).unwrap();
        for _ in 0..200 {
            let bit = rng.draw().random_range(0..bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        fs::write(&path, &bytes).unwrap();
        for n in 0..VALUES {
            // Or nothing is found, as a page of the tree leads elsewhere.
            if let Ok(Some(value)) = store.read(&format!("value {n}")).await {
                assert_eq!(value, n.to_be_bytes().repeat(30));
            }
        }
    }
}

// real clock: the time is the machine's.
#[tokio::test]
async fn opening_a_file_takes_less_than_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let store = super::open(&dir, Options::default());
    let value = Bytes::from(vec![7; 100_000]);
    for n in 0..200 {
        let value = value.clone();
        let set = move |values: &mut [Option<Bytes>]| {
            values[0] = Some(value.clone());
            Ok(0_u32)
        };
        store.update(&[&format!("value {n}")], set).await.unwrap();
    }
    drop(store);
    let length = fs::metadata(dir.path().join("calls.redb")).unwrap().len();
    let began = tokio::time::Instant::now();
    let store = super::open(&dir, Options::default());
    let opened = tokio::time::Instant::now();
    for _ in 0..100 {
        add_one(&store).await.unwrap();
    }
    let took = tokio::time::Instant::now() - opened;
    println!("{length} bytes are opened in {:?}, a commit takes {:?}", opened - began, took / 100);
    assert!(opened - began < Duration::from_secs(30));
}
