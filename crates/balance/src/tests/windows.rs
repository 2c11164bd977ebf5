//! A slow reader slows only itself.

use super::*;

// catalogue: S-F6
#[tokio::test(start_paused = true)]
async fn unread_streams_do_not_stop_others() {
    for count in [4, 50] {
        let large = encode(&vec![0_u8; 3 * 1024 * 1024]);
        let mut script = vec![Answer::MessageThenHang(large); count];
        script.push(ok());
        let network = Network::new();
        let server = ScriptedServer::new(script);
        let _serving = network.serve_service(server.clone());
        let options = Options::default();
        let balance = Balance::with_connector(vec![target(0)], network.connector(), options);
        let balance = balance.unwrap();
        let mut unread = Vec::new();
        for _ in 0..count {
            unread.push(balance.clone().oneshot(request()).await.unwrap());
        }
        sleep(SECOND).await;
        assert_eq!(timeout(MS, call(&balance)).await, Ok(Code::Ok), "{count}");
        assert_eq!(network.connects(), 1, "over one connection");
    }
}
