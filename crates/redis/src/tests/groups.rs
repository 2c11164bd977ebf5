//! A cluster, and servers with sentinels: their primaries fail, and others are promoted.
//!
//! `CINCHONA_FAILOVERS` sets how often.

use super::{
    between::{Between, Manner, sentinel},
    heal::{SECOND, Stalls, back, methods},
    *,
};
use cinchona_idempotency::{DedupLayer, DedupSettings};
use http_body_util::BodyExt;
use std::{
    convert::Infallible,
    fs,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, atomic::AtomicBool},
};
use tempfile::TempDir;
use tokio::sync::watch;
use tonic::body::Body;
use tower::{Layer, ServiceExt, service_fn};

/// A `redis-server`, or a sentinel, with its own configuration.
struct Process {
    child: Child,
    port: u16,
    dir: TempDir,
}

impl Process {
    fn start(port: u16, lines: &[&str], args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("redis.conf");
        let own = format!("port {port}\nbind 127.0.0.1\ndir {}\n", dir.path().display());
        fs::write(&file, own + &lines.join("\n")).unwrap();
        Self { child: Self::spawn(&dir, args), port, dir }
    }

    fn spawn(dir: &TempDir, args: &[&str]) -> Child {
        let file = dir.path().join("redis.conf");
        let child =
            Command::new("redis-server").arg(&file).args(args).stdout(Stdio::null()).spawn();
        child.expect("redis-server is not installed: apt-get install redis-server")
    }

