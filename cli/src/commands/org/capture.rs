//! What of calls an organisation keeps, as flags.

use clap::Args;
use mcp_gateway::proto::admin::v1::Organization;

use crate::args::Mask;

/// What may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    Arguments,
    Results,
    None,
}

/// The fields of `capture`.
#[derive(Debug, Args)]
pub struct Flags {
    /// What of calls is kept beside their records, without what looks like a secret
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    capture: Vec<What>,
    /// At most so many bytes of each: 1 to 65536, 0 for 16384
    #[arg(long, value_name = "BYTES")]
    capture_max_bytes: Option<u32>,
    /// What is taken out, too: a key's name, or a path such as '$.customer.cards[*].number'; repeatable, '' for nothing more
    #[arg(long, value_name = "RULE")]
    capture_redact: Vec<String>,
    /// How many days it is kept: 1 to 365, 0 for 7
    #[arg(long, value_name = "DAYS")]
    capture_retention_days: Option<u32>,
}

impl Flags {
    pub fn apply(self, to: &mut Organization, mask: &mut Mask) {
        let mut touched = Mask::default();
        let mut capture = to.capture.take().unwrap_or_default();
        if !self.capture.is_empty() {
            capture.arguments = self.capture.contains(&What::Arguments);
            capture.results = self.capture.contains(&What::Results);
            touched.touch("capture");
        }
        touched.set("capture", &mut capture.max_bytes, self.capture_max_bytes);
        touched.replace("capture", &mut capture.redact, self.capture_redact);
        touched.set("capture", &mut capture.retention_days, self.capture_retention_days);
        if !touched.is_empty() {
            mask.touch("capture");
        }
        to.capture = Some(capture);
    }
}
