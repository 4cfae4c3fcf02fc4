//! The load: a closed loop that asks again as soon as it is answered, and an open loop that asks on schedule whether it is answered or
//! not. Every answer is compared byte for byte; one wrong answer ends the run. One thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinSet, LocalSet};

use super::mock::SESSION;
use super::wire::{Connection, Length};
use super::work::{self, Era, INITIALIZE, INITIALIZED, Template, Work};

/// How requests are paced.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Pace {
    /// As soon as the answer before is there.
    Closed,
    /// This many per second.
    Open(u32),
}

/// One window of load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Window {
    pub work: Work,
    pub connections: usize,
    pub seconds: f64,
    pub pace: Pace,
}

/// What a window came to. Times in microseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub answers: u64,
    pub seconds: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub most: f64,
}

/// What all connections of a window share.
struct Shared {
    histogram: RefCell<Histogram<u64>>,
    /// Moments that requests were due at and have not been sent at.
    due: RefCell<VecDeque<Instant>>,
    news: Notify,
    end: Instant,
    pace: Pace,
}

/// Runs one window to its end.
pub async fn run(window: Window) -> anyhow::Result<Outcome> {
    run_telling(window, watch::Sender::new(0)).await
}

/// As [`run`], telling on the way how many requests of an open loop have fallen due.
pub async fn run_telling(window: Window, told: watch::Sender<u32>) -> anyhow::Result<Outcome> {
    LocalSet::new().run_until(drive(window, told)).await
}

async fn drive(window: Window, told: watch::Sender<u32>) -> anyhow::Result<Outcome> {
    let mut clients = Vec::new();
    for number in 0..window.connections {
        clients.push(Client::open(&window.work, number).await?);
    }
    let began = Instant::now();
    let shared = Rc::new(Shared {
        histogram: RefCell::new(Histogram::new_with_bounds(1, 120_000_000_000, 3)?),
        due: RefCell::default(),
        news: Notify::new(),
        end: began + Duration::from_secs_f64(window.seconds),
        pace: window.pace,
    });
    let mut tasks = JoinSet::new();
    for client in clients {
        tasks.spawn_local(client.work(shared.clone()));
    }
    if let Pace::Open(rate) = window.pace {
        tasks.spawn_local(schedule(rate, began, shared.clone(), told));
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let histogram = shared.histogram.borrow();
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Outcome {
        answers: histogram.len(),
        seconds: began.elapsed().as_secs_f64(),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        most: histogram.max() as f64 / 1e3,
    })
}

/// Says when requests are due; never waits for an answer. A timer of the kernel, because tokio's are rounded to milliseconds.
async fn schedule(rate: u32, began: Instant, shared: Rc<Shared>, told: watch::Sender<u32>) -> anyhow::Result<()> {
    let interval = Duration::from_secs(1) / rate.max(1);
    let timer = AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?)?;
    let spec = Timespec { tv_sec: 0, tv_nsec: i64::from(interval.subsec_nanos().max(1)) };
    timerfd_settime(timer.get_ref(), TimerfdTimerFlags::empty(), &Itimerspec { it_interval: spec, it_value: spec })?;
    let mut next = began;
    while next < shared.end {
        timer.readable().await?.clear_ready();
        // How often it went off is not needed: the schedule is counted from the beginning.
        let _times = rustix::io::read(timer.get_ref(), &mut [0; 8]);
        let now = Instant::now();
        while next <= now && next < shared.end {
            shared.due.borrow_mut().push_back(next);
            shared.news.notify_one();
            told.send_modify(|count| *count += 1);
            next += interval;
        }
    }
    shared.news.notify_waiters();
    Ok(())
}

/// One connection of the load.
struct Client {
    connection: Connection,
    requests: Vec<Template>,
    answer: Template,
    body: Vec<u8>,
    /// Whether an answer is a stream, with the result as its last event.
    streamed: bool,
    next: u32,
}

