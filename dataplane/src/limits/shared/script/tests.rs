//! The real script in a real Redis, against the reference in Rust.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redis::aio::MultiplexedConnection;

use super::*;
use crate::limits::window::{BUCKETS, Counter, bucket_length};
use crate::testing::RedisServer;

/// Many calls in one, each at a time that the test says. First how many, then per call the time, how many keys, and for each of
/// these its number and the five that the script takes.
const ON_TEST_TIME: &str = "
local answers, at = {}, 2
for call = 1, tonumber(ARGV[1]) do
  local keys, args = {}, {}
  local now, count = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  at = at + 2
  for number = 1, count do
    keys[number] = KEYS[tonumber(ARGV[at])]
    for place = 1, 5 do args[#args + 1] = ARGV[at + place] end
    at = at + 6
  end
  for _, number in ipairs(admit(now, keys, args, 600000)) do answers[#answers + 1] = number end
end
return answers
";
const SECOND: Micros = 1_000_000;
/// Some day; a bucket of no length begins here.
const START: Micros = 1_800_000_000_123_457;
const LENGTHS: [u64; 6] = [1, 2, 10, 60, 3600, 2_592_000];

/// What one call asks: of which counts, and how much.
#[derive(Debug, Clone)]
struct Call {
    now: Micros,
    asks: Vec<(usize, Wanted)>,
}

#[derive(Debug, Clone, Copy)]
struct Wanted {
    limit: u64,
    seconds: u64,
    cost: u32,
    wish: u32,
    owed: u32,
}

impl Wanted {
    fn window(&self) -> Window {
        Window { limit: self.limit, length: Duration::from_secs(self.seconds) }
    }
}

fn key(trace: usize, number: usize, seconds: u64) -> String {
    format!("{{t{trace}}}:{number}:w{seconds}")
}

/// One trace for the script: its keys, then its calls.
fn replay(script: &Script, trace: usize, lengths: &[u64], calls: &[Call]) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(&script.name).arg(lengths.len());
    for (number, seconds) in lengths.iter().enumerate() {
        command.arg(key(trace, number, *seconds));
    }
    command.arg(calls.len());
    for call in calls {
        command.arg(call.now).arg(call.asks.len());
        for (number, wanted) in &call.asks {
            command.arg(number + 1).arg(wanted.limit).arg(wanted.seconds).arg(wanted.cost).arg(wanted.wish).arg(wanted.owed);
        }
    }
    command
}

async fn loaded(connection: &mut MultiplexedConnection) -> Script {
    let script = Script::ending(ON_TEST_TIME);
    let name: String = redis::cmd("SCRIPT").arg("LOAD").arg(&script.source).query_async(connection).await.unwrap();
    assert_eq!(name, script.name);
    script
}

/// The window as its definition says, without any cleverness: what was counted when, by bucket.
#[derive(Debug, Default, Clone)]
struct Plain {
    newest: u64,
    /// When it began; 0: it did not.
    born: Micros,
    counted: Vec<(u64, u64)>,
}

impl Plain {
    fn standing(&mut self, wanted: &Wanted, now: Micros) -> Answer {
        let length = bucket_length(&wanted.window());
        self.newest = self.newest.max(now / length);
        let gone_at = |bucket: u64| (bucket + BUCKETS + 1) * length;
        self.counted.retain(|(bucket, amount)| *amount > 0 && gone_at(*bucket) > self.newest * length);
        self.counted.sort_unstable();
        let used: u64 = self.counted.iter().map(|(_, amount)| amount).sum();
        let gone_in = |bucket: u64| gone_at(bucket).saturating_sub(now).max(1);
        let reset = self.counted.first().map_or(0, |(bucket, _)| gone_in(*bucket));
        let fits = |left: u64| left <= wanted.limit.saturating_sub(wanted.cost.into());
        let (mut left, mut wait) = (used, 0);
        for (bucket, amount) in &self.counted {
            if fits(left) {
                break;
            }
            (left, wait) = (left - amount, gone_in(*bucket));
        }
        if u64::from(wanted.cost) > wanted.limit {
            wait = wait.max(length * (BUCKETS + 1));
        }
        Answer { used, wait, reset, leased: 0, born: self.born }
    }

    fn add(&mut self, bucket: u64, amount: u64) {
        self.counted.push((bucket, amount));
    }
}

/// What is known of the counts of a trace.
struct World {
    /// The definition.
    plain: Vec<Option<Plain>>,
    /// The reference. It knows no leases.
    counters: Vec<Option<Counter>>,
    leasing: bool,
}

/// What the script has to answer.
fn expected(call: &Call, World { plain, counters, leasing }: &mut World) -> Vec<Answer> {
    let mut standings = Vec::new();
    for (number, wanted) in &call.asks {
        let (mut model, mut counter) =
            (plain[*number].clone().unwrap_or_default(), counters[*number].clone().unwrap_or_default());
        model.standing(wanted, call.now);
        model.add(model.newest, wanted.owed.into());
        let standing = model.standing(wanted, call.now);
        let _ = counter.standing(&wanted.window(), wanted.limit, wanted.cost, call.now);
        counter.add(wanted.owed);
        standings.push((standing, model, counter));
    }
    let fits = standings.iter().all(|(standing, _, _)| standing.wait == 0);
    let mut answers = Vec::new();
    for ((number, wanted), (mut standing, mut model, mut counter)) in call.asks.iter().zip(standings) {
        let reference = counter.standing(&wanted.window(), wanted.limit, wanted.cost, call.now);
        if fits {
            standing.leased = wanted.wish.min(u32::try_from(wanted.limit - standing.used - u64::from(wanted.cost)).unwrap());
            model.add(model.newest, wanted.cost.into());
            model.add(model.newest + 1, standing.leased.into());
            counter.add(wanted.cost);
        }
        if !*leasing {
            let found = (reference.used, reference.wait, reference.reset);
            assert_eq!((standing.used, standing.wait, standing.reset), found, "the references, {call:?}");
        }
        // What never was there is not begun by a refusal.
        if plain[*number].is_some() || fits || wanted.owed > 0 {
            model.born = if model.born == 0 { call.now } else { model.born };
            standing.born = model.born;
            (plain[*number], counters[*number]) = (Some(model), Some(counter));
        }
        answers.push(standing);
    }
    answers
}

fn trace(dice: &mut StdRng, leasing: bool) -> (Vec<u64>, Vec<Call>) {
    let lengths: Vec<u64> = (0..dice.random_range(1..=3)).map(|_| LENGTHS[dice.random_range(0..LENGTHS.len())]).collect();
    let mut limits: Vec<u64> = lengths.iter().map(|_| dice.random_range(1..12)).collect();
    let (mut now, mut calls) = (START + dice.random_range(0..SECOND), Vec::new());
    for _ in 0..dice.random_range(2..10) {
        let window = lengths[dice.random_range(0..lengths.len())] * SECOND;
        let step = match dice.random_range(0..10) {
            0..3 => 0,
            3..5 => dice.random_range(0..window / 32),
            5..8 => dice.random_range(0..window / 4),
            _ => dice.random_range(0..2 * window),
        };
        now = if dice.random_ratio(1, 6) { now - step } else { now + step };
        if dice.random_ratio(1, 10) {
            let edited = dice.random_range(0..limits.len());
            limits[edited] = dice.random_range(1..12);
        }
        let mut asks = Vec::new();
        for (number, seconds) in lengths.iter().enumerate() {
            if dice.random_ratio(4, 5) {
                let cost = if dice.random_ratio(1, 50) { 12 } else { dice.random_range(1..4) };
                let wish = if leasing && dice.random_ratio(1, 3) { dice.random_range(0..8) } else { 0 };
                let owed = if dice.random_ratio(1, 20) { dice.random_range(0..5) } else { 0 };
                asks.push((number, Wanted { limit: limits[number], seconds: *seconds, cost, wish, owed }));
            }
        }
        calls.push(Call { now, asks });
    }
    (lengths, calls)
}

/// 100,000 of them: half of them lease, and in all of them time goes back now and then.
#[tokio::test]
async fn the_script_decides_as_the_reference_does_on_random_traces() {
    const TRACES: usize = 100_000;
    const TOGETHER: usize = 250;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let server = RedisServer::start();
    let mut connection = server.connect().await;
    let script = loaded(&mut connection).await;
    let (mut calls_made, mut refused, mut leased) = (0, 0, 0);
    for first in (0..TRACES).step_by(TOGETHER) {
        let traces: Vec<_> = (first..first + TOGETHER).map(|number| trace(&mut dice, number % 2 == 0)).collect();
        let mut pipeline = redis::pipe();
        for (number, (lengths, calls)) in traces.iter().enumerate() {
            pipeline.add_command(replay(&script, number, lengths, calls)).add_command(redis::cmd("FLUSHALL")).ignore();
        }
        let found: Vec<Value> = pipeline.query_async(&mut connection).await.unwrap();
        for (number, (value, (lengths, calls))) in found.iter().zip(&traces).enumerate() {
            let none = || lengths.iter().map(|_| None);
            let (plain, counters) = (none().collect(), lengths.iter().map(|_| None).collect());
            let mut world = World { plain, counters, leasing: number % 2 == 0 };
            let expected: Vec<Answer> = calls.iter().flat_map(|call| expected(call, &mut world)).collect();
            let found = answers(value, expected.len()).unwrap();
            assert_eq!(found, expected, "seed {seed}, trace {}: {lengths:?} {calls:#?}", first + number);
            calls_made += calls.len();
            refused += found.iter().filter(|answer| answer.wait > 0).count();
            leased += found.iter().filter(|answer| answer.leased > 0).count();
        }
    }
    // The traces are about something.
    println!("{calls_made} calls, {refused} windows refused, {leased} leases");
    assert!(calls_made > 400_000 && refused > 100_000 && leased > 20_000);
}

/// What the script admits of calls at these times, each asking for one of `limit` in a second.
async fn admitted(
    connection: &mut MultiplexedConnection,
    script: &Script,
    trace: usize,
    times: &[Micros],
    limit: u64,
) -> Vec<Micros> {
    let wanted = Wanted { limit, seconds: 1, cost: 1, wish: 0, owed: 0 };
    let calls: Vec<Call> = times.iter().map(|now| Call { now: *now, asks: vec![(0, wanted)] }).collect();
    let value: Value = replay(script, trace, &[1], &calls).query_async(connection).await.unwrap();
    let answers = answers(&value, calls.len()).unwrap();
    times.iter().zip(answers).filter(|(_, answer)| answer.wait == 0).map(|(now, _)| *now).collect()
}

/// The adversary that makes the usual two-bucket counter admit almost twice its limit: a burst at every phase, then a flood.
#[tokio::test]
async fn whatever_the_phase_of_a_burst_no_window_admits_more_than_the_limit() {
    const LIMIT: u64 = 100;
    let server = RedisServer::start();
    let mut connection = server.connect().await;
    let script = loaded(&mut connection).await;
    for phase in 0..40 {
        let burst = START / SECOND * SECOND + phase * SECOND / 40;
        let times: Vec<Micros> = std::iter::repeat_n(burst, 300).chain((1..2500).map(|step| burst + step * 1000)).collect();
        let taken = admitted(&mut connection, &script, phase as usize, &times, LIMIT).await;
        let within = |start: Micros| taken.iter().filter(|at| (start..start + SECOND).contains(at)).count() as u64;
        assert_eq!(taken.iter().map(|start| within(*start)).max(), Some(LIMIT), "phase {phase}");
    }
}

#[tokio::test]
async fn counts_end_by_themselves_once_nothing_of_them_counts() {
    let server = RedisServer::start();
    let mut connection = server.connect().await;
    let window = Window { limit: 10, length: Duration::from_secs(60) };
    let ask = Ask { key: "{o}:l:w60", window, cost: 1, wish: 2, owed: 0 };
    let script = Script::default();
    let unknown = script.by_name(&[ask]).query_async::<Value>(&mut connection).await.unwrap_err();
    assert_eq!(unknown.code(), Some("NOSCRIPT"));
    for (command, used) in [(script.in_full(&[ask]), 0), (script.by_name(&[ask]), 3)] {
        let value: Value = command.query_async(&mut connection).await.unwrap();
        let [answer] = answers(&value, 1).unwrap().try_into().unwrap();
        assert_eq!((answer.used, answer.wait, answer.leased), (used, 0, 2));
    }
    let begun: Value = script.by_name(&[Ask { cost: 0, wish: 0, ..ask }]).query_async(&mut connection).await.unwrap();
    let began = answers(&begun, 1).unwrap()[0].born;
    let again: Value = script.by_name(&[Ask { cost: 0, wish: 0, ..ask }]).query_async(&mut connection).await.unwrap();
    assert_eq!(answers(&again, 1).unwrap()[0].born, began, "it began once");
    let lives: i64 = redis::cmd("PTTL").arg(ask.key).query_async(&mut connection).await.unwrap();
    assert!((60_000..=65_000).contains(&lives), "{lives}");
    // A refusal does not begin a count.
    let never = Ask { key: "{o}:never:w60", cost: 11, ..ask };
    let value: Value = script.by_name(&[never]).query_async(&mut connection).await.unwrap();
    assert!(answers(&value, 1).unwrap()[0].wait > 60 * SECOND);
    let kept: i64 = redis::cmd("EXISTS").arg(never.key).query_async(&mut connection).await.unwrap();
    assert_eq!(kept, 0);
}
