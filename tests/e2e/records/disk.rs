//! The disk of the spool: full, torn, bit-flipped. What had to be refused was refused, what had to be kept is there, what was damaged is named.

use std::path::{Path, PathBuf};
use std::process::Command;

use mcpgw_controlplane::config::Config;
use mcpgw_controlplane::testing;
use secrecy::ExposeSecret as _;
use sqlx::{Connection as _, PgConnection};

use super::traffic::Traffic;
use super::{Scene, records};

/// Of each kind. As many refusals may be on their way when they stop.
const CLIENTS: usize = 4;

/// A file system in memory, mounted over a directory until it is dropped.
struct Small(PathBuf);

impl Small {
    /// Panics where nothing may be mounted.
    fn over(directory: &Path, bytes: u32) -> Self {
        std::fs::create_dir_all(directory).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(directory).status();
        assert!(mounted.unwrap().success(), "this test mounts a tmpfs: it has to run as root, with CAP_SYS_ADMIN");
        Self(directory.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status(); // a mount that stays harms nothing but tidiness
    }
}

/// How many records are missing, as the node says.
async fn missing(config: &Config) -> usize {
    let mut sql = PgConnection::connect(config.database_url.expose_secret()).await.unwrap();
    let sum = "SELECT coalesce(sum(access + audit), 0)::bigint FROM record_gaps";
    let sum: i64 = sqlx::query_scalar(sum).fetch_one(&mut sql).await.unwrap();
    sum.try_into().unwrap()
}

/// Every segment of the spool, oldest first within its lane.
fn segments(state_dir: &Path) -> Vec<PathBuf> {
    let below = |directory: &Path| {
        let mut found: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        found.sort();
        found.into_iter()
    };
    let boots = below(&state_dir.join("spool")).filter(|path| path.is_dir());
    let lanes = boots.flat_map(|boot| below(&boot)).filter(|path| path.is_dir());
    lanes.flat_map(|lane| below(&lane)).filter(|path| path.extension().is_some_and(|kind| kind == "seg")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_calls_until_there_is_room_and_keeps_every_record_of_an_answer() {
    let mut scene = Scene::on(testing::config(&testing::database().await)).await;
    scene.node.kill().await.unwrap();
    let _small = Small::over(&scene.node.state_dir().join("spool"), 1 << 20);
    scene.node.again().await.unwrap();
    let config = scene.deprive().await;

    let mut traffic = Traffic::start(&scene.client(), CLIENTS, CLIENTS);
    // A lane may find no room while another one has some.
    traffic.until(|traffic| traffic.refused >= 50 && traffic.whole.len() > 50).await;
    let answered = traffic.whole.len();
    scene.restore(config).await;
    // The same process goes on as soon as its records are taken.
    traffic.until(|traffic| traffic.whole.len() >= answered + 200).await;
    let traffic = traffic.stop().await;
    scene.shipped().await;
    let records = records(&scene.config()).await;
    let lost: Vec<_> = traffic.whole.iter().filter(|id| !records.get(*id).is_some_and(|ended| *ended)).collect();
    assert_eq!(lost, Vec::<&String>::new(), "no answer left without its record");
    let missing = missing(&scene.config()).await;
    let unseen =
        missing.checked_sub(traffic.refused).expect("each call that was refused for want of a record is told to be missing");
    assert!(unseen <= 2 * CLIENTS, "{missing} are told to be missing, {} were refused", traffic.refused);
    println!("{} answers, {} refusals, {} records", traffic.whole.len(), traffic.refused, records.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_segment_loses_nothing_and_a_flipped_bit_loses_what_it_hit_and_is_named() {
    let mut scene = Scene::on(testing::config(&testing::database().await)).await;
    let config = scene.deprive().await;
    let mut traffic = Traffic::start(&scene.client(), 4, 0);
    traffic.until(|traffic| traffic.whole.len() >= 100).await;
    let traffic = traffic.stop().await;
    scene.node.kill().await.unwrap();

    let segments = segments(&scene.node.state_dir());
    let mut contents: Vec<Vec<u8>> = segments.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let find = |content: &[u8], id: &str| content.windows(id.len()).position(|window| window == id.as_bytes());
    // One in the middle: good frames before it and behind it.
    let hit = traffic.whole.iter().nth(traffic.whole.len() / 2).unwrap();
    let (segment, place) =
        contents.iter().enumerate().find_map(|(at, content)| Some((at, find(content, hit)?))).expect("the call is in the spool");
    contents[segment][place + 3] ^= 1;
    // As if the machine had died in the middle of a write: half of the first frame again, at the end.
    for content in &mut contents {
        let half = content[..content.len().min(200)].to_vec();
        content.extend_from_slice(&half);
    }
    for (path, content) in segments.iter().zip(&contents) {
        std::fs::write(path, content).unwrap();
    }

    scene.node.again().await.unwrap();
    scene.restore(config).await;
    scene.shipped().await;
    let records = records(&scene.config()).await;
    let lost: Vec<_> = traffic.whole.iter().filter(|id| !records.get(*id).is_some_and(|ended| *ended)).collect();
    let log = scene.node.log().unwrap();
    assert!(lost.is_empty() || lost == [hit], "only {hit} is missing: {lost:?}\n{log}");
    let name = segments[segment].file_name().unwrap().to_str().unwrap();
    assert!(log.lines().any(|line| line.contains(name) && line.contains("damaged")), "the damaged segment is named:\n{log}");
    let kept: Vec<_> = std::fs::read_dir(scene.node.state_dir().join("spool/quarantine")).unwrap().collect();
    assert_eq!(kept.len(), 1, "and kept for people to look at");
}
