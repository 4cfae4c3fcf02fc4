//! Writes `docs/API.md` from the comments of `proto/`.

use std::path::Path;

fn main() -> anyhow::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/API.md");
    std::fs::write(path, mcpgw_tests::reference::markdown())?;
    Ok(())
}
