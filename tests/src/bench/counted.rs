//! A data plane whose allocations are counted: the same library as in `mcpgw-dataplane`, in a program whose allocator counts. The count
//! is asked for in lines on standard input, so that nothing of it is on the path of a request.

use std::io::{BufRead as _, Write as _};
use std::path::Path;

use mcpgw_dataplane::app::App;
use mcpgw_dataplane::config::{self, Overrides};
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

/// Serves as the configuration at `path` says until standard input ends; `allocations` is how many there were so far.
pub fn serve(path: &Path, allocations: fn() -> usize) -> anyhow::Result<()> {
    let config = config::load(Some(path), Overrides::default())?;
    // As the real program does it.
    let requests = Builder::new_multi_thread().thread_name("requests").enable_all().build()?;
    let background = Builder::new_multi_thread().thread_name("background").worker_threads(1).enable_all().build()?;
    let app = requests.block_on(App::build_on(config, background.handle().clone()))?;
    let stop = CancellationToken::new();
    let serving = requests.spawn(app.run(stop.clone()));
    for asked in std::io::stdin().lock().lines() {
        asked?;
        let mut answer = std::io::stdout().lock();
        writeln!(answer, "{}", allocations())?;
        answer.flush()?;
    }
    stop.cancel();
    Ok(requests.block_on(serving)??)
}
