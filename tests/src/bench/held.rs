//! What an idle stream costs: so many of them through a proxy that has just been started, what each takes in memory, and how long
//! something that is said to all of them is on its way.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};

use super::anchors::Anchor;
use super::hold::{Arrived, Holding, Kind};
use super::process::{AROUND, Measured, Rig};
use super::report::{Spoken, Streams};
use super::setup::Duty;
use super::{NODES, Options, progress};

/// Messages to all streams; what is told of them is the median.
const SAID: usize = 20;
/// Streams before those that are measured, as a share of them: what is allocated once is allocated with these.
const WARM_UP: usize = 10;
/// Memory counts once it has not moved for so long: allocators give back what is free after a while.
const STEADY: Duration = Duration::from_millis(1500);
/// How much it may move meanwhile.
const MOVES: u64 = 64 << 10;
/// How often it is looked at until then, at most.
const LOOKS: usize = 20;

/// Streams through a proxy.
struct Lane {
    anchor: &'static str,
    kind: Kind,
    /// Whether the server has a stream of its own for each session, beside the calls.
    server_streams: bool,
}

/// nginx does not tell streams of HTTP apart.
const LANES: [Lane; 7] = [
    Lane { anchor: "nginx", kind: Kind::StreamableHttp, server_streams: true },
    Lane { anchor: "nginx", kind: Kind::Websocket, server_streams: true },
    Lane { anchor: NODE, kind: Kind::StreamableHttp, server_streams: true },
    Lane { anchor: NODE, kind: Kind::HttpSse, server_streams: true },
    Lane { anchor: NODE, kind: Kind::HttpSse, server_streams: false },
    Lane { anchor: NODE, kind: Kind::Websocket, server_streams: true },
    Lane { anchor: NODE, kind: Kind::Websocket, server_streams: false },
];
const NODE: &str = "on";

/// Every lane, in a proxy of its own.
pub async fn run(options: &Options, rig: &Rig, upstream: &str, began: Instant) -> anyhow::Result<Vec<Streams>> {
    let duty = NODES.into_iter().find(|(name, _)| *name == NODE).map(|(_, duty)| duty).context("the node is one of them")?;
    let mut found = Vec::new();
    for lane in LANES.iter().filter(|lane| lane.anchor == "nginx" || options.anchor(lane.anchor)) {
        progress(began.elapsed(), &format!("{} idle streams, {} {}", options.streams, lane.anchor, lane.kind.name()));
        found.push(lane.measure(rig, duty, upstream, options.streams).await.with_context(|| lane.anchor)?);
    }
    Ok(found)
}

impl Kind {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::StreamableHttp => "Streamable HTTP",
            Self::HttpSse => "HTTP+SSE",
            Self::Websocket => "WebSocket",
        }
    }
}

impl Lane {
    async fn measure(&self, rig: &Rig, duty: Duty, upstream: &str, count: usize) -> anyhow::Result<Streams> {
        let server = if self.server_streams { "mcp" } else { "mute" };
        let anchor = match self.anchor {
            "nginx" => Anchor::nginx(rig, upstream).await?,
            name => Anchor::node(name, duty, rig, &format!("{upstream}/{server}")).await?,
        };
        let process = anchor.process.as_ref().context("a proxy is a process")?;
        let mut holder = Holder::start(rig, &self.holding(&anchor))?;
        holder.open((count / WARM_UP).max(1)).await?;
        let before = steady(process).await?;
        holder.open(count).await?;
        let each = steady(process).await?.saturating_sub(before) as f64 / count as f64;
        let all = count + (count / WARM_UP).max(1);
        let spoken = holder.say(process, all).await?;
        let (anchor, kind, server_streams) = (self.anchor, self.kind.name(), self.server_streams);
        Ok(Streams { anchor, kind, server_streams, count, each, spoken })
    }

    fn holding(&self, anchor: &Anchor) -> Holding {
        let say_at = match (&anchor.operator, self.kind) {
            (None, _) => "/broadcast",
            (Some(_), Kind::StreamableHttp | Kind::HttpSse) => "/sse/broadcast",
            (Some(_), Kind::Websocket) => "/ws/broadcast",
        };
        Holding { work: anchor.work.clone(), kind: self.kind, say_at: say_at.to_owned(), sayer: anchor.operator.clone() }
    }
}

/// The process that has the clients.
struct Holder {
    asks: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _process: Measured,
    _told: tempfile::NamedTempFile,
}

impl Holder {
    fn start(rig: &Rig, holding: &Holding) -> anyhow::Result<Self> {
        let told = tempfile::NamedTempFile::new()?;
        serde_json::to_writer(&told, holding)?;
        let mut command = rig.command(AROUND, &rig.program);
        command.arg("hold").arg(told.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Measured { child: command.spawn()? };
        let (asks, answers) = process.child.stdin.take().zip(process.child.stdout.take()).context("both are piped")?;
        Ok(Self { asks, answers: BufReader::new(answers).lines(), _process: process, _told: told })
    }

    async fn ask(&mut self, line: &str) -> anyhow::Result<String> {
        self.asks.write_all(format!("{line}\n").as_bytes()).await?;
        self.answers.next_line().await?.context("the clients' process ended")
    }

    async fn open(&mut self, count: usize) -> anyhow::Result<()> {
        self.ask(&count.to_string()).await.map(drop)
    }

    /// Says something to all of `count` streams, again and again.
    async fn say(&mut self, proxy: &Measured, count: usize) -> anyhow::Result<Spoken> {
        let before = proxy.processor()?;
        let mut arrivals = Vec::new();
        for _ in 0..SAID {
            let arrived: Arrived = serde_json::from_str(&self.ask("say").await?)?;
            arrivals.push(arrived);
        }
        let processor = (proxy.processor()? - before) as f64 / (SAID * count) as f64;
        let median = |of: fn(&Arrived) -> f64| {
            let mut values: Vec<f64> = arrivals.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Ok(Spoken { first: median(|arrived| arrived.first), last: median(|arrived| arrived.last), processor })
    }
}

/// Resident bytes once they do not move any more.
async fn steady(process: &Measured) -> anyhow::Result<u64> {
    let mut before = process.memory()?.0;
    for _ in 0..LOOKS {
        // Nobody announces that an allocator has given something back: this is what is measured, not waited for.
        tokio::time::sleep(STEADY).await;
        let now = process.memory()?.0;
        if now.abs_diff(before) <= MOVES {
            return Ok(now);
        }
        before = now;
    }
    Ok(before)
}
