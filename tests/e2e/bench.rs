//! The benchmark at a size that fits a test: the load tells the truth about latencies, the mock answers in both eras, and every anchor
//! answers right. Figures are not judged here.

use mcpgw_tests::bench::load::{self, Pace, Window};
use mcpgw_tests::bench::work::{Era, Work};
use mcpgw_tests::bench::{self, mock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

fn work(address: String) -> Work {
    Work { address, path: "/mcp".into(), era: Era::Modern, tokens: Vec::new(), tool: "echo".into(), across: false }
}

#[tokio::test]
async fn the_mock_answers_calls_and_streams_of_both_eras() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let modern = work(listener.local_addr().unwrap().to_string());
    let mut tasks = JoinSet::new();
    tasks.spawn(mock::serve(listener));
    let legacy = modern.legacy();
    for work in [modern.of("progress"), legacy.of("progress"), modern, legacy] {
        let era = work.era;
        let outcome = load::run(Window { work, connections: 3, seconds: 0.05, pace: Pace::Closed }).await.unwrap();
        assert!(outcome.answers > 0, "{era:?}");
    }
}

/// The first answer waits until so many requests are due: an event, whatever the clock says.
#[tokio::test]
async fn latency_counts_from_when_a_request_was_due_not_from_when_it_could_be_sent() {
    const RATE: u32 = 1000;
    const HELD: u32 = 200;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let upstream = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(mock::serve(listener));
    let front = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let work = work(front.local_addr().unwrap().to_string());
    let (told, mut due) = watch::channel(0);
    tasks.spawn(async move {
        let (mut near, _) = front.accept().await?;
        let mut far = TcpStream::connect(upstream).await?;
        let mut first = vec![0; 64 * 1024];
        let read = near.read(&mut first).await?;
        due.wait_for(|due| *due > HELD).await?;
        far.write_all(&first[..read]).await?;
        tokio::io::copy_bidirectional(&mut near, &mut far).await?;
        Ok(())
    });
    let window = Window { work, connections: 1, seconds: 0.3, pace: Pace::Open(RATE) };
    let outcome = load::run_telling(window, told).await.unwrap();
    assert_eq!(outcome.answers, 300, "everything that was due was asked, late or not");
    // By the schedule the first answer is 200 ms late, and those that fell due meanwhile waited too. A load that counts from the
    // sending would have one late answer of 300, and a median without any trace of it.
    assert!(outcome.most >= 200_000.0, "{outcome:?}");
    assert!(outcome.p50 >= 1_000.0, "half of the requests fell due during the stall: {outcome:?}");
}

/// Load and mock are programs of their own here as in a run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_anchor_answers_right() {
    let report = bench::smoke(env!("CARGO_BIN_EXE_mcpgw-bench").into()).await.unwrap();
    let measured: Vec<_> = report.samples.iter().map(|sample| (sample.anchor, &*sample.load)).collect();
    for anchor in ["direct", "nginx", "off", "on"] {
        for load in ["c=2", "200/s", "sse", "modern", "legacy"] {
            assert!(measured.contains(&(anchor, load)), "{anchor} at {load}: {measured:?}");
        }
    }
    for (anchor, load) in [("off", "to-legacy"), ("on", "to-legacy"), ("off", "to-modern"), ("on", "to-modern")] {
        assert!(measured.contains(&(anchor, load)), "{anchor} at {load}: {measured:?}");
    }
    assert_eq!(report.streams.len(), 7, "two kinds of clients through nginx, five through a node");
    let shipped = report.memory.iter().find(|memory| memory.anchor == "on").unwrap().shipped;
    assert!(shipped > 0, "audit records reach the sink");
    let ingested = report.ingested.as_ref().unwrap();
    assert!(ingested.rows > 0, "{ingested:?}");
    assert!(report.table().contains("x nginx"));
}