impl Client {
    async fn open(work: &Work, number: usize) -> anyhow::Result<Self> {
        let mut connection = Connection::open(&work.address).await?;
        let session = match work.era {
            Era::Modern => None,
            Era::Legacy => Some(initialize(&mut connection, work).await?),
        };
        Ok(Self {
            connection,
            requests: work.requests(session.as_deref()),
            answer: work.answer(),
            body: Vec::new(),
            streamed: work.tool == "progress",
            next: u32::try_from(number)? * 1_000_003,
        })
    }

    async fn work(mut self, shared: Rc<Shared>) -> anyhow::Result<()> {
        loop {
            let from = match shared.pace {
                Pace::Closed => Instant::now(),
                Pace::Open(_) => match due(&shared).await {
                    Some(moment) => moment,
                    None => return Ok(()),
                },
            };
            if matches!(shared.pace, Pace::Closed) && from >= shared.end {
                return Ok(());
            }
            self.call().await?;
            let nanoseconds = u64::try_from(from.elapsed().as_nanos())?.max(1);
            shared.histogram.borrow_mut().record(nanoseconds)?;
        }
    }

    /// Asks and checks.
    async fn call(&mut self) -> anyhow::Result<()> {
        let id = self.next % 90_000_000;
        self.next = self.next.wrapping_add(1) % 90_000_000;
        let turn = id as usize % self.requests.len();
        self.connection.tcp.write_all(self.requests[turn].with(id)).await?;
        let head = self.connection.head().await?;
        if head.status != 200 {
            self.connection.body(head.length, &mut self.body).await?;
            bail!("status {}: {}", head.status, String::from_utf8_lossy(&self.body));
        }
        let expected = self.answer.with(id);
        if let (Length::Bytes(count), false) = (head.length, self.streamed) {
            return same(self.connection.take(count).await?, expected);
        }
        self.connection.body(head.length, &mut self.body).await?;
        if self.streamed { same_stream(&self.body, expected) } else { same(&self.body, expected) }
    }
}

/// The moment that the next request was due at; none: the window is over and everything due was sent.
async fn due(shared: &Shared) -> Option<Instant> {
    loop {
        let news = shared.news.notified();
        if let Some(moment) = shared.due.borrow_mut().pop_front() {
            return Some(moment);
        }
        if Instant::now() >= shared.end {
            return None;
        }
        let left = shared.end.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        // Its end only means that there is nothing more.
        let _over = tokio::time::timeout(left, news).await;
    }
}

fn same(found: &[u8], expected: &[u8]) -> anyhow::Result<()> {
    if found == expected {
        return Ok(());
    }
    bail!("a wrong answer: {}\nexpected:       {}", String::from_utf8_lossy(found), String::from_utf8_lossy(expected));
}

/// Ten notifications in order, and the result.
fn same_stream(found: &[u8], expected: &[u8]) -> anyhow::Result<()> {
    let text = std::str::from_utf8(found)?;
    let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim_start).collect();
    anyhow::ensure!(data.len() == 11, "a stream of {} events: {text}", data.len());
    for (number, event) in (1..).zip(&data[..10]) {
        same(event.as_bytes(), work::progress(number).as_bytes())?;
    }
    same(data[10].as_bytes(), expected)
}

/// Opens a legacy session, as every SDK does.
pub(super) async fn initialize(connection: &mut Connection, work: &Work) -> anyhow::Result<String> {
    let authorization = work::authorization(work.tokens.first().map(String::as_str));
    connection.tcp.write_all(&work::post(work, &authorization, INITIALIZE)).await?;
    let head = connection.head().await?;
    let mut body = Vec::new();
    connection.body(head.length, &mut body).await?;
    anyhow::ensure!(head.status == 200, "initialize: status {}: {}", head.status, String::from_utf8_lossy(&body));
    let session = head.session.with_context(|| format!("no session (the mock's is {SESSION})"))?;
    let headers = format!("{authorization}mcp-protocol-version: 2025-11-25\r\nmcp-session-id: {session}\r\n");
    connection.tcp.write_all(&work::post(work, &headers, INITIALIZED)).await?;
    let head = connection.head().await?;
    connection.body(head.length, &mut body).await?;
    anyhow::ensure!(head.status == 202, "initialized: status {}: {}", head.status, String::from_utf8_lossy(&body));
    Ok(session)
}
