//! The first contact and another first contact: a bundle from another agent, and a server that was set up anew.

use spindle_agent::{Rebootstrap, RebootstrapMode};

use super::x509pop::{proofs, with_certificate};
use super::*;

fn rebootstrap(mode: RebootstrapMode, delay: Duration) -> Rebootstrap {
    Rebootstrap { mode, delay }
}

/// Another server in the place of the rig's, with another authority and other nodes' roots. The agent's files are for it.
async fn set_up_anew(rig: &mut Rig) {
    rig.kill_server();
    rig.fake = Fake::new(true, 3600);
    rig.folder.file("bundle.pem", rig.fake.ca.x509_bundle().to_pem());
    with_certificate(rig);
    rig.fake.put([mine("a")]);
    rig.start_server().await;
}

fn is_from(answer: &X509svidResponse, rig: &Rig) -> bool {
    answer.svids.first().is_some_and(|svid| svid.bundle == rig.fake.ca.x509_bundle().to_der())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_finds_a_server_that_was_set_up_anew_and_its_workloads_keep_their_streams() {
    let mut rig = Rig::new(Fake::new(true, 3600)).await;
    rig.fake.put([mine("a")]);
    let rebootstrap = rebootstrap(RebootstrapMode::Always, Duration::ZERO);
    let agent = start(AgentConfig { rebootstrap, ..with_certificate(&rig) });
    agent.is_ready().await;
    let mut stream = agent.fetch().await.unwrap();
    assert!(is_from(&next(&mut stream).await.unwrap(), &rig));
    set_up_anew(&mut rig).await;
    while !is_from(&next(&mut stream).await.unwrap(), &rig) {}
    assert_eq!(*rig.fake.proofs.borrow(), 1);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wait_for_a_server_that_is_not_trusted_goes_on_after_a_restart() {
    let mut rig = Rig::new(Fake::new(true, 3600)).await;
    rig.fake.put([mine("a")]);
    let day = Duration::from_secs(86_400);
    let config = |rig: &Rig, delay| AgentConfig {
        rebootstrap: rebootstrap(RebootstrapMode::Auto, delay),
        ..with_certificate(rig)
    };
    let agent = start(config(&rig, day));
    agent.is_ready().await;
    set_up_anew(&mut rig).await;
    let kept = rig.folder.join("data/agent-data.json");
    let since = || async {
        loop {
            let text = std::fs::read_to_string(&kept).unwrap();
            if let Some((_, rest)) = text.split_once("\"untrusted_since\": ") {
                return rest.chars().take_while(char::is_ascii_digit).collect::<String>();
            }
            tokio::task::yield_now().await;
        }
    };
    let first = timeout(LONG, since()).await.expect("it is kept");
    agent.stop().await;
    let agent = start(config(&rig, day));
    assert_eq!(timeout(LONG, since()).await.expect("it is still there"), first);
    assert_eq!(*rig.fake.proofs.borrow(), 0, "there is time");
    agent.stop().await;
    let agent = start(config(&rig, Duration::from_secs(0)));
    proofs(&rig, 1).await;
    agent.is_ready().await;
    let text = std::fs::read_to_string(&kept).unwrap();
    assert!(!text.contains("untrusted_since"), "{text}");
    agent.stop().await;
}

/// A file from the day of the installation may know less than the agent has learned since.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_trusted_all_the_time_is_found_again_although_the_file_is_an_old_one() {
    let mut rig = Rig::new(Fake::new(true, 3600)).await;
    rig.fake.put([mine("a")]);
    let rebootstrap = rebootstrap(RebootstrapMode::Always, Duration::ZERO);
    let agent = start(AgentConfig { rebootstrap, ..with_certificate(&rig) });
    agent.is_ready().await;
    let old = spindle_testkit::TestAuthority::new("prod.example", SystemClock.now());
    rig.folder.file("bundle.pem", old.x509_bundle().to_pem());
    rig.kill_server();
    let impostor = Fake::new(true, 3600).listen().await;
    let mut led = rig.gate.led.subscribe();
    let before = *led.borrow_and_update();
    rig.gate.lead_to(Some(impostor.addr));
    timeout(LONG, led.wait_for(|led| *led >= before + 6)).await.expect("it tries again and again").unwrap();
    rig.gate.lead_to(None);
    impostor.kill();
    rig.start_server().await;
    rig.fake.put([mine("b")]);
    let mut stream = agent.fetch().await.unwrap();
    while next(&mut stream).await.unwrap().svids.len() < 2 {}
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_must_bootstrap_again_and_cannot_does_not_run() {
    let rig = Rig::new(Fake::new(true, 3600)).await;
    let always = rebootstrap(RebootstrapMode::Always, Duration::ZERO);
    let error = start(AgentConfig { rebootstrap: always, ..rig.config(Some("good")) }).ends().await;
    assert!(matches!(error, AgentError::CannotRebootstrap), "{error:?}");
    assert!(error.remedy().contains("rebootstrap_mode"), "{}", error.remedy());
    let auto = Rebootstrap { mode: RebootstrapMode::Auto, ..always };
    let agent = start(AgentConfig { rebootstrap: auto, ..rig.config(None) });
    agent.is_ready().await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bundle_of_the_server_may_come_from_another_agent() {
    let rig = Rig::new(Fake::new(true, 3600)).await;
    rig.fake.put([mine("a")]);
    let first = rig.joined().await;
    rig.fake.tokens.lock().unwrap().push("second".into());
    std::fs::remove_file(rig.folder.join("bundle.pem")).unwrap();
    let bootstrap = Bootstrap::WorkloadApi { socket: first.agent.socket_path().to_owned() };
    let config = AgentConfig {
        bootstrap,
        data_dir: rig.folder.join("data2"),
        keys: KeyStorage::Disk { directory: rig.folder.join("data2") },
        socket_path: rig.folder.socket("api2.sock"),
        ..rig.config(Some("second"))
    };
    let second = start(config);
    second.is_ready().await;
    second.stop().await;
    first.stop().await;
}