    /// Restarts it with its configuration, including what was written into it since, and no data.
    fn restart(&mut self) {
        self.kill();
        self.child = Self::spawn(&self.dir, &[]);
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    async fn tell<T: redis::FromRedisValue>(&self, words: &str) -> Option<T> {
        let client = redis::Client::open(self.url()).unwrap();
        let mut words = words.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        command.arg(words.collect::<Vec<_>>());
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        command.query_async(&mut connection).await.ok()
    }

    async fn says(&self, words: &str, part: &str) -> bool {
        self.tell::<String>(words).await.is_some_and(|said| said.contains(part))
    }

    fn kill(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn failovers(mostly: usize) -> usize {
    std::env::var("CINCHONA_FAILOVERS").map_or(mostly, |failovers| failovers.parse().unwrap())
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(Instant::now() - began < 60 * SECOND, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Three primaries, and a replica of the first, which has the slot of the keys.
async fn cluster() -> Vec<Process> {
    let mut nodes = Vec::new();
    for _ in 0..4 {
        let bus = format!("cluster-port {}", free_port());
        let lines = ["save \"\"", "cluster-enabled yes", "cluster-node-timeout 500", &bus];
        nodes.push(Process::start(free_port(), &lines, &[]));
    }
    for node in &nodes {
        until("a node answers", async || node.says("CLUSTER INFO", "cluster_state").await).await;
    }
    let slot: u16 = nodes[0].tell("CLUSTER KEYSLOT {cinchona}:probe").await.unwrap();
    let mut others = (0..16384).filter(|n| *n != slot).collect::<Vec<u16>>();
    let last = others.split_off(8000);
    let all = [&[slot][..], &others, &last];
    for (node, slots) in nodes.iter().zip(all) {
        let slots: Vec<_> = slots.iter().map(u16::to_string).collect();
        let answer = node.tell::<String>(&format!("CLUSTER ADDSLOTS {}", slots.join(" "))).await;
        answer.expect("slots");
    }
    let first: String = nodes[0].tell("CLUSTER MYID").await.unwrap();
    let bus: Vec<u16> = {
        let mut bus = Vec::new();
        for node in &nodes {
            let said: Vec<String> = node.tell("CONFIG GET cluster-port").await.unwrap();
            bus.push(said[1].parse().unwrap());
        }
        bus
    };
    for node in &nodes[1..] {
        let meet = format!("CLUSTER MEET 127.0.0.1 {} {}", nodes[0].port, bus[0]);
        node.tell::<String>(&meet).await.expect("met");
    }
    let replicate = format!("CLUSTER REPLICATE {first}");
    until("a replica", async || nodes[3].tell::<String>(&replicate).await.is_some()).await;
    for node in &nodes {
        until("the cluster is up", async || {
            node.says("CLUSTER INFO", "cluster_state:ok").await
                && node.says("CLUSTER INFO", "cluster_known_nodes:4").await
        })
        .await;
    }
    until("it is in step", async || nodes[3].says("INFO replication", "link_status:up").await)
        .await;
    nodes
}

// real clock: Redis has its own clock.
// catalogue: S-C9
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server"]
async fn a_store_in_a_cluster_conforms_and_goes_on_when_its_primary_is_replaced() {
    let mut nodes = cluster().await;
    let stalls = Stalls::watch();
    let urls: Vec<_> = nodes.iter().map(Process::url).collect();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let number = AtomicU32::new(0);
    // By any node, and in any slot.
    let fresh = || {
        let number = number.fetch_add(1, Ordering::Relaxed);
        let servers = Servers::cluster(&urls[number as usize % 4..][..1]).unwrap();
        let store = RedisStore::at(servers).with_prefix(&format!("law {number}")).unwrap();
        let store = store.with_timeout(10 * SECOND).unwrap();
        async { store }
    };
    conformance::store(fresh).await;
    conformance::state(fresh).await;

    let store = RedisStore::at(Servers::cluster(&urls).unwrap());
    let mut tokens = 0;
    back(&store, &mut tokens).await;
    for _ in 0..failovers(2) {
        // A node votes at most once in two seconds.
        tokio::time::sleep(SECOND * 3 / 2).await;
        // A failover by an operator's command.
        let replica = if nodes[3].says("INFO replication", "role:slave").await {
            &nodes[3]
        } else {
            &nodes[0]
        };
        until("a failover", async || replica.says("CLUSTER FAILOVER", "OK").await).await;
        until("a primary", async || replica.says("INFO replication", "role:master").await).await;
        stalls.take();
        let (after, _) = back(&store, &mut tokens).await;
        assert!(after <= SECOND + stalls.take(), "{after:?}");
        tokens += 1;
        store.claim(format!("key {tokens}").as_bytes(), 1, tokens, LEASE).await.unwrap();
        let (one, other) = (&nodes[0], &nodes[3]);
        until("they are in step", async || {
            one.says("INFO replication", "link_status:up").await
                || other.says("INFO replication", "link_status:up").await
        })
        .await;
    }
    // A failover after a crash.
    let primary = if nodes[0].says("INFO replication", "role:master").await { 0 } else { 3 };
    nodes[primary].kill();
    let heir = &nodes[3 - primary];
    until("the heir has it", async || {
        heir.says("INFO replication", "role:master").await
            && heir.says("CLUSTER INFO", "cluster_state:ok").await
    })
    .await;
    stalls.take();
    let (after, _) = back(&store, &mut tokens).await;
    assert!(after <= SECOND + stalls.take(), "{after:?}");
}

// real clock: Redis has its own clock.
// catalogue: S-C9
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server"]
async fn a_store_goes_on_while_its_slot_is_moved() {
    let nodes = cluster().await;
    let store = RedisStore::at(Servers::cluster(&[&nodes[2].url()]).unwrap());
    let store = store.with_timeout(SECOND).unwrap();
    let mut tokens = 0;
    back(&store, &mut tokens).await;
    store.claim(b"before", 1, 7000, LEASE).await.unwrap();
    assert!(store.finish(b"before", 7000, b"answer").await.unwrap());
    let (from, to) = (&nodes[0], &nodes[1]);
    let slot: u16 = from.tell("CLUSTER KEYSLOT {cinchona}:probe").await.unwrap();
    let ids = [from.tell::<String>("CLUSTER MYID").await, to.tell("CLUSTER MYID").await];
    let [left, right] = ids.map(Option::unwrap);
    let importing = format!("CLUSTER SETSLOT {slot} IMPORTING {left}");
    let migrating = format!("CLUSTER SETSLOT {slot} MIGRATING {right}");
    to.tell::<String>(&importing).await.unwrap();
    from.tell::<String>(&migrating).await.unwrap();
    let check = async |phase: u128| {
        for n in 0..5 {
            let (key, token) = (format!("{phase} {n}"), 8000 + 10 * phase + n);
            let claim = store.claim(key.as_bytes(), 1, token, LEASE).await.unwrap();
            assert!(matches!(claim, Claim::Granted { lapsed: false }), "{phase}: {claim:?}");
            assert!(store.finish(key.as_bytes(), token, b"answer").await.unwrap());
        }
        for key in [format!("{phase} 0"), "before".into()] {
            let again = store.claim(key.as_bytes(), 1, 9000 + phase, LEASE).await.unwrap();
            assert!(matches!(again, Claim::Done(_)), "{phase}: {again:?}");
        }
        let grown = store.update(&[&format!("n {phase}")], |_| Ok(1_u32)).await;
        assert_eq!(grown.unwrap(), 1);
    };
    check(1).await;
    let keys: Vec<String> = from.tell(&format!("CLUSTER GETKEYSINSLOT {slot} 1000")).await.unwrap();
    for key in keys {
        let client = redis::Client::open(from.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut migrate = redis::cmd("MIGRATE");
        migrate.arg("127.0.0.1").arg(to.port).arg(key).arg(0).arg(5000);
        let () = migrate.query_async(&mut connection).await.unwrap();
    }
    check(2).await;
    let assign = format!("CLUSTER SETSLOT {slot} NODE {right}");
    to.tell::<String>(&assign).await.unwrap();
    // The others may know it by then.
    for node in [from, &nodes[2]] {
        _ = node.tell::<String>(&assign).await;
    }
    check(3).await;
}

/// A primary, a replica, and three sentinels.
async fn watched() -> (Vec<Process>, Vec<Process>) {
    let lines = ["save \"\"", "repl-diskless-sync-delay 0"];
    let primary = Process::start(free_port(), &lines, &[]);
    let of = format!("replicaof 127.0.0.1 {}", primary.port);
    let replica = Process::start(free_port(), &[lines[0], lines[1], &of], &[]);
    let servers = vec![primary, replica];
    until("in step", async || servers[1].says("INFO replication", "link_status:up").await).await;
    let mut sentinels = Vec::new();
    for _ in 0..3 {
        let monitor = format!("sentinel monitor Payments 127.0.0.1 {} 2", servers[0].port);
        let lines = [
            &monitor[..],
            "sentinel down-after-milliseconds Payments 500",
            "sentinel failover-timeout Payments 2000",
        ];
        sentinels.push(Process::start(free_port(), &lines, &["--sentinel"]));
    }
    for sentinel in &sentinels {
        until("they know each other", async || {
            sentinel.says("INFO sentinel", "slaves=1,sentinels=3").await
        })
        .await;
    }
    (servers, sentinels)
}

/// What servers say of their replication, and sentinels of both.
async fn said(servers: &[Process], sentinels: &[Process]) -> Vec<String> {
    let mut all = Vec::new();
    for server in servers {
        let said: Option<String> = server.tell("INFO replication").await;
        all.push(format!("{}: {said:?}", server.port));
    }
    for sentinel in sentinels {
        for words in ["SENTINEL MASTER Payments", "SENTINEL REPLICAS Payments"] {
            all.push(format!("{:?}", sentinel.tell::<redis::Value>(words).await));
        }
    }
    all
}

/// The port of the primary that a sentinel names.
async fn named(sentinel: &Process) -> Option<u16> {
    let named: Option<Vec<String>> =
        sentinel.tell("SENTINEL get-master-addr-by-name Payments").await;
    named?[1].parse().ok()
}

/// When the sentinel names another primary, from now on.
fn switches(sentinel: &Process) -> Arc<Mutex<Vec<Instant>>> {
    let (client, switched) = (redis::Client::open(sentinel.url()).unwrap(), Arc::default());
    let seen: Arc<Mutex<Vec<_>>> = Arc::clone(&switched);
    tokio::spawn(async move {
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("get-master-addr-by-name").arg("Payments");
        let mut last = None;
        loop {
            let named: (String, u16) = ask.query_async(&mut connection).await?;
            if last.replace(named.clone()).is_some_and(|last| last != named) {
                seen.lock().unwrap().push(Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        #[expect(unreachable_code, reason = "names the type of the error")]
        redis::RedisResult::Ok(())
    });
    switched
}

/// Whether a call was acknowledged while sentinels replaced a primary that was alive: until it is
/// left, which takes some 1.3 s, it acknowledges what it loses.
fn replaced_alive(at: Instant, killed: &[(Instant, Duration)], switched: &[Instant]) -> bool {
    // The first after each kill is of the one that was killed.
    let of_kills = killed.iter().map(|(kill, _)| switched.iter().find(|switch| *switch > kill));
    let of_kills: Vec<_> = of_kills.flatten().collect();
    let mut alive = switched.iter().filter(|switch| !of_kills.contains(switch));
    alive.any(|switch| at + 2 * SECOND > *switch && at < *switch + 3 * SECOND)
}

/// Makes calls one after the other, each until it is answered; returns when each was acknowledged.
async fn calls(
    dedup: DedupLayer<RedisStore>,
    store: RedisStore,
    n: u32,
    stop: Arc<AtomicBool>,
) -> Vec<Instant> {
    let mut acknowledged = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let call = acknowledged.len();
        loop {
            let (store, page) = (store.clone(), format!("log {n} {}", call / 500));
            let service = service_fn(move |_: http::Request<Body>| {
                let (store, page) = (store.clone(), page.clone());
                async move {
                    let append = move |values: &mut [Option<Bytes>]| {
                        let before = values[0].as_deref().unwrap_or_default();
                        values[0] = Some([before, format!("{call} ").as_bytes()].concat().into());
                        Ok(0_u32)
                    };
                    let status = store.update(&[&page], append).await.err();
                    let status = status.unwrap_or_else(|| Status::ok(""));
                    Ok::<_, Infallible>(status.into_http::<Body>())
                }
            });
            let request =
                http::Request::post("/Bank/Pay").header("idempotency-key", format!("{n} {call}"));
            let answer = dedup.layer(service).oneshot(request.body(Body::empty()).unwrap());
            let (head, body) = answer.await.unwrap().into_parts();
            // A replayed answer has its status in its trailers.
            let trailers = body.collect().await.unwrap().trailers().cloned().unwrap_or_default();
            let said = |headers: &http::HeaderMap| headers.get("grpc-status").cloned();
            if said(&head.headers).or_else(|| said(&trailers)).is_some_and(|code| code == "0") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        acknowledged.push(Instant::now());
        // So that a replica that begins anew catches up, whatever the machine.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    acknowledged
}

// real clock: Redis has its own clock.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server"]
async fn a_primary_that_answers_is_left_once_most_sentinels_name_another() {
    let (old, new) = (Redis::start().await, Redis::start().await);
    let ports = [&old, &new].map(|redis| redis.addr().port());
    let names = [(); 3].map(|()| watch::Sender::new(ports[0]));
    let mut urls = Vec::new();
    for name in &names {
        urls.push(sentinel(name.subscribe()).await);
    }
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let store = RedisStore::at(Servers::sentinel("redis://payments", &urls).unwrap());
    let mut tokens = 0;
    back(&store, &mut tokens).await;
    let on_old = RedisStore::new(&old.url()).unwrap();
    let token = AtomicU32::new(9_000);
    let is_on_old = async || {
        let token = u128::from(token.fetch_add(2, Ordering::Relaxed));
        let key = format!("key {token}");
        store.claim(key.as_bytes(), 1, token, LEASE).await.unwrap();
        let again = on_old.claim(key.as_bytes(), 1, token + 1, LEASE).await.unwrap();
        !matches!(again, Claim::Granted { .. })
    };
    // One sentinel may be wrong.
    names[0].send_replace(ports[1]);
    tokio::time::sleep(3 * SECOND).await;
    assert!(is_on_old().await, "it is left because of one sentinel");
    names[1].send_replace(ports[1]);
    let began = Instant::now();
    until("the other is used", async || !is_on_old().await).await;
    assert!(Instant::now() - began < 5 * SECOND);
}

// real clock: Redis has its own clock.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server"]
async fn sentinels_that_hang_hide_no_connection_that_fails() {
    let (redis, stalls) = (Redis::start().await, Stalls::watch());
    let between = Between::new(redis.addr()).await;
    let name = watch::Sender::new(between.addr.port());
    let hangs = format!("redis://{}", repeating(true).await);
    let good = sentinel(name.subscribe()).await;
    let urls = [&good[..], &hangs, &hangs];
    let store = RedisStore::at(Servers::sentinel("redis://payments", &urls).unwrap());
    let mut tokens = 0;
    back(&store, &mut tokens).await;
    // Whether they are being asked, or not.
    for wait in [950, 1050, 1150, 1200] {
        tokio::time::sleep(Duration::from_millis(wait)).await;
        stalls.take();
        between.spoil(&Manner::Silent);
        let (after, _) = back(&store, &mut tokens).await;
        assert!(after <= SECOND + stalls.take(), "{after:?}");
    }
}

// real clock: Redis has its own clock.
// catalogue: S-C9
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server"]
async fn effects_happen_once_or_are_lost_as_replication_implies_when_sentinels_replace_a_primary() {
    let (mut servers, sentinels) = watched().await;
    let stalls = Stalls::watch();
    let urls: Vec<_> = sentinels.iter().map(Process::url).collect();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    // A sentinel that is down is no obstacle.
    let known = [&["redis://127.0.0.1:1"], &urls[..]].concat();
    let store = RedisStore::at(Servers::sentinel("redis://Payments/0", &known).unwrap());
    // Longer than a call is repeated: a replica that begins anew copies all records.
    let store = store.with_ttl(60 * SECOND).unwrap();
    let mut tokens = 0;
    back(&store, &mut tokens).await;
    let dedup = DedupSettings::new(methods())
        .with_guarantee(cinchona_idempotency::Guarantee::AtLeastOnce)
        .layer(store.clone());
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..4 {
        let (dedup, store, stop) = (dedup.clone(), store.clone(), stop.clone());
        clients.spawn(async move { (n, calls(dedup, store, n, stop).await) });
    }
    let switched = switches(&sentinels[0]);
    let (mut killed, mut slowest) = (Vec::new(), Duration::ZERO);
    let rounds = failovers(1);
    for round in 0..rounds {
        // Sentinels fail over at most once in twice the failover timeout.
        tokio::time::sleep(if round == 0 { SECOND } else { 4 * SECOND }).await;
        // They may have failed over meanwhile by themselves: a machine that is busy for half a
        // second looks dead to them.
        let mut primary = 0;
        until("a primary with a replica", async || {
            let Some(port) = named(&sentinels[0]).await else { return false };
            primary = servers.iter().position(|server| server.port == port).unwrap_or_default();
            servers[primary].says("INFO replication", "connected_slaves:1").await
                && servers[1 - primary].says("INFO replication", "master_link_status:up").await
        })
        .await;
        let heir = servers[1 - primary].port;
        // What was acknowledged for so long has reached the replica.
        killed.push((Instant::now(), SECOND + stalls.take()));
        servers[primary].kill();
        until("a sentinel names the heir", async || named(&sentinels[0]).await == Some(heir)).await;
        stalls.take();
        let Ok((after, _)) = tokio::time::timeout(10 * SECOND, back(&store, &mut tokens)).await
        else {
            let why = store.claim(b"why", 1, tokens, LEASE).await;
            panic!("{round}: {why:?}: {:#?}", said(&servers, &sentinels).await);
        };
        assert!(after <= SECOND + stalls.take(), "{after:?}");
        slowest = slowest.max(after);
        if round + 1 == rounds {
            break;
        }
        servers[primary].restart();
        let replica = &servers[primary];
        let follow = format!("REPLICAOF 127.0.0.1 {heir}");
        until("it follows the heir", async || replica.tell::<String>(&follow).await.is_some())
            .await;
        let in_step = until("it has caught up", async || {
            replica.says("INFO replication", "master_link_status:up").await
        });
        if tokio::time::timeout(50 * SECOND, in_step).await.is_err() {
            panic!("{round} has not caught up: {:#?}", said(&servers, &sentinels).await);
        }
    }
    tokio::time::sleep(SECOND).await;
    stop.store(true, Ordering::Relaxed);
    let switched = switched.lock().unwrap().clone();
    let store = store.with_timeout(10 * SECOND).unwrap();
    let mut lost = 0;
    for (n, acknowledged) in clients.join_all().await {
        assert!(acknowledged.last() > killed.last().map(|(at, _)| at), "calls go on");
        for (page, times) in acknowledged.chunks(500).enumerate() {
            let text = store.read(&format!("log {n} {page}")).await.unwrap().unwrap_or_default();
            let text = String::from_utf8(text.to_vec()).unwrap();
            for (call, at) in times.iter().enumerate() {
                let call = (page * 500 + call).to_string();
                let found = text.split_whitespace().filter(|found| *found == call).count();
                assert!(found <= 1, "call {call} of {n} happened {found} times");
                if found == 0 {
                    lost += 1;
                    let next = killed.iter().find(|(killed, _)| at < killed);
                    let before = next.map(|(killed, lag)| (*killed - *at, *lag));
                    let lagged = before.is_some_and(|(before, lag)| before < lag)
                        || replaced_alive(*at, &killed, &switched);
                    let later = text.split_whitespace().last();
                    let lost = format!("call {call} of {n}, {before:?} before; last: {later:?}");
                    assert!(lagged, "more is lost than lagged: {lost}");
                }
            }
        }
    }
    println!("{lost} acknowledged calls were lost; service was back in {slowest:?} at most");
}

#[test]
fn servers_are_refused_by_their_wrong_part_and_one_domain_is_made_of_all() {
    let field = |refused: Result<Servers, Invalid>| refused.unwrap_err().field();
    assert_eq!(field(Servers::cluster(&[])), "urls");
    assert_eq!(field(Servers::cluster(&["redis://a/1"])), "urls");
    assert_eq!(field(Servers::cluster(&["redis://a", "mark"])), "url");
    assert_eq!(field(Servers::sentinel("redis://name", &[])), "urls");
    assert_eq!(field(Servers::sentinel("unix:///run/redis.sock", &["redis://s"])), "url");
    let domain = |servers: Result<Servers, Invalid>| {
        let domain = RedisStore::at(servers.unwrap()).domain().unwrap();
        assert!(!domain.contains("mark") && domain.is_ascii());
        domain
    };
    let cluster = |urls: &[&str]| domain(Servers::cluster(urls));
    let sentinel = |url: &str, urls: &[&str]| domain(Servers::sentinel(url, urls));
    let one = cluster(&["redis://mark", "redis://b:7000"]);
    assert_eq!(cluster(&["redis://:mark@B:7000/0", "redis://MARK:6379", "redis://mark."]), one);
    assert_ne!(cluster(&["redis://mark"]), one);
    assert_ne!(domain(Servers::one("redis://mark")), cluster(&["redis://mark"]));
    let watched = sentinel("redis://name", &["redis://s", "redis://t:26379"]);
    let same = sentinel("redis://u:mark@name/0", &["redis://T.", "redis://:mark@S:26379"]);
    assert_eq!(watched, same);
    for (url, urls) in [
        ("redis://other", ["redis://s", "redis://t"]),
        ("redis://name/1", ["redis://s", "redis://t"]),
        ("redis://name", ["redis://s", "redis://t:6379"]),
    ] {
        assert_ne!(sentinel(url, &urls), watched);
    }
    let shown = format!("{:?}", Servers::sentinel("redis://:mark@mark", &["redis://mark"]));
    assert!(!shown.contains("mark"), "{shown}");
}
